//! The record of a run: how its processes are found again after the daemon died.
//!
//! `STATE_DIR/sheep/ID.json` is there, with the run's random mark, before the
//! runner is forked, and goes when nothing of the run is left. It need not survive
//! a power failure, for no process does: it is renamed into place, never synced.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shepherd_job::SheepId;

use super::group::Group;
use super::process::Tree;
use super::{BareOptions, KILL_TIMEOUT};
use crate::SheepError;
use crate::endpoint::remove_private;

/// What is written down of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot that the other numbers hold for.
    pub(super) boot_id: String,
    /// The run's random name, which marks its processes.
    pub(super) run: String,
    /// The runner's process id and start, once it is forked.
    pub(super) leader: Option<(i32, u64)>,
    /// The control group that holds its processes, where there is one.
    #[serde(default)]
    pub(super) group: Option<PathBuf>,
    /// Its socket, when that lies in a directory of its own outside the sheep's.
    pub(super) private_socket: Option<String>,
}

/// Where the record of a sheep lies.
#[derive(Clone, Debug)]
pub(super) struct RecordFile {
    sheep: SheepId,
    path: PathBuf,
}

impl RecordFile {
    pub(super) fn of(options: &BareOptions) -> Self {
        let path = options.state_dir.join("sheep").join(format!("{}.json", options.id));
        Self { sheep: options.id.clone(), path }
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), SheepError> {
        let write = || {
            std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
            // No sheep's record: an id does not begin with a dot.
            let aside = self.path.with_file_name(format!(".{}.new", self.sheep));
            std::fs::write(&aside, serde_json::to_vec(record)?)?;
            std::fs::rename(&aside, &self.path)
        };
        write().map_err(|e| self.unusable("write", &e))
    }

    fn read(&self) -> Result<Option<Record>, SheepError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.unusable("read", &e)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                // A power failure can leave such a file; then there is nothing to end.
                tracing::warn!(sheep = %self.sheep, path = %self.path.display(), %error, "a record of a run is no record");
                self.remove()?;
                Ok(None)
            }
        }
    }

    pub(super) fn remove(&self) -> Result<(), SheepError> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.unusable("remove", &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn unusable(&self, what: &str, error: &io::Error) -> SheepError {
        let message = format!("cannot {what} {}: {error}", self.path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SheepError::Unavailable(message),
            _ => SheepError::Misconfigured(message),
        }
    }

    /// Ends what the recorded run left behind, if there is a record. Blocks.
    ///
    /// # Errors
    /// When something does not end; the record then stays.
    pub(super) fn sweep(&self) -> Result<(), SheepError> {
        let Some(record) = self.read()? else { return Ok(()) };
        if record.boot_id == boot_id() {
            let group = record.group.as_deref().and_then(|path| Group::recorded(&record.run, path));
            let ended = Tree::new(&record.run, record.leader, group).end(KILL_TIMEOUT).map_err(|e| {
                SheepError::Unavailable(format!("sheep `{}` had an earlier runner: {e}", self.sheep))
            })?;
            if ended > 0 {
                tracing::warn!(sheep = %self.sheep, processes = ended, "ended what an earlier runner left behind");
            }
        }
        if let Some(socket) = &record.private_socket {
            remove_private(Path::new(socket));
        }
        self.remove()
    }
}

/// The random name of the machine's current boot; empty where there is none.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
