//! Conditional requests.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};
use shepherd_storage::buckets::{Condition, Described};

/// What a read asks of the object, or a copy of its source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

/// Whose conditions they are: a source that was not modified is an error as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Read,
    CopySource,
}

impl Wanted {
    /// RFC 9110, section 13.2.2: a tag goes before a time.
    pub(crate) fn check(&self, described: &Described, of: Of) -> S3Result<()> {
        let matches =
            |condition: &ETagCondition| condition.as_etag().is_none_or(|tag| tag.value() == described.tag);
        let modified = seconds(described.meta.modified);
        let failed = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition),
            (None, Some(time)) => modified > *time,
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(PreconditionFailed));
        }
        let same = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(time)) => modified <= *time,
            (None, None) => false,
        };
        match (same, of) {
            (false, _) => Ok(()),
            (true, Of::CopySource) => Err(s3_error!(PreconditionFailed)),
            (true, Of::Read) => {
                let mut error = s3_error!(NotModified);
                let mut headers = HeaderMap::new();
                if let Ok(tag) = tag(described).to_http_header() {
                    headers.insert(http::header::ETAG, tag);
                }
                error.set_headers(headers);
                Err(error)
            }
        }
    }
}

/// What must hold for a write.
pub(crate) fn of_write(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(tag)), None) => Ok(Condition::Tag(tag.into_value())),
        (_, Some(_)) => Err(s3_error!(NotImplemented, "If-None-Match of a write may be `*` only, and alone")),
    }
}

/// An object's tag.
pub(crate) fn tag(described: &Described) -> ETag {
    ETag::Strong(described.tag.clone())
}

/// A time as S3 writes it.
pub(crate) fn time(time: shepherd_job::Timestamp) -> Timestamp {
    let micros = u64::try_from(time.as_micros()).unwrap_or(0);
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH).into()
}

/// A time as HTTP writes it, which knows no fractions.
fn seconds(time: shepherd_job::Timestamp) -> Timestamp {
    let seconds = u64::try_from(time.as_micros() / 1_000_000).unwrap_or(0);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH).into()
}
