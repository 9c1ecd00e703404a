//! What an error of the file system means to a caller.

use std::fmt::Display;

use rustix::io::Errno;

use crate::StorageError;

/// The error for `what` having failed with `errno`.
pub(super) fn failed(what: impl Display, errno: Errno) -> StorageError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => StorageError::Full,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => StorageError::Denied(format!("{what}: {errno}")),
        // Nothing that is tried again would change that.
        Errno::LOOP | Errno::NOTDIR => {
            StorageError::Invalid(format!("{what}: a file or a symbolic link is in the way"))
        }
        errno => StorageError::Unavailable(format!("{what}: {errno}")),
    }
}

/// The same for an error of the standard library.
pub(super) fn failed_io(what: impl Display, error: &std::io::Error) -> StorageError {
    match Errno::from_io_error(error) {
        Some(errno) => failed(what, errno),
        None => StorageError::Unavailable(format!("{what}: {error}")),
    }
}

/// Whether an open that failed so says that no object is at the path.
pub(super) fn is_absent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NXIO
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
    )
}

/// Whether a placing that failed so says that the file system cannot hold this
/// name here, so that the object must take its encoded one.
pub(super) fn is_refused(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ISDIR
            | Errno::NOTDIR
            | Errno::EXIST
            | Errno::NOTEMPTY
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
    )
}
