//! What answering costs beyond HTTP itself: the daemon's status routes against a
//! bare handler that sends the same bytes, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use shepherd_tests::process;

use crate::Options;
use crate::bare::Bare;
use crate::bench_daemon::{BenchDaemon, Runner, get};
use crate::clients::{self, Client, Step, Window};
use crate::connection::Answer;
use crate::percentile::median;
use crate::report::{Section, Wanted};
use crate::usage::report_memory;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients_or(64);
    let mut section = Section::new(format!("status routes against a bare handler, {clients} clients"));
    let bench = BenchDaemon::new(options, &Runner::default())?;
    let daemon = bench.start();
    bench.warm_up(&daemon)?;
    // A turn each for both, as often as asked, in the time of one measurement.
    let turn = options.window().div_f64(2.0 * options.rounds.max(1) as f64);
    for (name, path) in [("/status", "/status"), ("/jobs/ID/status", "/jobs/warm-up/status")] {
        let body = bench.wait(daemon.client().try_get(path))?.body;
        let bare = Bare::start(&body)?;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds.max(1) {
            let bare = ask(bare.address, bare.pid(), "/", clients, turn)?;
            let daemon = ask(daemon.client().address(), daemon.pid(), path, clients, turn)?;
            ratios.push(daemon.per_second / bare.per_second);
            ours.push(daemon);
            theirs.push(bare);
        }
        let of = |speeds: &[Speed], figure: fn(&Speed) -> f64| median(speeds.iter().map(figure).collect());
        section.wanted(format!("{name}, of bare"), median(ratios), "", Wanted::AtLeast(0.7));
        section.row(name, of(&ours, |speed| speed.per_second), "1/s");
        section.row(format!("{name}, bare"), of(&theirs, |speed| speed.per_second), "1/s");
        section.row(format!("{name}, cpu each"), of(&ours, |speed| speed.cpu_micros), "us");
        section.row(format!("{name}, bare, cpu each"), of(&theirs, |speed| speed.cpu_micros), "us");
    }
    report_memory(&daemon, &mut section);
    bench.stop(daemon)?;
    Ok(section)
}

struct Speed {
    per_second: f64,
    cpu_micros: f64,
}

fn ask(
    address: SocketAddr,
    pid: i32,
    path: &'static str,
    clients: usize,
    turn: Duration,
) -> anyhow::Result<Speed> {
    let clients = (0..clients).map(|_| Reader { path }).collect();
    let window = Window { from: turn.div_f64(5.0), length: turn };
    let measured = clients::run(address, clients, window, || process::cpu(pid).unwrap_or_default())?;
    let (before, after) = measured.readings;
    let cpu_micros = (after - before).as_secs_f64() / measured.times.len().max(1) as f64 * 1e6;
    Ok(Speed { per_second: measured.per_second(), cpu_micros })
}

/// Reads one path again and again.
struct Reader {
    path: &'static str,
}

impl Client for Reader {
    fn next(&mut self, answer: Option<Answer<'_>>, request: &mut Vec<u8>) -> anyhow::Result<Step> {
        if let Some(answer) = answer {
            ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        get(self.path, request);
        Ok(Step::Completed)
    }
}
