//! What can go wrong.

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No such job or object.
    #[error("not found")]
    NotFound,
    /// The range asked for lies outside the object, whose size this is.
    #[error("the range is outside the object's {size} bytes")]
    Range {
        /// The object's size in bytes.
        size: u64,
    },
    /// No space is left; nothing was stored.
    #[error("the storage is full")]
    Full,
    /// The credentials or permissions do not suffice.
    #[error("access denied: {0}")]
    Denied(String),
    /// The storage does not answer; worth trying again later.
    #[error("the storage is unavailable: {0}")]
    Unavailable(String),
    /// The storage asks for fewer requests; worth trying again later.
    #[error("the storage is throttled: {0}")]
    Throttled(String),
    /// What the caller gave cannot be stored: a body that broke off, an output
    /// that is no regular file, a name that is no legal key.
    #[error("{0}")]
    Invalid(String),
}

/// Shorthand for the crate's results.
pub type Result<T> = std::result::Result<T, StorageError>;

impl StorageError {
    /// The outcome of each of `count` calls that failed together.
    pub(crate) fn of_each<T>(&self, count: usize) -> Vec<Result<T>> {
        (0..count).map(|_| Err(self.clone())).collect()
    }
}
