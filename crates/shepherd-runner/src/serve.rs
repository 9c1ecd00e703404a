//! A runner at work.
//!
//! ```text
//!   reader thread ──inputs──▶ Work ──next──▶ the caller's thread: process()
//!     │   pongs at once        ▲                    │ answers
//!     ▼                        │ shutdown           ▼
//!   socket ◀───────────────── signals           Answers ──▶ socket
//! ```
//!
//! The caller's thread does the work, so that whatever it starts (a child with a
//! parent-death signal, a GPU context) belongs to a thread that lives as long as
//! the runner. Everything that must not wait for a job is on other threads.
//!
//! An answer belongs to the connection that its input came on. When that ends,
//! the inputs of it that wait are forgotten and the job in work is told to stop.

mod answers;
mod reader;
mod shutdown;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shepherd_job::JobError;
use shepherd_protocol::{CANCELLED, FromRunner, Ready, RunnerSender, RunnerSocket};

use crate::stop::Stop;
use crate::{Job, Options, RunError, Runner, ServeError};
use answers::Answers;
use work::{Taken, Work};

/// How long the last answers may take to leave.
const FLUSH: Duration = Duration::from_secs(1);
/// Answers wait for each other only between jobs that are shorter than this.
const SHORT_JOB: Duration = Duration::from_micros(500);

/// Serves jobs until the shepherd or a signal (SIGTERM, SIGINT) says to stop, or
/// the program that started this one and the connection to the shepherd are both
/// gone.
///
/// When the time to stop is over and a job still runs, the process exits with
/// code 1; a second signal makes it exit at once. A program should not go on for
/// long after this returned: the two signals do nothing any more.
///
/// # Errors
/// The runner could not start; no job was taken.
pub fn serve(mut runner: impl Runner, options: Options) -> Result<(), ServeError> {
    let (_, sender, receiver) = RunnerSocket::bind(&options.listen).map_err(ServeError::Listen)?.split();
    let ready = Ready { ahead: options.ahead, batch: options.batch.max(1), ..Ready::new(options.name) };
    let work = Arc::new(Work::new(sender.clone(), FromRunner::Ready(ready)));
    let answers = Arc::new(Answers::new(sender.clone(), options.batch.max(1) as usize));

    let signals = shutdown::on_signals(&work, options.grace).map_err(ServeError::Start)?;
    let reader = {
        let (work, answers, sender) = (Arc::clone(&work), Arc::clone(&answers), sender.clone());
        thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || reader::run(receiver, &sender, &work, &answers, options.grace))
            .map_err(ServeError::Start)?
    };
    let flusher = {
        let answers = Arc::clone(&answers);
        thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || answers.run())
            .map_err(ServeError::Start)?
    };

    let outcome = set_up(&mut runner);
    if outcome.is_ok() {
        work.set_ready();
        process_all(&mut runner, &work, &answers, &sender);
    }

    // Until here a shepherd that reads nothing cannot keep a runner from ending.
    answers.close();
    sender.flush(FLUSH);
    work.finish();
    sender.close();
    signals.close();
    // None of them panics, and there is nobody left to tell if one did.
    let _ = (reader.join(), flusher.join());
    outcome
}

fn set_up(runner: &mut impl Runner) -> Result<(), ServeError> {
    match catch_unwind(AssertUnwindSafe(|| runner.setup())) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ServeError::Setup(error.error.message)),
        Err(panic) => Err(ServeError::Setup(panic_message(&*panic))),
    }
}

fn process_all(runner: &mut impl Runner, work: &Arc<Work>, answers: &Answers, sender: &RunnerSender) {
    let mut next = work.next();
    while let Some(taken) = next {
        let began = Instant::now();
        let answer = process(runner, &taken, sender);
        let short = began.elapsed() < SHORT_JOB;
        let connection = taken.connection;
        next = work.try_next();
        if let Some(answer) = answer {
            answers.push(connection, answer, short && next.is_some());
        }
        if next.is_none() {
            next = work.next();
        }
    }
}

/// The answer, if anybody waits for one.
fn process(runner: &mut impl Runner, taken: &Taken, sender: &RunnerSender) -> Option<FromRunner> {
    let job = Job::new(taken.input.clone(), Arc::clone(&taken.stop), sender.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| runner.process(&job)))
        .unwrap_or_else(|panic| Err(RunError::new(panic_message(&*panic)).with_type("panic")));
    let id = job.id().to_owned();
    let attempt = Some(job.attempt());
    match (outcome, taken.stop.get()) {
        (_, Some(Stop::Disconnected)) => None,
        (Ok(()), _) => Some(FromRunner::Done { job: id, attempt }),
        (Err(error), Some(Stop::Cancelled)) if error.interrupted => {
            Some(FromRunner::Error { job: id, attempt, error: cancelled() })
        }
        // It did not fail; it is to be run again elsewhere.
        (Err(error), Some(Stop::Shutdown { .. })) if error.interrupted => None,
        (Err(error), _) => Some(FromRunner::Error { job: id, attempt, error: error.error }),
    }
}

fn cancelled() -> JobError {
    JobError { exception_type: CANCELLED.to_owned(), ..JobError::new("the job was cancelled") }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the runner panicked: {}", text.unwrap_or("no message"))
}
