//! When to try again, and for how long.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;

/// The first wait; each next one is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest wait, also where the server asks for more.
const MAX_DELAY: Duration = Duration::from_secs(4);

/// The tries at one request, which are bounded in time.
pub(super) struct Tries {
    until: Instant,
    wait: Duration,
}

impl Tries {
    pub(super) fn for_(span: Duration) -> Self {
        Self { until: Instant::now() + span, wait: FIRST_DELAY }
    }

    /// How much time is left.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Leaves out a time in which there was progress.
    pub(super) fn excuse(&mut self, time: Duration) {
        self.until += time;
    }

    /// Waits until the next try.
    ///
    /// # Errors
    /// The fault, when another try is of no use or no time is left for one.
    pub(super) async fn again(&mut self, fault: Fault) -> Result<(), Fault> {
        let wait = jittered(self.wait).max(fault.after.unwrap_or_default().min(MAX_DELAY));
        if !fault.passes() || wait >= self.left() {
            return Err(fault);
        }
        self.wait = (self.wait * 2).min(MAX_DELAY);
        tracing::debug!(%fault, ?wait, "the storage is asked again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Somewhere between half of `wait` and all of it, so that those who failed
/// together do not come back together.
fn jittered(wait: Duration) -> Duration {
    // A new state is seeded at random.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let half = wait / 2;
    half + half * u32::try_from(random % 1024).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::super::fault::Kind;
    use super::*;

    async fn exhaust(mut tries: Tries, fault: &Fault) -> (u32, Duration) {
        let (begun, mut failed) = (Instant::now(), 0);
        while tries.again(fault.clone()).await.is_ok() {
            failed += 1;
        }
        (failed, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_bounded_in_time_and_further_and_further_apart() {
        let away = Fault::new(Kind::Away, "away");
        let (failed, took) = exhaust(Tries::for_(Duration::from_secs(12)), &away).await;
        assert!((6..=11).contains(&failed), "{failed}");
        assert!(took <= Duration::from_secs(12), "{took:?}");
        let (failed, took) = exhaust(Tries::for_(Duration::ZERO), &away).await;
        assert_eq!((failed, took), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_pass_is_not_tried_again() {
        for kind in [Kind::Denied, Kind::NoObject, Kind::Refused, Kind::Full, Kind::Broken, Kind::Unknown] {
            let (failed, took) = exhaust(Tries::for_(MAX_DELAY), &Fault::new(kind, "no")).await;
            assert_eq!((failed, took), (0, Duration::ZERO), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_says_when_to_come_back() {
        let mut fault = Fault::new(Kind::Throttled, "slower");
        fault.after = Some(Duration::from_secs(2));
        let mut tries = Tries::for_(Duration::from_secs(3));
        let begun = Instant::now();
        tries.again(fault.clone()).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(2));
        fault.after = Some(Duration::from_secs(3600));
        assert!(tries.again(fault).await.is_err(), "there is no time left for that");
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::HashSet<_> = (0..64).map(|_| jittered(MAX_DELAY)).collect();
        assert!(waits.len() > 8);
        assert!(waits.iter().all(|wait| (MAX_DELAY / 2..=MAX_DELAY).contains(wait)));
    }
}
