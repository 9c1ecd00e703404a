//! When to try again, and when to give up.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// How long an answer may be silent: at most, and at least, however short the patience is.
const SILENCE: Duration = Duration::from_secs(60);
const LEAST_SILENCE: Duration = Duration::from_secs(5);

/// How long an outage is borne, counted from the last sign of life. One that is over is forgotten.
#[derive(Debug)]
pub(crate) struct Patience {
    outage: Duration,
    /// It takes the place of `outage`.
    deadline: Option<Instant>,
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    pub(crate) const fn new(outage: Duration, deadline: Option<Instant>) -> Self {
        Self { outage, deadline, since: None, pause: FIRST_DELAY }
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the next answer may be silent.
    pub(crate) fn silence(&self) -> Duration {
        self.left(Instant::now()).clamp(LEAST_SILENCE, SILENCE)
    }

    /// How long to pause after a try that failed, silent for so long; none when there is to be no other.
    pub(crate) fn pause(&mut self, silent: Duration) -> Option<Duration> {
        let now = Instant::now();
        self.since.get_or_insert_with(|| now.checked_sub(silent).unwrap_or(now));
        let left = self.left(now);
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(MAX_DELAY);
        Some(pause)
    }

    /// There was an answer.
    pub(crate) const fn restore(&mut self) {
        self.since = None;
        self.pause = FIRST_DELAY;
    }

    fn left(&self, now: Instant) -> Duration {
        match (self.deadline, self.since) {
            (Some(deadline), _) => deadline.saturating_duration_since(now),
            (None, Some(since)) => self.outage.saturating_sub(now.saturating_duration_since(since)),
            (None, None) => self.outage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_part_of_the_outage() {
        let mut patience = Patience::new(30 * SECOND, None);
        assert_eq!(patience.silence(), 30 * SECOND);
        assert_eq!(patience.pause(Duration::ZERO), Some(FIRST_DELAY));
        tokio::time::advance(20 * SECOND).await;
        assert_eq!(patience.silence(), 10 * SECOND);
        patience.restore();
        assert_eq!(patience.pause(30 * SECOND), None);
        assert_eq!(Patience::new(SECOND, None).silence(), LEAST_SILENCE);
        assert_eq!(Patience::new(600 * SECOND, None).silence(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_takes_the_place_of_the_outage() {
        let mut patience = Patience::new(SECOND, Some(Instant::now() + 10 * SECOND));
        tokio::time::advance(5 * SECOND).await;
        assert!(patience.pause(5 * SECOND).is_some());
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(patience.pause(Duration::ZERO), None);
    }
}
