//! What happens in the world, in the order of its times.

use std::time::Duration;

use super::super::{AttemptKey, Input, LaunchNo, SheepNo};
use super::outside::Outside;
use super::runners::RunnerStep;
use super::store::StoreCall;
use super::work::Work;

/// Something that happens at some time.
#[derive(Debug)]
pub(super) enum Step {
    /// An input reaches the engine.
    Deliver(Input),
    /// The job store is asked.
    Store(StoreCall),
    /// The changes that wait are made durable.
    Commits,
    /// What takes its time with an attempt is done.
    Work(AttemptKey, Work),
    /// A runner, or its launch, does something.
    Runner(LaunchNo, RunnerStep),
    /// Somebody outside does something.
    Outside(Outside),
    /// What rides in the store is written to storage.
    WriteBack,
    /// A sheep's directory is made again.
    Reopen(SheepNo, Result<(), String>),
}

impl Step {
    /// Whether it waits while the daemon's process is stopped.
    pub(super) const fn is_daemons(&self) -> bool {
        match self {
            Self::Deliver(_)
            | Self::Store(_)
            | Self::Commits
            | Self::Work(..)
            | Self::WriteBack
            | Self::Reopen(..) => true,
            Self::Runner(_, step) => step.is_daemons(),
            Self::Outside(_) => false,
        }
    }
}

pub(super) struct Scheduled {
    pub(super) at: Duration,
    pub(super) seq: u64,
    /// In which life of the daemon it counts; none where in any.
    pub(super) life: Option<u64>,
    pub(super) step: Step,
}

impl Scheduled {
    const fn key(&self) -> (Duration, u64) {
        (self.at, self.seq)
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
