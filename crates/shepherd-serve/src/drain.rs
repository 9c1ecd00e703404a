//! The end of serving, as every connection and waiter sees it.
//!
//! Connections are polled for every request, so asking whether to drain costs
//! them one load: a connection registers to be woken once, and looks at the phase
//! whenever it is polled.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Context;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It has not begun.
    Running,
    /// What is in progress may finish; nothing new begins.
    Draining,
    /// Nothing may go on.
    Forced,
}

/// A handle to it: what [`serve`](crate::serve) raises, and a service may wait for.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: Arc<AtomicU8>,
    changed: Arc<Notify>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { phase: Arc::new(AtomicU8::new(Phase::Running as u8)), changed: Arc::new(Notify::new()) }
    }
}

impl Drain {
    /// One that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets no more begin.
    pub(crate) fn begin(&self) {
        self.raise(Phase::Draining);
    }

    /// Lets nothing go on.
    pub(crate) fn force(&self) {
        self.raise(Phase::Forced);
    }

    fn raise(&self, to: Phase) {
        // Before the wake-up, so that who is woken sees it.
        self.phase.fetch_max(to as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Forced,
        }
    }

    /// Waits until it has begun: what waits for something long had better answer.
    pub async fn begun(&self) {
        let changed = self.changed.notified();
        let mut changed = std::pin::pin!(changed);
        // Registered before the phase is read: a change between is not missed.
        changed.as_mut().enable();
        if self.phase() == Phase::Running {
            changed.await;
        }
    }

    /// Follows it from one task.
    pub(crate) fn watch(&self) -> Watch {
        Watch { drain: self.clone(), change: None, seen: Phase::Running }
    }
}

/// See [`Drain::watch`]. To be polled by one task only: the waker is registered
/// once for each phase.
pub(crate) struct Watch {
    drain: Drain,
    change: Option<Pin<Box<OwnedNotified>>>,
    seen: Phase,
}

impl Watch {
    /// The phase; the task is woken when it changes.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Phase {
        if self.change.is_none() || self.drain.phase() != self.seen {
            let mut change = Box::pin(Arc::clone(&self.drain.changed).notified_owned());
            let _ = change.as_mut().poll(cx);
            self.change = Some(change);
            // Read after registering: a change between is not missed.
            self.seen = self.drain.phase();
        }
        self.seen
    }
}
