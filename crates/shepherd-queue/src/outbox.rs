//! The trait of the outbox: job transitions that a durable consumer has not handled yet.

use std::sync::Arc;

use async_trait::async_trait;
use shepherd_job::{JobId, ObjectPath, Timestamp};

use crate::{JobRecord, Result, SmallObject};

/// The jobs whose state or small objects storage does not have yet, for the consumer that
/// writes them there (write-back).
///
/// A job is *pending* from its submit, and from every later change but a claim, until
/// [`delivered`](Self::delivered) says that storage has what was given for exactly that
/// state. Changes of one job that come before it is delivered are one entry.
///
/// # Other consumers
/// The consumer's cursor is the set of its entries and not one number: an entry that cannot be
/// delivered is passed over and holds up no other. Each consumer has a table of its own that is
/// filled by the commits that make the transitions, so another one changes nothing here.
/// Webhooks, whose unit is every finished run and not the latest state, will be a second trait
/// with the same shape (entries after a position, delivered, [`Lag`]) over a second table.
/// [`JobStore::prune`](crate::JobStore::prune) leaves what any consumer has not handled.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Pending jobs after a position, in the order since when they are pending. A job keeps
    /// its position until it is delivered.
    async fn pending(&self, after: Option<Position>, limits: PendingLimits) -> Result<Vec<Pending>>;

    /// Those of these jobs that are pending.
    async fn pending_of(&self, jobs: &[JobId]) -> Result<Vec<Pending>>;

    /// A job's objects that are not in storage yet, by path.
    async fn objects(&self, job: &JobId) -> Result<Vec<SmallObject>>;

    /// The objects that are not in storage yet, without their data, in no order.
    async fn unstored(&self) -> Result<Vec<Unstored>>;

    /// Says that what was given for these jobs is durable in storage. The objects given are
    /// dropped; a job that changed since stays pending. Durable when it returns; repeating it
    /// is harmless.
    async fn delivered(&self, jobs: Vec<Pending>) -> Result<()>;

    /// How far the consumer lags. Exact, also after reopening, and costs next to nothing.
    fn lag(&self) -> Lag;
}

/// A place in the order of pending jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

/// Bounds of what is asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingLimits {
    /// At most this many jobs.
    pub jobs: usize,
    /// At most this many bytes of objects, but one job at least.
    pub bytes: u64,
}

impl PendingLimits {
    /// At most this many jobs, of any size.
    pub const fn jobs(jobs: usize) -> Self {
        Self { jobs, bytes: u64::MAX }
    }
}

/// A job with what storage lacks of it.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its place in the order.
    pub position: Position,
    /// The record as it was when asked.
    pub job: Arc<JobRecord>,
    /// The objects that storage lacks, by path.
    pub objects: Vec<SmallObject>,
}

impl Pending {
    /// How many bytes its objects have.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|(_, data)| data.len() as u64).sum()
    }
}

/// An object that is not in storage yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unstored {
    /// Whose it is.
    pub job: JobId,
    /// When the job was accepted.
    pub submitted_at: Timestamp,
    /// Its key below the job.
    pub path: ObjectPath,
}

/// How far a consumer lags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many jobs are pending.
    pub jobs: u64,
    /// How many bytes their objects have.
    pub bytes: u64,
    /// When the first of them became pending: the time of that submit or change. A change
    /// without a time counts as of the latest time that the store was told.
    pub since: Option<Timestamp>,
    /// How many of them are finished.
    pub finished: u64,
}
