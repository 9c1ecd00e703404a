//! The state machine against a model that knows only what may follow what.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Attempt, Event, GiveBack, History, JobError, JobState, Phase, Rejected};
use crate::{SheepId, Timestamp};

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn sheep() -> SheepId {
    SheepId::parse("dolly").unwrap()
}

fn any_event() -> impl Strategy<Value = Event> {
    // Few epochs, numbers and times, so that current and stale tokens both come often.
    let attempt = (1..3_u64, 1..4_u32).prop_map(|(epoch, number)| Attempt { epoch, number });
    let time = (0..20_i64).prop_map(at);
    prop_oneof![
        (attempt.clone(), time.clone()).prop_map(|(attempt, at)| Event::Claim {
            attempt,
            sheep: sheep(),
            at
        }),
        (attempt.clone(), time.clone()).prop_map(|(attempt, at)| Event::Begin { attempt, at }),
        (attempt.clone(), time.clone()).prop_map(|(attempt, at)| Event::Complete { attempt, at }),
        (attempt.clone(), time.clone()).prop_map(|(attempt, at)| Event::Fail {
            attempt,
            error: JobError::new("no"),
            at
        }),
        (attempt, any::<bool>(), proptest::option::of(time.clone())).prop_map(
            |(attempt, crashed, not_before)| {
                let cause = if crashed { GiveBack::Crashed } else { GiveBack::Blameless };
                Event::GiveBack { attempt, cause, not_before }
            }
        ),
        time.prop_map(|at| Event::Cancel { at }),
        Just(Event::Rerun),
    ]
}

/// What the outside can see of a job; says yes or no to an event by rules written
/// apart from the implementation.
#[derive(Debug, Default)]
struct Model {
    current: Option<Attempt>,
    outcome: Option<Phase>,
    not_before: Option<Timestamp>,
    attempts: u32,
    crashes: u32,
}

impl Model {
    fn step(&mut self, event: &Event) -> bool {
        let live = self.outcome.is_none();
        match event {
            Event::Claim { attempt, at, .. } => {
                let fits = live
                    && self.current.is_none()
                    && attempt.number == self.attempts + 1
                    && self.not_before.is_none_or(|t| t <= *at);
                if fits {
                    self.current = Some(*attempt);
                    self.attempts += 1;
                }
                fits
            }
            Event::Begin { attempt, .. } => self.current == Some(*attempt),
            Event::Complete { attempt, .. } => self.end(*attempt, Phase::Done),
            Event::Fail { attempt, .. } => self.end(*attempt, Phase::Failed),
            Event::GiveBack { attempt, cause, not_before } => {
                let fits = self.current == Some(*attempt);
                if fits {
                    self.current = None;
                    self.not_before = *not_before;
                    self.crashes += u32::from(*cause == GiveBack::Crashed);
                }
                fits
            }
            Event::Cancel { .. } => {
                if live {
                    self.current = None;
                    self.outcome = Some(Phase::Cancelled);
                }
                live
            }
            Event::Rerun => {
                if !live {
                    *self = Self { attempts: self.attempts.max(1), ..Self::default() };
                }
                !live
            }
        }
    }

    fn end(&mut self, attempt: Attempt, outcome: Phase) -> bool {
        let fits = self.current == Some(attempt);
        if fits {
            self.current = None;
            self.outcome = Some(outcome);
        }
        fits
    }

    fn phase(&self) -> Phase {
        self.outcome.unwrap_or(if self.current.is_some() { Phase::Processing } else { Phase::Queued })
    }
}

