//! Very many queued jobs: how soon a killed daemon is back, and whether it takes
//! the next one as if there were none behind it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Options;
use crate::bench_daemon::{BenchDaemon, Runner};
use crate::clients::{self, Window};
use crate::report::{Section, Wanted};
use crate::submit::fillers;
use crate::usage::{Usage, megabytes, report_memory};

/// What all of them are compared with.
const FEW: u64 = 100;
/// Longer than it may ever take to fill the queue.
const EVER: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let mut section = Section::new(format!("{} jobs queued, kill -9", options.jobs));
    for (jobs, name) in [(FEW.min(options.jobs), "few queued"), (options.jobs, "all queued")] {
        one(options, jobs, name, &mut section)?;
    }
    Ok(section)
}

fn one(options: &Options, jobs: u64, name: &str, section: &mut Section) -> anyhow::Result<()> {
    let bench = BenchDaemon::new(options, &Runner { hold: true, ..Runner::default() })?;
    let daemon = bench.start();
    let fillers = fillers(options, options.clients_or(256), Some(options.payload), jobs);
    let window = Window { from: Duration::ZERO, length: EVER };
    let filled = clients::run(daemon.client().address(), fillers, window, || ())?;
    section.row(format!("{name}, submits"), filled.per_second(), "1/s");
    section.row(format!("{name}, peak memory before"), megabytes(daemon.peak_memory()), "MB");
    bench.kill(daemon);

    let tally = bench.harness.path("tally");
    std::fs::write(&tally, "")?;
    let bench = bench.with_runner(&Runner { tally: Some(tally.clone()), ..Runner::default() });
    let (daemon, ready) = bench.start_timed("/readyz")?;
    section.wanted(format!("{name}, ready again"), ready.as_secs_f64(), "s", Wanted::AtMost(3.0));
    let since = Instant::now();
    while done(&tally) == 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    section.row(format!("{name}, next job done after"), since.elapsed().as_secs_f64() * 1e3, "ms");
    if jobs > FEW {
        let (before, first) = (Usage::now(&daemon), done(&tally));
        std::thread::sleep(options.window());
        let (after, last) = (Usage::now(&daemon), done(&tally));
        let count = last - first;
        section.row(format!("{name}, jobs done"), count as f64 / before.until(&after).as_secs_f64(), "1/s");
        before.report(&after, usize::try_from(count)?, section);
        report_memory(&daemon, section);
    }
    bench.kill(daemon);
    Ok(())
}

fn done(tally: &Path) -> u64 {
    std::fs::metadata(tally).map_or(0, |meta| meta.len())
}
