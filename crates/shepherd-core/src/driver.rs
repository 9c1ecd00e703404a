//! The driver: one task that runs the [engine](crate::engine). It feeds the engine what happens,
//! carries out what the engine decides in supervised tasks, and feeds back what they come to.
//! There is no other way to change what the flock does.
//!
//! ```text
//!  store changed, timer, drain ─▶ ┌────────┐ ─▶ look, claim     futures of this task: mostly at once
//!  cancel ──── channel ─────────▶ │ engine │ ─▶ stage, collect  blocking, many jobs at a time
//!  results ─── channel ─────────▶ └────────┘ ─▶ publish         one task for each job
//!  runners ─── channel ───────────────────────▶ launch, send    one task for each launch
//!                                              ─▶ commit        one task for all: `commits`
//! ```
//!
//! Each part owes the engine an answer, and a panic of one is the end of the daemon: which jobs it
//! had is lost with it, and only a restart puts that right.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use shepherd_job::{Event, SheepId};
use shepherd_queue::{Claim, Claimed, Pins};
use shepherd_sheep::Sheep;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::engine::{
    Effect, Engine, FlockMember, Input, LaunchNo, Now, QueueView, RunnerLimits, SheepNo, SheepState,
    SheepView,
};
use crate::models::Models;
use crate::orphans::Orphans;
use crate::retry::store_backoff;
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::workdir::WorkDirs;
use crate::write_back::WriteBack;
use commits::Commit;
use runner_task::{Command, Launch};

mod commits;
mod logs;
mod outputs;
mod runner;
mod runner_task;
mod staging;
mod upkeep;
mod words;

/// Maximum number of messages that wait for the driver; senders wait beyond it.
const MAX_WAITING_INPUTS: usize = 4096;
/// Maximum number of messages that are handled before their effects are carried out.
const INPUT_BATCH: usize = 256;
/// Maximum number of working directories that are filled or emptied before the engine hears of them.
const DISK_BATCH: usize = 16;
/// After a look at the store, none follows for so many times as long as it took.
const LOOK_REST: u32 = 4;
/// But for no longer than this.
const MAX_LOOK_REST: Duration = Duration::from_millis(200);
/// A rest that is no longer is left out: a timer would make it longer.
const MIN_LOOK_REST: Duration = Duration::from_millis(1);

/// How long no look at the store follows on one that took so long, what was decided by it included:
/// however many groups wait, looking at them takes a small part of the time only.
fn look_rest(took: Duration) -> Duration {
    let rest = took.saturating_mul(LOOK_REST).min(MAX_LOOK_REST);
    if rest > MIN_LOOK_REST { rest } else { Duration::ZERO }
}

/// Where inputs go: one, or several that came at once, which cost one wake-up.
#[derive(Clone, Debug)]
pub(crate) struct Inputs(mpsc::Sender<Vec<Input>>);

impl Inputs {
    /// Waits while too many inputs wait. A driver that has ended needs none.
    pub(crate) async fn send(&self, input: Input) {
        let _ = self.0.send(vec![input]).await;
    }

    async fn send_all(&self, inputs: impl IntoIterator<Item = Input>) {
        let _ = self.0.send(inputs.into_iter().collect()).await;
    }

    /// [`send_all`](Self::send_all) in a thread that may block, as the inputs come.
    fn send_all_blocking(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut inputs = inputs.into_iter();
        loop {
            let some: Vec<Input> = inputs.by_ref().take(DISK_BATCH).collect();
            if some.is_empty() {
                return;
            }
            let _ = self.0.blocking_send(some);
        }
    }
}

/// The flock as clients see it, written by the driver.
#[derive(Debug)]
pub(crate) struct Views(Mutex<Vec<SheepView>>);

impl Views {
    pub(crate) fn get(&self) -> Vec<SheepView> {
        self.lock().clone()
    }

    /// Why nothing can run, if no sheep can run anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let reason = |view: &SheepView| {
            let problem = view.problem.as_ref().filter(|_| view.state != SheepState::Running)?;
            Some(format!("`{}`: {problem}", view.id))
        };
        let reasons: Option<Vec<String>> = self.lock().iter().map(reason).collect();
        let reasons = reasons.filter(|reasons| !reasons.is_empty())?;
        Some(format!("no sheep can run anything: {}", reasons.join("; ")))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SheepView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a driver needs.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) write_back: Arc<WriteBack>,
    pub(crate) models: Arc<Models>,
    pub(crate) orphans: Arc<Orphans>,
    /// How long jobs may wait for more urgent ones.
    pub(crate) max_wait: Duration,
    /// Set when the time to drain is over.
    pub(crate) forced: CancellationToken,
    pub(crate) flock: Vec<Kept>,
}

