//! Objects in parts.

use http::HeaderMap;
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use shepherd_job::{JobId, ObjectPath};
use shepherd_storage::buckets::{Attributes, BucketError, Completion, Described};

use super::config::owner;
use super::{Answer, Store, body};
use crate::attributes::{self, CHECKSUM};
use crate::checks::{self, Checks, NAMES, with_sums};
use crate::composite::{Declared, Whole};
use crate::conditions::{self, Of, Wanted, tag, time};
use crate::error::{answer, of_body};
use crate::intake::Noted;
use crate::listing::{Encoding, key, most, new_key};

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
        let declared = Declared::asked(&req.headers)?;
        let kept = attributes::kept(&req.headers)?;
        let kept = kept.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kept = kept.chain(declared.into_iter().flat_map(Declared::attributes));
        let kept =
            Attributes::new(kept).map_err(|name| s3_error!(InvalidArgument, "`{name}` cannot be kept"))?;
        let id = self.buckets.begin(&bucket, &new_key(&input.key)?, kept).await.map_err(answer)?;
        Ok(S3Response::new(dto::CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: declared.map(|declared| declared.algorithm().into()),
            checksum_type: declared.map(|declared| declared.kind().to_owned().into()),
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
        Ok(S3Response::new(with_sums!(
            &part.sums,
            dto::UploadPartOutput { e_tag: Some(dto::ETag::Strong(part.tag)), ..Default::default() }
        )))
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
        let (upload, all) = self.buckets.upload(&bucket, &key, &input.upload_id).await.map_err(answer)?;
        let declared = Declared::of(&upload.attributes);
        let mut left = all.into_iter().filter(|part| part.number > after).peekable();
        let mut parts = Vec::new();
        while parts.len() < most
            && let Some(part) = left.next()
        {
            parts.push(with_sums!(
                &part.sums,
                dto::Part {
                    part_number: i32::try_from(part.number).ok(),
                    e_tag: Some(dto::ETag::Strong(part.tag)),
                    size: i64::try_from(part.size).ok(),
                    last_modified: Some(time(part.modified)),
                    ..Default::default()
                }
            ));
        }
        let more = left.peek().is_some();
        let next = parts.last().filter(|_| more).and_then(|part| part.part_number);
        Ok(S3Response::new(dto::ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: declared.map(|declared| declared.algorithm().into()),
            checksum_type: declared.map(|declared| declared.kind().to_owned().into()),
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
                    let declared = Declared::of(&upload.attributes);
                    uploads.push(dto::MultipartUpload {
                        key: Some(key.to_owned()),
                        upload_id: Some(upload.id),
                        initiated: Some(time(upload.made)),
                        checksum_algorithm: declared.map(|declared| declared.algorithm().into()),
                        checksum_type: declared.map(|declared| declared.kind().to_owned().into()),
                        owner: Some(owner()),
                        storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
                        ..Default::default()
                    });
                }
            }
        }
        let keys = uploads.iter().filter_map(|upload| upload.key.as_deref());
        let texts =
            keys.chain(prefixes.iter().map(String::as_str)).chain([&*prefix, &*delimiter, &*key_marker]);
        let encoding = encoding.or_needed(texts);
        for key in uploads.iter_mut().filter_map(|upload| upload.key.as_mut()) {
            *key = encoding.text(key);
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
            encoding_type: encoding.told(),
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
        let mut named = Vec::new();
        for part in input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default() {
            named.push(Named::new(part)?);
        }
        if named.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let id = &input.upload_id;
        let attributes = self.verify(&bucket, &key, id, &named, &req.headers, input.mpu_object_size).await?;
        let parts = named.into_iter().map(|part| (part.number, part.tag)).collect();
        let completion = Completion { parts, smallest: SMALLEST, attributes, condition };
        let made = self.buckets.complete(&bucket, &key, id, completion).await.map_err(answer)?;
        // The object is what counts; what cannot be removed now is removed when old.
        match self.buckets.end(&bucket, &key, id).await {
            // This was said before.
            Ok(()) | Err(BucketError::NoUpload) => {}
            Err(error) => tracing::warn!(%bucket, %error, "a complete upload cannot be removed"),
        }
        Ok(S3Response::new(with_sums!(
            &made.attributes,
            dto::CompleteMultipartUploadOutput {
                location: Some(format!("/{}/{}", input.bucket, input.key)),
                bucket: Some(input.bucket),
                key: Some(input.key),
                e_tag: Some(tag(&made)),
                checksum_type: checks::kept(&made.attributes).checksum_type,
                ..Default::default()
            }
        )))
    }

    /// Holds what a client says of an upload's parts and of their whole against them,
    /// and gives the checksum of the whole. A checksum that is not known of a part is
    /// made of its bytes.
    async fn verify(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        id: &str,
        named: &[Named],
        headers: &HeaderMap,
        size: Option<i64>,
    ) -> S3Result<Attributes> {
        let (upload, stored) = match self.buckets.upload(bucket, key, id).await {
            Ok(found) => found,
            // The storage tells whether it is complete already.
            Err(BucketError::NoUpload) => return Ok(Attributes::default()),
            Err(error) => return Err(answer(error)),
        };
        let whole = Whole::said(Declared::of(&upload.attributes), headers)?;
        let mut parts = Vec::with_capacity(named.len());
        for named in named {
            let found = stored.binary_search_by_key(&named.number, |part| part.number);
            let part = found.ok().map(|at| &stored[at]).filter(|part| part.tag == named.tag);
            let part = part.ok_or_else(|| answer(BucketError::NoPart(named.number)))?;
            let wanted: Vec<_> = whole.names().chain(named.sums.iter().map(|(name, _)| *name)).collect();
            let is_known = |name: &&str| part.sums.get(&format!("{CHECKSUM}{name}")).is_some();
            let sums = if wanted.iter().all(is_known) {
                part.sums.clone()
            } else {
                let inspect = Box::new(Checks::sums(&wanted));
                self.buckets.inspect_part(bucket, key, id, part, inspect).await.map_err(answer)?
            };
            for (name, value) in &named.sums {
                if sums.get(&format!("{CHECKSUM}{name}")) != Some(value) {
                    return Err(s3_error!(InvalidPart, "Part {} has another {name} checksum", named.number));
                }
            }
            parts.push((part.size, sums));
        }
        whole.verify(&parts, size)
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

/// A part as the request that completes an upload names it.
struct Named {
    number: u32,
    tag: String,
    /// Names of checksums, and values.
    sums: Vec<(&'static str, String)>,
}

impl Named {
    fn new(part: dto::CompletedPart) -> S3Result<Self> {
        let (Some(at), Some(tag)) = (part.part_number, part.e_tag) else {
            return Err(s3_error!(MalformedXML));
        };
        // In the order of the names.
        let sums = [
            part.checksum_crc32,
            part.checksum_crc32c,
            part.checksum_crc64nvme,
            part.checksum_sha1,
            part.checksum_sha256,
        ];
        let sums = NAMES.into_iter().zip(sums).filter_map(|(name, sum)| Some((name, sum?))).collect();
        Ok(Self { number: number(at)?, tag: tag.into_value(), sums })
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
