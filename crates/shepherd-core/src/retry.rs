//! Trying again what a store or a storage could not do.

use std::time::Duration;

use shepherd_queue::QueueError;
use shepherd_storage::StorageError;

/// Waits between tries of what a store or a storage could not do: twice as long
/// each time, within bounds.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    first: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max, first }
    }

    /// How long to wait this time.
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.next;
        self.next = (self.next * 2).min(self.max);
        now
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The waits between tries at a queue or storage that does not answer.
pub(crate) const fn store_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(10))
}

/// Whether the same call may succeed later, with nothing else changed.
pub(crate) trait IsTransient {
    fn is_transient(&self) -> bool;
}

impl IsTransient for QueueError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Full => true,
            Self::Fenced | Self::InUse(_) | Self::Unusable(_) => false,
        }
    }
}

impl IsTransient for StorageError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Throttled(_) | Self::Full | Self::Denied(_) => true,
            Self::NotFound | Self::Range { .. } | Self::Invalid(_) => false,
            _ => true,
        }
    }
}
