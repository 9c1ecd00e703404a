//! Whether the storage and the job store answer and the disks have room, looked at from time
//! to time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use shepherd_job::JobId;

use crate::data_root;
use crate::shared::Shared;
use crate::supervise::TaskKind;

/// How often the storage and the disks are looked at.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// The same while something is wrong.
const TROUBLE_CHECK_PERIOD: Duration = Duration::from_secs(1);
/// How long the storage may take to answer.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much is written to see that a disk takes it: more than what a file system keeps
/// beside a file's name, or a queue has at hand.
const PROBE: usize = 64 << 10;
/// The probe's name where it needs one.
const PROBE_NAME: &str = ".space-probe";

/// What is wrong, as far as it was seen.
#[derive(Debug, Default)]
pub(crate) struct Health {
    problems: Mutex<Problems>,
}

#[derive(Clone, Debug, Default)]
struct Problems {
    storage: Option<String>,
    queue: Option<String>,
    state_dir: Option<String>,
    data_root: Option<String>,
}

/// The directories that must have room.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) data_root: PathBuf,
    pub(crate) state_dir: PathBuf,
}

impl Health {
    /// Looks once, and from then on in a task.
    pub(crate) async fn start(shared: &Arc<Shared>, places: Places) -> Arc<Self> {
        let (health, places) = (Arc::new(Self::default()), Arc::new(places));
        health.look(shared, &places).await;
        let (task, shared_too) = (Arc::clone(&health), Arc::clone(shared));
        shared.tasks.spawn(TaskKind::Critical, "health", async move {
            let watch = async {
                loop {
                    tokio::time::sleep(if task.problems().is_empty() {
                        CHECK_PERIOD
                    } else {
                        TROUBLE_CHECK_PERIOD
                    })
                    .await;
                    task.look(&shared_too, &places).await;
                }
            };
            tokio::select! {
                () = watch => {}
                () = shared_too.tasks.draining.cancelled() => {}
            }
        });
        health
    }

    /// What is wrong with the storage and the disks.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Problems { storage, queue, state_dir, data_root } = lock(&self.problems).clone();
        [storage, queue, state_dir, data_root].into_iter().flatten().collect()
    }

    async fn look(&self, shared: &Shared, places: &Arc<Places>) {
        let storage = match tokio::time::timeout(STORAGE_TIMEOUT, shared.storage.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the storage did not answer within {STORAGE_TIMEOUT:?}")),
        };
        let queue = match tokio::time::timeout(STORAGE_TIMEOUT, shared.queue.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the job store did not answer within {STORAGE_TIMEOUT:?}")),
        };
        let places = Arc::clone(places);
        let looked = tokio::task::spawn_blocking(move || {
            let data_root = File::open(&places.data_root).ok().and_then(data_root::shortage);
            (refusal(&places.state_dir), data_root)
        });
        let (state_dir, data_root) = looked.await.unwrap_or_default();
        let mut problems = lock(&self.problems);
        match (&problems.storage, &storage) {
            (None, Some(error)) => tracing::error!(%error, "the storage is unavailable"),
            (Some(_), None) => tracing::info!("the storage is available again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        match (&problems.queue, &queue) {
            (None, Some(error)) => tracing::error!(%error, "the job store is unavailable"),
            (Some(_), None) => tracing::info!("the job store is available again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        match (&problems.state_dir, &state_dir) {
            (None, Some(error)) => tracing::error!(%error, "the state directory cannot be written"),
            (Some(_), None) => tracing::info!("the state directory can be written again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        // The sheep tell about theirs.
        *problems = Problems { storage, queue, state_dir, data_root };
    }
}

/// Why nothing can be written to the state directory, if that is so. File systems differ
/// in what they say of their free space; whether they take something is certain.
fn refusal(state_dir: &Path) -> Option<String> {
    let error = probe(state_dir).err()?;
    Some(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk of `state_dir` is full".to_owned()
        }
        _ => format!("`state_dir` cannot be written: {error}"),
    })
}

fn probe(dir: &Path) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    let dir = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&dir, ".", flags | OFlags::TMPFILE, mode) {
        // This file system has no files without names.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let named = flags | OFlags::CREATE | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&dir, PROBE_NAME, named, mode)?;
            rustix::fs::unlinkat(&dir, PROBE_NAME, AtFlags::empty())?;
            file
        }
        opened => opened?,
    };
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, PROBE as u64) {
        // This one only tells when it is written.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let mut file = File::from(file);
            file.write_all(&[1; PROBE])?;
            file.sync_data()
        }
        reserved => Ok(reserved?),
    }
}

/// Jobs whose outputs wait because the storage is full.
#[derive(Debug, Default)]
pub(crate) struct Unpublished(Mutex<HashSet<JobId>>);

impl Unpublished {
    pub(crate) fn note(&self, job: &JobId) {
        lock(&self.0).insert(job.clone());
    }

    pub(crate) fn forget(&self, job: &JobId) {
        lock(&self.0).remove(job);
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let count = lock(&self.0).len();
        (count > 0).then(|| format!("the storage is full: the outputs of {count} jobs wait for room"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
