//! Settings that nothing here has: how a bucket without them answers.

use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Response};

use super::{Answer, Store};
use crate::error::answer;
use crate::listing::key;

/// Who owns everything.
pub(super) fn owner() -> dto::Owner {
    dto::Owner { id: Some("shepherd".to_owned()), display_name: Some("shepherd".to_owned()) }
}

pub(super) fn no_public_access_block() -> S3Error {
    let code = S3ErrorCode::Custom("NoSuchPublicAccessBlockConfiguration".into());
    S3Error::with_message(code, "The bucket has no public access block configuration")
}

impl Store {
    /// The answer of a bucket on which nothing was set.
    pub(super) async fn nothing_set<T: Default>(&self, name: &str) -> Answer<T> {
        let bucket = self.bucket(name).await?;
        self.buckets.find(&bucket).await.map_err(answer)?;
        Ok(S3Response::new(T::default()))
    }

    /// The error by which S3 says that something was not set.
    pub(super) async fn none_of<T>(&self, name: &str, mut none: S3Error) -> Answer<T> {
        let bucket = self.bucket(name).await?;
        self.buckets.find(&bucket).await.map_err(answer)?;
        // s3s has another status for some.
        none.set_status_code(http::StatusCode::NOT_FOUND);
        Err(none)
    }

    pub(super) async fn bucket_acl(&self, name: &str) -> Answer<dto::GetBucketAclOutput> {
        let bucket = self.bucket(name).await?;
        self.buckets.find(&bucket).await.map_err(answer)?;
        Ok(S3Response::new(dto::GetBucketAclOutput { owner: Some(owner()), grants: Some(grants()) }))
    }

    pub(super) async fn object_acl(&self, name: &str, of: &str) -> Answer<dto::GetObjectAclOutput> {
        let bucket = self.bucket(name).await?;
        self.buckets.describe(&bucket, &key(of)?).await.map_err(answer)?;
        Ok(S3Response::new(dto::GetObjectAclOutput {
            owner: Some(owner()),
            grants: Some(grants()),
            ..Default::default()
        }))
    }

    pub(super) async fn object_tags(&self, name: &str, of: &str) -> Answer<dto::GetObjectTaggingOutput> {
        let bucket = self.bucket(name).await?;
        self.buckets.describe(&bucket, &key(of)?).await.map_err(answer)?;
        Ok(S3Response::new(dto::GetObjectTaggingOutput { tag_set: Vec::new(), version_id: None }))
    }
}

fn grants() -> Vec<dto::Grant> {
    let grantee = dto::Grantee {
        id: Some("shepherd".to_owned()),
        display_name: Some("shepherd".to_owned()),
        type_: dto::Type::from_static(dto::Type::CANONICAL_USER),
        email_address: None,
        uri: None,
    };
    let permission = dto::Permission::from_static(dto::Permission::FULL_CONTROL);
    vec![dto::Grant { grantee: Some(grantee), permission: Some(permission) }]
}
