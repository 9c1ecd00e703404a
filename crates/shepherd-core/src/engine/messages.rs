//! What a runner says, and which job it is about.

use std::time::Duration;

use shepherd_job::{Attempt as Token, GiveBack};
use shepherd_protocol::{CANCELLED, FromRunner};

use super::attempt::{AttemptKey, Fate, OnRunner, Stage};
use super::io::{Effect, OutputKind, Release, SheepNo};
use super::sheep::{End, State};
use super::{Engine, is_same};
use crate::live::Progress;

impl Engine {
    /// Takes messages of the present runner of a sheep.
    pub(super) fn take_messages(&mut self, no: SheepNo, messages: Vec<FromRunner>) {
        let now = self.now;
        let sheep = &mut self.flock[no.0];
        if let State::Ready(runner) = &mut sheep.state {
            runner.last_heard = now.monotonic;
        }
        let front = sheep.sent.front().and_then(|key| self.attempts.get(*key)?.stage.on_runner());
        let begun = front.map(|on| on.since);
        let mut answers = 0;
        let mut finished = Vec::new();
        for message in messages {
            // Nothing more counts of a runner that is ended for what it said.
            if matches!(self.flock[no.0].state, State::Stopping { end: End::Unreliable(_), .. }) {
                break;
            }
            match message {
                FromRunner::Done { job, attempt } => {
                    let Some((key, stage)) = self.answered(no, &job, attempt) else { continue };
                    answers += 1;
                    tracing::debug!(%job, "the runner has done it");
                    match stage {
                        Answered::Wanted { .. } => finished.push((key, Fate::Done)),
                        Answered::Cancelled => self.let_go(key),
                    }
                }
                FromRunner::Error { job, attempt, error } => {
                    let Some((key, stage)) = self.answered(no, &job, attempt) else { continue };
                    tracing::debug!(%job, error = %error.message, "the runner has not done it");
                    match stage {
                        Answered::Wanted { is_recalled } if error.exception_type == CANCELLED => {
                            // Not asked to, a runner gives up what it has not begun when it ends.
                            if let State::Ready(runner) = &mut self.flock[no.0].state {
                                runner.is_leaving |= !is_recalled;
                            }
                            let Some(attempt) = self.attempts.get(key) else { continue };
                            let change =
                                attempt.job.given_back(GiveBack::Blameless, Duration::ZERO, now.wall);
                            self.release(key, Release::Discard, Some(change));
                        }
                        Answered::Wanted { .. } => {
                            answers += 1;
                            finished.push((key, Fate::Failed(error)));
                        }
                        Answered::Cancelled => {
                            answers += 1;
                            self.let_go(key);
                        }
                    }
                }
                FromRunner::Progress { job, attempt, fraction, message } => {
                    let Some(key) = self.find_sent(no, &job, attempt) else { continue };
                    self.is_heard_of(key);
                    let Some(attempt) = self.attempts.get(key) else { continue };
                    if !matches!(attempt.stage, Stage::Cancelling { .. }) {
                        let progress = Progress { fraction, message };
                        self.effects.push(Effect::Report { job: attempt.job.id().clone(), progress });
                    }
                }
                FromRunner::Log { job, attempt, text } => {
                    let Some(key) = self.find_sent(no, &job, attempt) else { continue };
                    self.is_heard_of(key);
                    let Some(attempt) = self.attempts.get(key) else { continue };
                    let number = attempt.job.token.number;
                    self.effects.push(Effect::Print { job: attempt.job.id().clone(), number, text });
                }
                FromRunner::Ready(_) | FromRunner::Pong { .. } => {}
            }
        }
        self.note_begun(no);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let sheep = &mut self.flock[no.0];
        if answers > 0 {
            sheep.is_sharing = false;
            sheep.careful = sheep.careful.saturating_sub(answers);
            sheep.suspects = sheep.suspects.saturating_sub(answers);
            if let State::Ready(runner) = &mut sheep.state {
                let begun = begun.unwrap_or(runner.last_answer).max(runner.last_answer);
                sheep.prefetch.record(now.monotonic - begun, count(answers));
                runner.last_answer = now.monotonic;
            }
            if let Some(model) = &sheep.model {
                sheep.cooldowns.end(model);
            }
        }
        if finished.is_empty() {
            return;
        }
        sheep.rate.record(now.monotonic, count(finished.len()));
        let is_brisk = sheep.rate.is_brisk();
        for (key, fate) in finished {
            // Only publishing replaces what an earlier attempt may have left in storage.
            let is_first = self.attempts.get(key).is_some_and(|attempt| attempt.job.first);
            let kind = match &fate {
                Fate::Failed(_) => OutputKind::Failed,
                Fate::Done if is_brisk && is_first => OutputKind::Ride,
                Fate::Done => OutputKind::Publish,
            };
            self.collect(key, fate, kind);
        }
    }

