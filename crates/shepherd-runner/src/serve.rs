//! A runner at work.
//!
//! ```text
//!   reader thread ──inputs──▶ Work ──next──▶ the caller's thread: process()
//!     │   pongs at once        ▲                    │ answers
//!     ▼                        │ shutdown           ▼
//!   socket ◀───────────────── signals           Answers ──▶ socket
//!                                                   ▲
//!   what jobs print ──▶ logs, one a job ──logs thread
//! ```
//!
//! The caller's thread does the work, so that whatever it starts (a child with a
//! parent-death signal, a GPU context) belongs to a thread that lives as long as
//! the runner. Only a runner with several slots has further threads for its jobs, and
//! an asynchronous one does its work in the caller's task. Everything that must not
//! wait for a job is on other threads.
//!
//! An answer belongs to the connection that its input came on. When that ends,
//! the inputs of it that wait are forgotten and the jobs in work are told to stop.

mod answers;
mod outcome;
mod reader;
mod service;
mod shutdown;
mod tasks;
mod work;
mod workers;

use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use crate::panic::caught;
use crate::{AsyncRunner, BatchRunner, Options, ParallelRunner, RunError, Runner, ServeError};
use service::Service;
use tasks::Tasks;
use workers::{run_batches, run_jobs};

/// Serves jobs one by one until the shepherd or a signal (SIGTERM, SIGINT) says to
/// stop, or the program that started this one and the connection to the shepherd are
/// both gone.
///
/// When the time to stop is over and a job still runs, the process exits with
/// code 1; a second signal makes it exit at once. A program should not go on for
/// long after this returned: the two signals do nothing any more.
///
/// # Errors
/// The runner could not start; no job was taken.
pub fn serve(mut runner: impl Runner, options: Options) -> Result<(), ServeError> {
    one_slot(&options)?;
    let service = Service::start(options, 1)?;
    let outcome = set_up(|| runner.setup());
    if outcome.is_ok() {
        service.work.set_ready();
        run_jobs(&service, |job| runner.process(job));
    }
    service.end();
    outcome
}

/// As [`serve`], with [`Options::slots`] jobs at a time, each on a thread of its own, of
/// which the caller's is one. All threads are there before the first job and until the
/// runner ends.
///
/// # Errors
/// The runner could not start; no job was taken.
pub fn serve_parallel(mut runner: impl ParallelRunner, options: Options) -> Result<(), ServeError> {
    several_slots(&options)?;
    let slots = options.slots;
    let service = Service::start(options, slots)?;
    let mut outcome = set_up(|| runner.setup());
    if outcome.is_ok() {
        let (service, runner) = (&service, &runner);
        let work = || run_jobs(service, |job| runner.process(job));
        outcome = thread::scope(|scope| {
            for number in 1..slots {
                let name = format!("slot-{number}");
                if let Err(error) = thread::Builder::new().name(name).spawn_scoped(scope, work) {
                    service.work.shut_down(Duration::ZERO);
                    return Err(ServeError::Start(error));
                }
            }
            service.work.set_ready();
            work();
            Ok(())
        });
    }
    service.end();
    outcome
}

/// As [`serve`], with up to [`Options::max_batch`] jobs at a time: as many as are there
/// when the first has waited for [`Options::max_wait`].
///
/// # Errors
/// The runner could not start; no job was taken.
pub fn serve_batches(mut runner: impl BatchRunner, options: Options) -> Result<(), ServeError> {
    one_slot(&options)?;
    if options.max_batch == 0 {
        return Err(ServeError::Options("`max_batch` must be at least 1"));
    }
    let (most, wait) = (options.max_batch, options.max_wait);
    let service = Service::start(options, most)?;
    let outcome = set_up(|| runner.setup());
    if outcome.is_ok() {
        service.work.set_ready();
        run_batches(&service, &mut runner, most, wait);
    }
    service.end();
    outcome
}

/// As [`serve`], with [`Options::slots`] jobs at a time, all in the task that polls this
/// future, on whatever runtime that is.
///
/// To drop the future breaks off: jobs in work are dropped where they wait, and the
/// shepherd gives them to other runners.
///
/// # Errors
/// The runner could not start; no job was taken.
pub async fn serve_async(mut runner: impl AsyncRunner, options: Options) -> Result<(), ServeError> {
    several_slots(&options)?;
    let slots = options.slots;
    let service = Service::start(options, slots)?;
    let outcome = set_up_async(&mut runner).await;
    if outcome.is_ok() {
        service.work.set_ready();
        Tasks::new(&runner, &service, slots).await;
    }
    service.end();
    outcome
}

fn one_slot(options: &Options) -> Result<(), ServeError> {
    match options.slots {
        1 => Ok(()),
        _ => Err(ServeError::Options("several `slots` are for `serve_parallel` and `serve_async`")),
    }
}

fn several_slots(options: &Options) -> Result<(), ServeError> {
    match options.slots {
        0 => Err(ServeError::Options("`slots` must be at least 1")),
        1 => Ok(()),
        _ if options.capture_output => {
            Err(ServeError::Options("`capture_output` is for one slot: nobody knows which job writes"))
        }
        _ => Ok(()),
    }
}

fn set_up(setup: impl FnOnce() -> Result<(), RunError>) -> Result<(), ServeError> {
    caught(setup).flatten().map_err(|error| ServeError::Setup(error.error.message))
}

async fn set_up_async(runner: &mut impl AsyncRunner) -> Result<(), ServeError> {
    let mut setup = pin!(async { runner.setup().await });
    let outcome = std::future::poll_fn(|context| {
        caught(|| setup.as_mut().poll(context)).unwrap_or_else(|panic| Poll::Ready(Err(panic)))
    });
    outcome.await.map_err(|error| ServeError::Setup(error.error.message))
}
