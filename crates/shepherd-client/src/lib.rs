//! The client of a shepherd: submit jobs, wait, take their results.
//!
//! ```no_run
//! # async fn example() -> Result<(), shepherd_client::Error> {
//! use shepherd_client::{Client, Submission};
//!
//! let client = Client::new("http://127.0.0.1:5000")?;
//! let job = client.submit(Submission::new("upper", "1").payload("counting sheep")).await?;
//! assert_eq!(job.result(None).await?, "COUNTING SHEEP");
//! # Ok(())
//! # }
//! ```
//!
//! [`blocking`] is the same for programs without a runtime.
//!
//! **A submit is neither lost nor done twice.** Its id is chosen by the client, so it is sent again when its answer is
//! lost. From the first loss on it is in doubt whether the job is there already, and a 409 is then no error by itself:
//! the job with that id is ours if its model and its input are. A job whose inputs are in storage is never refused with
//! 409, and would run again if it were finished; before it is sent again the client therefore looks whether it has come
//! to be since.
//!
//! **Waiting outlives the daemon**: it asks for a bounded time, again and again, and takes an outage that is shorter
//! than [`Options::retry_for`] for a pause. Events are taken up again after the last one.
//!
//! It refuses to speak S3. An input that is text travels with the request; several inputs, or what is no text, are put
//! into the shepherd's storage by any S3 client, below `inputs/`, and the job is then submitted without a payload.

mod answer;
pub mod blocking;
mod client;
mod error;
mod events;
mod follow;
mod job;
mod patience;
mod proxy;
mod record;
mod stream;
mod submission;

pub use client::{Client, Options};
pub use error::Error;
pub use events::Events;
pub use follow::Log;
pub use job::Job;
pub use record::{
    Event, EventKind, JobError, JobPage, JobStatus, ListedJob, Model, Progress, Readiness, Sheep, State,
};
pub use submission::Submission;

/// A result of the client.
pub type Result<T, E = Error> = std::result::Result<T, E>;
