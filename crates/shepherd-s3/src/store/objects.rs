//! Storing and reading objects.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use s3s::dto::{self, StreamingBlob};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Request, S3Response, S3Result, StdError, s3_error};
use shepherd_storage::Body;
use shepherd_storage::buckets::Described;

use super::{Answer, Store, body, only_version};
use crate::attributes::{self, given};
use crate::checks::{self, Checks, with_sums};
use crate::conditions::{self, Of, Wanted, tag, time};
use crate::error::{answer, of_body};
use crate::intake::Noted;
use crate::listing::{key, most, new_key};

impl Store {
    pub(super) async fn put(&self, req: S3Request<dto::PutObjectInput>) -> Answer<dto::PutObjectOutput> {
        let input = req.input;
        let bucket = self.bucket(&input.bucket).await?;
        let key = new_key(&input.key)?;
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
        let output = with_sums!(
            &stored.attributes,
            dto::PutObjectOutput {
                e_tag: Some(tag(&stored)),
                checksum_type: checks::kept(&stored.attributes).checksum_type,
                ..Default::default()
            }
        );
        Ok(S3Response::new(output))
    }

    pub(super) async fn get(&self, input: dto::GetObjectInput) -> Answer<dto::GetObjectOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        only_version(input.version_id.as_deref())?;
        let wanted = Wanted {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let (range, part) = (input.range, input.part_number);
        let choose = move |described: &Described| {
            wanted.check(described, Of::Read)?;
            match (range, part) {
                (None, None) => Ok(None),
                (Some(range), None) => within(range, described).map(Some),
                (None, Some(number)) => of_part(described, number),
                (Some(_), Some(_)) => {
                    Err(s3_error!(InvalidRequest, "Range and partNumber exclude each other"))
                }
            }
        };
        let (described, object) = self.buckets.get(&bucket, &key, choose).await.map_err(answer)??;
        let is_whole = object.range == (0..described.meta.size);
        let mut headers = given(&described, input.checksum_mode.is_some() && range.is_none() && is_whole);
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
        let is_partial = (range.is_some() || part.is_some()) && length > 0;
        let content_range = is_partial.then(|| content_range(&object.range, described.meta.size));
        let output = dto::GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(StreamingBlob::new(Blob { body: Mutex::new(object.body), left: length })),
            content_length: Some(i64::try_from(length).unwrap_or(i64::MAX)),
            content_range,
            e_tag: Some(tag(&described)),
            last_modified: Some(time(described.meta.modified)),
            parts_count: part.and_then(|_| parts_count(&described)),
            ..Default::default()
        };
        Ok(S3Response::with_headers(output, headers))
    }

    pub(super) async fn head(&self, input: dto::HeadObjectInput) -> Answer<dto::HeadObjectOutput> {
        let bucket = self.bucket(&input.bucket).await?;
        let key = key(&input.key)?;
        only_version(input.version_id.as_deref())?;
        let wanted = Wanted {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let described = self.buckets.describe(&bucket, &key).await.map_err(answer)?;
        wanted.check(&described, Of::Read)?;
        let size = described.meta.size;
        let part = input.part_number.map(|number| of_part(&described, number)).transpose()?.flatten();
        let is_whole = part.as_ref().is_none_or(|part| *part == (0..size));
        let headers = given(&described, input.checksum_mode.is_some() && is_whole);
        let length = part.as_ref().map_or(size, |part| part.end - part.start);
        let output = dto::HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(i64::try_from(length).unwrap_or(i64::MAX)),
            content_range: part.map(|part| content_range(&part, size)),
            e_tag: Some(tag(&described)),
            last_modified: Some(time(described.meta.modified)),
            parts_count: input.part_number.and_then(|_| parts_count(&described)),
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
        let mut asked = Vec::new();
        // Clients send one header with all of them.
        for name in input.object_attributes.iter().flat_map(|list| list.as_str().split(',')) {
            match name.trim() {
                name @ ("ETag" | "Checksum" | "ObjectParts" | "StorageClass" | "ObjectSize") => {
                    asked.push(name);
                }
                name => {
                    return Err(s3_error!(InvalidArgument, "There is no attribute `{name}` of an object"));
                }
            }
        }
        let asked = |name: &str| asked.contains(&name);
        let described = self.buckets.describe(&bucket, &key(&input.key)?).await.map_err(answer)?;
        let sums = Some(checks::kept(&described.attributes)).filter(|sums| sums.checksum_type.is_some());
        let output = dto::GetObjectAttributesOutput {
            checksum: sums.filter(|_| asked("Checksum") && described.trusted),
            object_parts: if asked("ObjectParts") {
                parts(&described, input.part_number_marker, input.max_parts)?
            } else {
                None
            },
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

/// The bytes of a part of an object; none where they are all there are, which are none.
fn of_part(described: &Described, number: i32) -> S3Result<Option<std::ops::Range<u64>>> {
    let sizes = described.parts().ok_or_else(|| {
        s3_error!(NotImplemented, "The object has too many parts of different sizes for them to be known")
    })?;
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let Some((before, size)) = at.and_then(|at| Some((&sizes[..at.min(sizes.len())], sizes.get(at)?))) else {
        let code = s3s::S3ErrorCode::Custom("InvalidPartNumber".into());
        let mut error = s3s::S3Error::with_message(code, "The requested part number is not satisfiable");
        error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
        return Err(error);
    };
    let start = before.iter().sum();
    Ok((*size > 0).then(|| start..start + size))
}

/// How many parts an object was made of, which the tag of one made of parts ends with.
fn parts_count(described: &Described) -> Option<i32> {
    described.tag.split_once('-').filter(|_| described.trusted)?.1.parse().ok()
}

/// What is known of the parts of an object that was made of parts.
fn parts(
    described: &Described,
    marker: Option<i32>,
    asked: Option<i32>,
) -> S3Result<Option<dto::GetObjectAttributesParts>> {
    let Some(total) = parts_count(described) else { return Ok(None) };
    let most = most(asked)?;
    let marker = marker.unwrap_or(0);
    let sizes = described.parts().unwrap_or_default();
    let numbered = (1..).zip(&sizes).filter(|(number, _)| *number > marker);
    let page: Vec<dto::ObjectPart> = numbered
        .take(most)
        .map(|(number, size)| dto::ObjectPart {
            part_number: Some(number),
            size: i64::try_from(*size).ok(),
            ..Default::default()
        })
        .collect();
    let last = page.last().and_then(|part| part.part_number);
    let more = last.is_some_and(|last| last < total);
    Ok(Some(dto::GetObjectAttributesParts {
        is_truncated: Some(more),
        max_parts: i32::try_from(most).ok(),
        next_part_number_marker: last.filter(|_| more),
        part_number_marker: Some(marker),
        parts: (!page.is_empty()).then_some(page),
        total_parts_count: Some(total),
    }))
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
