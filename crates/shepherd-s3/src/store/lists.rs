//! Listings: the same page in three forms.

use s3s::dto;
use s3s::{S3Response, S3Result};
use shepherd_storage::buckets::Described;

use super::config::owner;
use super::{Answer, Store};
use crate::conditions::{tag, time};
use crate::listing::{Encoding, Page, Query, entry, most, page, token};

/// The two of S3's names for the owner.
#[derive(Clone, Copy)]
enum Owner {
    Told,
    Untold,
}

impl Store {
    async fn page(&self, name: &str, query: &Query<'_>) -> S3Result<Page> {
        let bucket = self.bucket(name).await?;
        page(&self.buckets, &bucket, query).await
    }

    pub(super) async fn list_v1(&self, input: dto::ListObjectsInput) -> Answer<dto::ListObjectsOutput> {
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let (prefix, delimiter) = (input.prefix.unwrap_or_default(), input.delimiter.unwrap_or_default());
        let marker = input.marker.unwrap_or_default();
        let most = most(input.max_keys)?;
        let query = Query { prefix: &prefix, delimiter: &delimiter, after: &marker, most };
        let page = self.page(&input.bucket, &query).await?;
        let encoding = encoding.or_needed(page.texts().chain([&*prefix, &*delimiter, &*marker]));
        Ok(S3Response::new(dto::ListObjectsOutput {
            name: Some(input.bucket),
            is_truncated: Some(page.next.is_some()),
            // S3 tells it only where the last key does not; telling it always is
            // what MinIO does, and clients use it when it is there.
            next_marker: page.next.as_deref().map(|next| encoding.text(next)),
            contents: Some(objects(&page.objects, encoding, Owner::Told)),
            common_prefixes: Some(encoding.prefixes(&page.prefixes)),
            prefix: Some(encoding.text(&prefix)),
            marker: Some(encoding.text(&marker)),
            delimiter: (!delimiter.is_empty()).then(|| encoding.text(&delimiter)),
            max_keys: i32::try_from(most).ok(),
            encoding_type: encoding.told(),
            request_charged: None,
        }))
    }

    pub(super) async fn list_v2(&self, input: dto::ListObjectsV2Input) -> Answer<dto::ListObjectsV2Output> {
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let (prefix, delimiter) = (input.prefix.unwrap_or_default(), input.delimiter.unwrap_or_default());
        let start = input.start_after.unwrap_or_default();
        let after = match input.continuation_token.as_deref() {
            None | Some("") => start.clone(),
            Some(token) => entry(token)?,
        };
        let most = most(input.max_keys)?;
        let query = Query { prefix: &prefix, delimiter: &delimiter, after: &after, most };
        let page = self.page(&input.bucket, &query).await?;
        let encoding = encoding.or_needed(page.texts().chain([&*prefix, &*delimiter, &*start]));
        let told = if input.fetch_owner == Some(true) { Owner::Told } else { Owner::Untold };
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            is_truncated: Some(page.next.is_some()),
            key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
            next_continuation_token: page.next.as_deref().map(token),
            contents: Some(objects(&page.objects, encoding, told)),
            common_prefixes: Some(encoding.prefixes(&page.prefixes)),
            prefix: Some(encoding.text(&prefix)),
            delimiter: (!delimiter.is_empty()).then(|| encoding.text(&delimiter)),
            start_after: (!start.is_empty()).then(|| encoding.text(&start)),
            continuation_token: input.continuation_token,
            max_keys: i32::try_from(most).ok(),
            encoding_type: encoding.told(),
            request_charged: None,
        }))
    }

    pub(super) async fn list_versions(
        &self,
        input: dto::ListObjectVersionsInput,
    ) -> Answer<dto::ListObjectVersionsOutput> {
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let (prefix, delimiter) = (input.prefix.unwrap_or_default(), input.delimiter.unwrap_or_default());
        let marker = input.key_marker.unwrap_or_default();
        let most = most(input.max_keys)?;
        let query = Query { prefix: &prefix, delimiter: &delimiter, after: &marker, most };
        let page = self.page(&input.bucket, &query).await?;
        let encoding = encoding.or_needed(page.texts().chain([&*prefix, &*delimiter, &*marker]));
        let versions = page.objects.iter().map(|described| dto::ObjectVersion {
            key: Some(encoding.text(described.meta.path.as_str())),
            version_id: Some("null".to_owned()),
            is_latest: Some(true),
            e_tag: Some(tag(described)),
            size: i64::try_from(described.meta.size).ok(),
            last_modified: Some(time(described.meta.modified)),
            owner: Some(owner()),
            storage_class: Some(dto::ObjectVersionStorageClass::from_static(
                dto::ObjectVersionStorageClass::STANDARD,
            )),
            ..Default::default()
        });
        Ok(S3Response::new(dto::ListObjectVersionsOutput {
            name: Some(input.bucket),
            is_truncated: Some(page.next.is_some()),
            next_key_marker: page.next.as_deref().map(|next| encoding.text(next)),
            next_version_id_marker: page.next.as_ref().map(|_| "null".to_owned()),
            versions: Some(versions.collect()),
            common_prefixes: Some(encoding.prefixes(&page.prefixes)),
            prefix: Some(encoding.text(&prefix)),
            key_marker: Some(encoding.text(&marker)),
            delimiter: (!delimiter.is_empty()).then(|| encoding.text(&delimiter)),
            max_keys: i32::try_from(most).ok(),
            encoding_type: encoding.told(),
            ..Default::default()
        }))
    }
}

fn objects(described: &[Described], encoding: Encoding, told: Owner) -> Vec<dto::Object> {
    let object = |described: &Described| dto::Object {
        key: Some(encoding.text(described.meta.path.as_str())),
        e_tag: Some(tag(described)),
        size: i64::try_from(described.meta.size).ok(),
        last_modified: Some(time(described.meta.modified)),
        storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
        owner: match told {
            Owner::Told => Some(owner()),
            Owner::Untold => None,
        },
        ..Default::default()
    };
    described.iter().map(object).collect()
}
