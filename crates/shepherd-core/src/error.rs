//! What can go wrong, by what the caller can do about it.

use shepherd_job::SheepId;
use shepherd_queue::QueueError;
use shepherd_storage::StorageError;

/// Why a request was not carried out. Nothing was changed, unless it says that
/// the outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShepherdError {
    /// No job has this id.
    #[error("no such job")]
    UnknownJob,
    /// The job exists; this object of it does not.
    #[error("no such object")]
    UnknownObject,
    /// A job of this id exists, or data for it does.
    #[error("a job with this id was already submitted")]
    AlreadySubmitted,
    /// The job was submitted without data, and there is none in storage.
    #[error("there is no data for the job")]
    NoData,
    /// The job names a sheep that is not configured.
    #[error("unknown sheep id `{0}`")]
    UnknownSheep(String),
    /// No sheep that may take the job can run its model; the text says why, sheep by sheep.
    #[error("{0}")]
    UnknownModel(String),
    /// The job is finished, and the request needs one that is not.
    #[error("the job is finished")]
    Finished,
    /// The daemon is shutting down.
    #[error("the shepherd is shutting down")]
    ShuttingDown,
    /// The job store or the storage is full.
    #[error("no space is left for the job")]
    Full,
    /// The range asked for lies outside the object.
    #[error("the range is outside the object's {size} bytes")]
    Range {
        /// The object's size in bytes.
        size: u64,
    },
    /// What the client gave cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// The job store or the storage does not answer; the outcome is unknown, and
    /// repeating the request is harmless.
    #[error("{0}")]
    Unavailable(String),
}

impl From<QueueError> for ShepherdError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Full => Self::Full,
            other @ (QueueError::Unavailable(_)
            | QueueError::Fenced
            | QueueError::InUse(_)
            | QueueError::Unusable(_)) => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<StorageError> for ShepherdError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotFound => Self::UnknownObject,
            StorageError::Range { size } => Self::Range { size },
            StorageError::Full => Self::Full,
            StorageError::Invalid(message) => Self::Invalid(message),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Why the shepherd could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A directory cannot be used.
    #[error("cannot use the directory {path}: {source}")]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another shepherd works in the data root.
    #[error("another shepherd uses the data root {path}; each needs one of its own")]
    InUse {
        /// The data root.
        path: std::path::PathBuf,
    },
    /// The job store does not take the node in.
    #[error("cannot join the job store: {0}")]
    Join(#[from] QueueError),
    /// What an earlier life left unfinished cannot be cleared up.
    #[error("cannot clear up after an earlier life: {0}")]
    Leftovers(#[from] ShepherdError),
    /// What an earlier life of a sheep left behind cannot be ended.
    #[error("sheep `{sheep}`: {message}")]
    Sheep {
        /// Which sheep.
        sheep: SheepId,
        /// Why.
        message: String,
    },
}

/// The text of an error for clients: without the absolute paths of this machine, which are
/// for the log.
pub fn without_paths(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, path) = rest.split_at(at);
        shown.push_str(before);
        let last = shown.chars().next_back();
        let begins_here = last.is_none_or(|c| c.is_whitespace() || "\"'`(=".contains(c));
        // In quotes it may hold spaces.
        let end = match last {
            Some(quote @ ('"' | '\'' | '`')) => path.find(quote),
            Some(_) | None => path.find(|c: char| c.is_whitespace() || ":,;)".contains(c)),
        }
        .unwrap_or(path.len());
        if begins_here && end > 1 {
            shown.push_str("[path]");
            rest = &path[end..];
        } else {
            shown.push('/');
            rest = &path[1..];
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::without_paths;

    #[test]
    fn clients_are_told_no_path_of_this_machine() {
        for (text, shown) in [
            ("cannot sync /data/state/storage: No space left", "cannot sync [path]: No space left"),
            ("/a/b", "[path]"),
            ("at path \"/var/a b/.tmp1\": denied", "at path \"[path]\": denied"),
            ("(see `/a`, /b) x", "(see `[path]`, [path]) x"),
            ("read \"inputs/a\" in /data/job-1", "read \"inputs/a\" in [path]"),
            ("http://s3:7000/jobs/a?b does not answer", "http://s3:7000/jobs/a?b does not answer"),
            ("either / or", "either / or"),
            ("ž/ž 1/2", "ž/ž 1/2"),
        ] {
            assert_eq!(without_paths(text), shown);
        }
    }
}
