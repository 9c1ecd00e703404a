//! Storing and reading objects.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use s3s::dto::{self, StreamingBlob};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Request, S3Response, S3Result, StdError};
use shepherd_storage::Body;
use shepherd_storage::buckets::Described;

use super::{Answer, Store, body, only_version};
use crate::attributes::{self, CHECKSUM, given};
use crate::checks::Checks;
use crate::conditions::{self, Of, Wanted, tag, time};
use crate::error::{answer, of_body};
use crate::intake::Noted;
use crate::listing::key;

impl Store {
    pub(super) async fn put(&self, req: S3Request<dto::PutObjectInput>) -> Answer<dto::PutObjectOutput> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        let condition = conditions::of_write(input.if_match, input.if_none_match)?;
        let kept = attributes::kept(&req.headers)?;
        let checks = Checks::new(&req.headers, req.trailing_headers, input.content_length, kept)?;
        let noted = req.extensions.get::<Noted>().cloned();
        let content = checks.over(body(input.body, noted.clone()));
        let stored = self
            .buckets
            .put(&bucket, &key, content, condition)
            .await
            .map_err(|error| of_body(error, noted.as_ref()))?;
        let mut output = dto::PutObjectOutput { e_tag: Some(tag(&stored)), ..Default::default() };
        let sum = |name: &str| stored.attributes.get(&format!("{CHECKSUM}{name}")).map(str::to_owned);
        output.checksum_crc32 = sum("crc32");
        output.checksum_crc32c = sum("crc32c");
        output.checksum_crc64nvme = sum("crc64nvme");
        output.checksum_sha1 = sum("sha1");
        output.checksum_sha256 = sum("sha256");
        Ok(S3Response::new(output))
    }

    pub(super) async fn get(&self, input: dto::GetObjectInput) -> Answer<dto::GetObjectOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        only_version(input.version_id.as_deref())?;
        only_part(input.part_number)?;
        let wanted = Wanted {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let range = input.range;
        let choose = move |described: &Described| {
            wanted.check(described, Of::Read)?;
            range.map(|range| within(range, described)).transpose()
        };
        let (described, object) = self.buckets.get(&bucket, &key, choose).await.map_err(answer)??;
        let mut headers = given(&described, input.checksum_mode.is_some() && range.is_none());
        // s3s lets ours go before those that the client asks for.
        for (asked, name) in [
            (input.response_content_type.is_some(), http::header::CONTENT_TYPE),
            (input.response_content_encoding.is_some(), http::header::CONTENT_ENCODING),
            (input.response_content_language.is_some(), http::header::CONTENT_LANGUAGE),
            (input.response_content_disposition.is_some(), http::header::CONTENT_DISPOSITION),
            (input.response_cache_control.is_some(), http::header::CACHE_CONTROL),
            (input.response_expires.is_some(), http::header::EXPIRES),
        ] {
            if asked {
                headers.remove(name);
            }
        }
        let length = object.range.end - object.range.start;
        let content_range = range.is_some().then(|| content_range(&object.range, described.meta.size));
        let output = dto::GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(StreamingBlob::new(Blob { body: Mutex::new(object.body), left: length })),
            content_length: Some(i64::try_from(length).unwrap_or(i64::MAX)),
            content_range,
            e_tag: Some(tag(&described)),
            last_modified: Some(time(described.meta.modified)),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, headers))
    }

    pub(super) async fn head(&self, input: dto::HeadObjectInput) -> Answer<dto::HeadObjectOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        only_version(input.version_id.as_deref())?;
        only_part(input.part_number)?;
        let wanted = Wanted {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let described = self.buckets.describe(&bucket, &key).await.map_err(answer)?;
        wanted.check(&described, Of::Read)?;
        let headers = given(&described, input.checksum_mode.is_some());
        let output = dto::HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(i64::try_from(described.meta.size).unwrap_or(i64::MAX)),
            e_tag: Some(tag(&described)),
            last_modified: Some(time(described.meta.modified)),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, headers))
    }

    pub(super) async fn attributes(
        &self,
        input: dto::GetObjectAttributesInput,
    ) -> Answer<dto::GetObjectAttributesOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        only_version(input.version_id.as_deref())?;
        let described = self.buckets.describe(&bucket, &key(&input.key)?).await.map_err(answer)?;
        let asked = |name: &str| input.object_attributes.iter().any(|asked| asked.as_str() == name);
        let output = dto::GetObjectAttributesOutput {
            e_tag: asked("ETag").then(|| tag(&described)),
            object_size: asked("ObjectSize").then(|| i64::try_from(described.meta.size).unwrap_or(i64::MAX)),
            storage_class: asked("StorageClass")
                .then(|| dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
            last_modified: Some(time(described.meta.modified)),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, HeaderMap::new()))
    }
}

/// An object is its first part, and its only one.
fn only_part(number: Option<i32>) -> S3Result<()> {
    match number {
        None | Some(1) => Ok(()),
        Some(_) => {
            let code = s3s::S3ErrorCode::Custom("InvalidPartNumber".into());
            let mut error = s3s::S3Error::with_message(code, "The requested part number is not satisfiable");
            error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
            Err(error)
        }
    }
}

/// The bytes of a range of an object.
fn within(range: dto::Range, described: &Described) -> S3Result<std::ops::Range<u64>> {
    let size = described.meta.size;
    let outside = || answer(shepherd_storage::buckets::BucketError::Range(size));
    range.check(size).ok().filter(|range| range.start < size).ok_or_else(outside)
}

fn content_range(range: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// An object's bytes as s3s takes them. The mutex is never locked: s3s asks for a
/// stream that may be shared, and does not share it.
struct Blob {
    body: Mutex<Body>,
    left: u64,
}

impl Stream for Blob {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = self.body.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let piece = std::task::ready!(body.as_mut().poll_next(cx));
        if let Some(Ok(bytes)) = &piece {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map_err(Into::into)))
    }
}

impl ByteStream for Blob {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}
