//! The jobs that one keeper holds, from claim to the moment their outcome is
//! durable. Bookkeeping only: it does nothing by itself.
//!
//! ```text
//!  claimed ─▶ preparing ─▶ prepared ─▶ with the runner ─▶ collecting ─▶ changes
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{Attempt, Event, GiveBack, JobError, JobId, JobState};
use shepherd_queue::{Change, JobRecord, SmallObject};
use tokio::time::Instant;

use super::runner::Runner;
use super::words::OwnWords;
use crate::clock::now;
use crate::live::{Live, Log};

/// One attempt at one job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) record: Arc<JobRecord>,
    pub(super) attempt: Attempt,
    /// Whether no other attempt can have left anything in storage.
    pub(super) first: bool,
    /// It has waited so long that no other is more urgent.
    pub(super) is_overdue: bool,
}

impl Job {
    pub(super) fn id(&self) -> &JobId {
        &self.record.spec.id
    }

    /// Whether any sheep may take it.
    pub(super) fn is_anybodys(&self) -> bool {
        self.record.spec.sheep.is_none()
    }

    /// How urgent it is.
    pub(super) fn priority(&self) -> i32 {
        if self.is_overdue { i32::MAX } else { self.record.spec.priority }
    }

    fn place(&self) -> Place {
        (Reverse(self.priority()), self.record.seq)
    }

    /// Attempts at this job during which the runner died.
    pub(super) fn crashes(&self) -> u32 {
        match &self.record.state {
            JobState::Processing { history, .. } => history.crashes,
            JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => 0,
        }
    }

    /// What makes it known that the runner begins it now. None when that is hardly later
    /// than its claim: for jobs that follow one another fast it would cost too much.
    fn begun(&self) -> Option<Change> {
        let now = now();
        match &self.record.state {
            JobState::Processing { started_at, .. } if now.since(*started_at) >= NOTABLE_WAIT => {
                Some(self.change(Event::Begin { attempt: self.attempt, at: now }, Vec::new()))
            }
            JobState::Processing { .. }
            | JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => None,
        }
    }

    pub(super) fn done(&self, objects: Vec<SmallObject>) -> Change {
        self.change(Event::Complete { attempt: self.attempt, at: now() }, objects)
    }

    pub(super) fn failed(&self, error: JobError) -> Change {
        self.change(Event::Fail { attempt: self.attempt, error, at: now() }, Vec::new())
    }

    pub(super) fn given_back(&self, cause: GiveBack, after: Duration) -> Change {
        let not_before = (!after.is_zero()).then(|| now().after(after));
        self.change(Event::GiveBack { attempt: self.attempt, cause, not_before }, Vec::new())
    }

    fn change(&self, event: Event, objects: Vec<SmallObject>) -> Change {
        Change { job: self.id().clone(), event, objects }
    }
}

/// A job that the runner has.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) job: Job,
    /// When it was sent, or became the one that the runner works on.
    pub(super) since: Instant,
    /// The runner works on it, or did.
    has_begun: bool,
    /// It was cancelled; if the runner has not let go of it by then, the runner
    /// is ended.
    pub(super) let_go_by: Option<Instant>,
    /// What it printed since it was cancelled: its log is in the queue's hands by then.
    pub(super) late: Option<Log>,
    /// It was asked back before its turn: another sheep is free. It is given back
    /// when the runner lets go of it, and done when the runner was faster.
    pub(super) is_recalled: bool,
    /// The runner has said something about it.
    pub(super) is_heard_of: bool,
}

impl Sent {
    pub(super) fn new(job: Job, since: Instant) -> Self {
        Self {
            job,
            since,
            has_begun: false,
            let_go_by: None,
            late: None,
            is_recalled: false,
            is_heard_of: false,
        }
    }

    /// The job has printed this.
    pub(super) fn print(&mut self, text: &str, live: &Live) {
        match &mut self.late {
            Some(late) => late.push(self.job.attempt.number, text),
            None => live.print(self.job.id(), self.job.attempt.number, text),
        }
    }
}

