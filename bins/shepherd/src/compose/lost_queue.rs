//! Refusing to begin with an empty queue where there was another one: whoever submitted
//! its jobs was told that they are on disk.

use std::path::Path;

use shepherd_config::{Config, StorageConfig};
use shepherd_job::STATUS_OBJECT;
use shepherd_queue::SqliteStore;

/// How many directories of a storage are looked into for a job that had a status.
const MAX_LOOKS: usize = 1000;

/// Refuses where the queue's file is missing and was there once.
pub(crate) fn refuse_lost_queue(config: &Config) -> anyhow::Result<()> {
    let state_dir = &config.state_dir;
    if SqliteStore::exists(state_dir) {
        return Ok(());
    }
    let sign = if SqliteStore::existed(state_dir) {
        "a shepherd has kept one there before".to_owned()
    } else {
        match &config.storage {
            StorageConfig::Local(local) if holds_jobs(&local.dir) => {
                format!("the storage {} holds jobs of an earlier one", local.dir.display())
            }
            StorageConfig::Local(_) | StorageConfig::S3(_) => return Ok(()),
        }
    };
    anyhow::bail!(
        "there is no job queue in the state directory {}, and {sign}: jobs that were accepted would be lost. \
         Put queue.sqlite back (and queue.sqlite-wal, if it was there), or start once with --new-queue",
        state_dir.display()
    )
}

/// Whether a shepherd has written the status of a job, as far as a bounded look tells. A
/// storage that cannot be read is reported when it is opened.
fn holds_jobs(storage: &Path) -> bool {
    let jobs = std::fs::read_dir(storage).into_iter().flatten().flatten();
    jobs.take(MAX_LOOKS).any(|job| job.path().join(STATUS_OBJECT).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_alone_are_no_sign_of_a_queue() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!holds_jobs(&dir.path().join("absent")));
        std::fs::create_dir_all(dir.path().join("job/inputs")).unwrap();
        assert!(!holds_jobs(dir.path()));
        std::fs::write(dir.path().join("job").join(STATUS_OBJECT), "{}").unwrap();
        assert!(holds_jobs(dir.path()));
    }
}
