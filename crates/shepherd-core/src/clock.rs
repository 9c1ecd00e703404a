//! The clock of the records.

use std::time::SystemTime;

use shepherd_job::Timestamp;

/// The time now.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
