//! What is kept beside an object's bytes.
//!
//! A file has one extended attribute, [`NAME`], which moves with it through
//! renames and hard links. It is text:
//! ```text
//! 1 SIZE MTIME TAG
//! content-type: text/plain
//! x-amz-meta-colour: blue
//! ```
//! `SIZE` in bytes and `MTIME` in nanoseconds are the file's own when the attribute
//! was set. Where they are not the file's any more, somebody has written into it
//! since: its tag says nothing then, and neither do lines that speak of its bytes.
//!
//! Whoever may write the file may set the attribute, so what is read is parsed
//! strictly, and is not taken at all where it does not parse.
//!
//! # Tags
//! A tag tells one content of an object from another, as S3's `ETag` does. A file
//! without a tag that can be trusted has the MD5 of its bytes up to [`HASHED`];
//! a larger one has a token made of its inode, size and time, in a form that no
//! client takes for an MD5.

use std::fs::File;
use std::os::fd::OwnedFd;

use md5::{Digest as _, Md5};
use rustix::fs::{Stat, XattrFlags};
use rustix::io::Errno;
use shepherd_job::ObjectPath;

use super::disk::{Disk, meta, size};
use super::fault::failed;
use crate::{ObjectMeta, Result, StorageError};

/// The attribute's name. Clients of the file see it with `getfattr -d FILE`.
const NAME: &str = "user.shepherd";
/// The longest that is read: more than ext4 holds, and than is ever written.
const MAX_ATTRIBUTE_BYTES: usize = 16 << 10;
/// Up to how many bytes a file is read to make its tag.
const HASHED: u64 = 64 << 10;

/// What the names of checksums begin with, which speak of an object's bytes.
pub(super) const CHECKSUM: &str = "x-amz-checksum-";
/// The sizes of the parts that an object was made of: `3x5242880,1x7` are three of
/// 5 MiB and one of 7 bytes.
pub(super) const PARTS: &str = "x-shepherd-parts";
/// The id of the upload that an object was made of.
pub(super) const UPLOAD: &str = "x-shepherd-upload";
/// S3's bound on the parts of an object.
const MOST_PARTS: usize = 10_000;
/// The longest value of [`PARTS`] that is kept: the attributes of a file share a block.
const LONGEST_PARTS: usize = 512;

/// Lines about an object that travel with it, such as `content-type: text/plain`:
/// lower-case names, each at most once, and values without line breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// Takes the pairs, in their order.
    ///
    /// # Errors
    /// The name of one that cannot be kept: not of `a-z`, `0-9` and `!#$%&'*+-.^_|~`,
    /// a second of its name, or a value with control characters.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> std::result::Result<Self, String> {
        let mut kept = Self::default();
        for (name, value) in pairs {
            if !is_name(&name) || !is_value(&value) || kept.get(&name).is_some() {
                return Err(name);
            }
            kept.0.push((name, value));
        }
        Ok(kept)
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those for which `keep` says so, and `more`, which have none of their names.
    pub(super) fn with(mut self, more: &Self, keep: impl FnMut(&str) -> bool) -> Self {
        self.retain(keep);
        self.0.extend(more.0.iter().cloned());
        self
    }

    /// Leaves those for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// As lines of text.
    pub(super) fn lines(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    /// From lines of text.
    pub(super) fn parse(lines: &str) -> Option<Self> {
        let pairs = lines.lines().map(|line| line.split_once(": "));
        let pairs: Option<Vec<_>> = pairs.collect();
        Self::new(pairs?.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).ok()
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_|~".contains(&b))
}

fn is_value(value: &str) -> bool {
    !value.chars().any(char::is_control)
}

/// An object, and what is kept beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its key, size and time.
    pub meta: ObjectMeta,
    /// What tells this content from others: the MD5 of the bytes, in 32 hexadecimal
    /// digits, or something else with a hyphen in it.
    pub tag: String,
    /// Whether nobody wrote into it since the attributes were set, so that those
    /// which speak of its bytes are true.
    pub trusted: bool,
    /// What was stored with it.
    pub attributes: Attributes,
}

