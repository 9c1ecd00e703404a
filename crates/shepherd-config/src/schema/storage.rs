//! `storage`: a local directory or an S3 service.
//!
//! `url` says which: `file:///DIR`, perhaps with [`serve_s3`], or
//! `http(s)://HOST[:PORT]` of a service, with `access_key`, `secret_key`,
//! `session_token?` (each also as `*_file`), `region?`, `ca_file?`, `proxy?` and, for one
//! bucket, `layout: prefix` with `bucket` and `prefix?`.
//!
//! A service without keys in the file takes those that its other clients take, from
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. Keys of the
//! file and of the environment are never mixed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use shepherd_job::{JobId, JobIdRule};

use crate::paths::Located;
use crate::read::{Section, Value};
use crate::schema::serve_s3::{self, ServeS3};
use crate::secret::Secret;
use crate::url::{HttpUrl, Scheme, file_url, is_file_url};

const DEFAULT_REGION: &str = "us-east-1";
/// A key of S3 has 1,024 bytes; the job's id and the name of a file need most.
const MAX_PREFIX: usize = 256;

/// The variables that clients of S3 take keys from.
const AWS_ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const AWS_SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const AWS_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

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
    /// How jobs would lie in an S3 service; a directory has each in one of its own.
    pub layout: StorageLayout,
    /// How inputs reach runners.
    pub staging: Staging,
    /// How it is served over S3, where it is; the layout is a bucket a job then.
    pub serve_s3: Option<ServeS3>,
}

/// How inputs of a local storage reach runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staging {
    /// As files of the runner's own.
    Copy,
    /// As hard links where they can be: a runner that writes into one changes the input.
    Share,
}

/// How jobs lie in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageLayout {
    /// A job is a bucket.
    BucketPerJob,
    /// A job is a prefix in one bucket.
    Prefix,
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
    /// Certificates of authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The HTTP proxy that leads to it; reached directly without.
    pub proxy: Option<HttpUrl>,
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
            // A directory holds more names than S3 has for buckets.
            Self::Local(local) if local.serve_s3.is_none() => JobIdRule::Prefix,
            Self::Local(_) => JobIdRule::Bucket,
            Self::S3(s3) => match s3.layout {
                S3Layout::BucketPerJob => JobIdRule::Bucket,
                S3Layout::Prefix { .. } => JobIdRule::Prefix,
            },
        }
    }
}

/// The storage and, of a local one, the directory with its key.
type Found = (StorageConfig, Option<Located>);

pub(super) fn read(
    top: &Section<'_>,
    state_dir: Option<&Located>,
    kept: &mut Vec<Located>,
    withheld_env: &mut BTreeSet<String>,
) -> Option<Found> {
    let in_state_dir = || {
        let state = state_dir?;
        let (key, place) = (top.path_of("storage"), state.place.clone());
        Some(Located { key, place, path: state.path.join("storage") })
    };
    let Some(value) = top.get("storage") else {
        return Some(local(in_state_dir()?, StorageLayout::BucketPerJob, Finished::default()));
    };
    let section = value.section()?;
    let layout = match section.get("layout") {
        None => Some(StorageLayout::BucketPerJob),
        Some(value) => value
            .choice(&[("bucket-per-job", StorageLayout::BucketPerJob), ("prefix", StorageLayout::Prefix)]),
    };
    let Some(url) = section.get("url") else {
        let finished = finish_local(section, layout, kept);
        return Some(local(in_state_dir()?, layout?, finished?));
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
        let finished = finish_local(section, layout, kept);
        return Some(local(located?, layout?, finished?));
    }
    s3(section, &url, layout, kept, withheld_env).map(|storage| (StorageConfig::S3(storage), None))
}

fn local(located: Located, layout: StorageLayout, finished: Finished) -> Found {
    let dir = located.path.clone();
    let Finished { staging, serve_s3 } = finished;
    (StorageConfig::Local(LocalStorage { dir, layout, staging, serve_s3 }), Some(located))
}

/// What only a directory has.
struct Finished {
    staging: Staging,
    /// How it is served, where it is.
    serve_s3: Option<ServeS3>,
}

impl Default for Finished {
    fn default() -> Self {
        Self { staging: Staging::Copy, serve_s3: None }
    }
}

fn finish_local(
    section: Section<'_>,
    layout: Option<StorageLayout>,
    kept: &mut Vec<Located>,
) -> Option<Finished> {
    let staging = match section.get("staging") {
        None => Some(Staging::Copy),
        Some(value) => value.choice(&[("copy", Staging::Copy), ("share", Staging::Share)]),
    };
    let serve_s3 = section.get("serve_s3").map(|value| {
        if layout == Some(StorageLayout::Prefix) {
            value.fail(
                "cannot serve `layout: prefix`, with which a job's id need not be a bucket's name, expected \
                 `layout: bucket-per-job`",
            );
        }
        serve_s3::read(&value, kept)
    });
    let reason = "has no meaning for a local directory, expected only with an http or https `url`";
    let of_s3 = [
        "access_key",
        "access_key_file",
        "secret_key",
        "secret_key_file",
        "session_token",
        "session_token_file",
        "region",
        "ca_file",
        "proxy",
        "bucket",
        "prefix",
    ];
    section.finish(&of_s3.map(|key| (key, reason)));
    let serve_s3 = match serve_s3 {
        None => None,
        Some(read) => Some(read?),
    };
    Some(Finished { staging: staging?, serve_s3 })
}

