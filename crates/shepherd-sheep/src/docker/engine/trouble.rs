//! What can go wrong with a request to the engine, by what it says of the engine.

use bollard::errors::Error;

/// Why a request to the engine came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::docker) enum Trouble {
    /// The engine was not reached, or was lost before it had answered to the end:
    /// what it was asked to do it may have done.
    #[error("{0}")]
    Lost(String),
    /// The engine took the request, and did not answer within its time. It may be busy, or
    /// gone with another to take its place: what it was asked to do it may do yet.
    #[error("{0}")]
    Late(String),
    /// The engine answered, and refused. What it reports in the midst of an answer
    /// that began well has status 500 here too.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// It answered what cannot be understood.
    #[error("{0}")]
    Garbled(String),
}

impl Trouble {
    /// Whether the engine refused with this HTTP status.
    pub(in crate::docker) fn is_status(&self, wanted: u16) -> bool {
        match self {
            Self::Refused { status, .. } => *status == wanted,
            Self::Lost(_) | Self::Late(_) | Self::Garbled(_) => false,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: status_code, message: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => {
                Self::Refused { status: 500, message: error.trim().to_owned() }
            }
            Error::IOError { err } => Self::Lost(err.to_string()),
            Error::HyperResponseError { err } => Self::Lost(with_causes(&err)),
            Error::RequestTimeoutError => Self::Late("it did not answer in time".to_owned()),
            // Of a library's enum: the rest are requests that could not be written and
            // answers that could not be read.
            other => Self::Garbled(other.to_string()),
        }
    }
}

/// hyper's own text says where a connection broke; what broke it is its cause.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
