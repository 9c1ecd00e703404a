//! Answers and logs on their way to the shepherd, in the order in which they are given.
//!
//! Between short jobs answers wait for each other and travel together, because a
//! frame costs more than a job that does nothing. What nothing follows at once is
//! sent at once; and if the next job turns out to be long, a thread sends what
//! waits after [`HOLD`]. The same thread sends for those who must not wait while the
//! shepherd does not read.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shepherd_protocol::{FromRunner, RunnerSender};

/// The longest that an answer waits for others.
const HOLD: Duration = Duration::from_millis(1);

pub(super) struct Answers {
    state: Mutex<State>,
    changed: Condvar,
    /// Held while something is sent, so that the order is kept: with what is sent, and
    /// otherwise with nothing. Taken before `state`.
    sending: Mutex<Vec<FromRunner>>,
    sender: RunnerSender,
    batch: usize,
}

#[derive(Default)]
struct State {
    held: Vec<FromRunner>,
    /// Which connection they are for.
    connection: u64,
    send_by: Option<Instant>,
    /// The thread waits for something to be held.
    idle: bool,
    closed: bool,
}

impl Answers {
    pub(super) fn new(sender: RunnerSender, batch: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), sending: Mutex::default(), sender, batch }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes messages about a job of this connection, and sends them with all that wait
    /// unless they may be held for others.
    pub(super) fn push(&self, connection: u64, messages: impl IntoIterator<Item = FromRunner>, hold: bool) {
        let mut state = self.lock();
        if !state.add(connection, messages) {
            return;
        }
        let now = Instant::now();
        let send_by = *state.send_by.get_or_insert_with(|| now + HOLD);
        if !hold || state.held.len() >= self.batch || send_by <= now {
            drop(state);
            self.send();
        } else if state.idle {
            state.idle = false;
            self.changed.notify_one();
        }
    }

    /// Has the thread send messages about a job of this connection. Waits for nothing.
    pub(super) fn post(&self, connection: u64, messages: impl IntoIterator<Item = FromRunner>) {
        let mut state = self.lock();
        if state.add(connection, messages) {
            state.send_by = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Has messages travel with the next ones, or at the next
    /// [`send`](Self::send). Waits for nothing.
    pub(super) fn append(&self, connection: u64, messages: impl IntoIterator<Item = FromRunner>) {
        self.lock().add(connection, messages);
    }

    /// Sends what waits; waits while the shepherd does not read.
    pub(super) fn send(&self) {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        state.send_by = None;
        let connection = state.connection;
        std::mem::swap(&mut *sending, &mut state.held);
        drop(state);
        if !sending.is_empty() {
            // It fails only when the connection is gone, and the jobs with it.
            let _ = self.sender.send_wait_to(connection, &sending);
            sending.clear();
        }
    }

    /// Sends what waits, and lets the thread end.
    pub(super) fn close(&self) {
        self.send();
        self.abandon();
    }

    /// Lets the thread end.
    pub(super) fn abandon(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The thread: sends what was held for too long, and what was posted.
    pub(super) fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let left = state.send_by.map(|by| by.saturating_duration_since(Instant::now()));
            state = match left {
                None => {
                    state.idle = true;
                    let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle = false;
                    state
                }
                Some(Duration::ZERO) => {
                    drop(state);
                    self.send();
                    self.lock()
                }
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl State {
    /// Returns whether there is somebody for whom the messages are.
    fn add(&mut self, connection: u64, messages: impl IntoIterator<Item = FromRunner>) -> bool {
        if connection < self.connection {
            return false;
        }
        if connection > self.connection {
            // What is held has nobody left to go to.
            self.held.clear();
            self.send_by = None;
            self.connection = connection;
        }
        self.held.extend(messages);
        true
    }
}