impl Described {
    /// The sizes of the parts that the object was made of; one for an object that was
    /// stored as a whole, and none where they are not known.
    pub fn parts(&self) -> Option<Vec<u64>> {
        if !self.trusted || !self.tag.contains('-') {
            return Some(vec![self.meta.size]);
        }
        let mut sizes = Vec::new();
        for run in self.attributes.get(PARTS)?.split(',') {
            let (count, size) = run.split_once('x')?;
            let (count, size): (usize, u64) = (count.parse().ok()?, size.parse().ok()?);
            // Whoever may write the file may write there what it likes.
            if count > MOST_PARTS - sizes.len() {
                return None;
            }
            sizes.extend(std::iter::repeat_n(size, count));
        }
        let sum = sizes.iter().try_fold(0_u64, |sum, size| sum.checked_add(*size));
        (sum == Some(self.meta.size)).then_some(sizes)
    }
}

/// The line that keeps the sizes of an object's parts; none when it would be long.
pub(super) fn parts_line(sizes: &[u64]) -> Option<(String, String)> {
    let runs = sizes.chunk_by(|a, b| a == b).map(|run| format!("{}x{}", run.len(), run[0]));
    let line = runs.collect::<Vec<_>>().join(",");
    (line.len() <= LONGEST_PARTS).then(|| (PARTS.to_owned(), line))
}

/// Whether an attribute is of the bytes, and not of what a client says about them.
pub(super) fn is_of_bytes(name: &str) -> bool {
    name.starts_with(CHECKSUM) || name == PARTS
}

/// Whether an attribute may be lost: it can be guessed or made again, or spares a
/// client a failure that is rare.
fn is_spare(name: &str) -> bool {
    name == "content-type" || name == UPLOAD || is_of_bytes(name)
}

impl Disk {
    /// Whether this file system keeps attributes.
    pub(super) fn keeps_attributes(&self) -> Result<bool> {
        let (_temp, file) = self.temps.create().map_err(|errno| failed("create a temporary file", errno))?;
        match rustix::fs::fsetxattr(&file, NAME, b"1", XattrFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => Ok(false),
            Err(errno) => Err(failed("set an extended attribute", errno)),
        }
    }
}

/// What is known of the open file of `key`.
pub(super) fn describe(path: &ObjectPath, file: &OwnedFd, stat: &Stat) -> Result<Described> {
    let fail = |errno| failed(format_args!("read the attributes of {:?}", path.as_str()), errno);
    let (recorded, attributes) = read(file).map_err(fail)?.unwrap_or_default();
    let tag = recorded.filter(|recorded| recorded.size == size(stat) && recorded.mtime == mtime(stat));
    let trusted = tag.is_some();
    let tag = match tag {
        Some(recorded) => recorded.tag,
        None => made_up(file, stat).map_err(fail)?,
    };
    Ok(Described { meta: meta(path, stat), tag, trusted, attributes })
}

/// What is known of a file that may not be read.
pub(super) fn unreadable(path: &ObjectPath, stat: &Stat) -> Described {
    let attributes = Attributes::default();
    Described { meta: meta(path, stat), tag: token(stat), trusted: false, attributes }
}

