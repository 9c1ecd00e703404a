//! An upload's parts, and the object that they become.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest as _, Md5};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath};

use super::files::boot;
use super::{About, Part, Stored, Upload, is_id};
use crate::StorageError;
use crate::local::attributes::{Attributes, CHECKSUM, Described, UPLOAD, hash, hex, parts_line, record};
use crate::local::buckets::objects::{copy_part, reopen};
use crate::local::buckets::{BucketError, Condition, Inspect, Result};
use crate::local::disk::{Disk, modified, size};
use crate::local::fault::{failed, failed_io};
use crate::local::temp::Temp;

impl Disk {
    /// The parts of an upload, each once, in the order of their numbers.
    pub(super) fn parts(&self, dir: &OwnedFd) -> Result<Vec<Stored>> {
        let mut parts = self.part_files(dir)?;
        parts.sort_by(|a, b| (a.part.number, b.time, &b.name).cmp(&(b.part.number, a.time, &a.name)));
        parts.dedup_by_key(|stored| stored.part.number);
        Ok(parts)
    }

    pub(super) fn part_files(&self, dir: &OwnedFd) -> Result<Vec<Stored>> {
        let fail = |errno| BucketError::from(failed("list an upload's parts", errno));
        let mut parts = Vec::new();
        for entry in Dir::read_from(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Some((name, number, time, tag, sums)) = entry.file_name().to_str().ok().and_then(part_name)
            else {
                continue;
            };
            match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    let part = Part { number, tag, size: size(&stat), modified: modified(&stat), sums };
                    parts.push(Stored { name, time, part });
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(parts)
    }

    pub(super) fn place_part(
        &self,
        dir: &OwnedFd,
        temp: Temp,
        file: &File,
        number: u32,
        tag: String,
        sums: Attributes,
    ) -> Result<Part> {
        let fail = |errno| match errno {
            Errno::NOENT => BucketError::NoUpload,
            errno => failed(format_args!("store part {number}"), errno).into(),
        };
        let stat = rustix::fs::fstat(file).map_err(fail)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let mut name = format!("{number:05}.{time:016x}.{tag}");
        for (sum, value) in sums.iter().filter_map(|(sum, value)| Some((sum.strip_prefix(CHECKSUM)?, value)))
        {
            // Base64, of which a slash is no character of a name.
            name.push_str(&format!(".{sum}={}", value.replace('/', "_")));
        }
        rustix::fs::renameat(temp.dir(), temp.name(), dir, &name).map_err(fail)?;
        temp.placed();
        self.changes.note();
        for old in self.part_files(dir)? {
            if old.part.number == number && old.time < time {
                // One that stays is not looked at, and goes with the upload.
                let _ = rustix::fs::unlinkat(dir, &old.name, AtFlags::empty());
            }
        }
        Ok(Part { number, tag, size: size(&stat), modified: modified(&stat), sums })
    }

    /// Shows a part's bytes to an inspector.
    pub(super) fn show_part(
        &self,
        dir: &OwnedFd,
        part: &Part,
        inspect: Box<dyn Inspect>,
    ) -> Result<Attributes> {
        let mut files = self.part_files(dir)?.into_iter();
        let stored = files.find(|stored| stored.part.number == part.number && stored.part.tag == part.tag);
        let stored = stored.ok_or(BucketError::NoPart(part.number))?;
        let file = open_part(dir, &stored)?;
        show(&file, inspect)
            .map_err(|error| failed_io(format_args!("read part {}", part.number), &error))?
            .map_err(BucketError::Refused)
    }

    /// The object, if it was made of these parts of this upload.
    pub(super) fn completed(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        id: &str,
        parts: &[(u32, String)],
    ) -> Result<Option<Described>> {
        let described = match self.describe(bucket, key) {
            Ok(described) => described,
            Err(BucketError::NoObject) => return Ok(None),
            Err(error) => return Err(error),
        };
        let tag = whole_tag(parts.iter().map(|(_, tag)| tag.as_str()));
        let is_it = described.trusted && described.attributes.get(UPLOAD) == Some(id) && described.tag == tag;
        Ok(is_it.then_some(described))
    }

    pub(super) fn assemble(
        &self,
        dir: &OwnedFd,
        about: About,
        parts: &[Stored],
        bucket: &JobId,
        more: &Attributes,
        condition: &Condition,
    ) -> Result<Described> {
        let Upload { key, attributes, id, .. } = about.upload;
        let fail = |error: &std::io::Error| failed_io(format_args!("complete {key:?} of {bucket}"), error);
        let doubted = about.boot != boot();
        let open = |stored: &Stored| {
            let mut file = open_part(dir, stored)?;
            if doubted && hash(&mut file).map_err(|error| fail(&error))? != stored.part.tag {
                return Err(BucketError::NoPart(stored.part.number));
            }
            Ok(file)
        };
        let (temp, file) = if let [only] = parts {
            let file = open(only)?;
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let temp = self.temps.reserve();
            rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now })
                .map_err(|errno| failed(format_args!("complete {key:?} of {bucket}"), errno))?;
            rustix::fs::linkat(dir, &only.name, temp.dir(), temp.name(), AtFlags::empty())
                .map_err(|errno| failed(format_args!("complete {key:?} of {bucket}"), errno))?;
            (temp, file)
        } else {
            let (temp, file) =
                self.temps.create().map_err(|errno| failed("create a temporary file", errno))?;
            for stored in parts {
                let from = open(stored)?;
                let copied = copy_part(&from, &file, 0..stored.part.size).map_err(|error| fail(&error))?;
                if copied != stored.part.size {
                    return Err(BucketError::NoPart(stored.part.number));
                }
            }
            (temp, file)
        };
        let sizes: Vec<u64> = parts.iter().map(|stored| stored.part.size).collect();
        let ours = Attributes::new([(UPLOAD.to_owned(), id)].into_iter().chain(parts_line(&sizes)));
        let ours = ours.map_err(|name| StorageError::Invalid(format!("`{name}` cannot be kept")))?;
        let attributes = attributes
            .with(more, |name| !name.starts_with(CHECKSUM))
            .with(&ours, |name| ours.get(name).is_none());
        let tag = whole_tag(parts.iter().map(|stored| stored.part.tag.as_str()));
        let tag = record(&file, &tag, &attributes)?;
        self.place_object(temp, bucket, &key, condition)?;
        self.described(&key, &file, tag, attributes)
    }
}

