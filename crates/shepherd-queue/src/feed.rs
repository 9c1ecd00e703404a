//! The feed of transitions, for subscribers in this process.

use std::sync::Arc;

use shepherd_job::Phase;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::JobRecord;

/// How many transitions are sent together at the most.
const CHUNK: usize = 16;
/// How many chunks wait for a slow subscriber. With [`CHUNK`] it bounds the memory that a
/// subscriber who reads nothing costs: some megabytes of records.
const CAPACITY: usize = 1024;

/// A change of a job's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The phase before the change; none when the job is new.
    pub before: Option<Phase>,
    /// The record after the change.
    pub job: Arc<JobRecord>,
}

/// What a subscriber hears next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedItem {
    /// Transitions in the order in which they took effect.
    Transitions(Arc<[Transition]>),
    /// The subscriber was too slow and missed transitions. Those that follow are in order again;
    /// the records say what is so by now.
    Gap,
}

/// A subscription to the transitions of a store; see [`JobStore::feed`](crate::JobStore::feed).
#[derive(Debug)]
pub struct Feed(broadcast::Receiver<Arc<[Transition]>>);

impl Feed {
    /// What comes next; `None` when the store is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<FeedItem> {
        match self.0.recv().await {
            Ok(transitions) => Some(FeedItem::Transitions(transitions)),
            Err(RecvError::Lagged(_)) => Some(FeedItem::Gap),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Where a store tells its transitions.
#[derive(Debug)]
pub(crate) struct FeedSender(broadcast::Sender<Arc<[Transition]>>);

impl Default for FeedSender {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl FeedSender {
    pub(crate) fn subscribe(&self) -> Feed {
        Feed(self.0.subscribe())
    }

    /// Whether anybody listens: without a subscriber the feed costs nothing.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells transitions. Callers hold the lock under which these took effect, which puts them
    /// in order.
    pub(crate) fn tell(&self, transitions: &[Transition]) {
        for chunk in transitions.chunks(CHUNK) {
            // The last subscriber may have left.
            let _ = self.0.send(chunk.into());
        }
    }
}
