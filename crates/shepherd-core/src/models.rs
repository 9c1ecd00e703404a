//! Which sheep can run which model, as far as they know without a launch. What they say
//! is remembered for a moment: a directory of models changes at any time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shepherd_job::{JobSpec, ModelRef, SheepId};
use shepherd_queue::Group;
use shepherd_sheep::Sheep;
use tokio::time::Instant;

/// What becomes of a job whose model no sheep has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownModels {
    /// Its submit is refused. Where the model went away later, the job fails.
    #[default]
    Refuse,
    /// It waits until a sheep has the model.
    Wait,
}

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(2);
/// How long file systems may take to answer; after that a sheep may well have the model.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Beyond so many models, those that were not asked for lately are forgotten.
const REMEMBERED: usize = 4096;
/// A refusal names the reasons of so many sheep.
const REASONS: usize = 4;

/// For each sheep of the flock, why it cannot run the model, if it cannot.
type Lacks = Arc<[Option<String>]>;

pub(crate) struct Models {
    flock: Arc<[(SheepId, Arc<dyn Sheep>)]>,
    unknown: UnknownModels,
    known: Mutex<HashMap<ModelRef, (Instant, Lacks)>>,
}

impl Models {
    pub(crate) fn new(flock: Vec<(SheepId, Arc<dyn Sheep>)>, unknown: UnknownModels) -> Self {
        Self { flock: flock.into(), unknown, known: Mutex::default() }
    }

    /// Why the job can never run, if that is so. A sheep that had the model a moment ago
    /// is believed to have it; otherwise it is asked anew.
    pub(crate) async fn refusal(&self, spec: &JobSpec) -> Option<String> {
        if self.flock.is_empty() || self.unknown == UnknownModels::Wait {
            return None;
        }
        let model = &spec.model;
        let may = |lacks: &Lacks| {
            let mut sheep = self.flock.iter().zip(lacks.iter());
            sheep.any(|((id, _), lacks)| lacks.is_none() && spec.sheep.as_ref().is_none_or(|pin| pin == id))
        };
        if self.recall(model).as_ref().is_some_and(may) {
            return None;
        }
        let lacks = self.ask(vec![model.clone()]).await.remove(model)?;
        if may(&lacks) {
            self.remember([(model.clone(), lacks)]);
            return None;
        }
        let reasons: Vec<String> = self
            .flock
            .iter()
            .zip(lacks.iter())
            .filter(|((id, _), _)| spec.sheep.as_ref().is_none_or(|pin| pin == id))
            .filter_map(|((id, _), lacks)| Some(format!("sheep `{id}` {}", lacks.as_ref()?)))
            .collect();
        let more = match reasons.len().saturating_sub(REASONS) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let reasons = reasons.into_iter().take(REASONS).collect::<Vec<_>>().join("; ");
        Some(format!("No sheep can run the model `{model}` for this job: {reasons}{more}"))
    }

    /// For each sheep, the models of `ready` that it is not to take. Groups that nobody can
    /// serve are taken out of `ready` where they wait; otherwise whoever may take them does,
    /// and their jobs fail there with the reason.
    pub(crate) async fn lacking(&self, ready: &mut Vec<Group>) -> Vec<HashSet<ModelRef>> {
        let mut known = HashMap::new();
        let mut unknown = HashSet::new();
        for group in ready.iter() {
            match self.recall(&group.model) {
                Some(lacks) => drop(known.insert(group.model.clone(), lacks)),
                None => drop(unknown.insert(group.model.clone())),
            }
        }
        if !unknown.is_empty() {
            let asked = self.ask(unknown.into_iter().collect()).await;
            self.remember(asked.iter().map(|(model, lacks)| (model.clone(), Arc::clone(lacks))));
            known.extend(asked);
        }
        let mut lacking = vec![HashSet::new(); self.flock.len()];
        // Sheep that are to take a model all the same, for a job pinned to them.
        let mut pinned = vec![HashSet::new(); self.flock.len()];
        ready.retain(|group| {
            let Some(lacks) = known.get(&group.model) else { return true };
            let takes = |(id, _): &(SheepId, _)| group.sheep.as_ref().is_none_or(|pin| pin == id);
            let is_served =
                self.flock.iter().zip(lacks.iter()).any(|(of, lacks)| takes(of) && lacks.is_none());
            if !is_served {
                if let Some(index) = self.flock.iter().position(|(id, _)| group.sheep.as_ref() == Some(id)) {
                    pinned[index].insert(group.model.clone());
                }
                return self.unknown == UnknownModels::Refuse;
            }
            for (index, _) in lacks.iter().enumerate().filter(|(_, lacks)| lacks.is_some()) {
                lacking[index].insert(group.model.clone());
            }
            true
        });
        if self.unknown == UnknownModels::Refuse {
            for (lacking, pinned) in lacking.iter_mut().zip(&pinned) {
                lacking.retain(|model| !pinned.contains(model));
            }
        }
        lacking
    }

    fn recall(&self, model: &ModelRef) -> Option<Lacks> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(model).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, lacks)| Arc::clone(lacks))
    }

    fn remember(&self, asked: impl IntoIterator<Item = (ModelRef, Lacks)>) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(asked.into_iter().map(|(model, lacks)| (model, (now, lacks))));
        if known.len() > REMEMBERED {
            known.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
    }

    /// Asks every sheep. Empty where that takes too long.
    async fn ask(&self, models: Vec<ModelRef>) -> HashMap<ModelRef, Lacks> {
        let flock = Arc::clone(&self.flock);
        let look = tokio::task::spawn_blocking(move || {
            let lacks = |model: &ModelRef| flock.iter().map(|(_, sheep)| sheep.lacks(model)).collect();
            models.into_iter().map(|model| (model.clone(), lacks(&model))).collect()
        });
        match tokio::time::timeout(LOOK_TIMEOUT, look).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(Err(_)) => HashMap::new(),
            Err(_) => {
                tracing::warn!(timeout = ?LOOK_TIMEOUT, "sheep do not say in time which models they have");
                HashMap::new()
            }
        }
    }
}
