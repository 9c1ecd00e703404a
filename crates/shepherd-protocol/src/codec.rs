//! Messages as JSON, and messages in frames.
//!
//! A frame is decoded in one pass. Only when that fails is it taken apart, so
//! that one bad message does not spoil its neighbours; there, text that is no
//! Unicode is mended, because a runner written in another language may put any
//! bytes into an error's text, and that error must reach its job all the same.

mod frame;
#[cfg(test)]
mod golden;
mod lossy_utf8;
mod record;
#[cfg(test)]
mod tests;

use shepherd_job::JobError;

pub(crate) use frame::{decode, envelope};
pub(crate) use record::legacy_input;

use crate::{FromRunner, Garbage, ToRunner};

/// The longest text of an error's message, in bytes; its beginning is kept.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;
/// The longest traceback, in bytes; its end is kept.
pub(crate) const MAX_TRACEBACK: usize = 128 << 10;
/// The longest name, id or exception type, in bytes.
pub(crate) const MAX_NAME: usize = 255;
/// The longest text of a progress message, in bytes.
pub(crate) const MAX_PROGRESS: usize = 1 << 10;
/// The longest text of a log message, in bytes; its end is kept.
pub(crate) const MAX_LOG: usize = 32 << 10;

/// A message that has a form on the wire.
pub(crate) trait Wire: Sized {
    /// What a frame is parsed into.
    type Record<'de>: serde::Deserialize<'de>;

    /// What the record means.
    fn read(record: Self::Record<'_>) -> Result<Self, String>;

    /// Appends the message's JSON object.
    fn write(&self, to: &mut Vec<u8>);
}

/// Decodes a frame from a runner.
pub(crate) fn from_runner(frame: &[u8], sink: impl FnMut(Result<FromRunner, Garbage>)) {
    decode::<FromRunner>(frame, sink);
}

/// Decodes a frame from the shepherd.
pub(crate) fn to_runner(frame: &[u8], sink: impl FnMut(Result<ToRunner, Garbage>)) {
    decode::<ToRunner>(frame, sink);
}

/// Holds an error's texts within their bounds.
pub(crate) fn bounded(error: JobError) -> JobError {
    JobError {
        message: keep_head(error.message, MAX_MESSAGE),
        exception_type: keep_head(error.exception_type, MAX_NAME),
        exception_traceback: keep_tail(error.exception_traceback, MAX_TRACEBACK),
    }
}

/// The beginning of a text that may be too long.
pub(crate) fn keep_head(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
    text
}

/// The end of a text that may be too long.
pub(crate) fn keep_tail(text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let from = text.ceil_char_boundary(text.len() - (max - ELLIPSIS.len()));
    format!("{ELLIPSIS}{}", &text[from..])
}

const ELLIPSIS: &str = "…";
