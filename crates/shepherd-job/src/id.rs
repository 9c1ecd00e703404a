//! Validated identifiers. A raw client string becomes one of these at the edge
//! or is refused with the rule that it breaks.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a string cannot be an identifier. The message names the rule and reads
/// after the field's name ("`job_id` must be ...").
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidId {
    rule: &'static str,
}

const fn broken(rule: &'static str) -> InvalidId {
    InvalidId { rule }
}

macro_rules! string_id {
    ($name:ident) => {
        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Which job ids are legal; it follows from the storage layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobIdRule {
    /// A job is a bucket: 3 to 63 of `a-z`, `0-9`, `-` and `.`, a letter or digit
    /// at both ends, no two dots in a row, no IPv4 address (the S3 bucket rules).
    Bucket,
    /// A job is a prefix in one bucket: 1 to 128 of `A-Z`, `a-z`, `0-9`, `_`, `-`
    /// and `.`, with no dot at the start.
    Prefix,
}

/// A job's name, unique in one shepherd and safe as one path segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Arc<str>);

string_id!(JobId);

impl JobId {
    /// Checks `text` against `rule`.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(text: &str, rule: JobIdRule) -> Result<Self, InvalidId> {
        match rule {
            JobIdRule::Bucket => check_bucket(text)?,
            JobIdRule::Prefix => check_prefix(text)?,
        }
        Ok(Self(text.into()))
    }
}

fn check_bucket(text: &str) -> Result<(), InvalidId> {
    if !(3..=63).contains(&text.len()) {
        return Err(broken("must be 3 to 63 characters long"));
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.') {
        return Err(broken("must hold only lower-case letters, digits, hyphens and dots"));
    }
    let ends = [text.as_bytes()[0], text.as_bytes()[text.len() - 1]];
    if !ends.iter().all(u8::is_ascii_alphanumeric) {
        return Err(broken("must begin and end with a letter or a digit"));
    }
    if text.contains("..") {
        return Err(broken("must not hold two dots in a row"));
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(broken("must not be formatted as an IP address"));
    }
    Ok(())
}

fn check_prefix(text: &str) -> Result<(), InvalidId> {
    if !(1..=128).contains(&text.len()) {
        return Err(broken("must be 1 to 128 characters long"));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Err(broken("must hold only ASCII letters, digits, hyphens, dots and underscores"));
    }
    if text.starts_with('.') {
        return Err(broken("must not begin with a dot"));
    }
    Ok(())
}

/// The name of a configured sheep, safe as one path segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SheepId(Arc<str>);

string_id!(SheepId);

impl SheepId {
    /// Checks that `text` is 1 to 64 of `A-Z`, `a-z`, `0-9`, `_`, `-` and `.` and
    /// does not begin with a dot.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_name(text)?;
        Ok(Self(text.into()))
    }
}

fn check_name(text: &str) -> Result<(), InvalidId> {
    if !(1..=64).contains(&text.len()) {
        return Err(broken("must be 1 to 64 characters long"));
    }
    check_prefix(text)
}

/// The name of a node: one daemon among those that share a job store. It stays the same from
/// one life of the daemon to the next, and no two daemons share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

string_id!(NodeId);

impl NodeId {
    /// Checks `text` by the same rule as [`SheepId::parse`].
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check_name(text)?;
        Ok(Self(text.into()))
    }
}

/// A model by name and version; the version may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    name: Arc<str>,
    version: Arc<str>,
}

