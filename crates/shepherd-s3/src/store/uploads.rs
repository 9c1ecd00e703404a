//! Objects in parts.

use s3s::dto;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use shepherd_storage::buckets::{Attributes, Completion, Described, Inspect};

use super::config::owner;
use super::{Answer, Store, body};
use crate::attributes;
use crate::checks::Checks;
use crate::conditions::{self, Of, Wanted, tag, time};
use crate::error::{answer, of_body};
use crate::intake::Noted;
use crate::listing::{Encoding, key, most};

/// S3's bound on the parts of an object.
const PARTS: i32 = 10_000;
/// S3's bound on the size of a part that is not the last.
const SMALLEST: u64 = 5 << 20;

impl Store {
    pub(super) async fn begin(
        &self,
        req: S3Request<dto::CreateMultipartUploadInput>,
    ) -> Answer<dto::CreateMultipartUploadOutput> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let kept = attributes::kept(&req.headers)?;
        let id = self.buckets.begin(&bucket, &key(&input.key)?, kept).await.map_err(answer)?;
        Ok(S3Response::new(dto::CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    pub(super) async fn put_part(
        &self,
        req: S3Request<dto::UploadPartInput>,
    ) -> Answer<dto::UploadPartOutput> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        let number = number(input.part_number)?;
        let checks =
            Checks::new(&req.headers, req.trailing_headers, input.content_length, Attributes::default())?;
        let noted = req.extensions.get::<Noted>().cloned();
        let content = checks.over(body(input.body, noted.clone()));
        let part = self
            .buckets
            .put_part(&bucket, &key, &input.upload_id, number, content)
            .await
            .map_err(|error| of_body(error, noted.as_ref()))?;
        Ok(S3Response::new(dto::UploadPartOutput {
            e_tag: Some(dto::ETag::Strong(part.tag)),
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        }))
    }

    pub(super) async fn copy_part(
        &self,
        input: dto::UploadPartCopyInput,
    ) -> Answer<dto::UploadPartCopyOutput> {
        let from = self.source(&input.copy_source).await?;
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        let number = number(input.part_number)?;
        let wanted = Wanted {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let range = input.copy_source_range.as_deref().map(source_range).transpose()?;
        let choose = move |described: &Described| {
            wanted.check(described, Of::CopySource)?;
            Ok::<_, s3s::S3Error>(range)
        };
        let part = self
            .buckets
            .copy_part(from, &bucket, &key, &input.upload_id, number, choose)
            .await
            .map_err(answer)??;
        Ok(S3Response::new(dto::UploadPartCopyOutput {
            copy_part_result: Some(dto::CopyPartResult {
                e_tag: Some(dto::ETag::Strong(part.tag)),
                last_modified: Some(time(part.modified)),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    pub(super) async fn parts(&self, input: dto::ListPartsInput) -> Answer<dto::ListPartsOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        let most = most(input.max_parts)?;
        let after = u32::try_from(input.part_number_marker.unwrap_or(0))
            .map_err(|_| s3_error!(InvalidArgument, "part-number-marker must not be negative"))?;
        let all = self.buckets.parts(&bucket, &key, &input.upload_id).await.map_err(answer)?;
        let mut left = all.into_iter().filter(|part| part.number > after).peekable();
        let mut parts = Vec::new();
        while parts.len() < most
            && let Some(part) = left.next()
        {
            parts.push(dto::Part {
                part_number: i32::try_from(part.number).ok(),
                e_tag: Some(dto::ETag::Strong(part.tag)),
                size: i64::try_from(part.size).ok(),
                last_modified: Some(time(part.modified)),
                ..Default::default()
            });
        }
        let more = left.peek().is_some();
        let next = parts.last().filter(|_| more).and_then(|part| part.part_number);
        Ok(S3Response::new(dto::ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: i32::try_from(after).ok(),
            next_part_number_marker: next,
            is_truncated: Some(more),
            max_parts: i32::try_from(most).ok(),
            parts: Some(parts),
            owner: Some(owner()),
            storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
            ..Default::default()
        }))
    }

    pub(super) async fn uploads(
        &self,
        input: dto::ListMultipartUploadsInput,
    ) -> Answer<dto::ListMultipartUploadsOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let encoding = Encoding::new(input.encoding_type.as_ref())?;
        let most = most(input.max_uploads)?;
        let (prefix, delimiter) = (input.prefix.unwrap_or_default(), input.delimiter.unwrap_or_default());
        let key_marker = input.key_marker.unwrap_or_default();
        let id_marker = input.upload_id_marker.unwrap_or_default();
        let rolled = |key: &str| {
            let at = key.get(prefix.len()..)?.find(&delimiter).filter(|_| !delimiter.is_empty())?;
            Some(key[..prefix.len() + at + delimiter.len()].to_owned())
        };
        let all = self.buckets.uploads(&bucket).await.map_err(answer)?;
        let (mut uploads, mut prefixes, mut next) = (Vec::new(), Vec::<String>::new(), None);
        let mut last = (String::new(), String::new());
        for upload in all {
            let key = upload.key.as_str();
            let is_after = key > key_marker.as_str()
                || (key == key_marker && !id_marker.is_empty() && upload.id > id_marker);
            if !key.starts_with(&prefix) || !is_after {
                continue;
            }
            let prefix = rolled(key);
            if prefix.is_some()
                && (prefix.as_ref() == prefixes.last() || prefix.as_ref() == Some(&key_marker))
            {
                continue;
            }
            if uploads.len() + prefixes.len() >= most {
                next = Some(last);
                break;
            }
            match prefix {
                Some(prefix) => {
                    last = (prefix.clone(), String::new());
                    prefixes.push(prefix);
                }
                None => {
                    last = (key.to_owned(), upload.id.clone());
                    uploads.push(dto::MultipartUpload {
                        key: Some(encoding.text(key)),
                        upload_id: Some(upload.id),
                        initiated: Some(time(upload.made)),
                        owner: Some(owner()),
                        storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
                        ..Default::default()
                    });
                }
            }
        }
        Ok(S3Response::new(dto::ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(next.is_some()),
            next_key_marker: next.as_ref().map(|(key, _)| encoding.text(key)),
            next_upload_id_marker: next.map(|(_, id)| id),
            uploads: Some(uploads),
            common_prefixes: Some(encoding.prefixes(&prefixes)),
            prefix: Some(encoding.text(&prefix)),
            delimiter: (!delimiter.is_empty()).then(|| encoding.text(&delimiter)),
            key_marker: Some(encoding.text(&key_marker)),
            upload_id_marker: Some(id_marker),
            max_uploads: i32::try_from(most).ok(),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    pub(super) async fn complete(
        &self,
        req: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> Answer<dto::CompleteMultipartUploadOutput> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        let condition = conditions::of_write(input.if_match, input.if_none_match)?;
        let mut parts = Vec::new();
        for part in input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default() {
            let (Some(at), Some(tag)) = (part.part_number, part.e_tag) else {
                return Err(s3_error!(MalformedXML));
            };
            parts.push((number(at)?, tag.into_value()));
        }
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        // The whole is read again only where the client says something of it.
        let checks = Checks::of_whole(&req.headers, input.mpu_object_size)?;
        let inspect = checks.map(|checks| Box::new(checks) as Box<dyn Inspect>);
        let id = &input.upload_id;
        let made = self
            .buckets
            .complete(&bucket, &key, id, Completion { parts, smallest: SMALLEST, inspect, condition })
            .await
            .map_err(answer)?;
        // The object is what counts; what cannot be removed now is removed when old.
        if let Err(error) = self.buckets.end(&bucket, &key, id).await {
            tracing::warn!(%bucket, %error, "a complete upload cannot be removed");
        }
        Ok(S3Response::new(dto::CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(tag(&made)),
            ..Default::default()
        }))
    }

    pub(super) async fn abort(
        &self,
        input: dto::AbortMultipartUploadInput,
    ) -> Answer<dto::AbortMultipartUploadOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        self.buckets.end(&bucket, &key(&input.key)?, &input.upload_id).await.map_err(answer)?;
        Ok(S3Response::new(dto::AbortMultipartUploadOutput::default()))
    }
}

fn number(number: i32) -> S3Result<u32> {
    u32::try_from(number).ok().filter(|_| (1..=PARTS).contains(&number)).ok_or_else(|| {
        s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
    })
}

/// `bytes=FIRST-LAST`, of which both must be there.
fn source_range(text: &str) -> S3Result<std::ops::Range<u64>> {
    match dto::Range::parse(text) {
        Ok(dto::Range::Int { first, last: Some(last) }) => Ok(first..last.saturating_add(1)),
        Ok(_) | Err(_) => Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last"
        )),
    }
}
