//! What the world knows of attempts, sheep, directories and changes.

use std::time::Duration;

use shepherd_job::Attempt as Token;
use shepherd_queue::Change;

use super::super::{AttemptKey, Job, LaunchNo, SheepNo};

/// Which answer an attempt waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Staged,
    Collected,
    Published,
    Released,
    Committed,
}

/// What the world knows of an attempt that the engine holds.
#[derive(Debug)]
pub(super) struct SimAttempt {
    pub(super) job: Job,
    pub(super) sheep: SheepNo,
    /// The answer that its last effect is to get.
    pub(super) owed: Option<Owed>,
    /// When its directory began to be filled.
    pub(super) since: Duration,
    /// The launch of the runner that it was sent to, and whether that is a lie's victim.
    pub(super) sent_to: Option<LaunchNo>,
    /// The engine was told that its client does not want it, before its runner was through with it.
    pub(super) is_cancelled: bool,
    /// When its runner began it: of all time, and of the time that the daemon was awake.
    pub(super) begun: Option<(Duration, Duration)>,
    /// When the engine had its runner told to let go of it, of the time that the daemon was awake.
    pub(super) cancelling: Option<Duration>,
    /// The stage that it was last seen in.
    pub(super) stage: &'static str,
    /// The runner has told that it is done.
    pub(super) is_done: bool,
    /// Its runner is gone, which may be its doing: it had no other job, and its machine was up.
    pub(super) may_be_blamed: bool,
    /// Errors that it may fail with.
    pub(super) errors: Vec<String>,
}

/// One sheep's place in the world.
#[derive(Debug, Default)]
pub(super) struct SimSheep {
    pub(super) is_homeless: bool,
    pub(super) is_disk_full: bool,
    pub(super) is_broken: bool,
    pub(super) owes_claim: bool,
    pub(super) owes_check: bool,
    pub(super) owes_reopen: bool,
}

/// A working directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) holder: AttemptKey,
    /// The attempt whose outputs are in it.
    pub(super) outputs: Option<Token>,
}

/// A change that is to become durable.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) attempt: Option<AttemptKey>,
    pub(super) change: Change,
}
