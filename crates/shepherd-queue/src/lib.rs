//! The durable job store.
//!
//! One trait, [`Queue`], that an embedded database and a shared server can both
//! implement honestly. Batches are its unit: one durable write serves all that
//! arrive together. It knows jobs and their states, and the order in which jobs
//! of one model leave; which sheep takes which model next is not its business,
//! nor are the files that jobs keep in storage, beyond the small objects that
//! ride in its commits until they are written there.
//!
//! - [`SqliteQueue`] keeps everything in one file of an embedded database.
//! - [`MemoryQueue`] keeps the same contract and forgets everything: for tests.
//!
//! # Contract
//! - What [`submit`](Queue::submit) accepted and [`apply`](Queue::apply) changed is
//!   durable when the call returns. A store that cannot answer
//!   ([`QueueError::Unavailable`]) leaves the outcome unknown, and repeating the
//!   call with the same ids and tokens is harmless.
//! - A call takes effect as a whole or not at all, whether or not its future is
//!   polled to the end; a claim takes effect only in the poll that returns it.
//! - No two attempts ever share a token: its epoch is raised, durably, whenever
//!   the store is opened. A change that carries another token than the current one
//!   is refused and changes nothing.
//! - Jobs that were being processed when the store was closed or died are queued
//!   again, blameless, when it is opened.
//! - A job is *behind* from its submit, and from every later change but a claim,
//!   until [`caught_up`](Queue::caught_up) says that storage has what was given
//!   for exactly that state.
//! - Times come from the caller. A job whose time has come once stays ready.
//!
//! # Example
//! ```
//! use shepherd_job::{Event, JobId, JobIdRule, JobSpec, ModelRef, Phase, SheepId, Timestamp};
//! use shepherd_queue::{Change, Claim, Existing, NewJob, Queue, SqliteOptions, SqliteQueue};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! let queue = SqliteQueue::open(state_dir, SqliteOptions::default())?;
//! let at = Timestamp::from_micros(1_700_000_000_000_000);
//! let model = ModelRef::parse("ocr", "latest")?;
//! let spec = JobSpec {
//!     id: JobId::parse("job-1", JobIdRule::Bucket)?,
//!     model: model.clone(),
//!     sheep: None,
//!     priority: 0,
//! };
//! queue
//!     .submit(vec![NewJob { spec, submitted_at: at, objects: Vec::new(), existing: Existing::Refuse }])
//!     .await?;
//!
//! let sheep = SheepId::parse("dolly")?;
//! let claimed = queue.claim(Claim::new(model, sheep, 1, at)).await?.remove(0);
//! let event = Event::Complete { attempt: claimed.attempt, at };
//! let change = Change { job: claimed.job.spec.id.clone(), event, objects: Vec::new() };
//! let finished = queue.apply(vec![change]).await?.remove(0)?;
//! assert_eq!(finished.state.phase(), Phase::Done);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use shepherd_job::{JobId, Timestamp};

mod error;
mod memory;
mod record;
mod rules;
mod sqlite;

#[cfg(test)]
mod contract;

pub use error::{QueueError, Result};
pub use memory::MemoryQueue;
pub use record::{
    Behind, Change, ChangeRefused, Claim, Claimed, Counts, Existing, Group, JobRecord, ListQuery, NewJob,
    Pins, Ready, SmallObject, Submitted, Unstored,
};
pub use sqlite::{SqliteOptions, SqliteQueue};

/// The durable job store. See the crate's documentation for the contract that
/// all methods share.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Accepts jobs; durable when it returns. Outcomes are in the order given.
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>>;

    /// Hands out ready jobs of one model, by priority and then arrival. The claim
    /// itself need not be durable: its token's epoch dies with this opening.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>>;

    /// Applies changes through the state machine; durable when it returns.
    /// Outcomes are in the order given, each with the record after the change.
    async fn apply(
        &self,
        changes: Vec<Change>,
    ) -> Result<Vec<std::result::Result<Arc<JobRecord>, ChangeRefused>>>;

    /// What may be claimed at `now`.
    async fn ready(&self, now: Timestamp) -> Result<Ready>;

    /// One job's record.
    async fn get(&self, job: &JobId) -> Result<Option<Arc<JobRecord>>>;

    /// Records, newest first.
    async fn list(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>>;

    /// A job's objects that are not in storage yet, by path.
    async fn objects(&self, job: &JobId) -> Result<Vec<SmallObject>>;

    /// The objects that are not in storage yet, without their data, in no order.
    async fn unstored(&self) -> Result<Vec<Unstored>>;

    /// Jobs whose files lag behind, longest first, at most `limit` beyond the first
    /// `skip`.
    async fn behind(&self, skip: usize, limit: usize) -> Result<Vec<Behind>>;

    /// Those of these jobs whose files lag behind.
    async fn behind_of(&self, jobs: &[JobId]) -> Result<Vec<Behind>>;

    /// How many jobs' files lag behind.
    fn behind_count(&self) -> u64;

    /// Whether files of a finished job may lag. Costs nothing, and may say so where none do.
    fn any_finished_behind(&self) -> bool;

    /// Says that what [`Queue::behind`] gave for these jobs is durable in storage.
    /// The objects given are dropped; a job that changed since stays behind.
    async fn caught_up(&self, jobs: Vec<Behind>) -> Result<()>;

    /// A value that changes whenever jobs may have become ready. A hint: it may
    /// change for nothing, and changes close together may be seen as one.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Whether the store can be used, as far as that shows without using it.
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Resolves when the store has failed for good: every further call fails, until the
    /// store is opened again. Pending for ever in a store that cannot fail like that.
    async fn failed(&self) {
        std::future::pending::<()>().await;
    }
}