impl ModelRef {
    /// Checks that the pair is safe as a relative path: `name` is one or more segments
    /// separated by single slashes, and `version` is empty or one segment; each is at
    /// most 255 bytes. A segment is any text without `/` and control characters that
    /// is neither empty nor `.` nor `..`. A pair may be legal here and still no name
    /// of an image; the docker sheep checks that.
    ///
    /// # Errors
    /// The rule that is broken, with the field it is about.
    pub fn parse(name: &str, version: &str) -> Result<Self, InvalidId> {
        let is_segment = |text: &str| {
            !matches!(text, "" | "." | "..") && !text.chars().any(|c| c == '/' || c.is_control())
        };
        if name.is_empty() || name.len() > 255 {
            return Err(broken("name must be 1 to 255 bytes long"));
        }
        if !name.split('/').all(is_segment) {
            return Err(broken(
                "name must be a relative path without control characters, whose segments are neither empty nor `.` nor `..`",
            ));
        }
        if version.len() > 255 {
            return Err(broken("version must be at most 255 bytes long"));
        }
        if !version.is_empty() && !is_segment(version) {
            return Err(broken(
                "version must hold neither `/` nor control characters, and be neither `.` nor `..`",
            ));
        }
        Ok(Self { name: name.into(), version: version.into() })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's version; may be empty.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.version)
    }
}

/// The key of an object below its job, such as `inputs/input`.
///
/// Anything S3 takes as a key: 1 to 1,024 bytes of UTF-8. It may hold `..`,
/// doubled slashes or control characters, so it is *not* a file system path;
/// the storage that keeps it in files encodes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(Arc<str>);

string_id!(ObjectPath);

impl ObjectPath {
    /// Checks the length of `text`.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if !(1..=1024).contains(&text.len()) {
            return Err(broken("must be 1 to 1,024 bytes long"));
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_rule_follows_s3() {
        for good in ["abc", "a-b", "job.1", "0123", &"a".repeat(63)] {
            assert!(JobId::parse(good, JobIdRule::Bucket).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            "ABC",
            "a_b",
            "a/b",
            "a..b",
            "..",
            "a b",
            "žlu",
            "-ab",
            "ab-",
            ".ab",
            "192.168.0.1",
            &"a".repeat(64),
        ] {
            assert!(JobId::parse(bad, JobIdRule::Bucket).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefix_rule_is_wider_and_still_one_safe_segment() {
        for good in ["a", "A_b", "x..y", "192.168.0.1"] {
            assert!(JobId::parse(good, JobIdRule::Prefix).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "a\0", &"a".repeat(129)] {
            assert!(JobId::parse(bad, JobIdRule::Prefix).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_of_a_sheep_or_a_node_is_one_short_safe_segment() {
        for good in ["a", "Rack-1_node.2", &"a".repeat(64)] {
            assert!(SheepId::parse(good).is_ok() && NodeId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "a/b", "a b", "ž", &"a".repeat(65)] {
            assert!(SheepId::parse(bad).is_err() && NodeId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_model_never_leaves_its_directory() {
        for (name, version) in [
            ("cxflow-test", "latest"),
            ("ns/model", "1.0"),
            ("m", ""),
            ("a b", "1.0+cu11"),
            ("a@b", "1~rc"),
            ("1", "1"),
            (".a", ".b"),
            ("...", "a:b"),
            ("-a", "-1"),
            ("žluť", "ž"),
        ] {
            assert!(ModelRef::parse(name, version).is_ok(), "{name}:{version}");
        }
        for (name, version) in [
            ("", "1"),
            ("..", "1"),
            ("a/../b", "1"),
            ("/a", "1"),
            ("a//b", "1"),
            ("a", ".."),
            ("a", "b/c"),
            (".", ""),
            ("a/", ""),
            ("a", "."),
            ("a\0", ""),
            ("a\nb", ""),
            ("a", "1\u{7f}"),
            ("a", "1\u{85}"),
            (&"a".repeat(256), ""),
            ("a", &"1".repeat(256)),
        ] {
            assert!(ModelRef::parse(name, version).is_err(), "{name}:{version}");
        }
    }

    #[test]
    fn an_object_path_is_any_s3_key() {
        for good in ["a", "a/../b", "/", "a b+č\u{1}", &"x".repeat(1024)] {
            assert!(ObjectPath::parse(good).is_ok(), "{good}");
        }
        assert!(ObjectPath::parse("").is_err());
        assert!(ObjectPath::parse(&"x".repeat(1025)).is_err());
    }
}
