//! An upload's directory.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

use rustix::fs::Dir;
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath, Timestamp};

use super::{ABOUT, About, CLEARED_EVERY, UPLOAD_RETENTION, UPLOADS, Upload, is_id};
use crate::local::attributes::Attributes;
use crate::local::buckets::{BucketError, Result};
use crate::local::disk::{Disk, meta, modified};
use crate::local::fault::{failed, failed_io, is_absent};
use crate::local::key::{decoded, encoded};
use crate::local::resolve::{AT, LIST, READ};

impl Disk {
    pub(super) fn begin_upload(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        attributes: &Attributes,
    ) -> Result<String> {
        self.open_bucket(bucket)?;
        self.clear_old_uploads_at_times();
        let fail = |errno| failed(format_args!("begin an upload of {key:?} to {bucket}"), errno);
        let id = uuid::Uuid::now_v7().simple().to_string();
        let dir = self.resolve.make(&self.root, &format!("{UPLOADS}/{id}"), &mut Vec::new()).map_err(fail)?;
        let (temp, mut file) = self.temps.create().map_err(fail)?;
        let text = format!("{bucket}\n{}\n{}\n{}", encoded(key.as_str()), boot(), attributes.lines());
        file.write_all(text.as_bytes())
            .map_err(|error| failed_io(format_args!("begin an upload of {key:?} to {bucket}"), &error))?;
        rustix::fs::renameat(temp.dir(), temp.name(), &dir, ABOUT).map_err(fail)?;
        temp.placed();
        self.changes.note();
        Ok(id)
    }

    /// The directory of an upload of this object.
    pub(super) fn upload(&self, bucket: &JobId, key: &ObjectPath, id: &str) -> Result<(OwnedFd, About)> {
        let (dir, about) = self.about(id)?;
        if about.bucket != bucket.as_str() || about.upload.key != *key {
            return Err(BucketError::NoUpload);
        }
        self.open_bucket(bucket)?;
        Ok((dir, about))
    }

    pub(super) fn about(&self, id: &str) -> Result<(OwnedFd, About)> {
        if !is_id(id) {
            return Err(BucketError::NoUpload);
        }
        let fail = |errno| match errno {
            errno if is_absent(errno) => BucketError::NoUpload,
            errno => failed(format_args!("read the upload {id}"), errno).into(),
        };
        let dir = self.resolve.open(&self.root, &format!("{UPLOADS}/{id}"), LIST).map_err(fail)?;
        let file = self.resolve.open(&dir, ABOUT, READ).map_err(fail)?;
        let stat = rustix::fs::fstat(&file).map_err(fail)?;
        let mut text = String::new();
        File::from(file)
            .read_to_string(&mut text)
            .map_err(|error| failed_io(format_args!("read the upload {id}"), &error))?;
        let parsed = || {
            let mut lines = text.splitn(4, '\n');
            let (bucket, key, boot) = (lines.next()?, lines.next()?, lines.next()?);
            Some(About {
                bucket: bucket.to_owned(),
                boot: boot.to_owned(),
                upload: Upload {
                    id: id.to_owned(),
                    key: decoded(key)?,
                    made: Timestamp::default(),
                    attributes: Attributes::parse(lines.next()?)?,
                },
            })
        };
        // One that was cut short by a stop of the machine.
        let mut about = parsed().ok_or(BucketError::NoUpload)?;
        about.upload.made = meta(&about.upload.key, &stat).modified;
        Ok((dir, about))
    }

    pub(super) fn uploads(&self, bucket: &JobId) -> Result<Vec<Upload>> {
        let mut found = Vec::new();
        for id in self.upload_ids()? {
            match self.about(&id) {
                Ok((_, about)) if about.bucket == bucket.as_str() => found.push(about.upload),
                Ok(_) | Err(BucketError::NoUpload) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(super) fn upload_ids(&self) -> Result<Vec<String>> {
        let fail = |errno| BucketError::from(failed(format_args!("list {UPLOADS}"), errno));
        let dir = match self.resolve.open(&self.root, UPLOADS, LIST) {
            Ok(dir) => dir,
            Err(errno) if is_absent(errno) => return Ok(Vec::new()),
            Err(errno) => return Err(fail(errno)),
        };
        let mut ids = Vec::new();
        for entry in Dir::new(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            ids.extend(entry.file_name().to_str().ok().filter(|name| is_id(name)).map(str::to_owned));
        }
        Ok(ids)
    }

    pub(super) fn remove_upload(&self, id: &str) -> crate::Result<()> {
        let temp = self.temps.reserve();
        let uploads = match self.resolve.open(&self.root, UPLOADS, AT) {
            Ok(dir) => dir,
            Err(errno) if is_absent(errno) => return Ok(()),
            Err(errno) => return Err(failed(format_args!("open {UPLOADS}"), errno)),
        };
        match rustix::fs::renameat(uploads, id, temp.dir(), temp.name()) {
            Ok(()) => {
                self.changes.note();
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(format_args!("remove the upload {id}"), errno)),
        }
    }

    /// Removes the uploads into a bucket that is gone.
    pub(in crate::local) fn abort_uploads(&self, bucket: &JobId) {
        let aborted = self
            .uploads(bucket)
            .and_then(|uploads| uploads.iter().try_for_each(|upload| Ok(self.remove_upload(&upload.id)?)));
        if let Err(error) = aborted {
            tracing::warn!(%bucket, %error, "uploads into a removed bucket stay until they are old");
        }
    }

    /// The same as [`clear_old_uploads`](Self::clear_old_uploads), at most once in a
    /// while: a program may run for years.
    fn clear_old_uploads_at_times(&self) {
        let mut cleared = self.uploads_cleared.lock().unwrap_or_else(PoisonError::into_inner);
        if cleared.elapsed() >= CLEARED_EVERY {
            *cleared = Instant::now();
            drop(cleared);
            self.clear_old_uploads();
        }
    }

    /// Removes uploads that nobody goes on with.
    pub(in crate::local) fn clear_old_uploads(&self) {
        let now = Timestamp::from(SystemTime::now());
        let clear = || {
            for id in self.upload_ids()? {
                let path = format!("{UPLOADS}/{id}");
                let Ok(dir) = self.resolve.open(&self.root, &path, AT) else { continue };
                let stat = rustix::fs::fstat(&dir).map_err(|errno| failed(&path, errno))?;
                if now.since(modified(&stat)) > UPLOAD_RETENTION {
                    self.remove_upload(&id)?;
                }
            }
            Ok::<(), BucketError>(())
        };
        if let Err(error) = clear() {
            tracing::warn!(%error, "old uploads cannot be removed");
        }
    }
}

/// What tells one run of the machine from the next.
pub(super) fn boot() -> String {
    // Where it cannot be told, parts are always read again.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| uuid::Uuid::now_v7().to_string(), |id| id.trim().to_owned())
}
