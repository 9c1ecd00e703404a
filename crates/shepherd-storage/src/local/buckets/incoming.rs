//! Bytes on their way in: written aside, hashed, and shown to who verifies them.

use std::error::Error;
use std::fs::File;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::{BucketError, Buckets, Result};
use crate::Body;
use crate::local::attributes::{Attributes, hex};
use crate::local::disk::{Disk, size};
use crate::local::fault::failed;
use crate::local::put::{Upload, stream};
use crate::local::temp::Temp;

/// The size of a part in which bodies are written.
const SMALL: u64 = 1 << 20;

/// Looks at the bytes of an object on their way in, on a blocking thread.
pub trait Inspect: Send + 'static {
    /// The next bytes.
    fn update(&mut self, part: &[u8]);

    /// All bytes were seen, `size` of them, whose MD5 in hexadecimal digits is
    /// `md5`. Nothing is visible yet.
    ///
    /// # Errors
    /// Why they are not the object that was meant. Nothing is stored then, and the
    /// caller gets this back as [`BucketError::Refused`].
    fn finish(
        self: Box<Self>,
        md5: &str,
        size: u64,
    ) -> std::result::Result<Attributes, Box<dyn Error + Send + Sync>>;
}

/// Bytes to be stored.
pub struct Content {
    /// The bytes.
    pub body: Body,
    /// How many they are, if that is known: a small body is not worth to be looked
    /// for its bucket before it is read.
    pub size: Option<u64>,
    /// Who sees them.
    pub inspect: Box<dyn Inspect>,
}

impl Content {
    /// Whether it is read in one part.
    pub(super) fn is_small(&self) -> bool {
        self.size.is_some_and(|size| size <= SMALL)
    }
}

/// Bytes on their way in.
pub(super) struct Incoming {
    upload: Option<Upload>,
    md5: Md5,
    inspect: Box<dyn Inspect>,
}

/// Bytes that are in, and not visible.
pub(super) struct Arrived {
    pub(super) temp: Temp,
    pub(super) file: File,
    pub(super) md5: String,
    pub(super) attributes: Attributes,
}

impl Incoming {
    fn new(inspect: Box<dyn Inspect>) -> Self {
        Self { upload: None, md5: Md5::new(), inspect }
    }

    fn write(mut self, disk: &Disk, part: &[Bytes]) -> crate::Result<Self> {
        self.upload = Some(disk.write(self.upload, part)?);
        for piece in part {
            self.md5.update(piece);
            self.inspect.update(piece);
        }
        Ok(self)
    }

    /// The last part, and what `Inspect` says of the whole.
    pub(super) fn finish(self, disk: &Disk, part: &[Bytes]) -> Result<Arrived> {
        let Self { upload, md5, inspect } = self.write(disk, part)?;
        let Upload { temp, file } = match upload {
            Some(upload) => upload,
            None => disk.write(None, &[])?,
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("look at a temporary file", errno))?;
        let md5 = hex(&md5.finalize());
        let attributes = inspect.finish(&md5, size(&stat)).map_err(BucketError::Refused)?;
        Ok(Arrived { temp, file, md5, attributes })
    }
}

impl Buckets {
    /// Reads a body to its last part, which is given back unwritten.
    pub(super) async fn receive(&self, content: Content) -> Result<(Incoming, Vec<Bytes>)> {
        let incoming = Incoming::new(content.inspect);
        let write = |disk: &Disk, incoming: Incoming, part: &[Bytes]| incoming.write(disk, part);
        Ok(stream(&self.disk, incoming, content.body, write).await?)
    }
}
