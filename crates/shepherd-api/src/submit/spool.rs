//! Where a payload lies while it arrives.
//!
//! A small one stays in memory and is handed over as it is. A larger one goes to
//! a file without a name, which is gone when it is closed, whatever happens to
//! the daemon; so does one that would be small enough, while the payloads that
//! arrive at the same time use up the memory set aside for them all.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use shepherd_core::Data;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use crate::error::ApiError;
use crate::submit::fields::Refused;

/// The largest payload that is held in memory.
const MAX_HELD: usize = 1 << 20;
/// What every payload may hold without asking.
const FREE_BYTES: usize = 16 * 1024;
/// What all payloads together may hold beyond that.
const BUDGET: usize = 64 << 20;
/// How much is written to a file at once.
const BLOCK: usize = 64 * 1024;
/// How much is read from it at once.
const READ_BLOCK: usize = 256 * 1024;

/// What the payloads of one API share.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    held: AtomicUsize,
}

impl Spool {
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir, held: AtomicUsize::new(0) }
    }

    /// Sets `bytes` of the common memory aside, if there are so many.
    fn reserve(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= BUDGET);
        // Only a count: nothing else is ordered by it.
        self.held.try_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    async fn create(&self) -> Result<File, ApiError> {
        let dir = self.dir.clone();
        let created = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir)?;
            tempfile::tempfile_in(&dir)
        });
        let file = created.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        let mut file = File::from_std(file);
        file.set_max_buf_size(READ_BLOCK);
        Ok(file)
    }
}

impl From<io::Error> for ApiError {
    /// The spool's files, the only files that the API itself touches.
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return Self::Full;
        }
        tracing::warn!(%error, "the directory for payloads cannot be used");
        Self::Unavailable(format!("the directory for payloads cannot be used: {}", error.kind()))
    }
}

/// A payload that is arriving. To be kept until the job is submitted, since its
/// share of the memory is given back when it is dropped.
pub(super) struct Payload<'a> {
    /// What came and was not written yet; to be appended to.
    pub(super) text: Vec<u8>,
    spool: &'a Spool,
    file: Option<File>,
    reserved: usize,
}

impl<'a> Payload<'a> {
    pub(super) const fn new(spool: &'a Spool) -> Self {
        Self { text: Vec::new(), spool, file: None, reserved: 0 }
    }

    /// Brings what was appended to where it can stay. To be called after every
    /// piece.
    pub(super) async fn settle(&mut self) -> Result<(), ApiError> {
        if self.file.is_none() && !self.may_hold() {
            self.file = Some(self.spool.create().await?);
        }
        if self.file.is_some() && self.text.len() >= BLOCK {
            self.write().await?;
        }
        Ok(())
    }

    fn may_hold(&mut self) -> bool {
        let wanted = self.text.len().saturating_sub(FREE_BYTES);
        if self.text.len() > MAX_HELD {
            return false;
        }
        if wanted > self.reserved {
            if !self.spool.reserve(wanted - self.reserved) {
                return false;
            }
            self.reserved = wanted;
        }
        true
    }

    /// Writes all whole characters of the text.
    async fn write(&mut self) -> Result<(), ApiError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let whole = match std::str::from_utf8(&self.text) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Refused::NotAnObject.into()),
        };
        file.write_all(&self.text[..whole]).await?;
        self.text.drain(..whole);
        if self.text.capacity() > 2 * BLOCK {
            self.text.shrink_to(2 * BLOCK);
            self.spool.release(std::mem::take(&mut self.reserved));
        }
        Ok(())
    }

    /// What the job is submitted with; where the payload is empty, what is in storage.
    pub(super) async fn finish(&mut self) -> Result<Data, ApiError> {
        self.write().await?;
        let Some(mut file) = self.file.take() else {
            if std::str::from_utf8(&self.text).is_err() {
                return Err(Refused::NotAnObject.into());
            }
            let text = std::mem::take(&mut self.text);
            return Ok(if text.is_empty() { Data::Stored } else { Data::Payload(Bytes::from(text)) });
        };
        if !self.text.is_empty() {
            return Err(Refused::NotAnObject.into());
        }
        file.flush().await?;
        file.seek(SeekFrom::Start(0)).await?;
        Ok(Data::Stream(ReaderStream::with_capacity(file, READ_BLOCK).boxed()))
    }
}

impl Drop for Payload<'_> {
    fn drop(&mut self) {
        self.spool.release(self.reserved);
    }
}

#[cfg(test)]
mod tests;
