//! What a runner says, and which job it is about.

use std::time::Duration;

use shepherd_job::{Attempt, GiveBack, JobId};
use shepherd_protocol::{CANCELLED, FromRunner};
use tokio::time::Instant;

use super::hand::Sent;
use super::ops::{self, SmallOutputs};
use super::runner::Heard;
use crate::live::Progress;

use super::{End, Keeper, REMEMBERED, State};

impl Keeper {
    pub(super) fn take_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Messages(messages) => {
                if let State::Running(runner) = &self.state
                    && messages.iter().any(FromRunner::is_answer)
                    && let Some(delay) = self.hand.last_words(runner)
                {
                    self.awaiting_words = Some((Instant::now() + delay, messages));
                } else {
                    self.take_messages(messages);
                }
            }
            Heard::Garbage(reason) => {
                self.end(End::Unreliable(format!(
                    "the runner sent a message that cannot be understood: {reason}"
                )));
            }
            Heard::Died(death) => {
                self.end(End::Died(death));
            }
        }
    }

    /// Takes the messages that waited for what their jobs printed last.
    pub(super) fn take_awaiting(&mut self) {
        if let Some((_, messages)) = self.awaiting_words.take() {
            self.take_messages(messages);
        }
    }

    fn take_messages(&mut self, messages: Vec<FromRunner>) {
        let mut finished = Vec::new();
        let mut answers = 0;
        if let State::Running(runner) = &mut self.state
            && messages.iter().any(FromRunner::is_answer)
        {
            self.hand.printed(runner, &self.shared.live);
        }
        let begun = self.hand.sent.front().map_or(self.last_answer, |sent| sent.since);
        for message in messages {
            match message {
                FromRunner::Done { job, attempt } => match self.answer(&job, attempt) {
                    Some(sent) => {
                        tracing::debug!(job = %sent.job.id(), "the runner has done it");
                        answers += 1;
                        if sent.let_go_by.is_some() {
                            ops::release(&mut self.outcomes, &self.dirs, vec![sent.job.id().clone()]);
                            self.keep_late(sent, "");
                        } else {
                            finished.push((sent.job, ops::Fate::Done));
                        }
                    }
                    None if matches!(self.state, State::Stopping(..)) => break,
                    None => {}
                },
                FromRunner::Error { job, attempt, error } => {
                    if let Some(sent) = self.answer(&job, attempt) {
                        tracing::debug!(job = %sent.job.id(), error = %error.message, "the runner has not done it");
                        if sent.let_go_by.is_none() && error.exception_type == CANCELLED {
                            // Not asked to, a runner gives up what it has not begun when it ends.
                            self.leaving |= !sent.is_recalled;
                            let change = sent.job.given_back(GiveBack::Blameless, Duration::ZERO);
                            self.vacate(&[sent.job], vec![change]);
                            continue;
                        }
                        answers += 1;
                        if sent.let_go_by.is_some() {
                            ops::release(&mut self.outcomes, &self.dirs, vec![sent.job.id().clone()]);
                            self.keep_late(sent, "");
                        } else {
                            finished.push((sent.job, ops::Fate::Failed(error)));
                        }
                    }
                }
                FromRunner::Progress { job, attempt, fraction, message } => {
                    let at_work = self.hand.at_work(&job, attempt);
                    if let Some(sent) = at_work.filter(|sent| sent.let_go_by.is_none()) {
                        self.shared.live.report(sent.job.id(), Progress { fraction, message });
                    }
                }
                FromRunner::Log { job, attempt, text } => {
                    if let Some(sent) = self.hand.at_work(&job, attempt) {
                        sent.print(&text, &self.shared.live);
                    }
                }
                FromRunner::Ready(_) | FromRunner::Pong { .. } => {}
            }
        }
        self.hand.note_begun(self.slots);
        if answers > 0 {
            self.sharing = false;
            self.careful = self.careful.saturating_sub(answers);
            self.suspects = self.suspects.saturating_sub(answers);
            let now = Instant::now();
            self.pace.record(now - begun.max(self.last_answer), u32::try_from(answers).unwrap_or(u32::MAX));
            self.last_answer = now;
            if let Some(model) = &self.model {
                self.rests.end(model);
            }
        }
        if !finished.is_empty() {
            self.hand.collecting += finished.len();
            self.rhythm.record(Instant::now(), u32::try_from(finished.len()).unwrap_or(u32::MAX));
            let small = if self.rhythm.is_brisk() { SmallOutputs::Ride } else { SmallOutputs::Publish };
            ops::collect(&mut self.outcomes, &self.shared, &self.dirs, finished, small);
        }
    }

    /// Matches an answer to a job that was sent. What was answered before is
    /// passed over; what was never sent ends the runner.
    pub(super) fn answer(&mut self, job_id: &str, attempt: Option<Attempt>) -> Option<Sent> {
        if let Some(sent) = self.hand.answered(job_id, attempt, self.slots) {
            if self.answered.len() == REMEMBERED {
                self.answered.pop_front();
            }
            self.answered.push_back((sent.job.id().clone(), sent.job.attempt));
            return Some(sent);
        }
        let before =
            |(id, a): &(JobId, Attempt)| id.as_str() == job_id && attempt.is_none_or(|got| got == *a);
        if self.answered.iter().any(before) {
            tracing::debug!(job = %job_id, "the runner answered twice");
        } else {
            let job_id: String = job_id.chars().take(100).collect();
            self.end(End::Unreliable(format!(
                "the runner answered for a job that it does not have: `{job_id}`"
            )));
        }
        None
    }
}
