//! Writing objects: aside, and then renamed to their place; [whole jobs](super::whole), too.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath};
use tokio::task::JoinHandle;

use super::buckets::{BucketError, Condition};
use super::disk::{Disk, meta};
use super::fault::{failed, failed_io, is_absent, is_refused};
use super::key::{AREA, encoded, is_plain, split};
use super::resolve::{AT, Parents};
use super::temp::Temp;
use super::{blocking, joined};
use crate::{Body, JobObjects, ObjectMeta, Put, Result, SmallPut, StorageError};

/// How much of a body is gathered before it is written. At most twice that is
/// held: one part is written while the next one arrives.
const PART_BYTES: usize = 1 << 20;

/// How many pieces a part has at most: a body may come byte by byte.
const MAX_PIECES: usize = 4096;

/// How often a placing is tried while others remove the directory under it.
const MAX_PLACE_TRIES: usize = 16;

/// An object on its way in.
pub(super) struct Upload {
    pub(super) temp: Temp,
    pub(super) file: File,
}

/// Streams `body` into an object.
pub(super) async fn put(disk: &Arc<Disk>, job: &JobId, path: &ObjectPath, body: Body) -> Result<ObjectMeta> {
    let write = |disk: &Disk, upload, part: &[Bytes]| disk.write(upload, part).map(Some);
    let (upload, part) = stream(disk, None, body, write).await?;
    let (job, path) = (job.clone(), path.clone());
    blocking(disk, move |disk| {
        let upload = disk.write(upload, &part)?;
        disk.finish(upload, &job, &path, &mut Parents::default())
    })
    .await
}

/// Hands `body` to `write`, which turns one state into the next, part by part and
/// on blocking threads. The last part is given back with the state that it meets:
/// writing it is best done together with what follows.
pub(super) async fn stream<S: Send + 'static>(
    disk: &Arc<Disk>,
    state: S,
    mut body: Body,
    write: fn(&Disk, S, &[Bytes]) -> Result<S>,
) -> Result<(S, Vec<Bytes>)> {
    const HERE: &str = "the state is here or with the part being written";
    let mut part = Vec::new();
    let mut held = 0;
    let mut state = Some(state);
    // The part being written. When this future is dropped, it ends by itself, and
    // the temporary file goes with its outcome.
    let mut writing: Option<JoinHandle<Result<S>>> = None;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| StorageError::Invalid(format!("the body broke off: {error}")))?;
        if piece.is_empty() {
            continue;
        }
        held += piece.len();
        part.push(piece);
        if held >= PART_BYTES || part.len() >= MAX_PIECES {
            let state = joined(writing.take()).await?.or(state.take()).expect(HERE);
            let (disk, part) = (Arc::clone(disk), std::mem::take(&mut part));
            writing = Some(tokio::task::spawn_blocking(move || write(&disk, state, &part)));
            held = 0;
        }
    }
    let state = joined(writing.take()).await?.or(state).expect(HERE);
    Ok((state, part))
}

impl Disk {
    /// Stores the small objects of each job.
    pub(super) fn put_small(&self, jobs: &[JobObjects]) -> Vec<Result<()>> {
        let mut parents = Parents::default();
        let mut put = |JobObjects { job, objects }: &JobObjects| {
            if self.put_whole(job, objects) {
                return Ok(());
            }
            objects.iter().try_for_each(|object| self.put_one(job, object, &mut parents))
        };
        jobs.iter().map(&mut put).collect()
    }

    fn put_one(
        &self,
        job: &JobId,
        SmallPut { path, bytes, how }: &SmallPut,
        parents: &mut Parents,
    ) -> Result<()> {
        let write = || self.write(None, std::slice::from_ref(bytes)).map(|upload| upload.temp);
        match how {
            Put::Replace => self.put_temp(write()?, job, path, parents),
            Put::Adopt(file) => match self.temps.take(file, bytes.len()) {
                Some(temp) => self.put_temp(temp, job, path, parents),
                None => self.put_temp(write()?, job, path, parents),
            },
            Put::New | Put::Missing => {
                if self.holds_object(job, path)? {
                    return Ok(());
                }
                let temp = write()?;
                match self.place(&temp, job, path, parents, RenameFlags::NOREPLACE) {
                    Ok(()) => temp.placed(),
                    // It came between the two steps.
                    Err(_) if self.holds_object(job, path)? => {}
                    Err(error) => return Err(error),
                }
                Ok(())
            }
            Put::Beside => match self.place_object(write()?, job, path, &Condition::Always) {
                Ok(()) | Err(BucketError::NoBucket) => Ok(()),
                Err(BucketError::Storage(error)) => Err(error),
                Err(error) => Err(StorageError::Unavailable(error.to_string())),
            },
        }
    }

