//! Where a job lies: its bucket, and what goes before its keys there.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use shepherd_job::{JobId, ObjectPath};

use super::options::S3Layout;
use crate::{Result, StorageError};

/// The longest key that S3 takes, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// What stands for itself in the path of a request; all else is encoded, as
/// signatures demand.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// The same in a query.
const QUERY: &AsciiSet = &PATH.add(b'/');

/// The layout, as it was checked.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    BucketPerJob,
    Prefix { bucket: String, prefix: String },
}

/// Where one job's objects are.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) bucket: String,
    /// Empty, or ends with a slash: no job's keys begin with those of another.
    pub(super) prefix: String,
    /// Whether the bucket is the job's own.
    pub(super) own: bool,
}

impl Layout {
    pub(super) fn new(layout: &S3Layout) -> Result<Self> {
        match layout {
            S3Layout::BucketPerJob => Ok(Self::BucketPerJob),
            S3Layout::Prefix { bucket, prefix } => {
                let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
                if bucket.len() < 3 || bucket.starts_with('.') || !bucket.bytes().all(legal) {
                    return Err(StorageError::Invalid(format!("{bucket:?} cannot be the name of a bucket")));
                }
                let prefix = prefix.trim_matches('/');
                let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                if has_dots(&prefix) || prefix.len() > MAX_KEY_BYTES / 2 {
                    return Err(StorageError::Invalid(format!("{prefix:?} cannot be a prefix of keys")));
                }
                Ok(Self::Prefix { bucket: bucket.clone(), prefix })
            }
        }
    }

    pub(super) fn home(&self, job: &JobId) -> Home {
        match self {
            Self::BucketPerJob => Home { bucket: job.to_string(), prefix: String::new(), own: true },
            Self::Prefix { bucket, prefix } => {
                Home { bucket: bucket.clone(), prefix: format!("{prefix}{job}/"), own: false }
            }
        }
    }
}

impl Home {
    /// The whole key of an object of the job.
    ///
    /// A segment `.` or `..` is refused. URLs have no spelling for those: whatever
    /// stands between us and the store may resolve them, and the key would be
    /// another one, or one of another bucket.
    pub(super) fn key(&self, path: &ObjectPath) -> Result<String> {
        let key = format!("{}{path}", self.prefix);
        if has_dots(&key) {
            return Err(StorageError::Invalid(format!("the key {key:?} has a segment `.` or `..`")));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(StorageError::Invalid(format!(
                "the key {key:?} is longer than {MAX_KEY_BYTES} bytes"
            )));
        }
        Ok(key)
    }

    /// The same for a key that is only looked for: what could not be stored is
    /// not there.
    pub(super) fn known_key(&self, path: &ObjectPath) -> Result<String> {
        self.key(path).map_err(|_| StorageError::NotFound)
    }
}

impl Home {
    /// Whether a key that is there can be named in a request.
    pub(super) fn can_request(&self, key: &str) -> bool {
        !has_dots(key)
    }
}

fn has_dots(key: &str) -> bool {
    key.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// A key as the path of a request.
pub(super) fn path_of(key: &str) -> String {
    percent_encode(key.as_bytes(), PATH).to_string()
}

/// A value as it stands in a query.
pub(super) fn query_of(value: &str) -> String {
    percent_encode(value.as_bytes(), QUERY).to_string()
}

/// The key that a listing gave URL-encoded, the way HTML forms are.
pub(super) fn decoded(key: &str) -> Option<String> {
    let spaced = key.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use shepherd_job::JobIdRule;

    use super::*;

    fn home(bucket: &str, prefix: &str, job: &str) -> Home {
        let layout = S3Layout::Prefix { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        Layout::new(&layout).unwrap().home(&JobId::parse(job, JobIdRule::Prefix).unwrap())
    }

    #[test]
    fn a_job_never_lies_in_another() {
        for (prefix, expected) in [("", "a/"), ("/", "a/"), ("p", "p/a/"), ("/p/q/", "p/q/a/")] {
            let (a, ab) = (home("bucket", prefix, "a"), home("bucket", prefix, "ab"));
            assert_eq!(a.prefix, expected);
            assert!(!ab.prefix.starts_with(&a.prefix));
        }
        let job = JobId::parse("job", JobIdRule::Bucket).unwrap();
        let own = Layout::new(&S3Layout::BucketPerJob).unwrap().home(&job);
        assert_eq!((own.bucket.as_str(), own.prefix.as_str()), ("job", ""));
    }

    #[test]
    fn what_cannot_be_a_bucket_or_a_prefix_is_refused() {
        for (bucket, prefix) in
            [("", ""), ("..", ""), ("a/b", ""), ("a?b", ""), ("bucket", "a/../b"), ("bucket", ".")]
        {
            let layout = S3Layout::Prefix { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
            assert!(matches!(Layout::new(&layout), Err(StorageError::Invalid(_))), "{bucket} {prefix}");
        }
    }

    #[test]
    fn keys_that_urls_cannot_hold_are_refused() {
        let home = home("bucket", "", "job");
        for refused in ["..", ".", "a/../b", "a/.", "../x", "/..", &"k".repeat(1021)] {
            let path = ObjectPath::parse(refused).unwrap();
            assert!(matches!(home.key(&path), Err(StorageError::Invalid(_))), "{refused}");
            assert!(matches!(home.known_key(&path), Err(StorageError::NotFound)), "{refused}");
        }
        for kept in ["...", ".a", "a..", "/", "//", "a//b", "a/", "%2e%2e/x", &"k".repeat(1020)] {
            assert_eq!(home.key(&ObjectPath::parse(kept).unwrap()).unwrap(), format!("job/{kept}"));
        }
    }

    #[test]
    fn only_unreserved_characters_stand_for_themselves() {
        assert_eq!(path_of("a b+c/%2F.~-_"), "a%20b%2Bc/%252F.~-_");
        assert_eq!(path_of("ž?#&=:@\\"), "%C5%BE%3F%23%26%3D%3A%40%5C");
        assert_eq!(query_of("a/b"), "a%2Fb");
        assert_eq!(decoded("a+b%2Bc%2Fd").as_deref(), Some("a b+c/d"));
        assert_eq!(decoded("%FF"), None);
    }

    proptest::proptest! {
        #[test]
        fn a_url_keeps_every_key_that_is_not_refused(key in "\\PC{1,64}|[./%\\\\ \u{0}-\u{1f}a?#]{1,64}") {
            let home = Home { bucket: "bucket".to_owned(), prefix: String::new(), own: true };
            let Ok(key) = home.key(&ObjectPath::parse(&key).unwrap()) else { return Ok(()) };
            let path = format!("/bucket/{}", path_of(&key));
            let url = url::Url::parse(&format!("http://host{path}")).unwrap();
            proptest::prop_assert_eq!(url.path(), path);
            proptest::prop_assert_eq!(decoded(&query_of(&key)), Some(key));
        }
    }
}
