//! Objects that come in parts.
//!
//! ```text
//! DIR/.shepherd/uploads/<id>/about                        whose it is, and its attributes
//! DIR/.shepherd/uploads/<id>/<number>.<time>.<md5>[.<name>=<sum>...]   a part
//! ```
//! An upload survives the process: its parts are files of their own, and their
//! names say what is known of them. Of two files for one part the later counts.
//! A part is not synced, since most are gone before the kernel writes them. So a
//! machine that stopped without a word may have lost some of a part's bytes: parts
//! of an upload that began before the machine did are read again when they are put
//! together.
//!
//! An object has the id of its upload, so that a completion whose answer was lost is
//! answered again.
//!
//! An upload that nothing was added to for [`UPLOAD_RETENTION`] is removed at an open.

mod files;
mod parts;

use std::fs::File;
use std::ops::Range;
use std::time::Duration;

use shepherd_job::{JobId, ObjectPath, Timestamp};

use super::incoming::Content;
use super::objects::{copy_part, reopen};
use super::{BucketError, Buckets, Condition, Inspect, Result, Source};
use crate::local::attributes::{Attributes, Described, describe, hash};
use crate::local::fault::{failed, failed_io};

const UPLOADS: &str = ".shepherd/uploads";
const ABOUT: &str = "about";
/// How long an upload is kept after its last part.
const UPLOAD_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often those that are older are looked for.
const CLEARED_EVERY: Duration = Duration::from_secs(3600);

/// An upload that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// What names it; its name is later than those of older uploads.
    pub id: String,
    /// The object it is to become.
    pub key: ObjectPath,
    /// When it was begun.
    pub made: Timestamp,
    /// What the object is to have.
    pub attributes: Attributes,
}

/// A part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its place among the others.
    pub number: u32,
    /// The MD5 of its bytes in hexadecimal digits.
    pub tag: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored.
    pub modified: Timestamp,
    /// The checksums that are known of its bytes, `x-amz-checksum-NAME`.
    pub sums: Attributes,
}

/// What becomes of an upload.
pub struct Completion {
    /// Its parts by number and tag, in their order.
    pub parts: Vec<(u32, String)>,
    /// How many bytes all but the last must have at least.
    pub smallest: u64,
    /// What the object is to have besides what was said when its upload began. Those
    /// of the upload that speak of checksums are not the object's.
    pub attributes: Attributes,
    /// What must hold.
    pub condition: Condition,
}

/// What the file beside an upload's parts says.
struct About {
    bucket: String,
    boot: String,
    upload: Upload,
}

/// A part's file.
struct Stored {
    name: String,
    time: u64,
    part: Part,
}

impl Buckets {
    /// Begins an upload.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`].
    pub async fn begin(&self, bucket: &JobId, key: &ObjectPath, attributes: Attributes) -> Result<String> {
        let (bucket, key) = (bucket.clone(), key.clone());
        self.run(move |disk| disk.begin_upload(&bucket, &key, &attributes)).await
    }

    /// Stores a part, in place of an older one of its number.
    ///
    /// # Errors
    /// [`BucketError::NoUpload`], [`BucketError::Refused`].
    pub async fn put_part(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        id: &str,
        number: u32,
        content: Content,
    ) -> Result<Part> {
        if !content.is_small() {
            let (bucket, key, id) = (bucket.clone(), key.clone(), id.to_owned());
            self.run(move |disk| disk.upload(&bucket, &key, &id).map(drop)).await?;
        }
        let (incoming, part) = self.receive(content).await?;
        let (bucket, key, id) = (bucket.clone(), key.clone(), id.to_owned());
        self.run(move |disk| {
            let arrived = incoming.finish(disk, &part)?;
            let (dir, _) = disk.upload(&bucket, &key, &id)?;
            disk.place_part(&dir, arrived.temp, &arrived.file, number, arrived.md5, arrived.attributes)
        })
        .await
    }