/// Sets the attribute of a file that is written and not visible yet. The tag that
/// the file has from now on is returned: where attributes cannot be kept, it is not
/// the one given.
pub(super) fn record(file: &File, tag: &str, attributes: &Attributes) -> Result<String> {
    let stat = rustix::fs::fstat(file).map_err(|errno| failed("look at a temporary file", errno))?;
    let text =
        |attributes: &Attributes| format!("1 {} {} {tag}\n{}", size(&stat), mtime(&stat), attributes.lines());
    let mut set = set_attribute(file, &text(attributes));
    if matches!(set, Err(Errno::TOOBIG | Errno::RANGE | Errno::NOSPC)) {
        // Rather without what is ours than not at all.
        let mut fewer = attributes.clone();
        fewer.retain(|name| name != PARTS && name != UPLOAD);
        if fewer != *attributes {
            set = set_attribute(file, &text(&fewer));
        }
    }
    let refused =
        || StorageError::Invalid("the object has more metadata than the file system can keep".into());
    match set {
        Ok(()) => Ok(tag.to_owned()),
        Err(Errno::TOOBIG | Errno::RANGE) => Err(refused()),
        // ext4 has a block for the attributes of a file, and says so when that is full.
        Err(Errno::NOSPC) if text(attributes).len() > 1 << 10 => Err(refused()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
            match attributes.iter().find(|(name, _)| !is_spare(name)) {
                Some((name, _)) => Err(StorageError::Invalid(format!(
                    "the file system of the storage keeps no extended attributes, so `{name}` would be lost"
                ))),
                None if size(&stat) <= HASHED => Ok(tag.to_owned()),
                None => Ok(token(&stat)),
            }
        }
        Err(errno) => Err(failed("set an extended attribute", errno)),
    }
}

fn set_attribute(file: &File, text: &str) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(file, NAME, text.as_bytes(), XattrFlags::empty())
}

/// The MD5 of what is left to read of a file, as a tag.
pub(super) fn hash(file: &mut impl std::io::Read) -> std::io::Result<String> {
    let mut hash = Md5::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What an attribute says of the file's bytes.
struct Recorded {
    size: u64,
    mtime: i128,
    tag: String,
}

/// The attribute of a file; none where there is none, or not one of ours.
fn read(file: &OwnedFd) -> rustix::io::Result<Option<(Option<Recorded>, Attributes)>> {
    let mut buffer = [0; 512];
    let text = match rustix::fs::fgetxattr(file, NAME, &mut buffer[..]) {
        Ok(length) => buffer[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; MAX_ATTRIBUTE_BYTES];
            match rustix::fs::fgetxattr(file, NAME, &mut buffer[..]) {
                Ok(length) => buffer.truncate(length),
                Err(Errno::RANGE | Errno::TOOBIG | Errno::NODATA) => return Ok(None),
                Err(errno) => return Err(errno),
            }
            buffer
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    Ok(std::str::from_utf8(&text).ok().and_then(parse))
}

fn parse(text: &str) -> Option<(Option<Recorded>, Attributes)> {
    let (head, lines) = text.split_once('\n')?;
    let mut words = head.split(' ');
    let ("1", Some(size), Some(mtime), Some(tag), None) =
        (words.next()?, words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    let is_tag = (1..=64).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let recorded = Recorded { size: size.parse().ok()?, mtime: mtime.parse().ok()?, tag: tag.to_owned() };
    Some((is_tag.then_some(recorded), Attributes::parse(lines)?))
}

/// The tag of a file that has none of its own.
fn made_up(file: &OwnedFd, stat: &Stat) -> rustix::io::Result<String> {
    if size(stat) > HASHED {
        return Ok(token(stat));
    }
    let mut hash = Md5::new();
    let mut part = vec![0; usize::try_from(size(stat)).unwrap_or(0) + 1];
    let mut at = 0;
    loop {
        match rustix::io::pread(file, &mut part[..], at) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => {
                hash.update(&part[..read]);
                at += u64::try_from(read).unwrap_or(u64::MAX);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        // Somebody is writing into it.
        if at > HASHED {
            return Ok(token(stat));
        }
    }
}

fn token(stat: &Stat) -> String {
    let told = format!("{} {} {}", stat.st_ino, size(stat), mtime(stat));
    format!("{}-1", hex(&Md5::digest(told.as_bytes())))
}

fn mtime(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}
