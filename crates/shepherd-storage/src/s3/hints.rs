//! What is known of buckets, to save requests.
//!
//! Only a hint: others make and remove buckets too. A wrong one costs a request
//! more, and never decides what a call answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::MutexGuard;

/// How many buckets are remembered.
const MAX_REMEMBERED: usize = 16 << 10;

/// How many buckets can be made at once.
const MAKERS: usize = 32;

/// What was last seen of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    There,
    Missing,
}

/// The memory.
pub(super) struct Hints {
    memory: Mutex<Memory>,
    /// Those who need the same bucket make it one after another, so that only the
    /// first one does.
    makers: Vec<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Memory {
    seen: HashMap<String, Hint>,
    /// In the order in which they are forgotten.
    order: VecDeque<String>,
}

impl Hints {
    pub(super) fn new() -> Self {
        let makers = (0..MAKERS).map(|_| tokio::sync::Mutex::default()).collect();
        Self { memory: Mutex::default(), makers }
    }

    pub(super) fn get(&self, bucket: &str) -> Option<Hint> {
        self.memory().seen.get(bucket).copied()
    }

    pub(super) fn set(&self, bucket: &str, hint: Hint) {
        let mut memory = self.memory();
        if let Some(seen) = memory.seen.get_mut(bucket) {
            *seen = hint;
            return;
        }
        if memory.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.seen.remove(&oldest);
        }
        memory.seen.insert(bucket.to_owned(), hint);
        memory.order.push_back(bucket.to_owned());
    }

    /// The turn to make a bucket.
    pub(super) async fn turn(&self, bucket: &str) -> MutexGuard<'_, ()> {
        let sum = bucket.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.makers[sum % MAKERS].lock().await
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let hints = Hints::new();
        for n in 0..MAX_REMEMBERED + 10 {
            hints.set(&format!("bucket-{n}"), Hint::Missing);
        }
        hints.set("bucket-100", Hint::There);
        assert_eq!(hints.get("bucket-9"), None);
        assert_eq!(hints.get("bucket-10"), Some(Hint::Missing));
        assert_eq!(hints.get("bucket-100"), Some(Hint::There));
        assert_eq!(hints.memory().seen.len(), MAX_REMEMBERED);
        assert_eq!(hints.memory().order.len(), MAX_REMEMBERED);
    }
}
