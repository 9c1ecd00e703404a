//! How slowly a request body may come.
//!
//! A body holds a connection, and a connection is a place that another client could have.
//! So it has to come at a least rate once a time of grace is over, never stall for long,
//! and end in time.

use std::time::Duration;

use tokio::time::Instant;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    /// How long a body may make no progress.
    pub stall: Duration,
    /// How long it may take however slow it is.
    pub grace: Duration,
    /// How many bytes a second it must have at the least, on the average and beyond the
    /// time of grace; no number with 0.
    pub min_rate: u64,
    /// How long it may take as a whole.
    pub total: Duration,
}

impl Default for BodyPace {
    /// A stall of a minute; 20 seconds and one more for each 500 bytes, which is what web
    /// servers ask for; an hour.
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(20),
            min_rate: 500,
            total: Duration::from_secs(60 * 60),
        }
    }
}

impl BodyPace {
    /// Until when more must have come of a body that began then, has sent `came` bytes, and
    /// the last of them now.
    pub fn deadline(&self, began: Instant, came: u64) -> Instant {
        let by_rate = match self.min_rate {
            0 => self.total,
            rate => self.grace.saturating_add(Duration::from_secs(came / rate)).min(self.total),
        };
        // Times that no clock can hold were refused where they are read.
        (began + by_rate).min(Instant::now() + self.stall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_earns_time_by_coming() {
        let began = Instant::now();
        let second = Duration::from_secs;
        let pace = BodyPace { stall: second(30), grace: second(20), min_rate: 500, total: second(100) };
        assert_eq!(pace.deadline(began, 0), began + second(20));
        tokio::time::advance(second(15)).await;
        assert_eq!(pace.deadline(began, 5_000), began + second(30));
        assert_eq!(pace.deadline(began, 1 << 40), began + second(45), "it stalls");
        tokio::time::advance(second(80)).await;
        assert_eq!(pace.deadline(began, 1 << 40), began + second(100), "it ends");
        let any = BodyPace { min_rate: 0, ..pace };
        assert_eq!(any.deadline(began, 0), began + second(100));
    }
}
