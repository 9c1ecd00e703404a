//! The flock as everybody else sees it: a cell for each sheep that its keeper
//! writes, and the task that gives sheep their models.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shepherd_job::{JobId, ModelRef, SheepId, Timestamp};
use shepherd_sheep::Sheep;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::clock::now;
use crate::models::Models;
use crate::orphans::Orphans;
use crate::retry::store_backoff;
use crate::schedule::{Cause, Limits, SheepFacts, UNKNOWN, own_work, schedule, shares};
use crate::settle::Settling;
use crate::shared::Shared;

/// One sheep as clients see it.
#[derive(Clone, Debug)]
pub struct SheepView {
    /// Which sheep.
    pub id: SheepId,
    /// What kind of sheep: `bare`, `docker`.
    pub kind: &'static str,
    /// What its runner does.
    pub state: SheepState,
    /// The model it has or is getting; where it could not get one, the one it had before.
    pub model: Option<ModelRef>,
    /// The job its runner works on.
    pub job: Option<JobId>,
    /// Why it cannot run anything at present.
    pub problem: Option<String>,
    /// What the start of its runner is busy with, when that takes its time.
    pub activity: Option<String>,
}

/// What the runner of a sheep does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SheepState {
    /// There is none.
    Stopped,
    /// It starts and loads its model.
    Starting,
    /// It is ready or works.
    Running,
    /// It is being ended.
    Stopping,
}

/// What a keeper is told from outside.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// The job was cancelled, durably: its attempt must end.
    Cancel {
        /// Which job.
        job: JobId,
        /// The number of the attempt that was current: a later one is not meant.
        number: u32,
    },
    /// Another sheep is free: what is ready or sent ahead should go back to the queue.
    Share,
    /// There are jobs of this priority in the queue: less urgent ones that its runner has not
    /// begun should go back to the queue.
    Yield(i32),
}

/// A sheep's place in the flock: written by its keeper, read by all.
pub(crate) struct Cell {
    id: SheepId,
    facts: Mutex<Facts>,
    sheep: Arc<dyn Sheep>,
    /// The model the sheep should have.
    pub(crate) order: watch::Sender<Option<ModelRef>>,
    /// Bounded: a sender waits while the keeper has this many commands to read.
    pub(crate) commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) view: SheepView,
    pub(crate) available: bool,
    /// The model that jobs in hand are of.
    pub(crate) model: Option<ModelRef>,
    /// Models that it leaves alone, each until then.
    pub(crate) rests: Vec<(ModelRef, Instant)>,
    /// Models of which its last start of a runner failed.
    pub(crate) failing: HashSet<ModelRef>,
    /// When the model was ordered, or its runner ready, whichever came later.
    pub(crate) settled_at: Timestamp,
    /// Why the model was ordered; counts until its runner is ready.
    pub(crate) cause: Cause,
    pub(crate) in_hand: usize,
    /// The highest priority of jobs in hand that no runner has begun.
    pub(crate) urgency: Option<i32>,
    /// Jobs are being claimed: what is said here of those in hand is not all.
    pub(crate) claiming: bool,
    /// The scheduler looked while jobs were being claimed.
    pub(crate) looked_early: bool,
    pub(crate) spare: usize,
    /// The mean time of recent jobs; none was seen with this model yet if `None`.
    pub(crate) run_time: Option<Duration>,
    /// Since when the runner works on its present job.
    pub(crate) running_since: Option<Instant>,
    /// Since when a runner starts.
    pub(crate) starting_since: Option<Instant>,
    pub(crate) swap_time: Duration,
}