/// A job that begins so long after its claim, or longer, has started when it began.
const NOTABLE_WAIT: Duration = Duration::from_millis(50);

/// Where a job stands among those of its model: first jobs first.
type Place = (Reverse<i32>, u64);

/// So long a prepared job waits for one that should go first and is still being
/// prepared. Inputs that come side by side come in any order, mostly within less;
/// one job whose inputs take long is no reason for the runner to be idle.
const IN_ORDER: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Hand {
    /// Those being prepared, and since when.
    preparing: BTreeMap<Place, (Instant, Job)>,
    /// First jobs first.
    pub(super) prepared: VecDeque<Job>,
    /// In the order they were sent.
    pub(super) sent: VecDeque<Sent>,
    /// What the runner printed for the one of them that it works on.
    pub(super) words: OwnWords,
    /// How many are being collected or published.
    pub(super) collecting: usize,
    /// How many logs of cancelled jobs are being completed.
    pub(super) late: usize,
    /// Outcomes that wait to be made durable.
    pub(super) changes: Vec<Change>,
    /// How many outcomes are being made durable.
    pub(super) applying: usize,
    /// Every job whose working directory is, or may be, in use.
    pub(super) housed: HashSet<JobId>,
    /// Attempts, by number, that were cancelled while they were being prepared.
    pub(super) withdrawn: HashSet<(JobId, u32)>,
}

impl Hand {
    /// Whether nothing at all is left to do.
    pub(super) fn is_empty(&self) -> bool {
        self.working() == 0
            && self.sent.is_empty()
            && self.collecting == 0
            && self.late == 0
            && self.changes.is_empty()
            && self.applying == 0
    }

    /// Jobs that are not through the runner yet.
    pub(super) fn working(&self) -> usize {
        self.preparing.len()
            + self.prepared.len()
            + self.sent.iter().filter(|sent| sent.let_go_by.is_none()).count()
    }

    /// Jobs past the runner whose outcome is not durable yet.
    pub(super) fn finishing(&self) -> usize {
        self.collecting + self.changes.len() + self.applying
    }

    /// The highest priority of the jobs that the runner, working on `slots` at once, has
    /// not begun.
    pub(super) fn urgency(&self, slots: usize) -> Option<i32> {
        let preparing = self.preparing.first_key_value().map(|(_, (_, job))| job);
        let sent = self.sent.iter().skip(slots).filter(|sent| sent.let_go_by.is_none());
        let jobs = preparing.into_iter().chain(self.prepared.front()).chain(sent.map(|sent| &sent.job));
        jobs.map(Job::priority).max()
    }

    /// How many are being prepared.
    pub(super) fn preparing(&self) -> usize {
        self.preparing.len()
    }

    /// The job is being prepared from `now` on.
    pub(super) fn prepares(&mut self, job: &Job, now: Instant) {
        self.preparing.insert(job.place(), (now, job.clone()));
    }

    /// Whether this attempt is being prepared.
    pub(super) fn is_preparing(&self, is_meant: impl Fn(&Job) -> bool) -> bool {
        self.preparing.values().any(|(_, job)| is_meant(job))
    }

    /// The job is not being prepared any more, whatever came of it.
    pub(super) fn prepares_no_more(&mut self, job: &Job) {
        self.preparing.remove(&job.place());
    }

    /// Puts a prepared job in its place: first jobs first, whichever was prepared
    /// sooner.
    pub(super) fn is_prepared(&mut self, job: Job) {
        let index = self.prepared.partition_point(|other| other.place() < job.place());
        self.prepared.insert(index, job);
    }

    /// How many of the prepared jobs may be sent now, so that jobs are sent in their
    /// order; and when the next one may be, should the one that it waits for take
    /// longer.
    pub(super) fn in_order(&self, now: Instant) -> (usize, Option<Instant>) {
        // Only the first that is late less than the patience holds back what comes after it.
        let late = |since: &Instant| now.saturating_duration_since(*since) >= IN_ORDER;
        let Some((first, (since, _))) = self.preparing.iter().find(|(_, (since, _))| !late(since)) else {
            return (self.prepared.len(), None);
        };
        let count = self.prepared.partition_point(|job| job.place() < *first);
        (count, (count < self.prepared.len()).then(|| *since + IN_ORDER))
    }

