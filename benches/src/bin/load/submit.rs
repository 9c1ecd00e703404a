//! Durable submits while jobs only queue: the one sheep keeps its first job.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::ensure;

use crate::Options;
use crate::bench_daemon::{BenchDaemon, Requests, Runner};
use crate::clients::{self, Client, Step, Window};
use crate::connection::Answer;
use crate::e2e::Ids;
use crate::report::{Section, Wanted};
use crate::usage::{Usage, report_memory};

/// Jobs whose data is placed in storage before, for submits without a payload.
const PLACED: u64 = 60_000;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients_or(256);
    let mut section = Section::new(format!("submits while jobs queue, {clients} clients"));
    with_payload(options, clients, &mut section)?;
    without_payload(options, clients, &mut section)?;
    Ok(section)
}

fn with_payload(options: &Options, clients: usize, section: &mut Section) -> anyhow::Result<()> {
    let bench = BenchDaemon::new(options, &Runner { hold: true, ..Runner::default() })?;
    let daemon = bench.start();
    let window = Window { from: options.warm_up(), length: options.window() };
    let fillers = fillers(options, clients, Some(options.payload), u64::MAX);
    let mut measured = clients::run(daemon.client().address(), fillers, window, || Usage::now(&daemon))?;
    section.wanted("with payload", measured.per_second(), "1/s", Wanted::AtLeast(20_000.0));
    section.row("with payload, p50", measured.times.millis(0.5), "ms");
    section.row("with payload, p99", measured.times.millis(0.99), "ms");
    let (before, after) = &measured.readings;
    before.report(after, measured.times.len(), section);
    report_memory(&daemon, section);
    bench.kill(daemon);
    Ok(())
}

/// Bounded by what is placed, and so without a warm-up.
fn without_payload(options: &Options, clients: usize, section: &mut Section) -> anyhow::Result<()> {
    let bench = BenchDaemon::new(options, &Runner { hold: true, ..Runner::default() })?;
    let mut placed = Ids::new(options).borrow_mut().clone_empty();
    for _ in 0..PLACED {
        bench.harness.put(&placed.next(), "inputs/input", "x".repeat(options.payload));
    }
    rustix::fs::sync();
    let daemon = bench.start();
    let window = Window { from: std::time::Duration::ZERO, length: options.window() };
    let ids = Rc::new(RefCell::new(placed.clone_empty()));
    let fillers = (0..clients).map(|_| Filler::new(None, &ids, PLACED)).collect();
    let mut measured = clients::run(daemon.client().address(), fillers, window, || Usage::now(&daemon))?;
    section.wanted("data in storage", measured.per_second(), "1/s", Wanted::AtLeast(20_000.0));
    section.row("data in storage, p50", measured.times.millis(0.5), "ms");
    section.row("data in storage, p99", measured.times.millis(0.99), "ms");
    bench.kill(daemon);
    Ok(())
}

/// Clients that submit until `limit` jobs are submitted.
pub(crate) fn fillers(options: &Options, clients: usize, payload: Option<usize>, limit: u64) -> Vec<Filler> {
    let ids = Ids::new(options);
    (0..clients).map(|_| Filler::new(payload, &ids, limit)).collect()
}

/// Submits one job after the other and waits for none.
pub(crate) struct Filler {
    requests: Requests,
    ids: Rc<RefCell<Ids>>,
    limit: u64,
}

impl Filler {
    fn new(payload: Option<usize>, ids: &Rc<RefCell<Ids>>, limit: u64) -> Self {
        Self { requests: Requests::new(payload), ids: Rc::clone(ids), limit }
    }
}

impl Client for Filler {
    fn next(&mut self, answer: Option<Answer<'_>>, request: &mut Vec<u8>) -> anyhow::Result<Step> {
        let is_first = answer.is_none();
        if let Some(answer) = answer {
            ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        let mut ids = self.ids.borrow_mut();
        if ids.count() == self.limit {
            return Ok(if is_first { Step::Done } else { Step::Last });
        }
        self.requests.submit(&ids.next(), request);
        Ok(Step::Completed)
    }
}
