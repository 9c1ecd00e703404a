//! The keeper of one sheep: one task that alone decides what its runner does.
//!
//! ```text
//!              order                ready               swap, death, drain
//!   no runner ───────▶ Starting ──────────▶ Running ──────────────────────▶ Stopping ─▶ no runner
//!                          └── cannot start: the job fails, or the sheep rests
//! ```
//!
//! It claims jobs of the model it was ordered to have, has their files made ready
//! while others run, sends them, collects what they leave, and has the outcomes
//! made durable; each of these goes on while the others do. What blocks runs
//! elsewhere and comes back as an [`Outcome`].
//!
//! Every message of a runner may be late, twice, wrong or never:
//!
//! - late or twice: the attempt is not among those sent, and was answered before:
//!   it is passed over; the queue's fencing stands behind that.
//! - wrong (not understood, or about a job that the runner never had): the runner
//!   cannot be relied on and is ended; the job it should have answered fails.
//! - never: the process's end, the socket's end, or silence past the heartbeat
//!   timeout ends the attempt; a run timeout ends the job.
//!
//! The job that was running when a runner died is blamed for it. Which one that was
//! is certain only when the runner had no other: several run at once, and answers of
//! those sent ahead may die with their runner. Otherwise all go back to the queue, and
//! for a while runners get one at a time, so that the one to blame is found the next
//! time. A job that the runner had hardly begun when something outside ended it goes back,
//! too, but only once; and nobody is to blame while the daemon drains. Nothing of an
//! attempt is given up before its process is gone, so two attempts never share a
//! directory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{Attempt, Event as JobEvent, GiveBack, JobId, ModelRef};
use shepherd_protocol::FromRunner;
use shepherd_queue::Change;
use shepherd_sheep::Sheep;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::flock::{Cell, Command, SheepState};
use crate::models::Models;
use crate::orphans::Orphans;
use crate::retry::Backoff;
use crate::schedule::Cause;
use crate::settle::Settling;
use crate::shared::Shared;
use crate::workdir::WorkDirs;
use hand::Hand;
use ops::{Collected, Outcome, Unprepared};
use pace::{Pace, Rhythm};
use rests::Rests;
use runner::{Death, Ended, Heard, ModelFailure, Runner, StartFailure};

mod answers;
mod ending;
mod hand;
mod ops;
mod pace;
mod rests;
mod runner;
mod supply;
mod words;

/// How one sheep is kept.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// A runner that was silent for so long is taken for hung, and ended.
    pub heartbeat_timeout: Duration,
    /// A job that runs longer fails, and its runner is ended.
    pub run_timeout: Option<Duration>,
    /// A runner that is not ready so long after its start is ended.
    pub start_timeout: Duration,
    /// How long a runner may take to end when it is asked to.
    pub stop_grace: Duration,
    /// How many more times a job is tried whose runner died.
    pub crash_retries: u32,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            heartbeat_timeout: Duration::from_secs(30),
            run_timeout: None,
            start_timeout: Duration::from_secs(600),
            stop_grace: Duration::from_secs(10),
            crash_retries: 0,
        }
    }
}

/// At most this many jobs are past the runner and not durable yet; beyond it, no
/// more are claimed, so that a store that is away does not fill the memory.
const MAX_FINISHING: usize = 1024;
/// After a death that nobody could be blamed for, so many answers must come before
/// jobs are sent ahead again: more than are ever sent ahead.
const CAREFUL: usize = 256;
/// How long a job waits whose outputs the storage may have lost.
const RUN_AGAIN: Duration = Duration::from_secs(5);
/// A rest that is no longer than this is not worth having jobs made ready anew.
const SHORT_REST: Duration = Duration::from_secs(1);
/// How often the disk of the working directories is looked at while it is full.
const SPACE_CHECK: Duration = Duration::from_secs(1);
/// Answers remembered to tell a repeated one from one that was never asked for.
const REMEMBERED: usize = 1024;

