//! The first moments of a daemon, and its rest.

use std::time::Duration;

use shepherd_tests::process;

use crate::Options;
use crate::bench_daemon::{BenchDaemon, Runner};
use crate::percentile::median;
use crate::report::{Section, Wanted};
use crate::usage::megabytes;

/// How long a daemon is left alone before its memory is read.
const REST: Duration = Duration::from_secs(2);

pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let mut section = Section::new("start and rest");
    let bench = BenchDaemon::new(options, &Runner::default())?;
    // The first start makes the directories and brings the binary into memory.
    let (daemon, first) = bench.start_timed("/status")?;
    bench.stop(daemon)?;
    let (mut answers, mut resting, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds.max(1) {
        let (daemon, answer) = bench.start_timed("/status")?;
        answers.push(answer.as_secs_f64() * 1e3);
        std::thread::sleep(REST);
        resting.push(megabytes(process::memory(daemon.pid(), "VmRSS").unwrap_or_default()));
        bench.run_one(&daemon, &format!("job-{}", answers.len()))?;
        std::thread::sleep(REST);
        used.push(megabytes(process::memory(daemon.pid(), "VmRSS").unwrap_or_default()));
        bench.stop(daemon)?;
    }
    section.row("the very first answer", first.as_secs_f64() * 1e3, "ms");
    section.wanted("first answer", median(answers), "ms", Wanted::AtMost(100.0));
    section.wanted("memory at rest", median(resting), "MB", Wanted::AtMost(25.0));
    section.row("memory at rest, with a runner", median(used), "MB");
    Ok(section)
}
