//! Randomness that a failed run can be repeated with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A SplitMix64 generator (Steele, Lea and Flood, 2014): small, and good enough to
/// choose moments.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded by `SHEPHERD_TEST_SEED`, or else by the clock; prints which.
    ///
    /// # Panics
    /// When `SHEPHERD_TEST_SEED` is no number.
    pub fn new() -> Self {
        let seed = match std::env::var("SHEPHERD_TEST_SEED") {
            Ok(seed) => seed.parse().expect("SHEPHERD_TEST_SEED is a decimal number"),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                now.as_secs() ^ u64::from(now.subsec_nanos()) << 20
            }
        };
        println!("SHEPHERD_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another generator, whose numbers do not depend on how this one goes on.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// A time up to `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.below(micros + 1))
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