/// Why a runner is being ended.
#[derive(Debug)]
enum End {
    /// Another model is wanted, or none, or it wants to end; it holds no jobs.
    Idle,
    /// It died, or its connection did; how.
    Died(Death),
    /// It sent what it should not have, or nothing for too long.
    Unreliable(String),
    /// This job ran too long.
    TimedOut(JobId, Duration),
    /// It did not let go of a cancelled job.
    KeptCancelled,
    /// The sheep's directory is gone, and with it what the runner works on.
    Homeless,
    /// The time to drain is over.
    Drained,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("it is not needed"),
            Self::Died(death) => write!(f, "it {}", death.how),
            Self::Unreliable(reason) => f.write_str(reason),
            Self::TimedOut(job, limit) => write!(f, "job {job} ran longer than its limit of {limit:?}"),
            Self::KeptCancelled => f.write_str("it did not let go of a cancelled job"),
            Self::Homeless => f.write_str("the sheep's directory was removed or replaced"),
            Self::Drained => f.write_str("the time to drain is over"),
        }
    }
}

enum State {
    /// No runner.
    None,
    Starting(futures::future::BoxFuture<'static, Result<Box<Runner>, StartFailure>>, Instant),
    Running(Box<Runner>),
    Stopping(futures::future::BoxFuture<'static, Ended>, Option<End>),
}

enum Event {
    Outcome(Outcome),
    Started(Result<Box<Runner>, StartFailure>),
    Heard(Heard),
    Stopped(Ended),
    Command(Command),
    /// What a job printed last has come.
    Worded,
    /// It is time to look at the clocks; when it was to be.
    Tick(Instant),
    /// Something to look at changed.
    Stirred,
}

/// Whether the sheep's directory is where it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Here,
    /// Somebody removed or replaced it.
    Gone,
    /// It is being made again.
    Reopening,
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    settling: Arc<Settling>,
    cell: Arc<Cell>,
    /// The whole flock, this sheep included.
    flock: Arc<[Arc<Cell>]>,
    models: Arc<Models>,
    orphans: Arc<Orphans>,
    /// How long jobs may wait for more urgent ones.
    max_wait: Duration,
    /// Jobs claimed since one was that had waited too long.
    since_overdue: usize,
    stirred: Arc<Notify>,
    sheep: Arc<dyn Sheep>,
    keeping: Keeping,
    dirs: Arc<WorkDirs>,
    commands: mpsc::Receiver<Command>,
    order: watch::Receiver<Option<ModelRef>>,
    changes: watch::Receiver<u64>,
    /// Set when the time to drain is over.
    forced: CancellationToken,

    model: Option<ModelRef>,
    /// The model that it had a runner of last.
    last_model: Option<ModelRef>,
    /// Whether the sheep could not have the present model.
    is_refused: bool,
    /// The state of the model that was seen last since the runner was launched.
    stamp_seen: Option<u64>,
    state: State,
    hand: Hand,
    outcomes: JoinSet<Outcome>,
    pace: Pace,
    rhythm: Rhythm,
    /// How many jobs the runner works on at once.
    slots: usize,
    /// So many answers must come before jobs are sent ahead again.
    careful: usize,
    /// So many answers must come before the runner gets more than one job at a time.
    suspects: usize,
    /// When the runner last answered; with the jobs' times, its pace.
    last_answer: Instant,
    /// Attempts that this runner answered, newest last.
    answered: VecDeque<(JobId, Attempt)>,
    /// How many jobs were in hand when that was last published.
    published: usize,
    /// Messages with an answer, until what its job printed last has come. Nothing else is
    /// heard of the runner meanwhile.
    awaiting_words: Option<(Instant, Vec<FromRunner>)>,
    /// When a prepared job need no longer wait for an earlier one.
    overtake_at: Option<Instant>,
    /// Whether the sheep's directory is there.
    home: Home,
    /// The queue had less than was wanted.
    hungry: bool,
    /// Nothing is made ready or sent ahead until the runner answers: another sheep is free.
    sharing: bool,
    /// The runner has given up jobs that nobody asked back: it ends, and gets no others.
    leaving: bool,
    drain_seen: bool,
    force_seen: bool,
    /// Models that are left alone.
    rests: Rests,
    /// Until then the sheep cannot run anything.
    unfit_until: Option<Instant>,
    sheep_failures: Backoff,
    /// The disk of the working directories has no room for jobs.
    lacks_space: bool,
}

/// What a keeper is given.
pub(crate) struct Charge {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settling: Arc<Settling>,
    pub(crate) cell: Arc<Cell>,
    pub(crate) flock: Arc<[Arc<Cell>]>,
    pub(crate) models: Arc<Models>,
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) max_wait: Duration,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stirred: Arc<Notify>,
    pub(crate) sheep: Arc<dyn Sheep>,
    pub(crate) keeping: Keeping,
    pub(crate) dirs: Arc<WorkDirs>,
    pub(crate) forced: CancellationToken,
}

