//! What is to be done, and what is being done.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use shepherd_job::{Attempt, JobId};
use shepherd_protocol::{FromRunner, Input};

use super::answers::Answers;
use super::outcome::given_up;
use crate::Job;
use crate::job::Outlet;
use crate::stop::Stop;

/// How many inputs may wait. The shepherd sends what the runner asked for; this
/// bounds what a mistaken one can do.
const MAX_WAITING: usize = 10_000;
/// What a runner without a job takes to end properly, when it is given no time.
const MIN_GRACE: Duration = Duration::from_millis(500);

/// What a cancellation met.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancelling {
    /// The job waited and is forgotten: it is to be answered.
    Waiting,
    /// The job is in work and was told to stop: it will answer.
    Running,
    /// It was answered already.
    Unknown,
}

pub(super) struct Work {
    state: Mutex<State>,
    /// There is something to take, or it is time to end; for workers.
    arrived: Condvar,
    /// For [`wait_finished`](Work::wait_finished).
    ending: Condvar,
    outlet: Arc<Outlet>,
    answers: Arc<Answers>,
    ready_message: FromRunner,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Input>,
    running: Vec<Job>,
    connected: bool,
    connection: u64,
    ready: bool,
    /// How many workers wait, and how many of them are being woken; to notify nobody
    /// costs a system call. Whoever stops waiting for whatever reason looks for work,
    /// so that none is left lying when the wrong one was woken.
    idle: usize,
    woken: usize,
    /// A task that waits, in place of workers.
    waker: Option<Waker>,
    stop_by: Option<Instant>,
    finished: bool,
}

impl Work {
    pub(super) fn new(outlet: Arc<Outlet>, answers: Arc<Answers>, ready_message: FromRunner) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            ending: Condvar::new(),
            outlet,
            answers,
            ready_message,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// The model is loaded. Whoever is connected is told, and who connects later.
    pub(super) fn set_ready(&self) {
        let mut state = self.lock();
        state.ready = true;
        self.announce(&state);
    }

    pub(super) fn connected(&self, connection: u64) {
        let mut state = self.lock();
        state.connected = true;
        state.connection = connection;
        self.announce(&state);
    }

    fn announce(&self, state: &State) {
        if state.ready && state.connected && state.stop_by.is_none() {
            // When it fails the connection is gone, and the next one is told.
            let _ = self.outlet.sender.send_to(state.connection, std::slice::from_ref(&self.ready_message));
        }
    }

    pub(super) fn disconnected(&self) {
        let mut state = self.lock();
        state.connected = false;
        state.waiting.clear();
        let running = state.running.clone();
        drop(state);
        for job in running {
            job.stop(Stop::Disconnected);
        }
    }

    /// The connection whose messages are being read.
    pub(super) fn connection(&self) -> u64 {
        self.lock().connection
    }

    /// Returns whether there was room. A runner that is to end gives the input up.
    pub(super) fn push(&self, input: Input) -> bool {
        let mut state = self.lock();
        if state.stop_by.is_some() {
            self.answers.post(state.connection, [given_up(&input)]);
            return true;
        }
        if state.waiting.len() >= MAX_WAITING {
            return false;
        }
        state.waiting.push_back(input);
        if state.idle > state.woken {
            state.woken += 1;
            self.arrived.notify_one();
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    pub(super) fn cancel(&self, job: &JobId, attempt: Attempt) -> Cancelling {
        let is_meant = |input: &Input| input.job == *job && input.attempt == attempt;
        let mut state = self.lock();
        if let Some(running) = state.running.iter().find(|running| is_meant(running.input())).cloned() {
            drop(state);
            running.stop(Stop::Cancelled);
            return Cancelling::Running;
        }
        let before = state.waiting.len();
        state.waiting.retain(|input| !is_meant(input));
        if state.waiting.len() < before { Cancelling::Waiting } else { Cancelling::Unknown }
    }

    /// The next job; waits for one. None when it is time to end.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        while state.stop_by.is_none() {
            if let Some(job) = self.take(&mut state) {
                return Some(job);
            }
            state = self.wait(state, None);
        }
        None
    }

    /// The next job that is here already. The one before it is over.
    pub(super) fn end_and_try_next(&self, job: &Job) -> Option<Job> {
        let mut state = self.lock();
        state.end(job);
        if state.stop_by.is_some() { None } else { self.take(&mut state) }
    }

    /// The next jobs: waits for the first, and then until there are `most` or `wait` is
    /// over. Empty when it is time to end.
    pub(super) fn next_batch(&self, most: usize, wait: Duration) -> Vec<Job> {
        let mut state = self.lock();
        while state.stop_by.is_none() {
            if state.waiting.is_empty() {
                state = self.wait(state, None);
                continue;
            }
            let began = Instant::now();
            // Until there are none left: all of them may be cancelled meanwhile, and then
            // the next one begins a batch.
            while state.stop_by.is_none() && !state.waiting.is_empty() {
                let left = wait.saturating_sub(began.elapsed());
                if state.waiting.len() >= most || left.is_zero() {
                    return std::iter::from_fn(|| self.take(&mut state)).take(most).collect();
                }
                state = self.wait(state, Some(left));
            }
        }
        Vec::new()
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, timeout: Option<Duration>) -> MutexGuard<'a, State> {
        state.idle += 1;
        state = match timeout {
            None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.arrived.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.idle -= 1;
        state.woken = state.woken.saturating_sub(1);
        state
    }

    fn take(&self, state: &mut State) -> Option<Job> {
        let job = Job::new(state.waiting.pop_front()?, state.connection, Arc::clone(&self.outlet));
        state.running.push(job.clone());
        Some(job)
    }

    /// The next job for a task, whose waker is called when there is another, or when it
    /// is time to end.
    pub(super) fn poll_next(&self, waker: &Waker) -> Option<Job> {
        let mut state = self.lock();
        let job = if state.stop_by.is_some() { None } else { self.take(&mut state) };
        if job.is_none() {
            state.waker = Some(waker.clone());
        }
        job
    }

    pub(super) fn end(&self, job: &Job) {
        self.lock().end(job);
    }

    /// Whether no other job is begun.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().stop_by.is_some()
    }

    /// Begins no other job, and gives up those that wait, so that other runners get them.
    /// Returns whether this is news.
    pub(super) fn shut_down(&self, grace: Duration) -> bool {
        let mut state = self.lock();
        if state.stop_by.is_some() {
            return false;
        }
        let now = Instant::now();
        // A grace that no clock can hold is as good as a day.
        let by = now.checked_add(grace.max(MIN_GRACE)).unwrap_or(now + Duration::from_secs(86_400));
        state.stop_by = Some(by);
        let running = state.running.clone();
        let waker = state.waker.take();
        if !state.waiting.is_empty() {
            let given_up: Vec<FromRunner> = state.waiting.drain(..).map(|input| given_up(&input)).collect();
            self.answers.post(state.connection, given_up);
        }
        self.arrived.notify_all();
        self.ending.notify_all();
        drop(state);
        for job in running {
            job.stop(Stop::Shutdown { within: by.duration_since(now) });
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Waits until all work is over, or the time to stop is. Returns whether it is over.
    pub(super) fn wait_finished(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.finished {
                return true;
            }
            let left = state.stop_by.map(|by| by.saturating_duration_since(Instant::now()));
            state = match left {
                None => self.ending.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => self.ending.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.ending.notify_all();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.lock().finished
    }
}

impl State {
    fn end(&mut self, job: &Job) {
        if let Some(index) = self.running.iter().position(|running| running.is(job)) {
            self.running.swap_remove(index);
        }
    }
}
