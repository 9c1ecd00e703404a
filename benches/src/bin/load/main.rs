//! Drives the real daemon over HTTP and measures it.
//!
//! The daemon, with its embedded store and a local directory as storage, runs one
//! bare sheep whose runner only copies its input. The clients share the machine
//! with it, so they are made to cost next to nothing: one thread, epoll, no
//! allocation for a request. Everything is measured in the same run as what it is
//! compared with, where it is.
//!
//! ```text
//! cargo run --release -p shepherd-benches --bin load -- all --json load.json
//! ```

mod bare;
mod bench_daemon;
mod big;
mod clients;
mod connection;
mod e2e;
mod idle;
mod lag;
mod million;
mod percentile;
mod poll;
mod python;
mod report;
mod s3;
mod s3_server;
mod status;
mod submit;
mod swap;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use report::Report;

#[derive(Parser)]
#[command(about = "Measures the shepherd daemon")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
    #[command(flatten)]
    options: Options,
}

#[derive(Args, Clone)]
struct Options {
    /// Also write what was measured to this file, as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the daemon's directories are made; the disk that is measured.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave those directories: on ext4 without a journal, removing them makes the
    /// next run on the same disk slower for some minutes.
    #[arg(long, global = true)]
    keep: bool,
    /// How long to measure, in seconds.
    #[arg(long, global = true, default_value_t = 10.0)]
    seconds: f64,
    /// How long to run before measuring, in seconds.
    #[arg(long, global = true, default_value_t = 2.0)]
    warm_up: f64,
    /// How many clients, each with a connection of its own; each mode has a default.
    #[arg(long, global = true)]
    clients: Option<usize>,
    /// Bytes of a job's payload.
    #[arg(long, global = true, default_value_t = 64)]
    payload: usize,
    /// Random job ids in place of ascending ones.
    #[arg(long, global = true)]
    random_ids: bool,
    /// How many jobs wait in `million`.
    #[arg(long, global = true, default_value_t = 1_000_000)]
    jobs: u64,
    /// How many bytes `big` moves each way.
    #[arg(long, global = true, default_value_t = 1 << 30)]
    bytes: u64,
    /// How often what is short is measured.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// The interpreter of `python` and `legacy`, which has the packages shepherd_runner and zmq.
    #[arg(long, global = true, default_value = "python3", value_name = "PROGRAM")]
    python: String,
}

impl Options {
    fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    fn clients_or(&self, default: usize) -> usize {
        self.clients.unwrap_or(default).max(1)
    }
}

#[derive(Subcommand, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Jobs from submit to done with 64 clients.
    E2e,
    /// Jobs from submit to done with one client.
    Latency,
    /// Durable submits with 256 clients while jobs only queue.
    Submit,
    /// `GET /status` and a job's status against a bare hyper handler.
    Status,
    /// A large input and a large output.
    Big,
    /// Jobs whose storage is an S3 server, and a large input and output in it.
    S3,
    /// The embedded S3 endpoint: objects of 1 MB, against s3s-fs.
    Endpoint,
    /// A docker sheep's change of models, against `docker run` by hand.
    Swap,
    /// Jobs of a runner on the Python SDK, over ipc.
    Python,
    /// Jobs of a Python runner as those of the first shepherd were, over ZeroMQ.
    Legacy,
    /// Start-up and idle memory.
    Idle,
    /// A queue of a million jobs: restart after kill -9.
    Million,
    /// All of them but `python` and `legacy`, which need packages.
    All,
    /// What `status` compares with: answers every request with a body from standard input.
    #[command(hide = true)]
    Bare,
    /// The S3 server of `s3` and `endpoint`.
    #[command(hide = true)]
    S3Server,
}

fn main() -> anyhow::Result<()> {
    let Arguments { mode, options } = Arguments::parse();
    match mode {
        Mode::Bare => return bare::serve(),
        Mode::S3Server => return s3_server::serve(),
        _ => {}
    }
    let keep = options.keep;
    let outcome = measure(mode, &options);
    if !keep {
        bench_daemon::clean();
    }
    outcome
}

fn measure(mode: Mode, options: &Options) -> anyhow::Result<()> {
    let modes = match mode {
        Mode::All => {
            vec![
                Mode::Idle,
                Mode::Latency,
                Mode::E2e,
                Mode::Submit,
                Mode::Status,
                Mode::Big,
                Mode::S3,
                Mode::Endpoint,
                Mode::Swap,
                Mode::Million,
            ]
        }
        one => vec![one],
    };
    let mut report = Report::default();
    for mode in modes {
        let section = match mode {
            Mode::E2e => e2e::throughput(options),
            Mode::Latency => e2e::latency(options),
            Mode::Submit => submit::measure(options),
            Mode::Status => status::measure(options),
            Mode::Big => big::measure(options),
            Mode::S3 => s3::measure(options),
            Mode::Endpoint => s3::endpoint(options),
            Mode::Swap => swap::measure(options),
            Mode::Python => python::measure(options, python::Kind::Sdk),
            Mode::Legacy => python::measure(options, python::Kind::Legacy),
            Mode::Idle => idle::measure(options),
            Mode::Million => million::measure(options),
            Mode::All | Mode::Bare | Mode::S3Server => continue,
        }?;
        println!("{section}");
        report.sections.push(section);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