/// One sheep with its working directories.
pub(crate) struct Kept {
    pub(crate) id: SheepId,
    pub(crate) sheep: Arc<dyn Sheep>,
    pub(crate) limits: RunnerLimits,
    pub(crate) home: Home,
}

/// The working directories of a sheep, which are made again when somebody removes them.
pub(crate) type Home = Arc<Mutex<Arc<WorkDirs>>>;

impl Kept {
    fn dirs(&self) -> Arc<WorkDirs> {
        Arc::clone(&self.home.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs the flock.
struct Driver {
    parts: Parts,
    engine: Engine,
    views: Arc<Views>,
    inputs: Inputs,
    launches: HashMap<LaunchNo, mpsc::UnboundedSender<Command>>,
    /// Bounded by the attempts that the engine holds.
    commits: mpsc::UnboundedSender<Commit>,
    /// Looks and claims: an embedded store answers at once.
    asked: FuturesUnordered<BoxFuture<'static, Input>>,
    /// When the last look at the store began; once its answer was taken, the earliest time of the
    /// next one.
    look_at: Instant,
}

/// Starts the driver. It ends when the shepherd has drained.
pub(crate) fn start(parts: Parts) -> (Inputs, Arc<Views>) {
    let (sender, waiting) = mpsc::channel(MAX_WAITING_INPUTS);
    let inputs = Inputs(sender);
    let now = Now { monotonic: Instant::now(), wall: now() };
    let member = |kept: &Kept| FlockMember {
        id: kept.id.clone(),
        kind: kept.sheep.kind(),
        limits: kept.limits.clone(),
    };
    let engine = Engine::new(parts.flock.iter().map(member).collect(), parts.max_wait, now);
    let views = (0..parts.flock.len()).map(|index| engine.view(SheepNo(index)).clone()).collect();
    let views = Arc::new(Views(Mutex::new(views)));
    let shared = Arc::clone(&parts.shared);
    let commits = commits::start(&shared, &parts.write_back, &inputs);
    let driver = Driver {
        parts,
        engine,
        views: Arc::clone(&views),
        inputs: inputs.clone(),
        launches: HashMap::new(),
        commits,
        asked: FuturesUnordered::new(),
        look_at: now.monotonic,
    };
    shared.tasks.spawn(TaskKind::Critical, "driver", driver.run(waiting));
    (inputs, views)
}

impl Driver {
    async fn run(mut self, mut waiting: mpsc::Receiver<Vec<Input>>) {
        let shared = Arc::clone(&self.parts.shared);
        let forced = self.parts.forced.clone();
        let mut changes = shared.queue.changes();
        let (mut drains, mut is_forced) = (false, false);
        let mut batch = Vec::with_capacity(INPUT_BATCH);
        let mut timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        while !self.engine.is_drained() {
            if let Some(deadline) = self.engine.deadline()
                && deadline != timer.deadline()
            {
                timer.as_mut().reset(deadline);
            }
            let has_deadline = self.engine.deadline().is_some();
            // Cancel-safe: what a branch would lose stays in its channel, in the set, or in the token.
            // Not biased: however much one branch brings, the others have their turns.
            tokio::select! {
                () = shared.tasks.draining.cancelled(), if !drains => {
                    drains = true;
                    self.handle(Input::Drain);
                }
                () = forced.cancelled(), if !is_forced => {
                    is_forced = true;
                    self.handle(Input::Force);
                }
                Some(input) = self.asked.next(), if !self.asked.is_empty() => self.handle(input),
                // The sender is here.
                _ = waiting.recv_many(&mut batch, INPUT_BATCH) => {
                    batch.drain(..).flatten().for_each(|input| self.handle(input));
                }
                changed = changes.changed() => {
                    debug_assert!(changed.is_ok(), "the store is here");
                    self.handle(Input::QueueChanged);
                }
                () = timer.as_mut(), if has_deadline => self.handle(Input::Timer),
            }
            self.carry_out();
        }
        drop(self.launches);
        for kept in &self.parts.flock {
            // A start that was dropped may have got far.
            kept.sheep.settled().await;
        }
    }

    fn handle(&mut self, input: Input) {
        let begun = Instant::now();
        let is_look = matches!(input, Input::Looked(_));
        if let Input::Ended { launch, .. } | Input::LaunchFailed { launch, .. } = &input {
            self.launches.remove(launch);
        }
        let now = Now { monotonic: begun, wall: now() };
        if let Err(rejected) = self.engine.handle(now, input) {
            tracing::debug!(%rejected, "an input came too late");
        }
        if is_look {
            self.look_at = Instant::now() + look_rest(self.look_at.elapsed());
        }
    }

    /// Does what the engine decided.
    fn carry_out(&mut self) {
        let mut batch = Batch::default();
        loop {
            let effects: Vec<Effect> = self.engine.effects().collect();
            if effects.is_empty() {
                break;
            }
            effects.into_iter().for_each(|effect| self.carry_out_one(effect, &mut batch));
        }
        let shared = &self.parts.shared;
        for (sheep, jobs) in batch.staged {
            let kept = self.kept(sheep);
            staging::stage(shared, &self.inputs, &kept.dirs(), &kept.sheep, jobs);
        }
        for (sheep, jobs) in batch.collected {
            outputs::collect(shared, &self.inputs, &self.kept(sheep).dirs(), jobs);
        }
        for (sheep, jobs) in batch.released {
            upkeep::release(shared, &self.inputs, &self.kept(sheep).dirs(), jobs);
        }
    }

    fn kept(&self, sheep: SheepNo) -> &Kept {
        &self.parts.flock[sheep.0]
    }

    fn carry_out_one(&mut self, effect: Effect, batch: &mut Batch) {
        let Parts { shared, write_back, .. } = &self.parts;
        match effect {
            Effect::Stage { attempt, sheep, job, objects } => {
                batch.staged.entry(sheep).or_default().push((attempt, job, objects));
            }
            Effect::Collect { attempt, sheep, job, kind } => {
                batch.collected.entry(sheep).or_default().push((attempt, job, kind));
            }
            Effect::Release { attempt, sheep, job, how } => {
                batch.released.entry(sheep).or_default().push((attempt, job, how));
            }
            Effect::CheckSpace { sheep } => {
                let problem = self.kept(sheep).dirs().shortage();
                self.handle(Input::Space { sheep, problem });
            }
            Effect::Look => {
                let store = Store::of(&self.parts);
                let at = self.look_at.max(Instant::now());
                self.look_at = at;
                self.asked.push(Box::pin(async move { Input::Looked(store.look(at).await) }));
            }
            Effect::Claim { sheep, model, limit, overdue } => {
                let store = Store::of(&self.parts);
                let id = self.kept(sheep).id.clone();
                let claim = Claim { overdue, ..Claim::new(model, id, limit, now()) };
                self.asked
                    .push(Box::pin(async move { Input::Claimed { sheep, jobs: store.claim(claim).await } }));
            }
            Effect::Launch { sheep, launch, model } => {
                let kept = self.kept(sheep);
                let (sender, commands) = mpsc::unbounded_channel();
                let task = Launch {
                    sheep: Arc::clone(&kept.sheep),
                    dirs: kept.dirs(),
                    model,
                    start_timeout: kept.limits.start_timeout,
                    no: sheep,
                    launch,
                    live: Arc::clone(&shared.live),
                    inputs: self.inputs.clone(),
                    forced: self.parts.forced.clone(),
                    commands,
                };
                shared.tasks.spawn(TaskKind::Effect, "runner", task.run());
                self.launches.insert(launch, sender);
            }
            Effect::AbortLaunch { launch } => drop(self.launches.remove(&launch)),
            Effect::WorksOn { launch, job } => self.command(launch, Command::WorksOn(job)),
            Effect::Send { launch, messages } => self.command(launch, Command::Send(messages)),
            Effect::End { launch, grace, kind } => self.command(launch, Command::End { grace, kind }),
            Effect::Publish { attempt, sheep, job, has_failed } => {
                let dirs = self.kept(sheep).dirs();
                outputs::publish(shared, write_back, &self.inputs, dirs, attempt, job, has_failed);
            }
            Effect::Commit { attempt, sheep, mut change } => {
                if matches!(change.event, Event::Complete { .. } | Event::Fail { .. }) {
                    change.objects.extend(shared.live.log_object(&change.job));
                }
                let commit = Commit { attempt: Some(attempt), sheep: self.kept(sheep).id.clone(), change };
                commits::commit(shared, write_back, &self.commits, commit);
            }
            Effect::NoteBegun { sheep, change } => {
                let commit = Commit { attempt: None, sheep: self.kept(sheep).id.clone(), change };
                commits::commit(shared, write_back, &self.commits, commit);
            }
            Effect::Report { job, progress } => shared.live.report(&job, progress),
            Effect::Print { job, number, text } => shared.live.print(&job, number, &text),
            Effect::CompleteLog { job, number, text } => shared.live.complete(&job, number, &text),
            Effect::SplitLog { job, number } => shared.live.split(&job, number),
            Effect::JoinLog { job, token, own } => logs::join(shared, write_back, job, token, own),
            Effect::Touch { job } => write_back.touch(&job),
            Effect::ChangeModel { sheep } => self.kept(sheep).dirs().change_model(),
            Effect::EmptyTrash { sheep } => {
                let kept = self.kept(sheep);
                upkeep::empty_trash(shared, &kept.dirs(), &kept.sheep);
            }
            Effect::Reopen { sheep } => {
                let home = Arc::clone(&self.kept(sheep).home);
                upkeep::reopen(shared, &self.inputs, home, sheep);
            }
            Effect::Check { sheep } => {
                upkeep::check(shared, &self.inputs, &self.kept(sheep).sheep, sheep);
            }
            Effect::Show { sheep } => {
                self.views.lock()[sheep.0].clone_from(self.engine.view(sheep));
            }
        }
    }

    /// Tells a launch something. One that has ended has said so, or is about to.
    fn command(&self, launch: LaunchNo, command: Command) {
        if let Some(commands) = self.launches.get(&launch) {
            let _ = commands.send(command);
        }
    }
}

/// What is carried out together: it blocks, and for many short jobs the way to a thread and back
/// costs more than the work.
#[derive(Default)]
struct Batch {
    staged: BTreeMap<SheepNo, Vec<staging::ToStage>>,
    collected: BTreeMap<SheepNo, Vec<outputs::ToCollect>>,
    released: BTreeMap<SheepNo, Vec<upkeep::ToRelease>>,
}

/// What a question to the job store needs.
struct Store {
    shared: Arc<Shared>,
    write_back: Arc<WriteBack>,
    models: Arc<Models>,
    orphans: Arc<Orphans>,
}

impl Store {
    fn of(parts: &Parts) -> Self {
        Self {
            shared: Arc::clone(&parts.shared),
            write_back: Arc::clone(&parts.write_back),
            models: Arc::clone(&parts.models),
            orphans: Arc::clone(&parts.orphans),
        }
    }

    /// What waits, not looked at before `at`.
    async fn look(self, at: Instant) -> Result<QueueView, String> {
        if at > Instant::now() {
            tokio::time::sleep_until(at).await;
        }
        let mut ready = self.shared.queue.ready(now()).await.map_err(|error| error.to_string())?;
        let is_waiting = !ready.groups.is_empty();
        for group in self.orphans.sort(&mut ready.groups) {
            if let Err(error) = self.orphans.fail(&self.shared, &self.write_back, group).await {
                tracing::warn!(%error, "cannot fail the jobs of a sheep that is not configured");
            }
        }
        let lacking = self.models.lacking(&mut ready.groups).await;
        Ok(QueueView { ready, is_waiting, lacking })
    }

    /// Claims jobs; none when the store does not answer, or the shepherd drains first.
    async fn claim(self, mut claim: Claim) -> Vec<Claimed> {
        if let Some(removed) = self.orphans.unpinned() {
            claim.pins = Pins::OwnAnd(removed);
        }
        let mut backoff = store_backoff();
        let claimed = loop {
            match self.shared.queue.claim(&self.shared.lease, claim.clone()).await {
                Ok(claimed) => break claimed,
                Err(error) => {
                    let wait = backoff.step();
                    tracing::warn!(%error, retry_in = ?wait, "cannot claim jobs");
                    tokio::select! {
                        () = tokio::time::sleep(wait) => claim.at = now(),
                        () = self.shared.tasks.draining.cancelled() => return Vec::new(),
                    }
                }
            }
        };
        for claimed in &claimed {
            self.shared.live.note(&claimed.job);
            let (job, attempt) = (&claimed.job.spec.id, claimed.attempt);
            tracing::debug!(%job, %attempt, sheep = %claim.sheep, "claimed");
            if self.shared.storage_is_remote() {
                // A claim puts no job behind, but clients read the document by themselves. That of a
                // short job is written when it is done.
                self.write_back.touch(job);
            }
        }
        claimed
    }
}

/// Does what blocks.
async fn on_disk<T: Send + 'static>(
    dirs: &Arc<WorkDirs>,
    work: impl FnOnce(&WorkDirs) -> T + Send + 'static,
) -> T {
    let dirs = Arc::clone(dirs);
    match tokio::task::spawn_blocking(move || work(&dirs)).await {
        Ok(done) => done,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_takes_long_is_followed_by_a_rest_and_a_short_one_by_none() {
        let rests = [100, 250, 5_000, 90_000].map(|took| look_rest(Duration::from_micros(took)).as_micros());
        assert_eq!(rests, [0, 0, 20_000, 200_000]);
    }
}