    fn is_heard_of(&mut self, key: AttemptKey) {
        if let Some(OnRunner { is_heard_of, .. }) =
            self.attempts.get_mut(key).and_then(|attempt| attempt.stage.on_runner_mut())
        {
            *is_heard_of = true;
        }
    }

    /// The attempt that a runner means, if it has it.
    fn find_sent(&self, no: SheepNo, job: &str, token: Option<Token>) -> Option<AttemptKey> {
        let is_meant = |key: &&AttemptKey| {
            self.attempts.get(**key).is_some_and(|attempt| is_same(&attempt.job, job, token))
        };
        self.flock[no.0].sent.iter().find(is_meant).copied()
    }

    /// Matches an answer to an attempt that was sent. What was answered before is passed over;
    /// what was never sent ends the runner.
    fn answered(&mut self, no: SheepNo, job: &str, token: Option<Token>) -> Option<(AttemptKey, Answered)> {
        let now = self.now.monotonic;
        let Some(key) = self.find_sent(no, job, token) else {
            let sheep = &self.flock[no.0];
            match &sheep.state {
                State::Ready(runner) if runner.has_answered(job, token) => {
                    tracing::debug!(%job, "the runner answered twice");
                }
                State::Ready(_) => {
                    let job: String = job.chars().take(100).collect();
                    let reason = format!("the runner answered for a job that it does not have: `{job}`");
                    self.end(no, End::Unreliable(reason));
                }
                // It is being ended.
                State::Empty
                | State::Launching { .. }
                | State::Stopping { .. }
                | State::Gone { .. }
                | State::Unfit { .. }
                | State::Reopening => {}
            }
            return None;
        };
        let slots = self.flock[no.0].slots();
        let sheep = &mut self.flock[no.0];
        let index = sheep.sent.iter().position(|other| *other == key)?;
        sheep.sent.remove(index);
        // The one that moves up begins now; the others go on, or wait.
        if index < slots
            && let Some(next) = sheep.sent.get(slots - 1)
            && let Some(on) = self.attempts.get_mut(*next).and_then(|next| next.stage.on_runner_mut())
        {
            on.since = now;
        }
        let attempt = self.attempts.get(key)?;
        if let State::Ready(runner) = &mut sheep.state {
            runner.note_answer(attempt.job.id().clone(), attempt.job.token);
        }
        let answered = match &attempt.stage {
            Stage::Sent(_) => Answered::Wanted { is_recalled: false },
            Stage::Recalled(_) => Answered::Wanted { is_recalled: true },
            Stage::Cancelling { .. } => Answered::Cancelled,
            Stage::Staging { .. }
            | Stage::Staged
            | Stage::Collecting(_)
            | Stage::Publishing(_)
            | Stage::Releasing(_)
            | Stage::Committing
            | Stage::Abandoned => return None,
        };
        Some((key, answered))
    }

    /// The runner has let go of a cancelled job.
    fn let_go(&mut self, key: AttemptKey) {
        let Some(attempt) = self.attempts.get(key) else { return };
        let (job, token) = (attempt.job.id().clone(), attempt.job.token);
        self.effects.push(Effect::JoinLog { job, token, own: String::new() });
        self.release(key, Release::Keep, None);
    }
}

/// Whose answer has come.
#[derive(Clone, Copy, Debug)]
enum Answered {
    /// A job's that somebody waits for.
    Wanted { is_recalled: bool },
    /// A job's that was cancelled.
    Cancelled,
}
