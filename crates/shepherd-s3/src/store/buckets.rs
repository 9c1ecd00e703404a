//! Buckets.

use std::collections::BTreeMap;

use s3s::dto;
use s3s::{S3Response, s3_error};
use shepherd_job::{JobId, JobIdRule, Timestamp};
use shepherd_storage::buckets::BucketError;

use super::{Answer, Store, unavailable};
use crate::conditions::time;
use crate::error::answer;

/// The region that S3 tells by not telling one: the first, with rules of its own.
const UNNAMED: &str = "us-east-1";

impl Store {
    pub(super) async fn make_bucket(&self, input: dto::CreateBucketInput) -> Answer<dto::CreateBucketOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        match self.buckets.make(&bucket).await {
            // There, making one's own bucket again is no error.
            Err(BucketError::Exists) if self.region == UNNAMED => {
                self.buckets.find(&bucket).await.map_err(|_| s3_error!(BucketAlreadyExists))?;
            }
            made => made.map_err(answer)?,
        }
        Ok(S3Response::new(dto::CreateBucketOutput { location: Some(format!("/{bucket}")) }))
    }

    pub(super) async fn look_for_bucket(&self, name: &str) -> Answer<dto::HeadBucketOutput> {
        let bucket = self.bucket(name).await?;
        self.buckets.find(&bucket).await.map_err(answer)?;
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(dto::HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    pub(super) async fn remove_bucket(&self, name: &str) -> Answer<dto::DeleteBucketOutput> {
        let bucket = self.bucket(name).await?;
        self.buckets.remove(&bucket).await.map_err(answer)?;
        Ok(S3Response::new(dto::DeleteBucketOutput {}))
    }

    pub(super) async fn all_buckets(&self, input: dto::ListBucketsInput) -> Answer<dto::ListBucketsOutput> {
        let most = match input.max_buckets {
            None => usize::MAX,
            Some(most) => usize::try_from(most)
                .ok()
                .filter(|most| (1..=10_000).contains(most))
                .ok_or_else(|| s3_error!(InvalidArgument, "max-buckets must be 1 to 10000"))?,
        };
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        // First: what becomes a directory meanwhile is found below.
        let unflushed = self.flusher.unflushed().await.map_err(unavailable)?;
        // Of others than bucket names there are no buckets.
        let unflushed =
            unflushed.into_iter().filter(|(id, _)| JobId::parse(id.as_str(), JobIdRule::Bucket).is_ok());
        let mut all: BTreeMap<JobId, Timestamp> = unflushed.collect();
        let found = self.buckets.all().await.map_err(answer)?;
        all.extend(found.into_iter().map(|bucket| (bucket.name, bucket.made)));
        let mut wanted = all
            .into_iter()
            .filter(|(name, _)| name.as_str().starts_with(&prefix) && *name.as_str() > *after)
            .peekable();
        let mut buckets = Vec::new();
        while buckets.len() < most
            && let Some((name, made)) = wanted.next()
        {
            buckets.push(dto::Bucket {
                name: Some(name.to_string()),
                creation_date: Some(time(made)),
                bucket_region: None,
            });
        }
        let more = wanted.peek().is_some();
        let continuation_token = buckets.last().filter(|_| more).and_then(|bucket| bucket.name.clone());
        Ok(S3Response::new(dto::ListBucketsOutput {
            buckets: Some(buckets),
            owner: Some(super::config::owner()),
            prefix: input.prefix,
            continuation_token,
        }))
    }

    pub(super) async fn location(&self, name: &str) -> Answer<dto::GetBucketLocationOutput> {
        let bucket = self.bucket(name).await?;
        self.buckets.find(&bucket).await.map_err(answer)?;
        let named = (self.region != UNNAMED).then(|| self.region.clone().into());
        Ok(S3Response::new(dto::GetBucketLocationOutput { location_constraint: named }))
    }
}
