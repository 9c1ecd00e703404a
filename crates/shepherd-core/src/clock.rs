//! The clock of the records.

use std::time::SystemTime;

use shepherd_job::Timestamp;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
