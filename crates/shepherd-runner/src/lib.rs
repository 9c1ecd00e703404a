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
//!         let mut output = String::new();
//!         for (number, line) in text.lines().enumerate() {
//!             job.checkpoint()?;
//!             output.push_str(&line.to_uppercase());
//!             output.push('\n');
//!             job.progress(number as f64 / text.lines().count() as f64, "shouting");
//!         }
//!         job.log(format!("{} bytes", output.len()));
//!         std::fs::write(job.outputs().join("output"), output)?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     serve(Upper, Options::from_env(9999).logs(true))?;
//!     Ok(())
//! }
//! ```
//!
//! # Several jobs at once
//! Each way to work is a trait and a function that serves it.
//!
//! | | jobs at a time | where |
//! |---|---|---|
//! | [`Runner`], [`serve`] | one | the caller's thread |
//! | [`ParallelRunner`], [`serve_parallel`] | [`Options::slots`] | a thread each |
//! | [`BatchRunner`], [`serve_batches`] | one batch of up to [`Options::max_batch`] | the caller's thread |
//! | [`AsyncRunner`], [`serve_async`] | [`Options::slots`] | the caller's task, on any runtime |
//!
//! ```no_run
//! use shepherd_runner::{AsyncRunner, Job, Options, RunError, serve_async};
//!
//! struct Waiting;
//!
//! impl AsyncRunner for Waiting {
//!     async fn process(&self, job: &Job) -> Result<(), RunError> {
//!         let nap = tokio::time::sleep(std::time::Duration::from_secs(5));
//!         Ok(job.unless_cancelled(nap).await?)
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     serve_async(Waiting, Options::from_env(9999).slots(100)).await?;
//!     Ok(())
//! }
//! ```
//!
//! # What a job may count on
//! - Its error, and its panic with message and place, are its own: other jobs go on, and
//!   so does the runner. (A program whose panics abort it has none of that.)
//! - It is told to stop, and never interrupted: [`Job::cancelled`]. One that does not
//!   end within the sheep's `stop_grace` ends with its runner.
//! - With [`Options::logs`], what it [logs](Job::log) is with the shepherd before its
//!   answer; of a job that prints faster than can be sent, the end.
//!
//! It moves no files: inputs are there when a job comes, and outputs are fetched
//! after it is done. It never decides which jobs come: a machine with room for more
//! runs more sheep.

mod error;
mod job;
mod log;
mod options;
mod output;
mod panic;
mod runner;
mod serve;
mod stop;

pub use error::{Cancelled, RunError, ServeError};
pub use job::Job;
pub use log::LogWriter;
pub use options::Options;
pub use runner::{AsyncRunner, BatchRunner, ParallelRunner, Runner};
pub use serve::{serve, serve_async, serve_batches, serve_parallel};
pub use shepherd_protocol::{TOKEN_VARIABLE, Token};
pub use stop::Stop;