impl Keeper {
    pub(crate) fn new(charge: Charge) -> Self {
        let Charge {
            shared,
            settling,
            cell,
            flock,
            models,
            orphans,
            max_wait,
            commands,
            stirred,
            sheep,
            keeping,
            dirs,
            forced,
        } = charge;
        let order = cell.order.subscribe();
        let changes = shared.queue.changes();
        Self {
            shared,
            settling,
            cell,
            flock,
            models,
            orphans,
            max_wait,
            since_overdue: 0,
            stirred,
            sheep,
            keeping,
            dirs,
            commands,
            order,
            changes,
            forced,
            model: None,
            last_model: None,
            is_refused: false,
            stamp_seen: None,
            state: State::None,
            hand: Hand::default(),
            outcomes: JoinSet::new(),
            pace: Pace::default(),
            rhythm: Rhythm::default(),
            slots: 1,
            careful: 0,
            suspects: 0,
            last_answer: Instant::now(),
            answered: VecDeque::new(),
            published: 0,
            awaiting_words: None,
            overtake_at: None,
            home: Home::Here,
            hungry: false,
            sharing: false,
            leaving: false,
            drain_seen: false,
            force_seen: false,
            rests: Rests::default(),
            unfit_until: None,
            sheep_failures: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            lacks_space: false,
        }
    }