    /// The runner works on the first `slots` of the jobs that it has: makes it known of
    /// those of which that is news.
    pub(super) fn note_begun(&mut self, slots: usize) {
        for sent in self.sent.iter_mut().take(slots).filter(|sent| !sent.has_begun) {
            sent.has_begun = true;
            self.changes.extend(sent.job.begun());
        }
    }

    /// The jobs that the runner has and, working on `slots` at once, has not begun.
    pub(super) fn waiting(&mut self, slots: usize) -> impl Iterator<Item = &mut Sent> {
        self.sent.iter_mut().skip(slots).filter(|sent| !sent.is_recalled && sent.let_go_by.is_none())
    }

    /// The job that the runner says something about, if it is one of those that it has.
    pub(super) fn at_work(&mut self, job: &str, attempt: Option<Attempt>) -> Option<&mut Sent> {
        let is_meant =
            |sent: &&mut Sent| sent.job.id().as_str() == job && attempt.is_none_or(|a| a == sent.job.attempt);
        let sent = self.sent.iter_mut().find(is_meant)?;
        sent.is_heard_of = true;
        Some(sent)
    }

    /// Takes what the runner has printed. It is noted as the words of the job that the runner
    /// works on alone; of a runner that does not say itself what jobs print, it is the job's
    /// log. Where one job follows another at once, lines between them may go to the wrong one.
    pub(super) fn printed(&mut self, runner: &mut Runner, live: &Live) {
        let text = runner.printed();
        self.note_printed(&text, runner.slots, runner.prints_for_jobs(), live);
    }

    /// The same of `text` that was printed.
    pub(super) fn note_printed(&mut self, text: &str, slots: usize, is_log: bool, live: &Live) {
        let at_work = if slots == 1 || self.sent.len() == 1 { self.sent.front_mut() } else { None };
        self.words.add(at_work.as_deref().map(|sent| &sent.job), text);
        if is_log && let Some(sent) = at_work {
            sent.print(text, live);
        }
    }

    /// How long what the job printed last may be on its way when it is answered; none
    /// where waiting for it costs the runner more than a little.
    pub(super) fn last_words(&self, runner: &Runner) -> Option<Duration> {
        let delay =
            Some(runner.print_delay()).filter(|delay| !delay.is_zero() && runner.prints_for_jobs())?;
        let first = self.sent.front()?;
        let is_little = self.sent.len() == 1 || first.since.elapsed() >= 10 * delay;
        is_little.then_some(delay)
    }

    /// Restarts the clocks of the jobs that the runner has, where the daemon's own pause of
    /// this length would count as theirs.
    pub(super) fn delayed(&mut self, late: Duration, now: Instant) {
        for sent in &mut self.sent {
            sent.since = now.min(sent.since + late);
            sent.let_go_by = sent.let_go_by.map(|by| by + late);
        }
    }

    /// Takes the job that an answer is about out of those with the runner, which works on
    /// `slots` at once.
    pub(super) fn answered(&mut self, job: &str, attempt: Option<Attempt>, slots: usize) -> Option<Sent> {
        let index = self.sent.iter().position(|sent| {
            sent.job.id().as_str() == job && attempt.is_none_or(|a| a == sent.job.attempt)
        })?;
        let sent = self.sent.remove(index);
        // The one that moves up begins now; the others go on, or wait.
        if index < slots
            && let Some(next) = self.sent.get_mut(slots - 1)
        {
            next.since = Instant::now();
        }
        sent
    }
}

#[cfg(test)]
pub(super) mod tests {
    use shepherd_job::{History, JobIdRule, JobSpec, ModelRef, SheepId, Timestamp};

    use super::*;

