//! What a job is: its ids, its specification and its state machine.
//!
//! Everything here is pure. There is no I/O, no clock, no async runtime and no
//! serialization: the queue, the API and the wire keep record types of their
//! own and convert at their edges. Identifiers are validated where they are
//! parsed, so a value of one of these types can be used in a path or a key.
//!
//! ```
//! use shepherd_job::{Attempt, Event, History, JobState, SheepId, Timestamp};
//!
//! let at = Timestamp::from_micros(1_700_000_000_000_000);
//! let attempt = Attempt { epoch: 1, number: 1 };
//! let queued = JobState::Queued { not_before: None, history: History::default() };
//! let claim = Event::Claim { attempt, sheep: SheepId::parse("sheep-1")?, at };
//! let processing = queued.apply(claim)?;
//! let done = processing.apply(Event::Complete { attempt, at })?;
//! assert!(done.is_finished());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod id;
mod key;
mod state;
mod time;

pub use id::{InvalidId, JobId, JobIdRule, ModelRef, NodeId, ObjectPath, SheepId};
pub use key::{ENCODED_KEYS, decode_key, encode_key};
pub use state::{Attempt, Event, GiveBack, History, JobError, JobState, Phase, Rejected};
pub use time::Timestamp;

/// The default input object of a job, and where a payload is stored.
pub const DEFAULT_INPUT: &str = "inputs/input";
/// The default output object of a job.
pub const DEFAULT_OUTPUT: &str = "outputs/output";
/// The object that mirrors a job's status beside its data.
pub const STATUS_OBJECT: &str = "job_status.json";
/// The object that holds what the job printed.
pub const LOG_OBJECT: &str = "logs/log.txt";

/// What a client asks for. It never changes after the job was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobSpec {
    /// The job's name, unique in one shepherd.
    pub id: JobId,
    /// The model that must process it.
    pub model: ModelRef,
    /// The only sheep that may process it, or any.
    pub sheep: Option<SheepId>,
    /// Higher runs first; jobs of one priority run in order of arrival.
    pub priority: i32,
}