fn s3(
    section: Section<'_>,
    url: &Value<'_>,
    layout: Option<StorageLayout>,
    kept: &mut Vec<Located>,
    withheld_env: &mut BTreeSet<String>,
) -> Option<S3Storage> {
    let url = match HttpUrl::parse(url.secret_text()?) {
        Ok(url) => Some(url),
        Err(reason) => {
            url.fail(format!("{reason}, expected file:///DIR or {}", HttpUrl::SHAPE));
            None
        }
    };
    let keys = keys(&section, kept, withheld_env);
    let region = match section.get("region") {
        None => Some(DEFAULT_REGION.to_owned()),
        Some(value) => value.text().map(str::to_owned),
    };
    let ca_file = section.get("ca_file").map(|value| ca_file(&value, url.as_ref(), kept));
    let proxy = section.get("proxy").map(|value| value.http_url());
    let not_local = ["serve_s3", "staging"]
        .map(|key| (key, "has no meaning for an S3 service, expected only with a local directory"));
    let layout = match layout {
        None => {
            // Whichever layout was meant, these are keys of storage.
            let _ = (section.get("bucket"), section.get("prefix"));
            section.finish(&not_local);
            None
        }
        Some(StorageLayout::BucketPerJob) => {
            let reason = "has no meaning for a bucket per job, expected only with `layout: prefix`";
            let [serve_s3, staging] = not_local;
            section.finish(&[serve_s3, staging, ("bucket", reason), ("prefix", reason)]);
            Some(S3Layout::BucketPerJob)
        }
        Some(StorageLayout::Prefix) => {
            let bucket = section.require("bucket", "the bucket that holds all jobs").and_then(|v| bucket(&v));
            let prefix = section.get("prefix").map_or(Some(String::new()), |value| prefix(&value));
            section.finish(&not_local);
            bucket.zip(prefix).map(|(bucket, prefix)| S3Layout::Prefix { bucket, prefix })
        }
    };
    let keys = keys?;
    Some(S3Storage {
        url: url?,
        access_key: keys.access_key,
        secret_key: keys.secret_key,
        session_token: keys.session_token,
        region: region?,
        ca_file: match ca_file {
            None => None,
            Some(read) => Some(read?),
        },
        proxy: match proxy {
            None => None,
            Some(read) => Some(read?),
        },
        layout: layout?,
    })
}

struct Keys {
    access_key: Secret,
    secret_key: Secret,
    session_token: Option<Secret>,
}

fn keys(section: &Section<'_>, kept: &mut Vec<Located>, withheld_env: &mut BTreeSet<String>) -> Option<Keys> {
    let [access, secret, token] = [
        ("access_key", "access_key_file"),
        ("secret_key", "secret_key_file"),
        ("session_token", "session_token_file"),
    ];
    let given = [access, secret, token].map(|(key, key_file)| section.gives(key, key_file));
    if given == [false; 3] {
        let found = [AWS_ACCESS_KEY, AWS_SECRET_KEY].map(|name| section.variable(name));
        if let [Some(access_key), Some(secret_key)] = found {
            let names = [AWS_ACCESS_KEY, AWS_SECRET_KEY, AWS_SESSION_TOKEN];
            withheld_env.extend(names.map(str::to_owned));
            return Some(Keys {
                access_key: Secret::new(access_key),
                secret_key: Secret::new(secret_key),
                session_token: section.variable(AWS_SESSION_TOKEN).map(Secret::new),
            });
        }
        section.missing(
            access.0,
            &format!(
                "is missing, expected `{}` and `{}` here (or `{}` and `{}`), or {AWS_ACCESS_KEY} and \
                 {AWS_SECRET_KEY} in the environment",
                access.0, secret.0, access.1, secret.1
            ),
        );
        return None;
    }
    let access_key = section.require_secret(access.0, access.1).map(|found| found.keep(kept));
    let secret_key = section.require_secret(secret.0, secret.1).map(|found| found.keep(kept));
    let session_token = section.secret(token.0, token.1).map(|found| found.keep(kept));
    Some(Keys { access_key: access_key?, secret_key: secret_key?, session_token })
}

fn ca_file(value: &Value<'_>, url: Option<&HttpUrl>, kept: &mut Vec<Located>) -> Option<PathBuf> {
    if url.is_some_and(|url| url.scheme() == Scheme::Http) {
        value.fail("has no meaning without TLS, expected only with an https `url`");
    }
    let path = value.path()?;
    kept.push(Located { key: value.key.clone(), place: value.place().clone(), path: path.clone() });
    Some(path)
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
    let text = value.any_text()?.trim_matches('/');
    if text.len() > MAX_PREFIX
        || text.split('/').any(|part| matches!(part, "." | ".."))
        || text.contains("//")
    {
        value.wrong(&format!("at most {MAX_PREFIX} bytes without empty, `.` or `..` segments"));
        return None;
    }
    Some(text.to_owned())
}
