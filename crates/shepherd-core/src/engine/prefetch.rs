//! How far ahead of its runner a sheep works.
//!
//! While a job runs, the next one is made ready, so that the runner never waits
//! for files. When jobs are so short that the way to the runner and back takes
//! longer than they do, several are sent ahead. When they are long, each one held
//! back here is one that another sheep could have taken, so only one is.

use std::time::Duration;

use tokio::time::Instant;

/// Work to have ready beside the runner, in its own time.
const READY_AHEAD: Duration = Duration::from_millis(20);
/// Work to have with the runner beyond what it can start at once.
const SENT_AHEAD: Duration = Duration::from_millis(5);
/// At most this many jobs are sent ahead.
const MAX_SENT: usize = 128;
/// At most this many jobs are made ready ahead because their inputs take long.
const MAX_COMING: usize = 16;
/// At most this many jobs are made ready ahead.
const MAX_READY: usize = 256;

/// A mean that forgets: one sample in eight.
fn moved(mean: Option<Duration>, sample: Duration) -> Duration {
    mean.map_or(sample, |mean| (mean * 7 + sample) / 8)
}

/// How far ahead one runner is worked for.
#[derive(Debug, Default)]
pub(super) struct PrefetchDepth {
    mean: Option<Duration>,
    /// How long inputs take from storage.
    staging: Option<Duration>,
}

impl PrefetchDepth {
    /// `jobs` ended within `elapsed` of the runner's time.
    pub(super) fn record(&mut self, elapsed: Duration, jobs: u32) {
        let Some(each) = elapsed.checked_div(jobs) else { return };
        self.mean = Some(moved(self.mean, each));
    }

    /// A job's inputs came from storage within `took`. The least of late counts:
    /// those that came side by side may have been in one another's way, and must
    /// not be taken for a reason to fetch even more at once.
    pub(super) fn staged(&mut self, took: Duration) {
        self.staging = Some(self.staging.map_or(took, |least| took.min(least + least / 32)));
    }

    pub(super) const fn mean(&self) -> Option<Duration> {
        self.mean
    }

    /// How many jobs to have ready, or on the way to it: the more the longer they
    /// take to get ready, so that inputs that come from afar come side by side.
    pub(super) fn ready_ahead(&self) -> usize {
        let coming = self.staging.map_or(0, |staging| self.fits(staging)).min(MAX_COMING);
        self.fits(READY_AHEAD).max(coming.saturating_add(1)).min(MAX_READY)
    }

    /// How many jobs to send beyond what the runner can start, given what it takes.
    pub(super) fn sent_ahead(&self, runner_takes: usize) -> usize {
        self.fits(SENT_AHEAD).min(runner_takes).min(MAX_SENT)
    }

    fn fits(&self, time: Duration) -> usize {
        let Some(mean) = self.mean else { return 0 };
        usize::try_from(time.as_nanos() / mean.as_nanos().max(1)).unwrap_or(usize::MAX)
    }
}

/// When jobs follow one another faster than this, their small outputs ride in the
/// queue's commits; otherwise there is time to bring them to storage before anybody
/// hears that they are done.
const BRISK: Duration = Duration::from_millis(5);

/// How fast jobs finish, whatever they wait for.
#[derive(Debug, Default)]
pub(super) struct CompletionRate {
    last: Option<Instant>,
    mean: Option<Duration>,
}

impl CompletionRate {
    /// `jobs` finished at `now`; at least one.
    pub(super) fn record(&mut self, now: Instant, jobs: u32) {
        if let Some(last) = self.last.replace(now) {
            // A pause says that there is time, not how long the next one will be.
            let each = (now - last).min(4 * BRISK) / jobs.max(1);
            self.mean = Some(moved(self.mean, each));
        }
    }

    pub(super) fn is_brisk(&self) -> bool {
        self.mean.is_some_and(|mean| mean < BRISK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_or_slow_runner_gets_nothing_ahead_and_one_job_is_ready() {
        let mut depth = PrefetchDepth::default();
        assert_eq!((depth.sent_ahead(32), depth.ready_ahead()), (0, 1));
        depth.record(Duration::from_secs(60), 1);
        assert_eq!((depth.sent_ahead(32), depth.ready_ahead()), (0, 1));
    }

    #[test]
    fn a_fast_runner_gets_what_it_takes() {
        let mut depth = PrefetchDepth::default();
        depth.record(Duration::from_micros(100), 1);
        assert_eq!((depth.sent_ahead(32), depth.sent_ahead(0), depth.ready_ahead()), (32, 0, 200));
    }

    #[test]
    fn inputs_that_take_long_are_fetched_side_by_side() {
        let mut depth = PrefetchDepth::default();
        depth.record(Duration::from_millis(100), 1);
        depth.staged(Duration::from_millis(1));
        assert_eq!(depth.ready_ahead(), 1);
        let mut depth = PrefetchDepth::default();
        depth.record(Duration::from_millis(100), 1);
        depth.staged(Duration::from_millis(350));
        assert_eq!(depth.ready_ahead(), 4, "one that is ready, and three on their way");
        (0..8).for_each(|_| depth.staged(Duration::from_secs(9)));
        assert_eq!(depth.ready_ahead(), 5, "what slows itself down is no reason for more");
        (0..999).for_each(|_| depth.staged(Duration::from_secs(9)));
        assert_eq!(depth.ready_ahead(), 1 + MAX_COMING);
    }

    #[test]
    fn the_mean_follows_a_runner_that_becomes_slow() {
        let mut depth = PrefetchDepth::default();
        depth.record(Duration::from_micros(100), 1);
        (0..40).for_each(|_| depth.record(Duration::from_secs(1), 1));
        assert_eq!(depth.sent_ahead(32), 0);
    }

    #[test]
    fn only_jobs_that_keep_following_fast_are_brisk() {
        let (mut rate, mut now) = (CompletionRate::default(), Instant::now());
        let mut after = |rate: &mut CompletionRate, pause, jobs| {
            now += pause;
            rate.record(now, jobs);
        };
        after(&mut rate, Duration::ZERO, 1);
        assert!(!rate.is_brisk(), "one job says nothing");
        (0..20).for_each(|_| after(&mut rate, Duration::from_millis(10), 10));
        assert!(rate.is_brisk());
        after(&mut rate, Duration::from_secs(60), 1);
        assert!(rate.is_brisk(), "one pause is no change");
        (0..20).for_each(|_| after(&mut rate, Duration::from_millis(10), 1));
        assert!(!rate.is_brisk());
    }
}
