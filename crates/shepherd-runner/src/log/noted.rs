//! Whose logs have something to send.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::FLUSH_DELAY;
use crate::Job;

/// Jobs that printed something, for the thread that sends it.
#[derive(Default)]
pub(crate) struct Noted {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    closed: bool,
}

impl Noted {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to send of this job.
    pub(crate) fn note(&self, job: &Job) {
        let mut state = self.lock();
        state.jobs.push(job.clone());
        if state.jobs.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// The jobs that printed something, a pause after the first of them did. None
    /// after [`close`](Self::close).
    pub(crate) fn next(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + FLUSH_DELAY;
        while !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(std::mem::take(&mut state.jobs));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// All jobs are over, and sent the rest themselves.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }
}