    /// Stores bytes of an object as a part; `choose` says which, or why not.
    ///
    /// # Errors
    /// [`BucketError::NoUpload`], [`BucketError::NoObject`], [`BucketError::Range`].
    pub async fn copy_part<E: Send + 'static>(
        &self,
        from: Source,
        bucket: &JobId,
        key: &ObjectPath,
        id: &str,
        number: u32,
        choose: impl FnOnce(&Described) -> std::result::Result<Option<Range<u64>>, E> + Send + 'static,
    ) -> Result<std::result::Result<Part, E>> {
        let (bucket, key, id) = (bucket.clone(), key.clone(), id.to_owned());
        self.run(move |disk| {
            let (dir, _) = disk.upload(&bucket, &key, &id)?;
            let (source, stat) = disk.open_object(&from.bucket, &from.key)?;
            let known = describe(&from.key, &source, &stat)?;
            let range = match choose(&known) {
                Ok(range) => range.unwrap_or(0..known.meta.size),
                Err(unwanted) => return Ok(Err(unwanted)),
            };
            if range.start > range.end || range.end > known.meta.size {
                return Err(BucketError::Range(known.meta.size));
            }
            let (temp, file) =
                disk.temps.create().map_err(|errno| failed("create a temporary file", errno))?;
            let wanted = range.end - range.start;
            let md5 = copy_part(&File::from(source), &file, range)
                .and_then(|copied| {
                    if copied == wanted { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
                })
                .and_then(|()| hash(&mut reopen(&file)?))
                .map_err(|error| failed_io(format_args!("copy a part of {key:?} of {bucket}"), &error))?;
            disk.place_part(&dir, temp, &file, number, md5, Attributes::default()).map(Ok)
        })
        .await
    }

    /// An upload and its parts, in the order of their numbers.
    ///
    /// # Errors
    /// [`BucketError::NoUpload`].
    pub async fn upload(&self, bucket: &JobId, key: &ObjectPath, id: &str) -> Result<(Upload, Vec<Part>)> {
        let (bucket, key, id) = (bucket.clone(), key.clone(), id.to_owned());
        self.run(move |disk| {
            let (dir, about) = disk.upload(&bucket, &key, &id)?;
            Ok((about.upload, disk.parts(&dir)?.into_iter().map(|stored| stored.part).collect()))
        })
        .await
    }

    /// Shows the bytes of a part, and gives what `inspect` says of them.
    ///
    /// # Errors
    /// [`BucketError::NoUpload`], [`BucketError::NoPart`], [`BucketError::Refused`].
    pub async fn inspect_part(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        id: &str,
        part: &Part,
        inspect: Box<dyn Inspect>,
    ) -> Result<Attributes> {
        let (bucket, key, id, part) = (bucket.clone(), key.clone(), id.to_owned(), part.clone());
        self.run(move |disk| {
            let (dir, _) = disk.upload(&bucket, &key, &id)?;
            disk.show_part(&dir, &part, inspect)
        })
        .await
    }

    /// The uploads into a bucket, in the order of their keys and ids.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`].
    pub async fn uploads(&self, bucket: &JobId) -> Result<Vec<Upload>> {
        let bucket = bucket.clone();
        self.run(move |disk| {
            disk.open_bucket(&bucket)?;
            let mut found = disk.uploads(&bucket)?;
            found.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
            Ok(found)
        })
        .await
    }

    /// Makes the object of an upload's parts. The upload stays until
    /// [`end`](Self::end), so that a call that failed can be repeated; one that made
    /// the object gives it again, while nothing else is in its place.
    ///
    /// # Errors
    /// [`BucketError::NoUpload`], [`BucketError::NoPart`], [`BucketError::PartOrder`],
    /// [`BucketError::PartTooSmall`], [`BucketError::Unmet`], [`BucketError::Refused`].
    pub async fn complete(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        id: &str,
        completion: Completion,
    ) -> Result<Described> {
        let (bucket, key, id) = (bucket.clone(), key.clone(), id.to_owned());
        self.change(move |disk| {
            if let Some(made) = disk.completed(&bucket, &key, &id, &completion.parts)? {
                return Ok(made);
            }
            let make = || {
                let Completion { parts, smallest, attributes, condition } = &completion;
                let (dir, about) = disk.upload(&bucket, &key, &id)?;
                let chosen = choose(disk.parts(&dir)?, parts, *smallest)?;
                disk.holds(condition, &bucket, &key)?;
                disk.assemble(&dir, about, &chosen, &bucket, attributes, condition)
            };
            match make() {
                // Of two at once, the other may have been faster.
                Err(error @ (BucketError::NoUpload | BucketError::NoPart(_) | BucketError::Unmet)) => {
                    disk.completed(&bucket, &key, &id, &completion.parts)?.ok_or(error)
                }
                made => made,
            }
        })
        .await
    }

    /// Removes an upload and its parts.
    ///
    /// # Errors
    /// [`BucketError::NoUpload`].
    pub async fn end(&self, bucket: &JobId, key: &ObjectPath, id: &str) -> Result<()> {
        let (bucket, key, id) = (bucket.clone(), key.clone(), id.to_owned());
        self.run(move |disk| {
            disk.upload(&bucket, &key, &id)?;
            Ok(disk.remove_upload(&id)?)
        })
        .await
    }
}

/// Finds the parts that were named.
fn choose(mut stored: Vec<Stored>, named: &[(u32, String)], smallest: u64) -> Result<Vec<Stored>> {
    let mut chosen = Vec::<Stored>::with_capacity(named.len());
    for (number, tag) in named {
        if chosen.last().is_some_and(|last| last.part.number >= *number) {
            return Err(BucketError::PartOrder(*number));
        }
        let at = stored
            .iter()
            .position(|stored| stored.part.number == *number && stored.part.tag == *tag)
            .ok_or(BucketError::NoPart(*number))?;
        chosen.push(stored.swap_remove(at));
    }
    if let Some((_, others)) = chosen.split_last()
        && let Some(small) = others.iter().find(|stored| stored.part.size < smallest)
    {
        return Err(BucketError::PartTooSmall(small.part.number));
    }
    Ok(chosen)
}

/// An id is joined to a path.
fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
