//! What the database says went wrong, in this crate's words.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::QueueError;

/// A failure inside the embedded store; never leaves it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// The database answers, with something that was never written.
    #[error("{0}")]
    Damaged(String),
    /// The files are not where they were opened.
    #[error("{0}")]
    Moved(String),
}

impl Fault {
    /// The failure as callers see it. `dir` holds the store.
    pub(super) fn outward(&self, dir: &Path) -> QueueError {
        let error = match self {
            Self::Damaged(what) => return QueueError::Unusable(what.clone()),
            Self::Moved(what) => return QueueError::Unavailable(what.clone()),
            Self::Sql(error) => error,
        };
        let unavailable = || QueueError::Unavailable(error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => QueueError::Full,
            // A full disk also shows as a file that cannot be extended or mapped.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(dir) => QueueError::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                QueueError::Unusable(error.to_string())
            }
            Some(_) => unavailable(),
            // Not from the database but about what it gave: a value of another type.
            None => QueueError::Unusable(error.to_string()),
        }
    }
}

/// Whether less than 256 KiB are free: the database extends its files by at most
/// some tens of KiB at a time.
fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < 256 * 1024)
}
