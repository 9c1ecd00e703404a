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
pub(super) enum Phase {
    /// It has not begun.
    Running,
    /// What is in progress may finish; nothing new begins.
    Draining,
    /// Nothing may go on.
    Forced,
}

/// A handle to it.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    phase: Arc<AtomicU8>,
    changed: Arc<Notify>,
}

impl Drain {
    pub(crate) fn new() -> Self {
        Self { phase: Arc::new(AtomicU8::new(Phase::Running as u8)), changed: Arc::new(Notify::new()) }
    }

    /// Lets no more begin.
    pub(super) fn begin(&self) {
        self.raise(Phase::Draining);
    }

    /// Lets nothing go on.
    pub(super) fn force(&self) {
        self.raise(Phase::Forced);
    }

    fn raise(&self, to: Phase) {
        // Before the wake-up, so that who is woken sees it.
        self.phase.fetch_max(to as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Forced,
        }
    }

    /// Waits until it has begun.
    pub(crate) async fn begun(&self) {
        let changed = self.changed.notified();
        let mut changed = std::pin::pin!(changed);
        // Registered before the phase is read: a change between is not missed.
        changed.as_mut().enable();
        if self.phase() == Phase::Running {
            changed.await;
        }
    }

    /// Follows it from one task.
    pub(super) fn watch(&self) -> Watch {
        Watch { drain: self.clone(), change: None, seen: Phase::Running }
    }
}

/// See [`Drain::watch`]. To be polled by one task only: the waker is registered
/// once for each phase.
pub(super) struct Watch {
    drain: Drain,
    change: Option<Pin<Box<OwnedNotified>>>,
    seen: Phase,
}

impl Watch {
    /// The phase; the task is woken when it changes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Phase {
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
