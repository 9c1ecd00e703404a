//! The SDK for runners written in Rust.
//!
//! A runner is a program that has one model loaded and works on one job after
//! another. Implement [`Runner`] and call [`serve`]; it listens for the shepherd,
//! announces the runner once its model is loaded, takes inputs ahead, answers
//! heartbeats while a job is in work, turns errors and panics into the job's
//! error, and ends when it is told to or when the program that started it is gone.
//!
//! ```no_run
//! use shepherd_runner::{Job, Options, RunError, Runner, serve};
//!
//! /// Answers with the input in upper case.
//! struct Upper;
//!
//! impl Runner for Upper {
//!     fn process(&mut self, job: &Job) -> Result<(), RunError> {
//!         let text = std::fs::read_to_string(job.inputs().join("input"))?;
//!         std::fs::write(job.outputs().join("output"), text.to_uppercase())?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     serve(Upper, Options::from_env(9999))?;
//!     Ok(())
//! }
//! ```
//!
//! It moves no files: inputs are there when a job comes, and outputs are fetched
//! after it is done. It runs one job at a time; a machine with room for more runs
//! more sheep.

mod error;
mod job;
mod options;
mod serve;
mod stop;

pub use error::{RunError, ServeError};
pub use job::Job;
pub use options::Options;
pub use serve::serve;
pub use stop::Stop;

/// The work that a program does for its jobs.
pub trait Runner {
    /// Loads the model. Called once, on the thread that called [`serve`], while
    /// heartbeats are answered already; jobs come only after it.
    ///
    /// # Errors
    /// The runner cannot work; [`serve`] gives up.
    fn setup(&mut self) -> Result<(), RunError> {
        Ok(())
    }

    /// Works on one job, on the thread that called [`serve`].
    ///
    /// When it panics the job has failed, and the next one is processed with
    /// `self` as the panic left it.
    ///
    /// # Errors
    /// The job has failed, and this is what its client is told. A job that was
    /// told to stop ([`Job::is_stopped`]) ends with [`RunError::interrupted`].
    fn process(&mut self, job: &Job) -> Result<(), RunError>;
}