    fn put_temp(&self, temp: Temp, job: &JobId, path: &ObjectPath, parents: &mut Parents) -> Result<()> {
        self.place(&temp, job, path, parents, RenameFlags::empty())?;
        temp.placed();
        Ok(())
    }

    fn holds_object(&self, job: &JobId, path: &ObjectPath) -> Result<bool> {
        match self.find(job, path.as_str(), OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, upload: Option<Upload>, part: &[Bytes]) -> Result<Upload> {
        let mut upload = match upload {
            Some(upload) => upload,
            None => {
                let (temp, file) =
                    self.temps.create().map_err(|errno| failed("create a temporary file", errno))?;
                Upload { temp, file }
            }
        };
        let written = match part {
            [] => Ok(()),
            [one] => upload.file.write_all(one),
            many => {
                // Gathers what is small; what is large passes by its buffer.
                let mut file = std::io::BufWriter::with_capacity(1 << 16, &mut upload.file);
                many.iter().try_for_each(|piece| file.write_all(piece)).and_then(|()| file.flush())
            }
        };
        written.map_err(|error| failed_io("write a temporary file", &error))?;
        Ok(upload)
    }

    fn finish(
        &self,
        upload: Upload,
        job: &JobId,
        path: &ObjectPath,
        parents: &mut Parents,
    ) -> Result<ObjectMeta> {
        let stat = rustix::fs::fstat(&upload.file)
            .map_err(|errno| failed(format_args!("look at {path:?} of job {job}"), errno))?;
        self.place(&upload.temp, job, path, parents, RenameFlags::empty())?;
        upload.temp.placed();
        Ok(meta(path, &stat))
    }

    /// Renames a temporary to where the key belongs.
    fn place(
        &self,
        temp: &Temp,
        job: &JobId,
        path: &ObjectPath,
        parents: &mut Parents,
        flags: RenameFlags,
    ) -> Result<()> {
        let key = path.as_str();
        if is_plain(key) {
            let place = format!("{job}/{key}");
            match self.place_below(&self.root, temp, &place, parents, flags) {
                Ok(made) => {
                    if !made.iter().any(|dir| dir == job.as_str()) {
                        self.unlink_encoded(job, key)?;
                    }
                    self.changes.note();
                    return Ok(());
                }
                // Only where nothing is to be replaced does this say that an object is there.
                Err(errno)
                    if is_refused(errno)
                        && !(errno == Errno::EXIST && flags.contains(RenameFlags::NOREPLACE)) => {}
                Err(errno) => return Err(failed(format_args!("store {path} of job {job}"), errno)),
            }
        }
        let place = format!("{job}/{}", encoded(key));
        self.place_below(&self.root, temp, &place, parents, flags)
            .map_err(|errno| failed(format_args!("store {key:?} of job {job}"), errno))?;
        self.changes.note();
        Ok(())
    }

    /// Renames a temporary to `place`, and gives the directories made for it.
    pub(super) fn place_at(
        &self,
        temp: &Temp,
        place: &str,
        parents: &mut Parents,
    ) -> rustix::io::Result<Vec<String>> {
        self.place_below(&self.root, temp, place, parents, RenameFlags::empty())
    }

    /// The same below a directory. On a file system that cannot see to it that nothing is
    /// replaced, it may be.
    pub(super) fn place_below(
        &self,
        root: &OwnedFd,
        temp: &Temp,
        place: &str,
        parents: &mut Parents,
        mut flags: RenameFlags,
    ) -> rustix::io::Result<Vec<String>> {
        let (parent, name) = split(place);
        let mut tries = MAX_PLACE_TRIES;
        loop {
            let mut made = Vec::new();
            let placed = parents
                .make(self.resolve, root, parent, &mut made)
                .and_then(|dir| rustix::fs::renameat_with(temp.dir(), temp.name(), dir, name, flags));
            let Err(errno) = placed else { return Ok(made) };
            parents.forget();
            self.resolve.unmake(root, &made);
            if errno == Errno::INVAL && !flags.is_empty() {
                flags = RenameFlags::empty();
                continue;
            }
            tries -= 1;
            // The directory was removed between the two steps.
            if errno != Errno::NOENT || tries == 0 {
                return Err(errno);
            }
        }
    }

    /// Removes the encoded object of a key that has its own path now.
    fn unlink_encoded(&self, job: &JobId, key: &str) -> Result<()> {
        let unlinked = self.resolve.open(&self.root, &format!("{job}/{AREA}"), AT).and_then(|_| {
            self.resolve.unlink(&self.root, &format!("{job}/{}", encoded(key)), AtFlags::empty())
        });
        match unlinked {
            Ok(()) => Ok(()),
            Err(errno) if is_absent(errno) => Ok(()),
            Err(errno) => Err(failed(format_args!("replace {key:?} of job {job}"), errno)),
        }
    }
}
