//! Models that a sheep leaves alone for a while, because their runners die or do not start: what ails them may pass,
//! and until then their jobs wait, and the sheep is free for others.

use std::collections::HashMap;
use std::time::Duration;

use shepherd_job::ModelRef;
use tokio::time::Instant;

use crate::retry::Backoff;

const FIRST_COOLDOWN: Duration = Duration::from_millis(100);
const MAX_COOLDOWN: Duration = Duration::from_secs(10);
/// A model that was left alone so long ago begins anew.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct ModelCooldowns(HashMap<ModelRef, Cooldown>);

#[derive(Debug)]
struct Cooldown {
    until: Instant,
    backoff: Backoff,
}

impl ModelCooldowns {
    /// Leaves the model alone from now on, for longer each time.
    pub(super) fn begin(&mut self, model: &ModelRef, now: Instant) {
        self.0.retain(|_, rest| now.saturating_duration_since(rest.until) < FORGOTTEN);
        let backoff = || Backoff::new(FIRST_COOLDOWN, MAX_COOLDOWN);
        let rest = self.0.entry(model.clone()).or_insert_with(|| Cooldown { until: now, backoff: backoff() });
        rest.until = now + rest.backoff.step();
    }

    /// The model works.
    pub(super) fn end(&mut self, model: &ModelRef) {
        self.0.remove(model);
    }

    /// Until when the model is left alone, if it is.
    pub(super) fn until(&self, model: &ModelRef, now: Instant) -> Option<Instant> {
        self.0.get(model).map(|rest| rest.until).filter(|until| *until > now)
    }

    /// Which models are left alone, and until when.
    pub(super) fn all(&self, now: Instant) -> Vec<(ModelRef, Instant)> {
        let rests = self.0.iter().map(|(model, rest)| (model.clone(), rest.until));
        rests.filter(|(_, until)| *until > now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_rests_by_itself_and_longer_each_time() {
        let model = |name| ModelRef::parse(name, "").unwrap();
        let (mut rests, now) = (ModelCooldowns::default(), Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..9 {
            rests.begin(&model("a"), now);
            lengths.push((rests.until(&model("a"), now).unwrap() - now).as_millis());
        }
        assert_eq!(lengths, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(rests.until(&model("b"), now), None);
        assert_eq!(rests.all(now), [(model("a"), now + MAX_COOLDOWN)]);
        assert_eq!(
            (rests.until(&model("a"), now + MAX_COOLDOWN), rests.all(now + MAX_COOLDOWN)),
            (None, vec![])
        );
        rests.end(&model("a"));
        assert_eq!(rests.until(&model("a"), now), None);
        rests.begin(&model("a"), now);
        assert_eq!(rests.until(&model("a"), now), Some(now + FIRST_COOLDOWN));
        // Not kept for ever.
        rests.begin(&model("b"), now + 2 * FORGOTTEN);
        assert_eq!(rests.0.len(), 1);
    }
}
