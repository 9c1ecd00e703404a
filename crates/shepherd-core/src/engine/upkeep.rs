//! What is wrong with a sheep, whatever its models and jobs: its directory is gone, it cannot run
//! anything, or says so when it is asked.

use std::time::Duration;

use super::attempt::Attempt;
use super::io::{Effect, SheepNo};
use super::sheep::{End, State};
use super::{Engine, Rejected};

/// How often a sheep without a runner is asked whether it could launch one.
pub(super) const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// The same while it could not.
const CHECK_PERIOD_UNFIT: Duration = Duration::from_secs(1);

impl Engine {
    /// Works towards having no job, and then has the sheep's directory made again.
    pub(super) fn leave_home(&mut self, no: SheepNo) {
        self.give_back_staged(no, |_| true);
        let sheep = &mut self.flock[no.0];
        match &sheep.state {
            State::Launching { launch, .. } => {
                let launch = *launch;
                sheep.state = State::Empty;
                self.effects.push(Effect::AbortLaunch { launch });
            }
            State::Ready(_) => self.end(no, End::Homeless),
            State::Empty
            | State::Stopping { .. }
            | State::Gone { .. }
            | State::Unfit { .. }
            | State::Reopening => {}
        }
        let housed = |attempt: &Attempt| attempt.sheep == no && attempt.stage.uses_directory();
        let is_empty = matches!(self.flock[no.0].state, State::Empty);
        if is_empty && self.flock[no.0].claim.is_none() && !self.attempts.values().any(housed) {
            self.flock[no.0].state = State::Reopening;
            self.effects.push(Effect::Reopen { sheep: no });
        }
    }

    pub(super) fn take_reopened(&mut self, no: SheepNo, result: Result<(), String>) -> Result<(), Rejected> {
        let sheep = &mut self.flock[no.0];
        let State::Reopening = sheep.state else { return Err(Rejected::NotAsked(no)) };
        sheep.state = State::Empty;
        match result {
            Ok(()) => {
                tracing::warn!(sheep = %sheep.id, "the sheep's directory was removed or replaced, and is made again");
                sheep.is_homeless = false;
                sheep.failures.reset();
                sheep.problem = None;
                sheep.dry = None;
            }
            Err(error) => {
                self.becomes_unfit(
                    no,
                    format!("the sheep's directory is gone and cannot be made again: {error}"),
                );
            }
        }
        self.advance(no);
        Ok(())
    }

    /// The sheep cannot run anything for a while.
    pub(super) fn becomes_unfit(&mut self, no: SheepNo, problem: String) {
        let sheep = &mut self.flock[no.0];
        let rest = sheep.failures.step();
        tracing::error!(sheep = %sheep.id, %problem, retry_in = ?rest, "the sheep cannot run anything");
        sheep.state = State::Unfit { until: self.now.monotonic + rest };
        sheep.problem = Some(problem);
    }

    /// What is asked from time to time while there is no runner.
    pub(super) fn take_checked(&mut self, no: SheepNo, found: Option<String>) {
        let now = self.now.monotonic;
        let sheep = &mut self.flock[no.0];
        let period = if found.is_some() { CHECK_PERIOD_UNFIT } else { CHECK_PERIOD };
        sheep.check_at = Some(now + period);
        if !self.is_checkable(no) {
            return;
        }
        let sheep = &mut self.flock[no.0];
        match (&sheep.problem, &found) {
            (None, Some(problem)) => {
                tracing::warn!(sheep = %sheep.id, %problem, "the sheep cannot run anything");
            }
            (Some(_), None) => tracing::info!(sheep = %sheep.id, "the sheep can run something again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        sheep.problem = found;
        self.show(no);
    }

    /// Whether a check can tell more than is known: while the sheep waits before it tries again,
    /// nobody knows better.
    pub(super) fn is_checkable(&self, no: SheepNo) -> bool {
        let sheep = &self.flock[no.0];
        matches!(sheep.state, State::Empty) && self.is_available(no)
    }
}
