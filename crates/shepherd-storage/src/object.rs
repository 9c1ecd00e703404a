//! Objects and what is known of them.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use shepherd_job::{ObjectPath, Timestamp};

/// A body in pieces. An error from it aborts the operation that reads it, and
/// leaves nothing behind.
pub type Body = BoxStream<'static, std::io::Result<Bytes>>;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key below the job.
    pub path: ObjectPath,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: Timestamp,
}

/// An object being read.
pub struct Object {
    /// What it is.
    pub meta: ObjectMeta,
    /// Which bytes of it the body holds.
    pub range: Range<u64>,
    /// The bytes.
    pub body: Body,
}

/// A body that is in memory already.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    futures::stream::once(async move { Ok(bytes) }).boxed()
}
