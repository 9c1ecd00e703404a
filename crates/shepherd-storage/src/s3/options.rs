//! What an S3 storage is opened with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How an S3 storage is reached, and what it may use.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The server: `http` or `https`, a host, perhaps a port and a path. Buckets
    /// are named in the path of requests.
    pub url: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Who we are.
    pub credentials: S3Credentials,
    /// How jobs lie in buckets.
    pub layout: S3Layout,
    /// A file of PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The URL of the HTTP proxy that requests go through. Without it the server is reached
    /// directly, whatever the environment says of proxies.
    pub proxy: Option<String>,
    /// Bounds of time and memory.
    pub limits: S3Limits,
}

impl S3Options {
    /// Options with the region `us-east-1`, no other certificates than the
    /// system's, no proxy, and the usual limits.
    pub fn new(url: impl Into<String>, credentials: S3Credentials, layout: S3Layout) -> Self {
        Self {
            url: url.into(),
            region: "us-east-1".to_owned(),
            credentials,
            layout,
            ca_file: None,
            proxy: None,
            limits: S3Limits::default(),
        }
    }
}

/// An access key. Nothing of it is ever printed.
#[derive(Clone)]
pub struct S3Credentials {
    /// The key's name.
    pub access_key: String,
    /// The secret that requests are signed with.
    pub secret_key: String,
    /// The token that goes with a temporary key.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials(..)")
    }
}

/// How jobs lie in buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Layout {
    /// A job is a bucket, which is made when its first object comes.
    BucketPerJob,
    /// A job is the prefix `<prefix>/<job_id>/` in one bucket that exists.
    Prefix {
        /// The bucket.
        bucket: String,
        /// What goes before the job's id; may be empty. Slashes at its ends do not
        /// count.
        prefix: String,
    },
}

/// Bounds of time and memory. All of them hold for the whole storage, whatever
/// number of jobs uses it.
#[derive(Clone, Debug)]
pub struct S3Limits {
    /// For a connection to be made.
    pub connect: Duration,
    /// For the head of an answer, once the request was sent.
    pub answer: Duration,
    /// For the next bytes of a body, either way. No body as a whole has a limit.
    pub progress: Duration,
    /// How long a question that a client waits for is tried.
    pub ask: Duration,
    /// How long any other request is tried; the time in which its body was on its
    /// way does not count.
    pub retry: Duration,
    /// Up to this many bytes an object is stored by one request, and the parts of
    /// larger ones have this many: 5 MiB or more, or servers refuse them.
    pub part: usize,
    /// How many bytes of bodies that are being stored are held in memory. Files are
    /// not held at all.
    pub held: usize,
    /// How many objects are moved at once.
    pub at_once: usize,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            progress: Duration::from_secs(30),
            ask: Duration::from_millis(1500),
            retry: Duration::from_secs(12),
            part: 8 << 20,
            held: 24 << 20,
            at_once: 32,
        }
    }
}