impl Cell {
    pub(crate) fn new(id: SheepId, sheep: Arc<dyn Sheep>) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(256);
        let kind = sheep.kind();
        let view = SheepView {
            id: id.clone(),
            kind,
            state: SheepState::Stopped,
            model: None,
            job: None,
            problem: None,
            activity: None,
        };
        let facts = Facts {
            view,
            available: true,
            model: None,
            rests: Vec::new(),
            failing: HashSet::new(),
            settled_at: Timestamp::default(),
            cause: Cause::default(),
            in_hand: 0,
            urgency: None,
            claiming: false,
            looked_early: false,
            spare: 0,
            run_time: None,
            running_since: None,
            starting_since: None,
            swap_time: UNKNOWN,
        };
        (Self { id, facts: Mutex::new(facts), sheep, order: watch::Sender::new(None), commands }, receiver)
    }

    pub(crate) fn id(&self) -> &SheepId {
        &self.id
    }

    pub(crate) fn sheep(&self) -> &dyn Sheep {
        &*self.sheep
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sheep as clients see it now.
    pub(crate) fn view(&self) -> SheepView {
        SheepView { activity: self.sheep.activity(), ..self.facts().view.clone() }
    }

    /// What the scheduler sees of a sheep that lacks the models `leaves_alone`.
    fn for_scheduler(&self, mut leaves_alone: HashSet<ModelRef>) -> SheepFacts {
        let order = self.order.borrow().clone();
        let mut facts = self.facts();
        let now = Instant::now();
        let has_model = facts.model == order;
        let is_ready = has_model && facts.view.state == SheepState::Running;
        // Nothing is more urgent than what is not known yet; it is asked again.
        facts.looked_early |= facts.claiming;
        let urgency = if facts.claiming { Some(i32::MAX) } else { facts.urgency };
        let resting = facts.rests.iter().filter(|(_, until)| *until > now);
        leaves_alone.extend(resting.map(|(model, _)| model.clone()));
        let age = facts.running_since.map_or(Duration::ZERO, |since| since.elapsed());
        SheepFacts {
            id: facts.view.id.clone(),
            available: facts.available,
            leaves_alone,
            failing: facts.failing.clone(),
            model: order.map(|model| (model, facts.settled_at)),
            pending: (!is_ready).then_some(facts.cause),
            in_hand: facts.in_hand,
            urgency: urgency.filter(|_| has_model),
            spare: facts.spare,
            run_time: facts.run_time.unwrap_or(UNKNOWN).max(age),
            loading: facts.starting_since.map(|since| since.elapsed()),
            swap_time: facts.swap_time,
        }
    }
}

/// How often waiting jobs are looked at again when nothing else happens.
const REVIEW: Duration = Duration::from_secs(1);
/// After a decision nothing is decided for so many times as long as it took.
const REST: u32 = 4;
/// And no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(200);

/// Gives sheep their models, until the shepherd drains. `stirred` says that a
/// sheep became free, failed or recovered.
pub(crate) async fn drive(
    shared: Arc<Shared>,
    cells: Arc<[Arc<Cell>]>,
    models: Arc<Models>,
    orphans: Arc<Orphans>,
    settling: Arc<Settling>,
    stirred: Arc<Notify>,
    limits: Limits,
) {
    let mut changes = shared.queue.changes();
    let mut backoff = store_backoff();
    loop {
        changes.mark_unchanged();
        let begun = Instant::now();
        let wait = match shared.queue.ready(now()).await {
            Ok(mut ready) => {
                backoff.reset();
                let waiting = !ready.groups.is_empty();
                for group in orphans.sort(&mut ready.groups) {
                    if let Err(error) = orphans.fail(&shared, &settling, group).await {
                        tracing::warn!(%error, "cannot fail the jobs of a sheep that is not configured");
                    }
                }
                let lacking = models.lacking(&mut ready.groups).await;
                let flock: Vec<SheepFacts> =
                    cells.iter().zip(lacking).map(|(cell, lacking)| cell.for_scheduler(lacking)).collect();
                let cell_of = |id: &SheepId| {
                    let cell = cells.iter().find(|cell| cell.id == *id);
                    cell.expect("the scheduler names sheep it was given")
                };
                let swaps = schedule(&ready.groups, &flock, now(), limits);
                for id in shares(&ready.groups, &flock, &swaps) {
                    // A keeper that has this many commands to read will be asked again.
                    let _ = cell_of(id).commands.try_send(Command::Share);
                }
                let is_spare = flock.iter().any(|sheep| sheep.spare > 0) && flock.len() > 1;
                for swap in swaps {
                    let cell = cell_of(&swap.sheep);
                    let mut facts = cell.facts();
                    (facts.settled_at, facts.cause) = (now(), swap.cause);
                    drop(facts);
                    cell.order.send_replace(Some(swap.model));
                }
                let due = ready.next_due.map(|due| due.since(now()));
                let own = own_work(&flock, &ready.groups);
                for (sheep, own) in flock.iter().zip(own).filter(|(sheep, _)| sheep.available) {
                    let Some(own) = own else { continue };
                    if sheep.in_hand == 0 {
                        // A job whose time has come changes nothing in the queue that a keeper would see.
                        cell_of(&sheep.id).order.send_if_modified(|_| true);
                    } else if sheep.urgency.is_some_and(|urgency| own.priority > urgency) {
                        let _ = cell_of(&sheep.id).commands.try_send(Command::Yield(own.priority));
                    }
                }
                let review = (is_spare || waiting).then_some(REVIEW);
                due.into_iter().chain(review).min()
            }
            Err(error) => {
                tracing::warn!(%error, "cannot see the queue");
                Some(backoff.step())
            }
        };
        // However many groups wait, looking at them takes a small part of the time only.
        let rest = (begun.elapsed() * REST).min(LONGEST_REST);
        if rest > Duration::from_millis(1) {
            tokio::time::sleep(rest).await;
        }
        let timer = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = stirred.notified() => {}
            () = timer => {}
            () = shared.tasks.draining.cancelled() => return,
        }
    }
}
