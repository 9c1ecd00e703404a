//! What all parts of one shepherd work with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use shepherd_job::Timestamp;
use shepherd_queue::{JobRecord, Queue, QueueError};
use shepherd_storage::{SmallObjects, Storage, StorageError};

use crate::live::Live;
use crate::supervise::Tasks;
use crate::turns::Turns;
use crate::waiters::Waiters;
use crate::workdir::Attic;

/// Renders the document that mirrors a job's status in storage.
pub type StatusDocument = fn(&JobRecord) -> Bytes;

pub(crate) struct Shared {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) waiters: Waiters,
    pub(crate) live: Arc<Live>,
    pub(crate) tasks: Tasks,
    pub(crate) attic: Arc<Attic>,
    pub(crate) turns: Turns,
    pub(crate) status_document: Option<StatusDocument>,
}

impl Shared {
    /// Tells those who wait for a job, or watch it, what its state is now.
    pub(crate) fn tell(&self, record: &Arc<JobRecord>) {
        self.live.note(record);
        if record.state.is_finished() {
            self.waiters.wake(record);
        }
    }

    /// How many bytes of one job's objects may ride in the queue's commit.
    pub(crate) fn small_objects(&self) -> SmallObjects {
        self.storage.small_objects()
    }

    /// Whether clients read the storage by themselves, at the other end of a
    /// network: a call takes long, and what they look for must not lag.
    pub(crate) fn storage_is_remote(&self) -> bool {
        self.small_objects().outputs == 0
    }
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Waits between tries of what a store or a storage could not do: twice as long
/// each time, within bounds.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    first: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max, first }
    }

    /// How long to wait this time.
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (self.next * 2).min(self.max);
        now
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The waits between tries at a queue or storage that does not answer.
pub(crate) const fn store_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(10))
}

/// Whether the same call may succeed later, with nothing else changed.
pub(crate) trait IsTransient {
    fn is_transient(&self) -> bool;
}

impl IsTransient for QueueError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Full => true,
            Self::InUse(_) | Self::Unusable(_) => false,
            // What this crate does not know yet is better tried again than given up.
            _ => true,
        }
    }
}

impl IsTransient for StorageError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Throttled(_) | Self::Full | Self::Denied(_) => true,
            Self::NotFound | Self::Range { .. } | Self::Invalid(_) => false,
            _ => true,
        }
    }
}
