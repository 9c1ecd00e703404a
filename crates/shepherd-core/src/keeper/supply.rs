//! Seeing to it that the runner always has something to do: claiming jobs ahead of
//! time, and sending them.

use std::time::Duration;

use shepherd_job::GiveBack;
use shepherd_protocol::ToRunner;
use shepherd_queue::{Claim, Pins};
use tokio::time::Instant;

use super::hand::{Job, Sent};
use super::{End, Keeper, MAX_FINISHING, SPACE_CHECK, State, ops};
use crate::clock::now;

/// Of so many jobs one may be one that waited too long.
const OVERDUE_SHARE: usize = 7;

impl Keeper {
    /// Claims as many jobs as are to be made ready now, and begins with that.
    pub(super) async fn claim(&mut self) {
        self.hungry = false;
        let resting = matches!(self.state, State::None) && self.rest_until().is_some();
        let full =
            self.sharing && (self.hand.sent.len() >= self.slots || matches!(self.state, State::Starting(..)));
        if resting || full || self.hand.finishing() >= MAX_FINISHING {
            return;
        }
        let ready = self.hand.preparing() + self.hand.prepared.len();
        let wanted = self.pace.ready_ahead();
        // Few large claims rather than many small ones.
        if ready * 2 > wanted || (ready > 0 && wanted == 1) {
            return;
        }
        let Some(model) = self.model.clone() else { return };
        if self.is_short_of_space() {
            return;
        }
        let limit = wanted - ready;
        self.changes.mark_unchanged();
        let sheep = {
            let mut facts = self.cell.facts();
            // Before the claim: a scheduler that misses the jobs in the queue must find them here.
            facts.in_hand = facts.in_hand.max(1);
            facts.claiming = true;
            facts.view.id.clone()
        };
        let mut claim = Claim::new(model, sheep.clone(), limit, now());
        if let Some(removed) = self.orphans.unpinned() {
            claim.pins = Pins::OwnAnd(removed);
        }
        // A share of the work is for jobs that more urgent ones would keep waiting for ever.
        let overdue = now().before(self.max_wait);
        claim.overdue = (self.since_overdue >= OVERDUE_SHARE).then_some(overdue);
        let claims_overdue = claim.overdue.is_some();
        let claimed = match self.shared.queue.claim(claim).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(%error, "cannot claim jobs");
                Vec::new()
            }
        };
        self.hungry = claimed.len() < limit;
        let mut jobs = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            self.shared.live.note(&claimed.job);
            tracing::debug!(job = %claimed.job.spec.id, attempt = %claimed.attempt, %sheep, "claimed");
            if self.shared.storage_is_remote() {
                // A claim puts no job behind, but clients read the document by themselves. That of a short
                // job is written when it is done.
                self.settling.touch(&claimed.job.spec.id);
            }
            let is_overdue = claims_overdue && claimed.job.submitted_at < overdue && jobs.is_empty();
            self.since_overdue = if is_overdue { 0 } else { self.since_overdue.saturating_add(1) };
            let job = Job { record: claimed.job, attempt: claimed.attempt, first: claimed.first, is_overdue };
            if self.hand.housed.insert(job.id().clone()) {
                jobs.push((job, claimed.objects));
            } else {
                // An earlier attempt still uses the directory.
                self.hand.changes.push(job.given_back(GiveBack::Blameless, Duration::from_millis(200)));
            }
        }
        if !jobs.is_empty() {
            let begun = Instant::now();
            jobs.iter().for_each(|(job, _)| self.hand.prepares(job, begun));
            ops::prepare(&mut self.outcomes, &self.shared, &self.dirs, &self.sheep, jobs);
        }
    }

    /// Whether jobs have to wait because the disk that they are worked on is full. What it
    /// has no room for is no fault of theirs.
    fn is_short_of_space(&mut self) -> bool {
        let shortage = self.dirs.shortage();
        let had_space = !std::mem::replace(&mut self.lacks_space, shortage.is_some());
        let mut facts = self.cell.facts();
        match shortage {
            Some(problem) => {
                if had_space {
                    tracing::error!(sheep = %facts.view.id, %problem, "the sheep takes no jobs");
                }
                facts.view.problem = Some(problem);
                self.unfit_until = Some(Instant::now() + SPACE_CHECK);
                true
            }
            None => {
                if !had_space {
                    tracing::info!(sheep = %facts.view.id, "there is room on the disk again; the sheep takes jobs");
                    facts.view.problem = None;
                }
                false
            }
        }
    }

    /// Sends the runner as many prepared jobs as it is to have, in their order.
    pub(super) fn send_prepared(&mut self) {
        let State::Running(runner) = &mut self.state else { return };
        if self.leaving || !runner.is_there() {
            return;
        }
        if self.stamp_seen.is_some() && runner.stamp.is_some() && self.stamp_seen != runner.stamp {
            // It ends its jobs, and a new one takes those that come.
            if self.hand.sent.is_empty() && !self.hand.prepared.is_empty() {
                let sheep = self.cell.facts().view.id.clone();
                tracing::info!(%sheep, runner = %runner.name, "the model was changed: another runner is started");
                self.end(End::Idle);
            }
            return;
        }
        let now = Instant::now();
        let (in_order, next) = self.hand.in_order(now);
        self.overtake_at = next;
        let at_once = match (self.suspects, self.careful) {
            (0, 0) => self.slots + self.pace.sent_ahead(runner.ahead),
            (0, _) => self.slots,
            _ => 1,
        };
        let room = at_once.saturating_sub(self.hand.sent.len());
        let count = room.min(in_order);
        if count == 0 || self.is_short_of_space() {
            return;
        }
        let State::Running(runner) = &mut self.state else { return };
        if self.hand.sent.is_empty() {
            // What came before is no job's.
            self.hand.printed(runner, &self.shared.live);
        }
        let jobs: Vec<Job> = self.hand.prepared.drain(..count).collect();
        let (slots, before) = (self.slots, self.hand.sent.len());
        // Of a job that waits for its turn, not before its run limit can end.
        let deadline = |place: usize| {
            let rounds = u32::try_from(place / slots + 1).unwrap_or(u32::MAX);
            self.keeping.run_timeout.map(|limit| crate::clock::now().after(limit.saturating_mul(rounds)))
        };
        let input = |(index, job): (usize, &Job)| runner.input(job, deadline(before + index));
        let messages: Vec<ToRunner> = jobs.iter().enumerate().map(input).collect();
        for job in jobs {
            if self.pace.mean().is_none_or(|mean| mean > Duration::from_millis(50)) {
                self.settling.touch(job.id());
            }
            tracing::debug!(job = %job.id(), attempt = %job.attempt, "sent to the runner");
            self.hand.sent.push_back(Sent::new(job, now));
        }
        self.hand.note_begun(slots);
        if let Err(end) = runner.send(&messages) {
            self.end(end);
        }
    }
}