fn open_part(dir: &OwnedFd, stored: &Stored) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, &stored.name, flags, Mode::empty()) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::NOENT) => Err(BucketError::NoPart(stored.part.number)),
        Err(errno) => Err(failed(format_args!("open part {}", stored.part.number), errno).into()),
    }
}

/// The tag of an object made of parts with these tags.
fn whole_tag<'a>(tags: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = tags.len();
    let md5 = tags.fold(Md5::new(), |md5, tag| md5.chain_update(unhex(tag)));
    format!("{}-{count}", hex(&md5.finalize()))
}

/// Shows a whole file to an inspector.
fn show(
    file: &File,
    mut inspect: Box<dyn Inspect>,
) -> std::io::Result<std::result::Result<Attributes, Box<dyn std::error::Error + Send + Sync>>> {
    let mut file = reopen(file)?;
    let (mut md5, mut size) = (Md5::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        md5.update(&buffer[..read]);
        inspect.update(&buffer[..read]);
        size += read as u64;
    }
    Ok(inspect.finish(&hex(&md5.finalize()), size))
}

/// The name of a part's file, taken apart.
fn part_name(name: &str) -> Option<(String, u32, u64, String, Attributes)> {
    let mut fields = name.split('.');
    let (number, time, tag) = (fields.next()?, fields.next()?, fields.next().filter(|tag| is_id(tag))?);
    let sum = |field: &str| {
        let (sum, value) = field.split_once('=')?;
        Some((format!("{CHECKSUM}{sum}"), value.replace('_', "/")))
    };
    let sums: Option<Vec<_>> = fields.map(sum).collect();
    let sums = Attributes::new(sums?).ok()?;
    Some((name.to_owned(), number.parse().ok()?, u64::from_str_radix(time, 16).ok()?, tag.to_owned(), sums))
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
    text.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |byte, b| byte << 4 | digit(*b))).collect()
}
