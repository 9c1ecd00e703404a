//! How long to wait before asking again.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Pauses that double, up to a few seconds.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_DELAY)
    }

    pub(super) fn reset(&mut self) {
        self.0 = FIRST_DELAY;
    }

    /// May be dropped: the pause counts as begun.
    pub(super) async fn pause(&mut self) {
        let now = self.0;
        self.0 = (now * 2).min(MAX_DELAY);
        tokio::time::sleep(now).await;
    }
}
