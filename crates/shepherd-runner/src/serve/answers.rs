//! Answers on their way to the shepherd.
//!
//! Between short jobs answers wait for each other and travel together, because a
//! frame costs more than a job that does nothing. What nothing follows at once is
//! sent at once; and if the next job turns out to be long, a thread sends what
//! waits after [`HOLD`].

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shepherd_protocol::{FromRunner, RunnerSender};

/// The longest that an answer waits for others.
const HOLD: Duration = Duration::from_millis(1);

pub(super) struct Answers {
    state: Mutex<State>,
    changed: Condvar,
    sender: RunnerSender,
    batch: usize,
}

#[derive(Default)]
struct State {
    held: Vec<FromRunner>,
    /// Which connection they are for.
    connection: u64,
    since: Option<Instant>,
    /// The thread waits for something to be held.
    idle: bool,
    closed: bool,
}

impl Answers {
    pub(super) fn new(sender: RunnerSender, batch: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), sender, batch }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer to an input of this connection, and sends it with all that
    /// wait unless it may be held for others.
    pub(super) fn push(&self, connection: u64, answer: FromRunner, hold: bool) {
        let mut state = self.lock();
        if connection < state.connection {
            return;
        }
        if connection > state.connection {
            // What is held has nobody left to go to.
            state.held.clear();
            state.since = None;
            state.connection = connection;
        }
        state.held.push(answer);
        let since = *state.since.get_or_insert_with(Instant::now);
        if !hold || state.held.len() >= self.batch || since.elapsed() >= HOLD {
            self.send(&mut state);
        } else if state.idle {
            state.idle = false;
            self.changed.notify_one();
        }
    }

    fn send(&self, state: &mut State) {
        state.since = None;
        // It fails only when the connection is gone, and the jobs with it.
        let _ = self.sender.send_wait(&state.held);
        state.held.clear();
    }

    /// Sends what waits, and lets the thread end.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if !state.held.is_empty() {
            self.send(&mut state);
        }
        state.closed = true;
        self.changed.notify_one();
    }

    /// The thread: sends what was held for too long.
    pub(super) fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            state = match state.since.map(|since| HOLD.saturating_sub(since.elapsed())) {
                None => {
                    state.idle = true;
                    let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle = false;
                    state
                }
                Some(Duration::ZERO) => {
                    self.send(&mut state);
                    state
                }
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
