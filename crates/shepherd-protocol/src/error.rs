//! What can go wrong, by what the caller can do about it.

/// Why no socket could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be used; it has to be changed.
    #[error("cannot use the URL `{url}`: {reason}")]
    Url {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else listens there already.
    #[error("`{url}` is in use already")]
    InUse {
        /// The URL as it was given.
        url: String,
    },
    /// The system refuses; trying again later may help.
    #[error("cannot open a socket for `{url}`: {reason}")]
    Unavailable {
        /// The URL as it was given.
        url: String,
        /// What the system says.
        reason: String,
    },
}

/// Why messages were not taken. None of them was, and none will arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody is connected.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer does not read, and as much as may wait for it waits already.
    #[error("the peer does not read its messages")]
    Full,
}

/// Why a blocking receive gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// Nothing came in time.
    #[error("no message came in time")]
    Timeout,
    /// The socket was closed on this side.
    #[error("the socket is closed")]
    Closed,
}

/// Something a peer sent that is no message of the protocol: what is wrong with
/// it and how it begins. The rest of what came with it was delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: `{excerpt}`")]
pub struct Garbage {
    reason: String,
    excerpt: String,
}

/// How much of it is shown.
const EXCERPT: usize = 120;

impl Garbage {
    pub(crate) fn new(reason: impl Into<String>, bytes: &[u8]) -> Self {
        let excerpt = bytes[..bytes.len().min(EXCERPT)].escape_ascii().to_string();
        Self { reason: reason.into(), excerpt }
    }

    /// What is wrong with it.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
