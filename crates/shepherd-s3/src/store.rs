//! The S3 operations over [`Buckets`].
//!
//! Here are the operations by name; what they do is in the modules below. Those
//! that are missing answer `NotImplemented`.

mod buckets;
mod config;
mod copying;
mod deleting;
mod lists;
mod objects;
mod uploads;

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use s3s::dto;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use shepherd_job::{JobId, JobIdRule};
use shepherd_storage::Body;
use shepherd_storage::buckets::Buckets;

use crate::flusher::Flusher;
use crate::intake::Noted;

/// The buckets and what they need.
pub(crate) struct Store {
    buckets: Buckets,
    flusher: Arc<dyn Flusher>,
    region: String,
}

type Answer<T> = S3Result<S3Response<T>>;

impl Store {
    pub(crate) fn new(buckets: Buckets, flusher: Arc<dyn Flusher>, region: String) -> Self {
        Self { buckets, flusher, region }
    }

    /// The bucket of a request, with all in it that there is.
    async fn bucket(&self, name: &str) -> S3Result<JobId> {
        let bucket = JobId::parse(name, JobIdRule::Bucket).map_err(|_| s3_error!(InvalidBucketName))?;
        self.flusher.flush(&bucket).await.map_err(unavailable)?;
        Ok(bucket)
    }
}

fn unavailable(why: String) -> S3Error {
    S3Error::with_message(s3s::S3ErrorCode::ServiceUnavailable, why)
}

/// A version that is not the only one.
fn only_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion)),
    }
}

/// A request's body for the storage; an error of it is noted.
fn body(blob: Option<dto::StreamingBlob>, noted: Option<Noted>) -> Body {
    match blob {
        None => futures::stream::empty().boxed(),
        Some(blob) => blob
            .map(move |piece| {
                piece.map_err(|error| {
                    if let Some(noted) = &noted {
                        noted.failed();
                    }
                    std::io::Error::other(error)
                })
            })
            .boxed(),
    }
}

#[async_trait]
impl S3 for Store {
    async fn create_bucket(&self, req: S3Request<dto::CreateBucketInput>) -> Answer<dto::CreateBucketOutput> {
        self.make_bucket(req.input).await
    }

    async fn head_bucket(&self, req: S3Request<dto::HeadBucketInput>) -> Answer<dto::HeadBucketOutput> {
        self.look_for_bucket(&req.input.bucket).await
    }

    async fn delete_bucket(&self, req: S3Request<dto::DeleteBucketInput>) -> Answer<dto::DeleteBucketOutput> {
        self.remove_bucket(&req.input.bucket).await
    }

    async fn list_buckets(&self, req: S3Request<dto::ListBucketsInput>) -> Answer<dto::ListBucketsOutput> {
        self.all_buckets(req.input).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<dto::GetBucketLocationInput>,
    ) -> Answer<dto::GetBucketLocationOutput> {
        self.location(&req.input.bucket).await
    }

    async fn put_object(&self, req: S3Request<dto::PutObjectInput>) -> Answer<dto::PutObjectOutput> {
        self.put(req).await
    }

    async fn get_object(&self, req: S3Request<dto::GetObjectInput>) -> Answer<dto::GetObjectOutput> {
        self.get(req.input).await
    }

    async fn head_object(&self, req: S3Request<dto::HeadObjectInput>) -> Answer<dto::HeadObjectOutput> {
        self.head(req.input).await
    }

    async fn get_object_attributes(
        &self,
        req: S3Request<dto::GetObjectAttributesInput>,
    ) -> Answer<dto::GetObjectAttributesOutput> {
        self.attributes(req.input).await
    }

    async fn delete_object(&self, req: S3Request<dto::DeleteObjectInput>) -> Answer<dto::DeleteObjectOutput> {
        self.delete(req.input).await
    }

    async fn delete_objects(
        &self,
        req: S3Request<dto::DeleteObjectsInput>,
    ) -> Answer<dto::DeleteObjectsOutput> {
        self.delete_many(req.input).await
    }

    async fn copy_object(&self, req: S3Request<dto::CopyObjectInput>) -> Answer<dto::CopyObjectOutput> {
        self.copy(req).await
    }

    async fn list_objects(&self, req: S3Request<dto::ListObjectsInput>) -> Answer<dto::ListObjectsOutput> {
        self.list_v1(req.input).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<dto::ListObjectsV2Input>,
    ) -> Answer<dto::ListObjectsV2Output> {
        self.list_v2(req.input).await
    }

    async fn list_object_versions(
        &self,
        req: S3Request<dto::ListObjectVersionsInput>,
    ) -> Answer<dto::ListObjectVersionsOutput> {
        self.list_versions(req.input).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<dto::CreateMultipartUploadInput>,
    ) -> Answer<dto::CreateMultipartUploadOutput> {
        self.begin(req).await
    }

    async fn upload_part(&self, req: S3Request<dto::UploadPartInput>) -> Answer<dto::UploadPartOutput> {
        self.put_part(req).await
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<dto::UploadPartCopyInput>,
    ) -> Answer<dto::UploadPartCopyOutput> {
        self.copy_part(req.input).await
    }