proptest! {
    #[test]
    fn any_history_agrees_with_the_model(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut state = JobState::new();
        let mut model = Model::default();
        for event in events {
            let fits = model.step(&event);
            let next = state.apply(event);
            prop_assert_eq!(next.is_ok(), fits, "{:?}", &next);
            if let Ok(next) = next {
                state = next;
            }
            prop_assert_eq!(state.phase(), model.phase());
            prop_assert_eq!(state.is_finished(), model.outcome.is_some());
            if let JobState::Queued { history, .. } | JobState::Processing { history, .. } = &state {
                prop_assert_eq!(*history, History { attempts: model.attempts, crashes: model.crashes });
            }
        }
    }

    #[test]
    fn a_token_survives_its_text(epoch in any::<u64>(), number in any::<u32>()) {
        let attempt = Attempt { epoch, number };
        prop_assert_eq!(attempt.to_string().parse::<Attempt>(), Ok(attempt));
    }

    #[test]
    fn no_text_makes_the_token_parser_panic(text in ".*") {
        if let Ok(attempt) = text.parse::<Attempt>() {
            prop_assert!(text.ends_with(&attempt.number.to_string()));
        }
    }
}

#[test]
fn a_late_answer_of_an_earlier_attempt_is_stale() {
    let first = Attempt { epoch: 1, number: 1 };
    let second = Attempt { epoch: 1, number: 2 };
    let state = JobState::new()
        .apply(Event::Claim { attempt: first, sheep: sheep(), at: at(1) })
        .and_then(|s| s.apply(Event::GiveBack { attempt: first, cause: GiveBack::Crashed, not_before: None }))
        .and_then(|s| s.apply(Event::Claim { attempt: second, sheep: sheep(), at: at(2) }))
        .unwrap();
    assert_eq!(
        state.apply(Event::Complete { attempt: first, at: at(3) }),
        Err(Rejected::Stale { got: first })
    );
    assert!(state.apply(Event::Complete { attempt: second, at: at(3) }).is_ok());
}

#[test]
fn an_attempt_that_waited_has_started_when_it_began() {
    let attempt = Attempt { epoch: 1, number: 1 };
    let claimed = JobState::new().apply(Event::Claim { attempt, sheep: sheep(), at: at(2) }).unwrap();
    for (begun, started) in [(5, 5), (1, 2)] {
        let begun = claimed.apply(Event::Begin { attempt, at: at(begun) }).unwrap();
        assert!(matches!(begun, JobState::Processing { started_at, .. } if started_at == at(started)));
        let done = begun.apply(Event::Complete { attempt, at: at(9) }).unwrap();
        assert!(matches!(done, JobState::Done { started_at, .. } if started_at == at(started)));
    }
}

#[test]
fn a_second_answer_of_the_winning_attempt_changes_nothing() {
    let attempt = Attempt { epoch: 1, number: 1 };
    let done = JobState::new()
        .apply(Event::Claim { attempt, sheep: sheep(), at: at(1) })
        .and_then(|s| s.apply(Event::Complete { attempt, at: at(2) }))
        .unwrap();
    let twice = done.apply(Event::Fail { attempt, error: JobError::new("late"), at: at(3) });
    assert_eq!(twice, Err(Rejected::Stale { got: attempt }));
}

#[test]
fn a_retry_waits_for_its_time() {
    let first = Attempt { epoch: 1, number: 1 };
    let waiting = JobState::new()
        .apply(Event::Claim { attempt: first, sheep: sheep(), at: at(1) })
        .and_then(|s| {
            s.apply(Event::GiveBack { attempt: first, cause: GiveBack::Blameless, not_before: Some(at(10)) })
        })
        .unwrap();
    let claim =
        |time| Event::Claim { attempt: Attempt { epoch: 1, number: 2 }, sheep: sheep(), at: at(time) };
    assert_eq!(waiting.apply(claim(9)), Err(Rejected::TooEarly));
    assert!(waiting.apply(claim(10)).is_ok());
}

#[test]
fn a_rerun_never_uses_a_token_again() {
    let first = Attempt { epoch: 1, number: 1 };
    let rerun = JobState::new()
        .apply(Event::Claim { attempt: first, sheep: sheep(), at: at(1) })
        .and_then(|s| s.apply(Event::Complete { attempt: first, at: at(2) }))
        .and_then(|s| s.apply(Event::Rerun))
        .unwrap();
    let again = rerun.apply(Event::Claim { attempt: first, sheep: sheep(), at: at(3) });
    assert_eq!(again, Err(Rejected::OutOfOrder { got: first, attempts: 1 }));
}