    /// Keeps the sheep until the shepherd has drained.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(self.tick_period());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.advance().await;
            if self.drain_seen && matches!(self.state, State::None) && self.hand.is_empty() {
                // A start that was dropped may have got far.
                self.sheep.settled().await;
                return;
            }
            match self.next_event(&mut tick).await {
                Event::Outcome(outcome) => self.take_outcome(outcome),
                Event::Started(result) => self.take_start(result),
                Event::Heard(heard) => self.take_heard(heard),
                Event::Stopped(ended) => self.take_stopped(&ended),
                Event::Command(Command::Cancel { job, number }) => self.cancel(&job, number),
                Event::Command(Command::Share) => self.share(),
                Event::Command(Command::Yield(priority)) => self.yield_to(priority),
                Event::Worded => self.take_awaiting(),
                Event::Tick(due) => self.check_time(due),
                Event::Stirred => {}
            }
        }
    }

    fn tick_period(&self) -> Duration {
        let shortest = self.keeping.run_timeout.unwrap_or(Duration::MAX).min(self.keeping.heartbeat_timeout);
        (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// Cancel-safe in all its parts: what a branch would lose stays where it is.
    async fn next_event(&mut self, tick: &mut tokio::time::Interval) -> Event {
        let rest_until = if matches!(self.state, State::None) { self.rest_until() } else { None };
        let Self {
            state,
            outcomes,
            commands,
            order,
            changes,
            shared,
            forced,
            awaiting_words,
            overtake_at,
            ..
        } = self;
        let words_by = awaiting_words.as_ref().map(|(by, _)| *by);
        tokio::select! {
            biased;
            Some(outcome) = outcomes.join_next(), if !outcomes.is_empty() => match outcome {
                Ok(outcome) => Event::Outcome(outcome),
                Err(error) => match error.try_into_panic() {
                    // Which jobs it had is lost with it: only a restart puts that right.
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Event::Stirred,
                },
            },
            event = state.next(), if words_by.is_none() => event,
            () = until(words_by), if words_by.is_some() => Event::Worded,
            Some(command) = commands.recv() => Event::Command(command),
            changed = order.changed() => { debug_assert!(changed.is_ok(), "the cell holds the sender"); Event::Stirred },
            _ = changes.changed(), if self.hungry => Event::Stirred,
            due = tick.tick() => Event::Tick(due),
            () = until(*overtake_at) => Event::Stirred,
            () = until(rest_until), if rest_until.is_some() => Event::Stirred,
            () = shared.tasks.draining.cancelled(), if !self.drain_seen => { self.drain_seen = true; Event::Stirred },
            () = forced.cancelled(), if !self.force_seen => { self.force_seen = true; Event::Stirred },
        }
    }

    /// Does all that can be done now.
    async fn advance(&mut self) {
        let order = if self.drain_seen { None } else { self.order.borrow_and_update().clone() };
        if self.home != Home::Here {
            self.leave_home();
        } else if order == self.model {
            self.claim().await;
        } else {
            self.leave_model(order);
        }
        self.overtake_at = None;
        match &self.state {
            State::None => match self.rest_until() {
                None if self.hand.prepared.is_empty() => {}
                None => self.start(),
                // Others may take them.
                Some(until) if until - Instant::now() > SHORT_REST => self.give_back_prepared(),
                Some(_) => {}
            },
            State::Running(_) if self.leaving && self.hand.sent.is_empty() => self.end(End::Idle),
            State::Running(_) => self.send_prepared(),
            State::Starting(..) | State::Stopping(..) => {}
        }
        if self.force_seen {
            self.end(End::Drained);
        }
        self.persist();
        self.publish_facts();
    }

    /// Works towards having no job and no runner of the present model.
    fn leave_model(&mut self, order: Option<ModelRef>) {
        self.hungry = false;
        self.give_back_prepared();
        self.recall(|_| true);
        if self.hand.preparing() > 0 || !self.hand.sent.is_empty() {
            return;
        }
        match &self.state {
            State::None => {
                self.model = order;
                self.is_refused = false;
                self.dirs.change_model();
                ops::empty_trash(&mut self.outcomes, &self.dirs, &self.sheep);
                self.pace = Pace::default();
                if self.model.is_some() {
                    // Claim for it at once.
                    self.cell.order.send_if_modified(|_| true);
                }
            }
            // Dropping the start ends what was started.
            State::Starting(..) => {
                self.sharing = false;
                self.state = State::None;
            }
            State::Running(_) => self.end(End::Idle),
            State::Stopping(..) => {}
        }
    }

    /// Works towards having no job, and then has the sheep's directory made again.
    fn leave_home(&mut self) {
        self.hungry = false;
        self.give_back_prepared();
        match &self.state {
            State::None => {}
            State::Starting(..) => self.state = State::None,
            State::Running(_) => self.end(End::Homeless),
            State::Stopping(..) => {}
        }
        let is_vacant = matches!(self.state, State::None) && self.hand.housed.is_empty();
        if self.home == Home::Gone && is_vacant && self.rest_until().is_none() {
            self.home = Home::Reopening;
            ops::reopen(&mut self.outcomes, &self.shared, &self.dirs);
        }
    }

    fn take_reopened(&mut self, reopened: std::io::Result<Arc<WorkDirs>>) {
        let id = self.cell.facts().view.id.clone();
        match reopened {
            Ok(dirs) => {
                tracing::warn!(sheep = %id, "the sheep's directory was removed or replaced, and is made again");
                self.dirs = dirs;
                self.home = Home::Here;
                self.sheep_failures.reset();
                self.cell.facts().view.problem = None;
            }
            Err(error) => {
                self.home = Home::Gone;
                self.becomes_unfit(format!(
                    "the sheep's directory is gone and cannot be made again: {error}"
                ));
            }
        }
    }

    /// The sheep cannot run anything for a while.
    fn becomes_unfit(&mut self, problem: String) {
        let rest = self.sheep_failures.step();
        let sheep = self.cell.facts().view.id.clone();
        tracing::error!(%sheep, %problem, retry_in = ?rest, "the sheep cannot run anything");
        self.unfit_until = Some(Instant::now() + rest);
        let mut facts = self.cell.facts();
        (facts.available, facts.view.problem) = (false, Some(problem));
    }

    fn start(&mut self) {
        let model = self.model.clone().expect("jobs are prepared for a model");
        tracing::info!(sheep = %self.cell.facts().view.id, %model, "starting a runner");
        self.stamp_seen = None;
        self.is_refused = false;
        let started = Runner::start(Arc::clone(&self.sheep), model.clone(), self.keeping.start_timeout);
        let started = ops::start(Arc::clone(&self.dirs), Arc::clone(&self.sheep), model, started);
        self.state = State::Starting(Box::pin(started), Instant::now());
    }

    /// Has the outcomes that wait made durable, one batch at a time.
    fn persist(&mut self) {
        if self.hand.applying == 0 && !self.hand.changes.is_empty() {
            let mut changes = std::mem::take(&mut self.hand.changes);
            for change in &mut changes {
                if matches!(change.event, JobEvent::Complete { .. } | JobEvent::Fail { .. }) {
                    change.objects.extend(self.shared.live.log_object(&change.job));
                }
            }
            self.hand.applying = changes.len();
            let sheep = self.cell.facts().view.id.clone();
            ops::apply(&mut self.outcomes, &self.shared, &self.settling, sheep, changes);
        }
    }

    fn publish_facts(&mut self) {
        let in_hand = self.hand.working();
        let mut spare = self.hand.prepared.iter().filter(|job| job.is_anybodys()).count();
        if self.can_recall() {
            spare += self.hand.waiting(self.slots).filter(|sent| sent.job.is_anybodys()).count();
        }
        let urgency = self.hand.urgency(self.slots);
        let mut facts = self.cell.facts();
        // Against what was published last: a claim that gave nothing frees nobody.
        let before = std::mem::replace(&mut self.published, in_hand);
        let freed = in_hand == 0 && before > 0;
        facts.in_hand = in_hand;
        // Something in the queue may be the more urgent now, or was not compared.
        let yields = urgency < facts.urgency || std::mem::take(&mut facts.looked_early);
        facts.urgency = urgency;
        facts.claiming = false;
        let offers = spare > 0 && facts.spare == 0;
        facts.spare = spare;
        facts.run_time = self.pace.mean();
        facts.running_since = self.hand.sent.front().map(|sent| sent.since);
        facts.starting_since = match &self.state {
            State::Starting(_, begun) => Some(*begun),
            State::None | State::Running(_) | State::Stopping(..) => None,
        };
        if facts.model != self.model {
            facts.model.clone_from(&self.model);
        }
        facts.view.state = self.state.view();
        let is_fit = self.unfit_until.is_none_or(|until| until <= Instant::now());
        let available = is_fit && !self.drain_seen;
        let recovered = available && !facts.available;
        facts.available = available;
        let job = self.hand.sent.iter().find(|sent| sent.let_go_by.is_none()).map(|sent| sent.job.id());
        if facts.view.job.as_ref() != job {
            facts.view.job = job.cloned();
            if let State::Running(runner) = &self.state {
                runner.works_on(job);
            }
        }
        // One that it could not have is not its own.
        let model = if self.is_refused { &self.last_model } else { &self.model };
        if facts.view.model != *model {
            facts.view.model.clone_from(model);
        }
        drop(facts);
        if freed || recovered || offers || yields {
            self.stirred.notify_one();
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Prepared { jobs, staging, stamp } => {
                self.stamp_seen = stamp.or(self.stamp_seen);
                if let Some(took) = staging {
                    self.pace.staged(took);
                }
                for (job, result) in jobs {
                    self.hand.prepares_no_more(&job);
                    if self.hand.withdrawn.remove(&(job.id().clone(), job.attempt.number)) {
                        ops::release(&mut self.outcomes, &self.dirs, vec![job.id().clone()]);
                        continue;
                    }
                    match result {
                        Ok(()) => {
                            tracing::debug!(job = %job.id(), "its working directory is ready");
                            self.hand.is_prepared(job);
                        }
                        Err(Unprepared::Fault(error)) => {
                            self.hand.housed.remove(job.id());
                            self.hand.changes.push(job.failed(error));
                        }
                        Err(Unprepared::Later(after)) => {
                            self.hand.housed.remove(job.id());
                            self.hand.changes.push(job.given_back(GiveBack::Blameless, after));
                        }
                        Err(Unprepared::Homeless) => {
                            self.home = Home::Gone;
                            self.hand.housed.remove(job.id());
                            self.hand.changes.push(job.given_back(GiveBack::Blameless, Duration::ZERO));
                        }
                    }
                }
            }
            Outcome::Collected { jobs, large } => {
                self.hand.collecting -= jobs.len();
                for (job, fate) in large {
                    ops::publish(&mut self.outcomes, &self.shared, &self.settling, &self.dirs, job, fate);
                }
                for (job, result) in jobs {
                    self.hand.housed.remove(job.id());
                    self.hand.changes.extend(match result {
                        Collected::Kept(ops::Fate::Done, objects) => Some(job.done(objects)),
                        Collected::Kept(ops::Fate::Failed(error), objects) => {
                            Some(Change { objects, ..job.failed(error) })
                        }
                        Collected::Fault(error) => Some(job.failed(error)),
                        Collected::Lost => Some(job.given_back(GiveBack::Blameless, RUN_AGAIN)),
                        Collected::Stale => None,
                    });
                }
            }
            Outcome::Released(ids) => {
                for id in ids {
                    self.hand.housed.remove(&id);
                }
            }
            Outcome::Vacated(ids, changes) => {
                for id in ids {
                    self.hand.housed.remove(&id);
                }
                self.hand.collecting -= changes.len();
                self.hand.changes.extend(changes);
            }
            Outcome::LateKept => self.hand.late -= 1,
            Outcome::Applied => self.hand.applying = 0,
            Outcome::Reopened(reopened) => self.take_reopened(reopened),
        }
    }

    fn take_start(&mut self, result: Result<Box<Runner>, StartFailure>) {
        let begun = match &self.state {
            State::Starting(_, begun) => *begun,
            State::None | State::Running(_) | State::Stopping(..) => return,
        };
        let id = self.cell.facts().view.id.clone();
        self.sharing = false;
        match result {
            Ok(runner) => {
                tracing::info!(sheep = %id, runner = %runner.name, took = ?begun.elapsed(), "runner is ready");
                self.slots = runner.slots;
                self.last_model.clone_from(&self.model);
                self.leaving = false;
                self.state = State::Running(runner);
                self.answered.clear();
                self.last_answer = Instant::now();
                self.sheep_failures.reset();
                let mut facts = self.cell.facts();
                if let Some(model) = &self.model {
                    facts.failing.remove(model);
                }
                facts.swap_time = begun.elapsed();
                (facts.settled_at, facts.cause) = (now(), Cause::default());
                facts.view.problem = None;
            }
            Err(StartFailure::Model(how, error)) => {
                tracing::warn!(sheep = %id, error = %error.message, details = %error.exception_traceback, "cannot start a runner for the model");
                self.state = State::None;
                self.is_refused = matches!(how, ModelFailure::Refused);
                self.start_failed(how, &error);
            }
            Err(StartFailure::Sheep(problem)) => {
                self.state = State::None;
                self.becomes_unfit(problem);
                self.give_back_prepared();
            }
        }
    }

    /// Until when no runner is started, if that is some time off.
    fn rest_until(&self) -> Option<Instant> {
        let now = Instant::now();
        let of_model = self.model.as_ref().and_then(|model| self.rests.until(model, now));
        of_model.max(self.unfit_until.filter(|until| *until > now))
    }

    /// The model's runner died: it is left alone for a while.
    fn rest(&mut self) {
        let Some(model) = &self.model else { return };
        let now = Instant::now();
        self.rests.begin(model, now);
        self.cell.facts().rests = self.rests.all(now);
    }
}

/// Never, where there is no time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl State {
    fn view(&self) -> SheepState {
        match self {
            Self::None => SheepState::Stopped,
            Self::Starting(..) => SheepState::Starting,
            Self::Running(_) => SheepState::Running,
            Self::Stopping(..) => SheepState::Stopping,
        }
    }

    /// What happens to the runner next. Cancel-safe: the futures stay in the state.
    async fn next(&mut self) -> Event {
        match self {
            Self::None => std::future::pending().await,
            Self::Starting(starting, _) => Event::Started(starting.await),
            Self::Running(runner) => Event::Heard(runner.hear().await),
            Self::Stopping(stopping, _) => Event::Stopped(stopping.await),
        }
    }
}
