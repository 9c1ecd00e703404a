//! Reading objects.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath};

use super::disk::{Disk, meta};
use super::fault::failed;
use super::resolve::READ;
use crate::{Object, ObjectMeta, Result, StorageError};

/// How much is read at a time, and held.
const READ_BYTES: u64 = 1 << 18;

/// An object that was opened, with what was read of it at once.
pub(super) struct Opened {
    file: OwnedFd,
    meta: ObjectMeta,
    range: Range<u64>,
    first: Bytes,
}

impl Disk {
    pub(super) fn get(&self, job: &JobId, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Opened> {
        let (file, stat) = self.find(job, path.as_str(), READ)?;
        self.opened(file, meta(path, &stat), range)
    }

    /// Reads the beginning of an open object, or of the part of it in `range`.
    pub(super) fn opened(
        &self,
        file: OwnedFd,
        meta: ObjectMeta,
        range: Option<Range<u64>>,
    ) -> Result<Opened> {
        let range = match range {
            None => 0..meta.size,
            Some(range) if range.start >= meta.size || range.start > range.end => {
                return Err(StorageError::Range { size: meta.size });
            }
            Some(range) => range.start..range.end.min(meta.size),
        };
        let first = read(&file, &range).map_err(|errno| {
            failed(format_args!("read {:?} in {}", meta.path, self.path.display()), errno)
        })?;
        Ok(Opened { file, meta, range, first })
    }
}

impl From<Opened> for Object {
    fn from(opened: Opened) -> Self {
        let Opened { file, meta, range, first } = opened;
        let end = range.end;
        let file = Arc::new(file);
        let start = (range.start, Some(Ok(first)));
        let body = futures::stream::unfold(start, move |(at, ready)| {
            let file = Arc::clone(&file);
            async move {
                if at >= end {
                    return None;
                }
                let part = match ready {
                    Some(part) => part,
                    None => match tokio::task::spawn_blocking(move || read(&file, &(at..end))).await {
                        Ok(part) => part.map_err(std::io::Error::from),
                        Err(error) => Err(std::io::Error::other(error)),
                    },
                };
                match part {
                    // Files are replaced as a whole, but a person may cut one short.
                    Ok(part) if part.is_empty() => {
                        Some((Err(std::io::ErrorKind::UnexpectedEof.into()), (end, None)))
                    }
                    Ok(part) => {
                        let next = at + u64::try_from(part.len()).unwrap_or(u64::MAX);
                        Some((Ok(part), (next, None)))
                    }
                    Err(error) => Some((Err(error), (end, None))),
                }
            }
        });
        Self { meta, range, body: body.boxed() }
    }
}

/// Reads the beginning of `range`; nothing only at its end or the file's.
fn read(file: &OwnedFd, range: &Range<u64>) -> rustix::io::Result<Bytes> {
    let wanted = usize::try_from((range.end - range.start).min(READ_BYTES)).unwrap_or(usize::MAX);
    let mut part = Vec::with_capacity(wanted);
    while part.len() < wanted {
        let at = range.start + u64::try_from(part.len()).unwrap_or(u64::MAX);
        match rustix::io::pread(file, spare_capacity(&mut part), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    part.truncate(wanted);
    Ok(part.into())
}
