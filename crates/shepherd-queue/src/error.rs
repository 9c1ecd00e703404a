//! What goes wrong with the store itself, by what the caller can do about it.

/// What went wrong with the store itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The store cannot be reached or written; the outcome is unknown.
    #[error("the job store is unavailable: {0}")]
    Unavailable(String),
    /// The disk that holds the store is full; nothing was changed.
    #[error("the disk that holds the job store is full")]
    Full,
    /// The lease is over: a later life of the node has joined, or others have taken back what
    /// it held. The node holds nothing any more; it may join again.
    #[error("the node's lease of jobs is over")]
    Fenced,
    /// Another process has the store open.
    #[error("another shepherd uses the state directory {0}")]
    InUse(String),
    /// The store cannot be used: damaged, or written by a newer version.
    #[error("the job store cannot be used: {0}")]
    Unusable(String),
}

/// Shorthand for the crate's results.
pub type Result<T> = std::result::Result<T, QueueError>;
