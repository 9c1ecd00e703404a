//! `storage`: a local directory or an S3 service.
//!
//! `url` says which: `file:///DIR`, or `http(s)://HOST[:PORT]` of a service, with
//! `access_key`, `secret_key`, `session_token?` (each also as `*_file`), `region?`
//! and, for one bucket, `layout: prefix` with `bucket` and `prefix?`.

use std::path::PathBuf;

use shepherd_job::{JobId, JobIdRule};

use crate::paths::Located;
use crate::read::{Section, Value};
use crate::secret::Secret;
use crate::url::{HttpUrl, file_url, is_file_url};

const DEFAULT_REGION: &str = "us-east-1";
/// A key of S3 has 1,024 bytes; the job's id and the name of a file need most.
const MAX_PREFIX: usize = 256;

/// Where the data of jobs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// A directory of this machine.
    Local(LocalStorage),
    /// A service that speaks S3.
    S3(S3Storage),
}

/// Job data in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalStorage {
    /// The directory that holds one directory a job.
    pub dir: PathBuf,
    /// Decides which job ids are legal.
    pub layout: StorageLayout,
}

/// How jobs lie in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageLayout {
    /// A job is a bucket.
    BucketPerJob,
    /// A job is a prefix in one bucket.
    Prefix,
}

impl StorageLayout {
    /// Which job ids the layout can hold.
    pub const fn job_id_rule(self) -> JobIdRule {
        match self {
            Self::BucketPerJob => JobIdRule::Bucket,
            Self::Prefix => JobIdRule::Prefix,
        }
    }
}

/// Job data in an S3 service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Storage {
    /// The service.
    pub url: HttpUrl,
    /// The id of the key that signs requests.
    pub access_key: Secret,
    /// The key that signs requests.
    pub secret_key: Secret,
    /// The token that belongs to temporary keys.
    pub session_token: Option<Secret>,
    /// The region that requests are signed for; `us-east-1` unless told.
    pub region: String,
    /// How jobs lie in it.
    pub layout: S3Layout,
}

/// How jobs lie in an S3 service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Layout {
    /// A bucket for each job.
    BucketPerJob,
    /// One bucket, `prefix/<job_id>/...`.
    Prefix {
        /// The bucket.
        bucket: String,
        /// What comes before the job's id, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl StorageConfig {
    /// Which job ids are legal with it.
    pub fn job_id_rule(&self) -> JobIdRule {
        match self {
            Self::Local(local) => local.layout.job_id_rule(),
            Self::S3(s3) => match s3.layout {
                S3Layout::BucketPerJob => JobIdRule::Bucket,
                S3Layout::Prefix { .. } => JobIdRule::Prefix,
            },
        }
    }
}

/// The storage and, of a local one, the directory with its key.
type Found = (StorageConfig, Option<Located>);

pub(super) fn read(top: &Section<'_>, state_dir: Option<&Located>, kept: &mut Vec<Located>) -> Option<Found> {
    let in_state_dir = || {
        let state = state_dir?;
        let (key, place) = (top.path_of("storage"), state.place.clone());
        Some(Located { key, place, path: state.path.join("storage") })
    };
    let Some(value) = top.get("storage") else {
        return Some(local(in_state_dir()?, StorageLayout::BucketPerJob));
    };
    let section = value.section()?;
    let layout = match section.get("layout") {
        None => Some(StorageLayout::BucketPerJob),
        Some(value) => value
            .choice(&[("bucket-per-job", StorageLayout::BucketPerJob), ("prefix", StorageLayout::Prefix)]),
    };
    let Some(url) = section.get("url") else {
        finish_local(section);
        return Some(local(in_state_dir()?, layout?));
    };
    let text = url.secret_text()?;
    if is_file_url(text) {
        let located = match file_url(text) {
            Ok(path) => Some(Located { path, place: url.place().clone(), key: url.key.clone() }),
            Err(reason) => {
                url.fail(format!("{reason}, expected file:///DIR"));
                None
            }
        };
        finish_local(section);
        return Some(local(located?, layout?));
    }
    s3(section, &url, layout, kept).map(|storage| (StorageConfig::S3(storage), None))
}

fn local(located: Located, layout: StorageLayout) -> Found {
    (StorageConfig::Local(LocalStorage { dir: located.path.clone(), layout }), Some(located))
}

fn finish_local(section: Section<'_>) {
    let reason = "has no meaning for a local directory, expected only with an http or https `url`";
    let of_s3 = [
        "access_key",
        "access_key_file",
        "secret_key",
        "secret_key_file",
        "session_token",
        "session_token_file",
        "region",
        "bucket",
        "prefix",
    ];
    section.finish(&of_s3.map(|key| (key, reason)));
}

fn s3(
    section: Section<'_>,
    url: &Value<'_>,
    layout: Option<StorageLayout>,
    kept: &mut Vec<Located>,
) -> Option<S3Storage> {
    let url = match HttpUrl::parse(url.secret_text()?) {
        Ok(url) => Some(url),
        Err(reason) => {
            url.fail(format!("{reason}, expected file:///DIR or {}", HttpUrl::SHAPE));
            None
        }
    };
    let access_key = section.require_secret("access_key", "access_key_file").map(|found| found.keep(kept));
    let secret_key = section.require_secret("secret_key", "secret_key_file").map(|found| found.keep(kept));
    let session_token = section.secret("session_token", "session_token_file").map(|found| found.keep(kept));
    let region = match section.get("region") {
        None => Some(DEFAULT_REGION.to_owned()),
        Some(value) => value.text().map(str::to_owned),
    };
    let layout = match layout {
        None => {
            // Whichever layout was meant, these are keys of storage.
            let _ = (section.get("bucket"), section.get("prefix"));
            section.finish(&[]);
            None
        }
        Some(StorageLayout::BucketPerJob) => {
            let reason = "has no meaning for a bucket per job, expected only with `layout: prefix`";
            section.finish(&[("bucket", reason), ("prefix", reason)]);
            Some(S3Layout::BucketPerJob)
        }
        Some(StorageLayout::Prefix) => {
            let bucket = section.require("bucket", "the bucket that holds all jobs").and_then(|v| bucket(&v));
            let prefix = section.get("prefix").map_or(Some(String::new()), |value| prefix(&value));
            section.finish(&[]);
            bucket.zip(prefix).map(|(bucket, prefix)| S3Layout::Prefix { bucket, prefix })
        }
    };
    Some(S3Storage {
        url: url?,
        access_key: access_key?,
        secret_key: secret_key?,
        session_token,
        region: region?,
        layout: layout?,
    })
}

fn bucket(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    // Buckets and job ids that are buckets follow one rule.
    match JobId::parse(text, JobIdRule::Bucket) {
        Ok(id) => Some(id.as_str().to_owned()),
        Err(rule) => {
            value.wrong(&format!("the name of a bucket, which {rule}"));
            None
        }
    }
}

fn prefix(value: &Value<'_>) -> Option<String> {
    let text = value.text()?.trim_matches('/');
    if text.len() > MAX_PREFIX
        || text.split('/').any(|part| matches!(part, "." | ".."))
        || text.contains("//")
    {
        value.wrong(&format!("at most {MAX_PREFIX} bytes without empty, `.` or `..` segments"));
        return None;
    }
    Some(text.to_owned())
}
