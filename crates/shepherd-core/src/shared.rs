//! What all parts of one shepherd work with.

use std::sync::Arc;

use bytes::Bytes;
use shepherd_queue::{JobRecord, Lease, Store};
use shepherd_storage::{SmallObjects, Storage, StorageError};

use crate::data_root::DataRoot;
use crate::health::Unpublished;
use crate::live::Live;
use crate::publish_locks::PublishLocks;
use crate::supervise::Tasks;
use crate::waiters::Waiters;
use crate::workdir::OutputPool;

/// Renders the document that mirrors a job's status in storage.
pub type StatusDocument = fn(&JobRecord) -> Bytes;

pub(crate) struct Shared {
    pub(crate) queue: Arc<dyn Store>,
    /// What this life of the node claims jobs under.
    pub(crate) lease: Lease,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) waiters: Waiters,
    pub(crate) live: Arc<Live>,
    pub(crate) tasks: Tasks,
    pub(crate) data_root: DataRoot,
    pub(crate) output_pool: Arc<OutputPool>,
    pub(crate) publish_locks: PublishLocks,
    pub(crate) unpublished: Unpublished,
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

    /// Makes durable what was stored since `failed_before`, the number of failed syncs then.
    ///
    /// # Errors
    /// When that may be lost, with this sync or with one that somebody else was told of.
    pub(crate) async fn sync_since(&self, failed_before: u64) -> Result<(), StorageError> {
        self.storage.sync().await?;
        if self.storage.failed_syncs() == failed_before {
            return Ok(());
        }
        Err(StorageError::Unavailable("a sync failed while this was stored".to_owned()))
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
