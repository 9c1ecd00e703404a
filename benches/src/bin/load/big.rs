//! A large input and a large output: what staging and publishing cost beyond what
//! the runner does itself, against plain copies of the same bytes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::json;
use shepherd_tests::Random;

use crate::Options;
use crate::bench_daemon::{BenchDaemon, NOOP, Runner};
use crate::percentile::median;
use crate::report::{Section, Wanted};
use crate::usage::megabytes;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let mut section = Section::new(format!("{:.0} MB in and out", megabytes(options.bytes)));
    let bench = BenchDaemon::new(options, &Runner::default())?;
    let times = bench.harness.path("times");
    let bench = bench.with_runner(&Runner { times: Some(times.clone()), ..Runner::default() });
    let daemon = bench.start();
    bench.warm_up(&daemon)?;
    let client = daemon.client();
    let (mut moved, mut copied, mut whole, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds.max(1) {
        let job = format!("big-{round}");
        bench.harness.put(&job, "inputs/input", "");
        let input = bench.harness.object(&job, "inputs/input");
        fill(&input, options.bytes)?;
        rustix::fs::sync();

        // The input to where a runner would find it, the output to where it is kept.
        let (staged, published) = (bench.harness.path("staged"), bench.harness.path("published"));
        let begun = Instant::now();
        std::fs::copy(&input, &staged)?;
        std::fs::copy(&input, &published)?;
        for path in [&staged, &published] {
            File::open(path)?.sync_all()?;
        }
        let plain = begun.elapsed().as_secs_f64();
        std::fs::remove_file(staged)?;
        std::fs::remove_file(published)?;
        rustix::fs::sync();

        let begun = Instant::now();
        let body = json!({"job_id": job, "model": NOOP.json()});
        let reply = bench.wait(client.start_job(&body));
        ensure!(reply.status == 200, "{reply:?}");
        let status = bench.wait(client.finished(&job));
        let total = begun.elapsed().as_secs_f64();
        ensure!(status["status"] == "done", "{status}");
        let output = bench.harness.object(&job, "outputs/output");
        ensure!(std::fs::metadata(&output)?.len() == options.bytes, "the output is not the input");

        let runner = last_time(&times)?;
        moved.push(total - runner);
        copied.push(plain);
        whole.push(total);
        ratios.push((total - runner) / plain);
        std::fs::remove_dir_all(bench.harness.path("storage").join(&job))?;
    }
    section.wanted("staging and publishing, of plain copies", median(ratios), "", Wanted::AtMost(1.1));
    section.row("staging and publishing", median(moved), "s");
    section.row("plain copies", median(copied), "s");
    section.row("the whole job", median(whole), "s");
    section.wanted("peak memory of daemon", megabytes(daemon.peak_memory()), "MB", Wanted::AtMost(60.0));
    bench.stop(daemon)?;
    Ok(section)
}

/// Fills a file with bytes that no file system can do without storing.
pub(crate) fn fill(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut random = Random::new();
    let mut file = File::create(path)?;
    let mut left = bytes;
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&random.number().to_le_bytes());
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        file.write_all(&piece[..part])?;
        left -= part as u64;
    }
    Ok(())
}

pub(crate) fn last_time(times: &Path) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(times)?;
    Ok(text.lines().last().context("the runner noted its time")?.parse()?)
}
