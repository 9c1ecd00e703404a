//! Jobs from submit to done: what a client does, as often as it can.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::ensure;
use shepherd_tests::Random;

use crate::Options;
use crate::bench_daemon::{BenchDaemon, Requests, Runner, get};
use crate::clients::{self, Client, Measured, Step, Window};
use crate::connection::Answer;
use crate::lag::Sampler;
use crate::report::{Section, Wanted};
use crate::usage::{Usage, report_memory};

/// Results that are looked at afterwards.
const SAMPLES: u64 = 200;

pub(crate) fn throughput(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients_or(64);
    let mut section = Section::new(format!("submit to done, {clients} clients"));
    measure(options, clients, &mut section, |section, measured| {
        section.wanted("jobs", measured.per_second(), "1/s", Wanted::AtLeast(5_000.0));
        for (name, part) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)] {
            section.row(name, measured.times.millis(part), "ms");
        }
    })?;
    Ok(section)
}

pub(crate) fn latency(options: &Options) -> anyhow::Result<Section> {
    let mut section = Section::new("submit to done, 1 client");
    measure(options, 1, &mut section, |section, measured| {
        section.row("jobs", measured.per_second(), "1/s");
        section.wanted("p50", measured.times.millis(0.5), "ms", Wanted::AtMost(3.0));
        section.row("p95", measured.times.millis(0.95), "ms");
        section.wanted("p99", measured.times.millis(0.99), "ms", Wanted::AtMost(10.0));
        section.row("max", measured.times.millis(1.0), "ms");
    })?;
    Ok(section)
}

fn measure(
    options: &Options,
    clients: usize,
    section: &mut Section,
    figures: impl Fn(&mut Section, &mut Measured<Usage>),
) -> anyhow::Result<()> {
    measure_on(&BenchDaemon::new(options, &Runner::default())?, options, clients, section, figures)
}

/// The same on a given bench.
pub(crate) fn measure_on(
    bench: &BenchDaemon,
    options: &Options,
    clients: usize,
    section: &mut Section,
    figures: impl Fn(&mut Section, &mut Measured<Usage>),
) -> anyhow::Result<()> {
    let daemon = bench.start();
    bench.warm_up(&daemon)?;
    let ids = Ids::new(options);
    let requests = Rc::new(Requests::new(Some(options.payload)));
    let submitters = (0..clients).map(|_| Submitter::new(&requests, &ids)).collect();
    let window = Window { from: options.warm_up(), length: options.window() };
    let lag = Sampler::start(&bench.harness.path("state"))?;
    let mut measured = clients::run(daemon.client().address(), submitters, window, || Usage::now(&daemon))?;
    figures(section, &mut measured);
    let (before, after) = &measured.readings;
    before.report(after, measured.times.len(), section);
    report_memory(&daemon, section);
    lag.report(section)?;

    // What was timed was also done.
    let (count, expected) = (ids.borrow().count, "x".repeat(options.payload));
    for i in 0..SAMPLES.min(count.saturating_sub(clients as u64)) {
        let job = ids.borrow().nth(i * (count - clients as u64) / SAMPLES);
        let result = bench.wait(daemon.client().result(&job));
        ensure!(result.status == 200 && result.text() == expected, "the result of {job}: {result:?}");
    }
    bench.stop(daemon)
}

/// Names for jobs.
pub(crate) struct Ids {
    count: u64,
    /// 0 for ascending ones.
    key: u64,
}

impl Ids {
    pub(crate) fn new(options: &Options) -> Rc<RefCell<Self>> {
        // Odd, so that multiplying by it gives every number once.
        let key = if options.random_ids { Random::new().number() | 1 } else { 0 };
        Rc::new(RefCell::new(Self { count: 0, key }))
    }

    /// The same names from the beginning.
    pub(crate) fn clone_empty(&self) -> Self {
        Self { count: 0, key: self.key }
    }

    /// How many were given out.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn nth(&self, n: u64) -> String {
        match self.key {
            0 => format!("job-{n:012}"),
            key => format!("{:016x}", n.wrapping_add(1).wrapping_mul(key)),
        }
    }

    pub(crate) fn next(&mut self) -> String {
        self.count += 1;
        self.nth(self.count - 1)
    }
}

/// Submits a job, waits until it is done, and begins anew.
struct Submitter {
    requests: Rc<Requests>,
    ids: Rc<RefCell<Ids>>,
    job: String,
    waits: bool,
}

impl Submitter {
    fn new(requests: &Rc<Requests>, ids: &Rc<RefCell<Ids>>) -> Self {
        Self { requests: Rc::clone(requests), ids: Rc::clone(ids), job: String::new(), waits: true }
    }
}

impl Client for Submitter {
    fn next(&mut self, answer: Option<Answer<'_>>, request: &mut Vec<u8>) -> anyhow::Result<Step> {
        if let Some(answer) = answer {
            ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(answer.body));
            if !self.waits {
                self.waits = true;
                get(&format!("/jobs/{}/wait_ready", self.job), request);
                return Ok(Step::Middle);
            }
            let is_done = answer.body.windows(6).any(|window| window == b"\"done\"");
            ensure!(is_done, "{} is not done: {}", self.job, String::from_utf8_lossy(answer.body));
        }
        self.waits = false;
        self.job = self.ids.borrow_mut().next();
        self.requests.submit(&self.job, request);
        Ok(Step::Completed)
    }
}
