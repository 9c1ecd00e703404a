//! The loops that process jobs on threads: one job after another, or one batch after
//! another.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::outcome::last_messages;
use super::service::Service;
use crate::output::Output;
use crate::panic::caught;
use crate::{BatchRunner, Job, RunError};

/// Answers wait for each other only between jobs that are shorter than this.
const SHORT_JOB: Duration = Duration::from_micros(500);

/// Processes jobs one by one until it is time to end.
pub(super) fn run_jobs(service: &Service, mut process: impl FnMut(&Job) -> Result<(), RunError>) {
    let (work, output) = (&service.work, service.output());
    let mut next = work.next();
    while let Some(job) = next {
        let began = Instant::now();
        output.begin(std::slice::from_ref(&job));
        let outcome = caught(|| process(&job)).flatten();
        output.end();
        let messages = last_messages(&job, outcome);
        let short = began.elapsed() < SHORT_JOB;
        next = work.end_and_try_next(&job);
        service.answers.push(job.connection(), messages, short && next.is_some());
        if next.is_none() {
            next = work.next();
        }
    }
}

/// Processes batches until it is time to end.
pub(super) fn run_batches(service: &Service, runner: &mut impl BatchRunner, most: u32, wait: Duration) {
    let work = &service.work;
    loop {
        let jobs = work.next_batch(most as usize, wait);
        let Some(first) = jobs.first() else { return };
        let outcomes = process_batch(runner, service.output(), &jobs);
        // All that are taken at once came on one connection.
        let connection = first.connection();
        let messages: Vec<_> =
            jobs.iter().zip(outcomes).flat_map(|(job, outcome)| last_messages(job, outcome)).collect();
        for job in &jobs {
            work.end(job);
        }
        service.answers.push(connection, messages, false);
    }
}

/// Processes jobs together, and alone if that breaks off.
fn process_batch(runner: &mut impl BatchRunner, output: &Output, jobs: &[Job]) -> Vec<Result<(), RunError>> {
    let mut process = |jobs: &[Job]| {
        output.begin(jobs);
        let outcome = caught(|| runner.process_batch(jobs)).flatten();
        output.end();
        outcome
    };
    match process(jobs) {
        Ok(()) => jobs.iter().map(|_| Ok(())).collect(),
        Err(error) if jobs.len() == 1 => vec![Err(error)],
        Err(_) => jobs.iter().map(|job| alone(job, &mut process)).collect(),
    }
}

fn alone(job: &Job, process: &mut impl FnMut(&[Job]) -> Result<(), RunError>) -> Result<(), RunError> {
    if job.has_failed() {
        // It told so before the batch broke off, and that is its answer.
        return Ok(());
    }
    if job.is_stopped() {
        return Err(RunError::interrupted());
    }
    empty(job.outputs())?;
    process(std::slice::from_ref(job))
}

/// Removes what the batch that broke off may have left.
fn empty(outputs: &std::path::Path) -> io::Result<()> {
    let entries = match fs::read_dir(outputs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
