//! What goes into the engine and what comes out of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{Attempt as Token, JobError, JobId, ModelRef, Timestamp};
use shepherd_protocol::{FromRunner, ToRunner};
use shepherd_queue::{Change, Claimed, Ready, SmallObject};
use tokio::time::Instant;

use super::attempt::{AttemptKey, Job};
use crate::live::Progress;

/// The time of an input, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For deadlines.
    pub(crate) monotonic: Instant,
    /// For records.
    pub(crate) wall: Timestamp,
}

/// Place of a sheep in the flock, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SheepNo(pub(crate) usize);

/// Names one launch of a runner; never used twice in one life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaunchNo(pub(crate) u64);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// Jobs may have become ready in the store.
    QueueChanged,
    /// The answer to [`Effect::Look`].
    Looked(Result<QueueView, String>),
    /// The answer to [`Effect::Claim`]; none were claimed when the store did not answer.
    Claimed { sheep: SheepNo, jobs: Vec<Claimed> },
    /// The answer to [`Effect::Stage`].
    Staged { attempt: AttemptKey, result: Result<Staged, StageFailure> },
    /// A runner is ready for jobs.
    Launched { sheep: SheepNo, launch: LaunchNo, runner: RunnerFacts },
    /// No runner came of [`Effect::Launch`]; nothing of it is left.
    LaunchFailed { sheep: SheepNo, launch: LaunchNo, failure: LaunchFailure },
    /// A runner said something.
    Heard { sheep: SheepNo, launch: LaunchNo, messages: Vec<FromRunner> },
    /// A runner is being lost: its process or its connection is gone, and what it said before
    /// may still come. What is sent to it now is lost.
    Fading { sheep: SheepNo, launch: LaunchNo },
    /// A runner died, and nothing more comes of it.
    Lost { sheep: SheepNo, launch: LaunchNo, death: Death },
    /// A runner cannot be relied on: it said what nobody understands, or does not read.
    Unreliable { sheep: SheepNo, launch: LaunchNo, reason: String },
    /// The answer to [`Effect::End`]: another runner may be launched.
    Ended { sheep: SheepNo, launch: LaunchNo, report: EndReport },
    /// The answer to [`Effect::Collect`].
    Collected { attempt: AttemptKey, result: Collected },
    /// The answer to [`Effect::Publish`].
    Published { attempt: AttemptKey, result: Published },
    /// The answer to [`Effect::Release`].
    Released { attempt: AttemptKey },
    /// The answer to [`Effect::Commit`]: the change is durable, or was refused for good.
    Committed { attempt: AttemptKey },
    /// A job was cancelled durably while its attempt of this number was current.
    Cancelled { job: JobId, number: u32 },
    /// The answer to [`Effect::CheckSpace`]: why jobs cannot be worked on, if the disk is full.
    Space { sheep: SheepNo, problem: Option<String> },
    /// The answer to [`Effect::Reopen`].
    Reopened { sheep: SheepNo, result: Result<(), String> },
    /// The answer to [`Effect::Check`]: why the sheep could not launch a runner, if it could not.
    Checked { sheep: SheepNo, problem: Option<String> },
    /// No more jobs are to be begun.
    Drain,
    /// Runners are to be killed and their jobs given back.
    Force,
    /// The time of [`Engine::deadline`](super::Engine::deadline) has come.
    Timer,
}

/// What waits in the store, as far as the flock may take it.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueView {
    pub(crate) ready: Ready,
    /// Whether anything waits, also what no sheep can run at present.
    pub(crate) is_waiting: bool,
    /// For each sheep, models of the groups that it cannot run; empty where no sheep was asked.
    pub(crate) lacking: Vec<HashSet<ModelRef>>,
}

/// How a directory was filled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Staged {
    /// How long it took to bring inputs from storage, where that was done.
    pub(crate) took: Option<Duration>,
    /// The state of the job's model meanwhile.
    pub(crate) stamp: Option<u64>,
}

/// Why a job's directory could not be filled. Nothing of it is left.
#[derive(Debug)]
pub(crate) enum StageFailure {
    /// It never can be: the job fails.
    Fault(JobError),
    /// It cannot be now: the job waits so long, at least.
    Later(Duration),
    /// The sheep's directory is gone: it must be made again first.
    Homeless,
}

/// What a runner that is ready can do.
#[derive(Clone, Debug)]
pub(crate) struct RunnerFacts {
    /// What it calls itself.
    pub(crate) name: String,
    /// How many jobs it works on at once; at least 1.
    pub(crate) slots: usize,
    /// How many more it takes.
    pub(crate) ahead: usize,
    /// Whether it can let go of a job.
    pub(crate) can_cancel: bool,
    /// The state of its model when it was launched.
    pub(crate) stamp: Option<u64>,
    /// Where it finds the directories of jobs.
    pub(crate) io_data_root: Arc<str>,
}

/// Why there is no runner.
#[derive(Debug)]
pub(crate) enum LaunchFailure {
    /// The sheep cannot load this model.
    Refused(JobError),
    /// The model's runner died or did not become ready.
    Died(JobError),
    /// The sheep cannot run anything at present.
    Sheep(String),
}

/// How a runner died.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    /// Reads after "the runner".
    pub(crate) how: String,
    /// Neither the runner nor a job brought it about.
    pub(crate) is_blameless: bool,
    /// It may well have been ended from outside: in good order, by a signal that people
    /// and systems send, or for want of memory.
    pub(crate) is_from_outside: bool,
    /// When it was noticed.
    pub(crate) at: Instant,
}

