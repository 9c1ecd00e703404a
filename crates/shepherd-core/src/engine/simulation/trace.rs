//! The trace of one run, which is written only where somebody is to read it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::{Effect, Input};

/// Number of lines before a failure that are shown.
pub(super) const SHOWN: usize = 60;
/// Longer lines are cut.
const MAX_LINE: usize = 400;

/// How much of a run is written down.
#[derive(Clone, Debug)]
pub(super) enum Trace {
    /// Nothing: most runs.
    Off,
    /// The last lines are kept.
    Last(Arc<Mutex<VecDeque<String>>>),
    /// All lines are printed.
    All,
}

impl Trace {
    pub(super) fn last() -> Self {
        Self::Last(Arc::default())
    }

    /// What was kept.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Off | Self::All => Vec::new(),
            Self::Last(lines) => {
                lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
            }
        }
    }

    pub(super) fn line(&self, now: Duration, text: impl FnOnce() -> String) {
        if matches!(self, Self::Off) {
            return;
        }
        let mut text = format!("{:>12.6} {}", now.as_secs_f64(), text());
        if text.len() > MAX_LINE {
            text.truncate(text.floor_char_boundary(MAX_LINE));
            text.push('…');
        }
        match self {
            Self::Off => {}
            Self::All => println!("{text}"),
            Self::Last(lines) => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == SHOWN {
                    lines.pop_front();
                }
                lines.push_back(text);
            }
        }
    }

    pub(super) fn input(&self, now: Duration, input: &Input) {
        self.line(now, || match input {
            Input::Claimed { sheep, jobs } => {
                let jobs: Vec<String> =
                    jobs.iter().map(|job| format!("{} {}", job.job.spec.id, job.attempt)).collect();
                format!("▶ Claimed {sheep:?} {jobs:?}")
            }
            Input::Looked(Ok(view)) => {
                let group = |group: &shepherd_queue::Group| {
                    format!("{}×{} p{} #{}", group.ready, group.model, group.priority, group.seq)
                };
                let groups: Vec<String> = view.ready.groups.iter().map(group).collect();
                format!("▶ Looked {groups:?}")
            }
            other => format!("▶ {other:?}"),
        });
    }

    pub(super) fn effect(&self, now: Duration, effect: &Effect) {
        self.line(now, || match effect {
            Effect::Stage { attempt, sheep, job, .. } => {
                format!("    ◀ Stage {attempt} {sheep:?} {} {}", job.id(), job.token)
            }
            Effect::Collect { attempt, sheep, job, kind } => {
                format!("    ◀ Collect {attempt} {sheep:?} {} {} {kind:?}", job.id(), job.token)
            }
            Effect::Publish { attempt, sheep, job, has_failed } => {
                format!("    ◀ Publish {attempt} {sheep:?} {} {} {has_failed}", job.id(), job.token)
            }
            other => format!("    ◀ {other:?}"),
        });
    }
}