    async fn list_parts(&self, req: S3Request<dto::ListPartsInput>) -> Answer<dto::ListPartsOutput> {
        self.parts(req.input).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<dto::ListMultipartUploadsInput>,
    ) -> Answer<dto::ListMultipartUploadsOutput> {
        self.uploads(req.input).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> Answer<dto::CompleteMultipartUploadOutput> {
        self.complete(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<dto::AbortMultipartUploadInput>,
    ) -> Answer<dto::AbortMultipartUploadOutput> {
        self.abort(req.input).await
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<dto::GetBucketVersioningInput>,
    ) -> Answer<dto::GetBucketVersioningOutput> {
        self.nothing_set(&req.input.bucket).await
    }

    async fn get_bucket_logging(
        &self,
        req: S3Request<dto::GetBucketLoggingInput>,
    ) -> Answer<dto::GetBucketLoggingOutput> {
        self.nothing_set(&req.input.bucket).await
    }

    async fn get_bucket_notification_configuration(
        &self,
        req: S3Request<dto::GetBucketNotificationConfigurationInput>,
    ) -> Answer<dto::GetBucketNotificationConfigurationOutput> {
        self.nothing_set(&req.input.bucket).await
    }

    async fn get_bucket_accelerate_configuration(
        &self,
        req: S3Request<dto::GetBucketAccelerateConfigurationInput>,
    ) -> Answer<dto::GetBucketAccelerateConfigurationOutput> {
        self.nothing_set(&req.input.bucket).await
    }

    async fn get_bucket_request_payment(
        &self,
        req: S3Request<dto::GetBucketRequestPaymentInput>,
    ) -> Answer<dto::GetBucketRequestPaymentOutput> {
        self.nothing_set(&req.input.bucket).await
    }

    async fn get_bucket_acl(
        &self,
        req: S3Request<dto::GetBucketAclInput>,
    ) -> Answer<dto::GetBucketAclOutput> {
        self.bucket_acl(&req.input.bucket).await
    }

    async fn get_object_acl(
        &self,
        req: S3Request<dto::GetObjectAclInput>,
    ) -> Answer<dto::GetObjectAclOutput> {
        self.object_acl(&req.input.bucket, &req.input.key).await
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<dto::GetObjectTaggingInput>,
    ) -> Answer<dto::GetObjectTaggingOutput> {
        self.object_tags(&req.input.bucket, &req.input.key).await
    }

    async fn get_bucket_tagging(
        &self,
        req: S3Request<dto::GetBucketTaggingInput>,
    ) -> Answer<dto::GetBucketTaggingOutput> {
        self.none_of(&req.input.bucket, s3_error!(NoSuchTagSet)).await
    }

    async fn get_bucket_policy(
        &self,
        req: S3Request<dto::GetBucketPolicyInput>,
    ) -> Answer<dto::GetBucketPolicyOutput> {
        self.none_of(&req.input.bucket, s3_error!(NoSuchBucketPolicy)).await
    }

    async fn get_bucket_cors(
        &self,
        req: S3Request<dto::GetBucketCorsInput>,
    ) -> Answer<dto::GetBucketCorsOutput> {
        self.none_of(&req.input.bucket, s3_error!(NoSuchCORSConfiguration)).await
    }

    async fn get_bucket_website(
        &self,
        req: S3Request<dto::GetBucketWebsiteInput>,
    ) -> Answer<dto::GetBucketWebsiteOutput> {
        self.none_of(&req.input.bucket, s3_error!(NoSuchWebsiteConfiguration)).await
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<dto::GetBucketLifecycleConfigurationInput>,
    ) -> Answer<dto::GetBucketLifecycleConfigurationOutput> {
        self.none_of(&req.input.bucket, s3_error!(NoSuchLifecycleConfiguration)).await
    }

    async fn get_bucket_encryption(
        &self,
        req: S3Request<dto::GetBucketEncryptionInput>,
    ) -> Answer<dto::GetBucketEncryptionOutput> {
        self.none_of(&req.input.bucket, s3_error!(ServerSideEncryptionConfigurationNotFoundError)).await
    }

    async fn get_bucket_replication(
        &self,
        req: S3Request<dto::GetBucketReplicationInput>,
    ) -> Answer<dto::GetBucketReplicationOutput> {
        self.none_of(&req.input.bucket, s3_error!(ReplicationConfigurationNotFoundError)).await
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<dto::GetObjectLockConfigurationInput>,
    ) -> Answer<dto::GetObjectLockConfigurationOutput> {
        self.none_of(&req.input.bucket, s3_error!(ObjectLockConfigurationNotFoundError)).await
    }

    async fn get_public_access_block(
        &self,
        req: S3Request<dto::GetPublicAccessBlockInput>,
    ) -> Answer<dto::GetPublicAccessBlockOutput> {
        self.none_of(&req.input.bucket, config::no_public_access_block()).await
    }
}