/// What is known of a runner whose process is gone.
#[derive(Debug, Default)]
pub(crate) struct EndReport {
    /// Reads after "the runner".
    pub(crate) how: String,
    /// The end of what it printed for the one job that it worked on alone, if it did.
    pub(crate) own: Option<(AttemptKey, String)>,
}

/// What became of outputs that are small and may ride in the commit.
#[derive(Debug)]
pub(crate) enum Collected {
    /// Here they are; the directory is free.
    Small(Vec<SmallObject>),
    /// They must be published as files; they are still in the directory.
    Files,
    /// They cannot be read, ever; the directory is free.
    Unreadable(JobError),
    /// They are gone with the sheep's directory.
    Lost,
}

/// What became of outputs that were to be published. The directory is free.
#[derive(Debug)]
pub(crate) enum Published {
    /// They are durable in storage; or it is a failed job's, and they are given up.
    Kept,
    /// They cannot be stored, ever.
    Refused(JobError),
    /// They are gone, or may be, through no fault of the job.
    Lost,
    /// The attempt is not the job's any more.
    Stale,
}

/// Something to be done. Each that names an answer gets it exactly once, unless the daemon dies.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Look what waits in the store: [`Input::Looked`].
    Look,
    /// Claim jobs for a sheep: [`Input::Claimed`].
    Claim { sheep: SheepNo, model: ModelRef, limit: usize, overdue: Option<Timestamp> },
    /// Fill a working directory: [`Input::Staged`].
    Stage { attempt: AttemptKey, sheep: SheepNo, job: Job, objects: Vec<SmallObject> },
    /// Start a runner: [`Input::Launched`] or [`Input::LaunchFailed`], unless it is aborted.
    Launch { sheep: SheepNo, launch: LaunchNo, model: ModelRef },
    /// Drop a start; nothing is answered.
    AbortLaunch { launch: LaunchNo },
    /// Tell the runner which job it works on, for what it prints.
    WorksOn { launch: LaunchNo, job: Option<AtWork> },
    /// Send messages to a runner. Nothing is answered; where it does not read, it is
    /// [unreliable](Input::Unreliable).
    Send { launch: LaunchNo, messages: Vec<ToRunner> },
    /// End a runner: [`Input::Ended`].
    End { launch: LaunchNo, grace: Duration, kind: EndKind },
    /// Take outputs out of a working directory, where they are small and may ride: [`Input::Collected`].
    Collect { attempt: AttemptKey, sheep: SheepNo, job: Job, kind: OutputKind },
    /// Make outputs durable in storage: [`Input::Published`].
    Publish { attempt: AttemptKey, sheep: SheepNo, job: Job, has_failed: bool },
    /// Free a working directory: [`Input::Released`].
    Release { attempt: AttemptKey, sheep: SheepNo, job: JobId, how: Release },
    /// Make a change durable: [`Input::Committed`].
    Commit { attempt: AttemptKey, sheep: SheepNo, change: Change },
    /// Make it known that a job begins; nothing is answered.
    NoteBegun { sheep: SheepNo, change: Change },
    /// Publish how far a job is.
    Report { job: JobId, progress: Progress },
    /// Add to a job's log.
    Print { job: JobId, number: u32, text: String },
    /// Add to a job's log what of the end of all that it printed is not in it yet.
    CompleteLog { job: JobId, number: u32, text: String },
    /// A cancelled job prints from now on beside its log, which is in the store's hands.
    SplitLog { job: JobId, number: u32 },
    /// Add what a cancelled job printed until its runner let go of it to its log in storage;
    /// `own` is the end of all that it printed.
    JoinLog { job: JobId, token: Token, own: String },
    /// The job's status document is stale.
    Touch { job: JobId },
    /// The runners of another model are to see nothing of the present one's.
    ChangeModel { sheep: SheepNo },
    /// Remove what could not be removed while there was a runner.
    EmptyTrash { sheep: SheepNo },
    /// See whether the disk has room for jobs: [`Input::Space`].
    CheckSpace { sheep: SheepNo },
    /// Make the sheep's directory again: [`Input::Reopened`].
    Reopen { sheep: SheepNo },
    /// Ask the sheep whether it could launch a runner: [`Input::Checked`].
    Check { sheep: SheepNo },
    /// The sheep looks like this to clients now.
    Show { sheep: SheepNo },
}

/// The job that a runner works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AtWork {
    pub(crate) attempt: AttemptKey,
    pub(crate) job: JobId,
    pub(crate) number: u32,
    /// Whether what the runner prints can be of no other job.
    pub(crate) is_alone: bool,
    /// Whether the runner has no other job.
    pub(crate) is_only: bool,
}

/// How a runner is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// It has no jobs, and nobody asks how it ended.
    Leave,
    /// It is told how it ended.
    Stop,
}

/// Which outputs may ride in the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// Those of a job that is done, which must be files in storage before that is told.
    Publish,
    /// Those of a job that is done, where they are small.
    Ride,
    /// Those of a job that failed, where they are small: nobody waits for them.
    Failed,
}

/// How a directory is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// Its runner has let go of it in good order: it may be used again.
    Keep,
    /// It is thrown away.
    Discard,
}
