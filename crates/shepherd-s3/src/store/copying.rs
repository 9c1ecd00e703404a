//! Copies inside the storage.

use s3s::dto::{self, CopySource};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use shepherd_storage::buckets::{Condition, Described, Source};

use super::{Answer, Store, only_version};
use crate::attributes::kept;
use crate::checks::{self, with_sums};
use crate::conditions::{Of, Wanted, tag, time};
use crate::error::answer;
use crate::listing::{key, new_key};

impl Store {
    pub(super) async fn copy(&self, req: S3Request<dto::CopyObjectInput>) -> Answer<dto::CopyObjectOutput> {
        let input = req.input;
        let from = self.source(&input.copy_source).await?;
        let bucket = self.bucket(&input.bucket).await?;
        let key = new_key(&input.key)?;
        let attributes = match input.metadata_directive.as_ref().map(dto::MetadataDirective::as_str) {
            None | Some(dto::MetadataDirective::COPY) => None,
            Some(dto::MetadataDirective::REPLACE) => Some(kept(&req.headers)?),
            Some(_) => return Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
        };
        if attributes.is_none() && from.bucket == bucket && from.key == key {
            return Err(s3_error!(
                InvalidRequest,
                "An object can be copied to itself only to replace its metadata"
            ));
        }
        let wanted = Wanted {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let choose = move |described: &Described| {
            wanted.check(described, Of::CopySource)?;
            Ok::<_, s3s::S3Error>(attributes)
        };
        // s3s does not know these of a copy.
        let asked = |name: http::header::HeaderName| req.headers.contains_key(name);
        let condition = match (asked(http::header::IF_MATCH), req.headers.get(http::header::IF_NONE_MATCH)) {
            (false, None) => Condition::Always,
            (false, Some(value)) if value == "*" => Condition::Absent,
            (true, _) | (false, Some(_)) => {
                return Err(s3_error!(
                    NotImplemented,
                    "Of a copy's target only `If-None-Match: *` may be asked"
                ));
            }
        };
        let copy = self.buckets.copy(from, &bucket, &key, condition, choose).await.map_err(answer)??;
        Ok(S3Response::new(dto::CopyObjectOutput {
            copy_object_result: Some(with_sums!(
                &copy.attributes,
                dto::CopyObjectResult {
                    e_tag: Some(tag(&copy)),
                    last_modified: Some(time(copy.meta.modified)),
                    checksum_type: checks::kept(&copy.attributes).checksum_type,
                    ..Default::default()
                }
            )),
            ..Default::default()
        }))
    }

    /// The object that a copy is made from.
    pub(super) async fn source(&self, source: &CopySource) -> S3Result<Source> {
        match source {
            CopySource::Bucket { bucket, key: from, version_id } => {
                only_version(version_id.as_deref())?;
                Ok(Source { bucket: self.bucket(bucket).await?, key: key(from)? })
            }
            CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
                Err(s3_error!(NotImplemented, "There are no access points here"))
            }
        }
    }
}
