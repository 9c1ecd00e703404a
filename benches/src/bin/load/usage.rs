//! What the processes of a measurement use of the processor.

use std::time::{Duration, Instant};

use shepherd_tests::{Daemon, process};

use crate::report::Section;

/// Readings of one moment. The system counts in ticks of 10 ms: measure for
/// seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    daemon: Duration,
    runners: Duration,
    clients: Duration,
}

impl Usage {
    pub(crate) fn now(daemon: &Daemon) -> Self {
        let of = |pid| process::cpu(pid).unwrap_or_default();
        Self {
            at: Instant::now(),
            daemon: of(daemon.pid()),
            runners: daemon.runners().into_iter().map(of).sum(),
            clients: of(std::process::id().cast_signed()),
        }
    }

    /// How long ago this was read, by the other reading.
    pub(crate) fn until(&self, later: &Self) -> Duration {
        later.at - self.at
    }

    /// What the daemon used between two readings, in microseconds for each of `count`.
    pub(crate) fn daemon_micros(&self, later: &Self, count: usize) -> f64 {
        (later.daemon - self.daemon).as_secs_f64() / count.max(1) as f64 * 1e6
    }

    /// Adds what was used between two readings, in all and for each of `count`.
    pub(crate) fn report(&self, later: &Self, count: usize, section: &mut Section) {
        let window = self.until(later).as_secs_f64();
        let rows = [
            ("daemon", later.daemon - self.daemon),
            ("runners", later.runners.saturating_sub(self.runners)),
            ("clients", later.clients - self.clients),
        ];
        for (who, used) in rows {
            let used = used.as_secs_f64();
            section.row(format!("cpu of {who}"), used / window * 100.0, "%");
            section.row(format!("cpu of {who}, each"), used / count.max(1) as f64 * 1e6, "us");
        }
    }
}

/// Megabytes, as people who buy memory count them.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Adds the most memory that the daemon held.
pub(crate) fn report_memory(daemon: &Daemon, section: &mut Section) {
    section.row("peak memory of daemon", megabytes(daemon.peak_memory()), "MB");
}
