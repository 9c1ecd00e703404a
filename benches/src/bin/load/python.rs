//! Runners in Python that do nothing but copy: one on the SDK, over ipc, and one as
//! those of the first shepherd were, over ZeroMQ. What they cost is theirs: with many
//! clients the interpreter is what there is too little of.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::{Value, json};
use shepherd_tests::free_port;

use crate::Options;
use crate::bench_daemon::{BenchDaemon, NOOP, Runner};
use crate::e2e;
use crate::report::{Section, Wanted};

/// Which runner.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A class, served by the package `shepherd_runner`.
    Sdk,
    /// A ROUTER of pyzmq.
    Legacy,
}

/// A runner's program, and what is wanted of it.
struct Subject {
    title: &'static str,
    /// The package without which there is nothing to measure.
    package: &'static str,
    file: &'static str,
    source: &'static str,
    per_second: f64,
    /// Of one client's jobs.
    p50: Option<f64>,
}

impl Kind {
    fn subject(self) -> Subject {
        match self {
            Self::Sdk => Subject {
                title: "a runner on the Python SDK",
                package: "shepherd_runner",
                file: "noop.py",
                source: include_str!("../../../python/noop.py"),
                per_second: 2_500.0,
                p50: Some(3.0),
            },
            Self::Legacy => Subject {
                title: "a runner of the first shepherd, over ZeroMQ",
                package: "zmq",
                file: "legacy.py",
                source: include_str!("../../../python/legacy.py"),
                per_second: 1_000.0,
                p50: None,
            },
        }
    }

    fn sheep(self, python: &str, program: &Path) -> Value {
        match self {
            // Found beside the model's configuration.
            Self::Sdk => json!({"runner_command": [python, "-m", "shepherd_runner", "-r", "noop.Noop"]}),
            Self::Legacy => json!({
                "transport": "zmq",
                "port": free_port(),
                "runner_command": [python, program],
            }),
        }
    }
}

pub(crate) fn measure(options: &Options, kind: Kind) -> anyhow::Result<Section> {
    let subject = kind.subject();
    let python = interpreter(options)?;
    let import = format!("import {}", subject.package);
    let status = Command::new(&python).args(["-c", &import]).status();
    let status = status.with_context(|| format!("cannot run `{python}`"))?;
    ensure!(status.success(), "`{python}` lacks the package `{}`: --python names another", subject.package);

    let clients = options.clients_or(64);
    let mut section = Section::new(format!("{}, {clients} clients, then 1", subject.title));
    let bench = bench(options, kind, &subject, &python)?;
    e2e::measure_on(&bench, options, clients, &mut section, |section, measured| {
        section.wanted("jobs", measured.per_second(), "1/s", Wanted::AtLeast(subject.per_second));
        section.row("p50", measured.times.millis(0.5), "ms");
        section.row("p99", measured.times.millis(0.99), "ms");
    })?;
    // Another bench: the first one's store has jobs of this one's names. What else is told of the processes is the
    // same as above, and left out.
    let bench = self::bench(options, kind, &subject, &python)?;
    let section = RefCell::new(section);
    e2e::measure_on(&bench, options, 1, &mut Section::new(""), |_, measured| {
        let (p50, name) = (measured.times.millis(0.5), "p50, 1 client");
        let mut section = section.borrow_mut();
        section.row("jobs, 1 client", measured.per_second(), "1/s");
        match subject.p50 {
            Some(most) => section.wanted(name, p50, "ms", Wanted::AtMost(most)),
            None => section.row(name, p50, "ms"),
        }
        section.row("p99, 1 client", measured.times.millis(0.99), "ms");
    })?;
    Ok(section.into_inner())
}

/// A name is looked for on PATH; a path is from here, and not from where runners are started.
fn interpreter(options: &Options) -> anyhow::Result<String> {
    if !options.python.contains('/') {
        return Ok(options.python.clone());
    }
    let path = std::path::absolute(&options.python)?;
    path.into_os_string().into_string().map_err(|path| anyhow!("{} is no text", path.display()))
}

fn bench(options: &Options, kind: Kind, subject: &Subject, python: &str) -> anyhow::Result<BenchDaemon> {
    let bench = BenchDaemon::new(options, &Runner::default())?;
    let program = bench.harness.model_dir(NOOP).join(subject.file);
    std::fs::write(&program, subject.source)?;
    Ok(bench.with_sheep(kind.sheep(python, &program)))
}
