//! Measures what the protocol costs: jobs that do nothing, sent through a runner
//! in a process of its own.
//!
//! `cargo run --release -p shepherd-runner --example roundtrip [SECONDS [TRANSPORT]]`
//! where TRANSPORT is `ipc` or `tcp`.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use shepherd_job::{Attempt, JobId, JobIdRule};
use shepherd_protocol::{Connection, Event, FromRunner, Input, ToRunner};
use shepherd_runner::{Job, Options, RunError, Runner, serve};

struct Nothing;

impl Runner for Nothing {
    fn process(&mut self, _: &Job) -> Result<(), RunError> {
        Ok(())
    }
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    if std::env::var_os("SHEPHERD_LISTEN").is_some() {
        let mut options = Options::from_env(0);
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
        options.batch = number("BATCH").unwrap_or(options.batch);
        options.ahead = 1000;
        return Ok(serve(Nothing, options)?);
    }
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let transport = arguments.next().unwrap_or_else(|| "ipc".to_owned());
    let dir = tempfile::tempdir()?;
    let url = match transport.as_str() {
        "ipc" => format!("ipc://{}/runner.sock", dir.path().display()),
        "tcp" => "tcp://127.0.0.1:9997".to_owned(),
        other => return Err(format!("no transport `{other}`").into()),
    };
    println!("| {transport} | jobs/s | shepherd CPU, µs/job | runner CPU, µs/job | p50 µs | p99 µs |");
    println!("|---|---|---|---|---|---|");
    for (batch, ahead) in [(1, 0), (1, 32), (32, 32), (32, 128), (128, 512)] {
        let mut runner = Command::new(std::env::current_exe()?)
            .env("SHEPHERD_LISTEN", &url)
            .env("BATCH", batch.to_string())
            .spawn()?;
        let measured = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(measure(&url, ahead, Duration::from_secs(seconds), runner.id()));
        runner.kill()?;
        runner.wait()?;
        println!("| batch {batch}, ahead {ahead} | {} |", measured?);
    }
    Ok(())
}

async fn measure(url: &str, ahead: usize, time: Duration, runner: u32) -> Result<String, Failure> {
    let (sender, mut receiver) = Connection::dial(url)?.split();
    loop {
        match receiver.recv().await {
            Event::Message(FromRunner::Ready(_)) => break,
            Event::Connected => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let input = |number: usize| {
        Ok::<_, Failure>(ToRunner::Input(Input {
            job: JobId::parse(&format!("0192f0c1-2345-7abc-8def-{number:012}"), JobIdRule::Bucket)?,
            attempt: Attempt { epoch: 12, number: 1 },
            io_data_root: "/var/lib/shepherd/data/sheep-1".into(),
            deadline: None,
        }))
    };
    let (own, other) = (cpu("self")?, cpu(&runner.to_string())?);
    let began = Instant::now();
    let mut sent = Vec::new();
    let mut latencies = Vec::new();
    let mut outgoing: Vec<ToRunner> = (0..=ahead).map(input).collect::<Result<_, _>>()?;
    while began.elapsed() < time {
        sent.resize(sent.len() + outgoing.len(), Instant::now());
        sender.send(&outgoing)?;
        outgoing.clear();
        let mut event = Some(receiver.recv().await);
        while let Some(Event::Message(FromRunner::Done { job, .. })) = event {
            let index = latencies.len();
            if !job.ends_with(&format!("{index:012}")) {
                return Err(format!("answer {index} is for {job}").into());
            }
            latencies.push(sent[index].elapsed());
            outgoing.push(input(sent.len() + outgoing.len())?);
            event = receiver.try_recv();
        }
        if let Some(other) = event {
            return Err(format!("{other:?}").into());
        }
    }
    let (elapsed, jobs) = (began.elapsed(), latencies.len() as f64);
    let each = |before: f64, after: f64| (after - before) * 1e6 / jobs;
    let (own, other) = (each(own, cpu("self")?), each(other, cpu(&runner.to_string())?));
    latencies.sort_unstable();
    let at = |part: f64| latencies[(jobs * part) as usize].as_micros();
    let rate = jobs / elapsed.as_secs_f64();
    Ok(format!("{rate:.0} | {own:.1} | {other:.1} | {} | {}", at(0.5), at(0.99)))
}

/// Seconds of processor time that a process used.
fn cpu(process: &str) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    // The kernel counts in hundredths of a second.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}
