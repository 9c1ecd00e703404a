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
//! - **Durable.** What [`submit`](JobStore::submit) accepted and [`apply`](JobStore::apply)
//!   changed is durable when the call returns.
//! - **Whole.** A call takes effect as a whole or not at all.
//! - **Unknown outcomes.** A call that ends with [`QueueError::Unavailable`], and a call whose
//!   future is dropped, may have taken effect. Repeating it with the same ids and tokens is
//!   harmless; each method says what the repeated call answers.
//! - **Nodes.** A node [joins](JobStore::join) before it claims. Its lease has an epoch that no
//!   other life of any node had, and every attempt carries it. So no two attempts ever share a
//!   token, and a change that carries another token than the current one is refused and
//!   changes nothing. Changes are judged by their tokens alone: one of a node whose lease has
//!   run out counts until the job is taken back.
//! - **Leases.** Only [`join`](JobStore::join) and [`renew`](JobStore::renew) of other nodes
//!   end a lease that has run out. A store of one node ends leases by `join` alone.
//! - **Times** come from the caller, and those of several nodes may differ a little. A server
//!   may go by its own clock. A job whose time has come once stays ready.
//!
//! # Example
//! ```
//! use std::time::Duration;
//!
//! use shepherd_job::{Event, JobId, JobIdRule, JobSpec, ModelRef, NodeId, Phase, SheepId, Timestamp};
//! use shepherd_queue::{Change, Claim, Existing, JobStore as _, Join, NewJob, SqliteOptions, SqliteStore};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! let queue = SqliteStore::open(state_dir, SqliteOptions::default())?;
//! let at = Timestamp::from_micros(1_700_000_000_000_000);
//! let node = NodeId::parse("shepherd")?;
//! let lease = queue.join(Join { node, at, lease: Duration::from_secs(30) }).await?;
//!
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
//! let claimed = queue.claim(&lease, Claim::new(model, sheep, 1, at)).await?.remove(0);
//! let event = Event::Complete { attempt: claimed.attempt, at };
//! let change = Change { job: claimed.job.spec.id.clone(), event, objects: Vec::new() };
//! let finished = queue.apply(vec![change]).await?.remove(0)?;
//! assert_eq!(finished.state.phase(), Phase::Done);
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

mod error;
mod feed;
mod job_store;
mod memory;
mod node;
mod outbox;
mod record;
mod rules;
mod sqlite;

#[cfg(test)]
mod contract;

pub use error::{QueueError, Result};
pub use feed::{Feed, FeedItem, Transition};
pub use job_store::JobStore;
pub use memory::MemoryStore;
pub use node::{Held, Join, Lease, Renewed};
pub use outbox::{Lag, Outbox, Pending, PendingLimits, Position, Unstored};
pub use record::{
    Change, ChangeRefused, Changed, Claim, Claimed, Counts, Existing, Group, JobRecord, ListQuery, NewJob,
    Outcome, Pins, Prune, Ready, SmallObject, Submitted,
};
pub use sqlite::{SqliteOptions, SqliteStore};

/// Both halves of a store, for those who use both.
pub trait Store: JobStore + Outbox {}

impl<T: JobStore + Outbox + ?Sized> Store for T {}
