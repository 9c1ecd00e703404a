//! The durable job store.
//!
//! Two traits, [`JobStore`] and [`Outbox`], that an embedded database and a shared server can
//! both implement honestly. Batches are its unit: one durable write serves all that
//! arrive together. It knows jobs and their states, and the order in which jobs
//! of one model leave; which sheep takes which model next is not its business,
//! nor are the files that jobs keep in storage, beyond the small objects that
//! ride in its commits until they are written there.
//!
//! - [`SqliteStore`] keeps everything in one file of an embedded database.
//! - [`MemoryStore`] keeps the same contract and forgets everything: for tests.
//!
//! # Contract
//! - What [`submit`](JobStore::submit) accepted and [`apply`](JobStore::apply) changed is
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
//! - Times come from the caller. A job whose time has come once stays ready.
//!
//! # Example
//! ```
//! use shepherd_job::{Event, JobId, JobIdRule, JobSpec, ModelRef, Phase, SheepId, Timestamp};
//! use shepherd_queue::{Change, Claim, Existing, JobStore as _, NewJob, SqliteOptions, SqliteStore};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! let queue = SqliteStore::open(state_dir, SqliteOptions::default())?;
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

mod error;
mod job_store;
mod memory;
mod outbox;
mod record;
mod rules;
mod sqlite;

#[cfg(test)]
mod contract;

pub use error::{QueueError, Result};
pub use job_store::JobStore;
pub use memory::MemoryStore;
pub use outbox::{Lag, Outbox, Pending, PendingLimits, Position, Unstored};
pub use record::{
    Change, ChangeRefused, Changed, Claim, Claimed, Counts, Existing, Group, JobRecord, ListQuery, NewJob,
    Pins, Ready, SmallObject, Submitted,
};
pub use sqlite::{SqliteOptions, SqliteStore};

/// Both halves of a store, for those who use both.
pub trait Store: JobStore + Outbox {}

impl<T: JobStore + Outbox + ?Sized> Store for T {}
