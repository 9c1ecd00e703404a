//! Deadlines: what is to be looked at, and when.

use tokio::time::Instant;

use super::io::Effect;
use super::sheep::{Sheep, Space, State};
use super::upkeep::CHECK_PERIOD;
use super::{Engine, Mode};

impl Engine {
    pub(super) fn take_timer(&mut self) {
        let now = self.now.monotonic;
        let late = self.deadline.map(|due| now.saturating_duration_since(due)).unwrap_or_default();
        if self.tick_at.is_some_and(|due| due <= now) {
            self.tick_at = None;
            for no in self.all() {
                self.check_time(no, late);
            }
        }
        if self.looks.due_at.is_some_and(|due| due <= now) {
            self.looks.due_at = None;
            self.looks.is_wanted = true;
        }
        for no in self.all() {
            // Also where nothing of the sheep's own model waits: others' may.
            if self.mode == Mode::Running && matches!(self.flock[no.0].space, Space::Full { .. }) {
                self.has_space(no);
            }
            self.advance(no);
            if self.flock[no.0].check_at.is_some_and(|due| due <= now) {
                let is_checkable = self.is_checkable(no);
                self.flock[no.0].check_at = if is_checkable { None } else { Some(now + CHECK_PERIOD) };
                if is_checkable {
                    self.effects.push(Effect::Check { sheep: no });
                }
            }
        }
    }

    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let now = self.now.monotonic;
        if self.tick_at.is_none() {
            let runs = |sheep: &&Sheep| matches!(sheep.state, State::Ready(_));
            self.tick_at =
                self.flock.iter().filter(runs).map(Sheep::tick_period).min().map(|period| now + period);
        }
        let is_running = self.mode == Mode::Running;
        let look =
            (is_running && self.looks.is_wanted && !self.looks.is_pending).then_some(self.looks.resume_at);
        let due = self.looks.due_at.filter(|_| is_running);
        let mut deadline = [self.tick_at, look, due].into_iter().flatten().min();
        for sheep in &self.flock {
            let own = match &sheep.state {
                State::Empty => sheep.rest_until(now),
                State::Unfit { until } | State::Gone { until, .. } => Some(*until),
                State::Launching { .. } | State::Ready(_) | State::Stopping { .. } | State::Reopening => None,
            };
            let space = match sheep.space {
                Space::Full { again } if is_running => Some(again),
                Space::Full { .. } | Space::Free { .. } | Space::Checking { .. } => None,
            };
            let check = sheep.check_at.filter(|_| is_running);
            deadline = [deadline, own, space, check, sheep.overtake_at].into_iter().flatten().min();
        }
        deadline
    }

    /// Asks for a look at the store, if it is time for one.
    pub(super) fn look(&mut self) {
        let is_time =
            self.looks.is_wanted && !self.looks.is_pending && self.looks.resume_at <= self.now.monotonic;
        if is_time && self.mode == Mode::Running {
            self.looks.is_wanted = false;
            self.looks.is_pending = true;
            self.effects.push(Effect::Look);
        }
    }
}
