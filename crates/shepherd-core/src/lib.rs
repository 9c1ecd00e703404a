//! The shepherd: it keeps the queue, gives each sheep a model, has jobs' files
//! staged and published, and starts and ends runners.
//!
//! It knows neither HTTP nor command lines nor configuration files: a program gives
//! it a queue, a storage and a flock, and holds a [`Shepherd`].
//!
//! ```text
//!  submit ─▶ admission ─▶ queue ◀─ look, claim ── driver ─▶ stage, collect, publish ─▶ storage
//!                           ▲                     │    ▲ ─▶ launch, send, end ──────▶ runners
//!                           │               inputs▼    │effects
//!                           └──── commits ◀────── engine
//!  write-back: what the queue has durably, storage gets as files, when it is quiet
//! ```
//!
//! - The `engine` module decides everything that the flock does. It is one pure state
//!   machine; its documentation has the transitions of jobs and of sheep. The `driver`
//!   module runs it and carries out what it decides.
//! - A job is accepted once it is on disk, and finished once its outputs and its
//!   record are. Only the engine, and a client's cancel, change a job's state, and
//!   only through the queue, whose fencing has the last word.
//! - What blocks runs in tasks that are supervised; a part of the shepherd that
//!   fails takes it down ([`Shepherd::failed`]), which loses nothing.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use shepherd_core::{Accepted, Data, Options, Shepherd, Submit};
//! use shepherd_job::{JobId, JobIdRule, JobSpec, ModelRef, Phase};
//! use shepherd_queue::MemoryStore;
//! use shepherd_storage::LocalStorage;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let dir = tempfile::tempdir()?;
//! let storage = LocalStorage::open(&dir.path().join("storage"))?;
//! // A flock of none: jobs are accepted, and wait.
//! let options = Options::new(dir.path().join("data"), dir.path().join("state"));
//! let shepherd = Shepherd::start(options, Arc::new(MemoryStore::new()), Arc::new(storage)).await?;
//!
//! let id = JobId::parse("job-1", JobIdRule::Bucket)?;
//! let spec = JobSpec { id: id.clone(), model: ModelRef::parse("ocr", "latest")?, sheep: None, priority: 0 };
//! let accepted = shepherd.submit(Submit { spec, data: Data::Payload("hello".into()) }).await?;
//! assert!(matches!(accepted, Accepted::Queued(_)));
//! assert_eq!(shepherd.job(&id).await?.state.phase(), Phase::Queued);
//! shepherd.shutdown(Duration::from_secs(1)).await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/` of the project has a whole program, with a sheep.

mod admission;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod clock;
mod data;
mod data_root;
mod driver;
mod engine;
mod error;
mod health;
mod journal;
mod live;
mod models;
mod orphans;
mod publish_locks;
mod retry;
mod shared;
mod shepherd;
mod supervise;
mod waiters;
mod workdir;
mod write_back;

pub use admission::{Accepted, Data, Submit};
pub use data::MAX_STATUS_DOCUMENT;
pub use engine::{RunnerLimits, SheepState, SheepView};
pub use error::{ShepherdError, StartError, without_paths};
pub use live::{EventId, EventIdError, JobEvent, JobEventKind, Progress};
pub use models::UnknownModels;
pub use orphans::RemovedSheep;
pub use shared::StatusDocument;
pub use shepherd::{Member, Options, Readiness, Shepherd};
pub use shepherd_queue::{JobRecord, ListQuery};
pub use shepherd_storage::{Body, Object, ObjectMeta};
