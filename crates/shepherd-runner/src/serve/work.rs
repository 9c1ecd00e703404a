//! What is to be done, and what is being done.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shepherd_job::{Attempt, JobId};
use shepherd_protocol::{FromRunner, Input, RunnerSender};

use crate::stop::{Stop, StopFlag};

/// How many inputs may wait. The shepherd sends what the runner asked for; this
/// bounds what a mistaken one can do.
const MAX_WAITING: usize = 10_000;
/// What a runner without a job takes to end properly, when it is given no time.
const MIN_GRACE: Duration = Duration::from_millis(500);

/// An input in work.
pub(super) struct Taken {
    pub(super) input: Input,
    pub(super) connection: u64,
    pub(super) stop: Arc<StopFlag>,
}

/// What a cancellation met.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// The job waited and is forgotten: it is to be answered.
    Waiting,
    /// The job is in work and was told to stop: it will answer.
    Running,
    /// It was answered already.
    Unknown,
}

pub(super) struct Work {
    state: Mutex<State>,
    changed: Condvar,
    sender: RunnerSender,
    ready_message: FromRunner,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Input>,
    running: Option<Running>,
    connected: bool,
    connection: u64,
    ready: bool,
    /// The worker waits for an input; to notify nobody costs a system call.
    idle: bool,
    stop_by: Option<Instant>,
    finished: bool,
}

struct Running {
    job: JobId,
    attempt: Attempt,
    stop: Arc<StopFlag>,
}

impl Work {
    pub(super) fn new(sender: RunnerSender, ready_message: FromRunner) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), sender, ready_message }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model is loaded. Whoever is connected is told, and who connects later.
    pub(super) fn set_ready(&self) {
        let mut state = self.lock();
        state.ready = true;
        self.announce(&state);
    }

    pub(super) fn connected(&self) {
        let mut state = self.lock();
        state.connected = true;
        state.connection += 1;
        self.announce(&state);
    }

    fn announce(&self, state: &State) {
        if state.ready && state.connected && state.stop_by.is_none() {
            // When it fails the connection is gone, and the next one is told.
            let _ = self.sender.send(std::slice::from_ref(&self.ready_message));
        }
    }

    pub(super) fn disconnected(&self) {
        let mut state = self.lock();
        state.connected = false;
        state.waiting.clear();
        let running = state.running.as_ref().map(|running| Arc::clone(&running.stop));
        drop(state);
        if let Some(stop) = running {
            stop.set(Stop::Disconnected);
        }
    }

    /// The connection whose messages are being read.
    pub(super) fn connection(&self) -> u64 {
        self.lock().connection
    }

    /// Returns whether there was room.
    pub(super) fn push(&self, input: Input) -> bool {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_WAITING {
            return false;
        }
        state.waiting.push_back(input);
        if state.idle {
            state.idle = false;
            self.changed.notify_all();
        }
        true
    }

    pub(super) fn cancel(&self, job: &JobId, attempt: Attempt) -> Cancelled {
        let mut state = self.lock();
        let running =
            state.running.as_ref().filter(|running| running.job == *job && running.attempt == attempt);
        if let Some(stop) = running.map(|running| Arc::clone(&running.stop)) {
            drop(state);
            stop.set(Stop::Cancelled);
            return Cancelled::Running;
        }
        let before = state.waiting.len();
        state.waiting.retain(|input| !(input.job == *job && input.attempt == attempt));
        if state.waiting.len() < before { Cancelled::Waiting } else { Cancelled::Unknown }
    }

    /// The next input; waits for one. None when it is time to end.
    pub(super) fn next(&self) -> Option<Taken> {
        let mut state = self.lock();
        loop {
            if state.stop_by.is_some() {
                return None;
            }
            if let Some(taken) = state.take() {
                return Some(taken);
            }
            state.idle = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
    }

    /// The next input that is here already. The one before it is over.
    pub(super) fn try_next(&self) -> Option<Taken> {
        let mut state = self.lock();
        state.running = None;
        if state.stop_by.is_some() { None } else { state.take() }
    }

    /// Begins no other job. Returns whether this is news.
    pub(super) fn shut_down(&self, grace: Duration) -> bool {
        let mut state = self.lock();
        if state.stop_by.is_some() {
            return false;
        }
        let now = Instant::now();
        // A grace that no clock can hold is as good as a day.
        let by = now.checked_add(grace.max(MIN_GRACE)).unwrap_or(now + Duration::from_secs(86_400));
        state.stop_by = Some(by);
        let running = state.running.as_ref().map(|running| Arc::clone(&running.stop));
        self.changed.notify_all();
        drop(state);
        if let Some(stop) = running {
            stop.set(Stop::Shutdown { within: by.duration_since(now) });
        }
        true
    }

    /// Waits until the worker has ended, or the time to stop is over. Returns
    /// whether it has ended.
    pub(super) fn wait_finished(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.finished {
                return true;
            }
            let left = state.stop_by.map(|by| by.saturating_duration_since(Instant::now()));
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.lock().finished
    }
}

impl State {
    fn take(&mut self) -> Option<Taken> {
        let input = self.waiting.pop_front()?;
        let stop = Arc::new(StopFlag::default());
        self.running =
            Some(Running { job: input.job.clone(), attempt: input.attempt, stop: Arc::clone(&stop) });
        Some(Taken { input, connection: self.connection, stop })
    }
}
