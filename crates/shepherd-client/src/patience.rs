//! When to try again.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// How long an outage is borne. One that is over is forgotten.
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
        Self { outage, deadline, since: None, pause: FIRST }
    }

    /// How long to pause after a try that failed; none when there is to be no other.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let left = match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(now),
            None => self.outage.saturating_sub(now.saturating_duration_since(since)),
        };
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(LONGEST);
        Some(pause)
    }

    /// There was an answer.
    pub(crate) const fn restore(&mut self) {
        self.since = None;
        self.pause = FIRST;
    }
}