    pub(in super::super) fn job(seq: u64, priority: i32) -> Job {
        let attempt = Attempt { epoch: 1, number: 1 };
        let state = JobState::Processing {
            attempt,
            sheep: SheepId::parse("dolly").unwrap(),
            started_at: Timestamp::default(),
            history: History { attempts: 1, crashes: 0 },
        };
        let id = JobId::parse(&format!("job-{seq}"), JobIdRule::Bucket).unwrap();
        let spec = JobSpec { id, model: ModelRef::parse("m", "").unwrap(), sheep: None, priority };
        Job {
            record: Arc::new(JobRecord { seq, spec, submitted_at: Timestamp::default(), state }),
            attempt,
            first: true,
            is_overdue: false,
        }
    }

    #[test]
    fn jobs_leave_in_their_order_whichever_was_prepared_first() {
        let mut hand = Hand::default();
        for (seq, priority) in [(3, 0), (1, 0), (4, 1), (2, 0)] {
            hand.is_prepared(job(seq, priority));
        }
        let order: Vec<u64> = hand.prepared.iter().map(|job| job.record.seq).collect();
        assert_eq!(order, [4, 1, 2, 3]);
    }

    #[test]
    fn a_job_that_should_go_first_is_waited_for_but_not_for_long() {
        let (mut hand, now) = (Hand::default(), Instant::now());
        let jobs: Vec<Job> = (1..=4).map(|seq| job(seq, 0)).collect();
        jobs.iter().for_each(|job| hand.prepares(job, now));
        for index in [0, 3, 2] {
            hand.prepares_no_more(&jobs[index]);
            hand.is_prepared(jobs[index].clone());
        }
        assert_eq!(hand.in_order(now), (1, Some(now + IN_ORDER)));
        assert_eq!(hand.in_order(now + IN_ORDER), (3, None), "the second takes long");
        hand.prepares_no_more(&jobs[1]);
        assert_eq!((hand.preparing(), hand.in_order(now)), (0, (3, None)), "it could not be prepared");
    }

    #[test]
    fn a_pause_of_the_daemon_counts_as_no_time_of_a_jobs() {
        let (mut hand, start) = (Hand::default(), Instant::now());
        let (second, pause) = (Duration::from_secs(1), Duration::from_secs(40));
        hand.sent.push_back(Sent::new(job(1, 0), start));
        hand.sent.push_back(Sent { let_go_by: Some(start + second), ..Sent::new(job(2, 0), start + pause) });
        let now = start + pause + 2 * second;
        hand.delayed(pause, now);
        let since: Vec<_> = hand.sent.iter().map(|sent| now - sent.since).collect();
        assert_eq!(since, [2 * second, Duration::ZERO], "a job never began in the future");
        assert_eq!(hand.sent[1].let_go_by, Some(start + second + pause));
    }

    #[test]
    fn an_answer_is_matched_by_job_and_token() {
        let mut hand = Hand::default();
        hand.sent.push_back(Sent::new(job(1, 0), Instant::now()));
        assert!(hand.answered("job-2", None, 1).is_none());
        assert!(hand.answered("job-1", Some(Attempt { epoch: 1, number: 2 }), 1).is_none());
        assert!(hand.answered("job-1", Some(Attempt { epoch: 1, number: 1 }), 1).is_some());
        assert!(hand.answered("job-1", None, 1).is_none(), "it was answered");
    }

    #[test]
    fn an_answer_begins_the_job_that_moves_up_and_no_other() {
        let (mut hand, long_ago) = (Hand::default(), Instant::now() - Duration::from_secs(60));
        (1..=4).for_each(|seq| hand.sent.push_back(Sent::new(job(seq, 0), long_ago)));
        assert!(hand.answered("job-1", None, 2).is_some());
        let old: Vec<bool> = hand.sent.iter().map(|sent| sent.since == long_ago).collect();
        assert_eq!(old, [true, false, true], "one runs on, one begins, one waits");
        assert!(hand.answered("job-4", None, 2).is_some());
        assert_eq!(hand.sent[0].since, long_ago, "a job that waited was let go of");
    }
}
