//! Whether the engine's lists and pending questions agree with one another and with the world.

use super::super::attempt::Stage;
use super::super::sheep::{Space, State};
use super::super::{AttemptKey, Engine, Mode, SheepNo};
use super::facts::Owed;
use super::invariants::{Invariant, broken};
use super::runners::Phase;
use super::world::World;

impl World {
    /// What must be so whenever the engine's effects are carried out.
    pub(super) fn check(&mut self) {
        let awake = self.awake();
        let Some(engine) = &self.engine else { return };
        for (key, held) in &engine.attempts {
            let Some(attempt) = self.attempts.get_mut(&key) else {
                broken(Invariant::Bookkeeping, format!("{key} {} was never begun", held.stage.name()))
            };
            let owed = match &held.stage {
                Stage::Staging { .. } | Stage::Abandoned => Some(Owed::Staged),
                Stage::Staged | Stage::Sent(_) | Stage::Recalled(_) | Stage::Cancelling { .. } => None,
                Stage::Collecting(_) => Some(Owed::Collected),
                Stage::Publishing(_) => Some(Owed::Published),
                Stage::Releasing(_) => Some(Owed::Released),
                Stage::Committing => Some(Owed::Committed),
            };
            if attempt.owed != owed {
                let (stage, due) = (held.stage.name(), attempt.owed);
                broken(Invariant::Bookkeeping, format!("{key} is {stage} and due is {due:?}"));
            }
            if matches!(held.stage, Stage::Staged) && engine.mode != Mode::Running {
                broken(Invariant::Drains, format!("{key} waits for a runner, which it does not get"));
            }
            if matches!(held.stage, Stage::Cancelling { .. }) {
                attempt.cancelling.get_or_insert(awake);
            }
            let stage = held.stage.name();
            if attempt.stage != stage {
                *self.coverage.transitions.entry((attempt.stage, stage)).or_default() = 1;
                attempt.stage = stage;
            }
        }
        if self.attempts.len() != engine.attempts.len() {
            let coverage = &mut self.coverage.transitions;
            self.attempts.retain(|key, attempt| {
                let is_held = engine.attempts.contains_key(*key);
                if !is_held {
                    *coverage.entry((attempt.stage, "forgotten")).or_default() = 1;
                    if let Some(owed) = attempt.owed {
                        broken(Invariant::Bookkeeping, format!("{key} is forgotten and {owed:?} is due"));
                    }
                }
                is_held
            });
        }
        check_lists(engine);
        self.check_sheep(engine);
        self.check_times(engine);
        self.check_liveness();
    }

    fn check_sheep(&self, engine: &Engine) {
        let is_running = engine.mode == Mode::Running;
        for (index, sheep) in engine.flock.iter().enumerate() {
            let no = SheepNo(index);
            let world = &self.sheep[index];
            let mut launches = self.launches.iter().filter(|(_, of)| of.sheep == no);
            let (launch, more) = (launches.next(), launches.next());
            let is_right = more.is_none()
                && match (&sheep.state, launch) {
                    (State::Launching { launch, .. }, Some((found, of))) => {
                        launch == found && of.end_asked.is_none()
                    }
                    (State::Ready(runner), Some((found, of))) => {
                        runner.launch == *found
                            && of.end_asked.is_none()
                            && of.phase == Phase::Up
                            && sheep.model.as_ref() == Some(&of.model)
                    }
                    (State::Stopping { launch, .. }, Some((found, of))) => {
                        launch == found && of.end_asked.is_some()
                    }
                    (State::Empty | State::Gone { .. } | State::Unfit { .. } | State::Reopening, None) => {
                        true
                    }
                    (
                        State::Launching { .. }
                        | State::Ready(_)
                        | State::Stopping { .. }
                        | State::Empty
                        | State::Gone { .. }
                        | State::Unfit { .. }
                        | State::Reopening,
                        _,
                    ) => false,
                };
            if !is_right {
                broken(
                    Invariant::Bookkeeping,
                    format!(
                        "{no:?} is {} and its launches are {launch:?}, {more:?}",
                        state_name(&sheep.state)
                    ),
                );
            }
            let is_checking = matches!(sheep.space, Space::Checking { .. });
            let is_reopening = matches!(sheep.state, State::Reopening);
            let is_asked = sheep.check_at.is_none() == world.owes_check || !is_running;
            if sheep.claim.is_some() != world.owes_claim
                || is_checking
                || is_reopening != world.owes_reopen
                || !is_asked
            {
                broken(
                    Invariant::Bookkeeping,
                    format!("{no:?} waits for answers that are not due: {world:?}"),
                );
            }
        }
        if engine.looks.is_pending != self.owes_look {
            broken(Invariant::Bookkeeping, "a look is pending that is not due");
        }
    }
}

pub(super) fn state_name(state: &State) -> &'static str {
    match state {
        State::Empty => "Empty",
        State::Launching { .. } => "Launching",
        State::Ready(_) => "Ready",
        State::Stopping { .. } => "Stopping",
        State::Gone { .. } => "Gone",
        State::Unfit { .. } => "Unfit",
        State::Reopening => "Reopening",
    }
}

/// The engine's lists of attempts say the same.
fn check_lists(engine: &Engine) {
    let bad = |what: String| -> ! { broken(Invariant::Bookkeeping, what) };
    let mut held = vec![(0, 0, 0); engine.flock.len()];
    for (key, attempt) in &engine.attempts {
        let (all, ahead, sent) = &mut held[attempt.sheep.0];
        *all += 1;
        match &attempt.stage {
            Stage::Staging { .. } | Stage::Staged => *ahead += 1,
            Stage::Sent(_) | Stage::Recalled(_) | Stage::Cancelling { .. } => *sent += 1,
            Stage::Collecting(_)
            | Stage::Publishing(_)
            | Stage::Releasing(_)
            | Stage::Committing
            | Stage::Abandoned => {}
        }
        if !engine.by_job.get(attempt.job.id()).is_some_and(|keys| keys.contains(&key)) {
            bad(format!("{key} is not found by its job"));
        }
    }
    if engine.by_job.values().map(Vec::len).sum::<usize>() != engine.attempts.len() {
        bad("jobs have attempts that are not held".to_owned());
    }
    for (index, (sheep, (all, ahead, sent))) in engine.flock.iter().zip(held).enumerate() {
        let own = |key: &&AttemptKey| engine.attempts.get(**key).is_some_and(|of| of.sheep.0 == index);
        let is_ahead = |key: &&AttemptKey| {
            matches!(
                engine.attempts.get(**key).map(|of| &of.stage),
                Some(Stage::Staging { .. } | Stage::Staged)
            )
        };
        let is_sent = |key: &&AttemptKey| {
            engine.attempts.get(**key).is_some_and(|attempt| attempt.stage.on_runner().is_some())
        };
        if sheep.held != all
            || sheep.ahead.len() != ahead
            || sheep.sent.len() != sent
            || sheep.ahead.iter().filter(own).filter(is_ahead).count() != ahead
            || sheep.sent.iter().filter(own).filter(is_sent).count() != sent
        {
            let lists = (sheep.held, sheep.ahead.len(), sheep.sent.len());
            bad(format!("sheep {index} lists {lists:?}, and has {all}, {ahead}, {sent}"));
        }
        let may_have = matches!(sheep.state, State::Ready(_) | State::Stopping { .. } | State::Gone { .. });
        if sent > 0 && !may_have {
            bad(format!("sheep {index} is {} and its runner has jobs", state_name(&sheep.state)));
        }
    }
}
