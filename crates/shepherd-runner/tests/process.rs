//! Runners that are processes, and how they end.
//!
//! The test program starts itself: `runner_process` is the runner.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "support/shepherd.rs"]
mod shepherd;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shepherd_protocol::{Event, FromRunner, ToRunner};
use shepherd_runner::{Job, Options, ParallelRunner, RunError, Runner, serve, serve_parallel};

use shepherd::{LONG, Shepherd, done, input};

/// Never ends a job named `stuck`.
struct Stuck;

impl Runner for Stuck {
    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        ParallelRunner::process(self, job)
    }
}

impl ParallelRunner for Stuck {
    fn process(&self, job: &Job) -> Result<(), RunError> {
        if job.id() == "stuck" {
            job.progress(0.0, "stuck");
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

#[test]
#[ignore = "the runner that the other tests start"]
fn runner_process() {
    let grace = std::env::var("GRACE_MS").unwrap().parse().unwrap();
    let options = Options { grace: Duration::from_millis(grace), ..Options::from_env(0) };
    match std::env::var("SLOTS") {
        Ok(slots) => serve_parallel(Stuck, options.slots(slots.parse().unwrap())).unwrap(),
        Err(_) => serve(Stuck, options).unwrap(),
    }
}

fn command(shepherd: &Shepherd, grace: Duration) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "runner_process", "--quiet", "--nocapture"])
        .env("SHEPHERD_LISTEN", shepherd.url())
        .env("GRACE_MS", grace.as_millis().to_string())
        .stdout(Stdio::null());
    command
}

async fn start(grace: Duration) -> (Shepherd, Child) {
    let mut shepherd = Shepherd::new();
    let child = command(&shepherd, grace).spawn().unwrap();
    shepherd.ready().await;
    (shepherd, child)
}

async fn stuck(shepherd: &mut Shepherd) {
    shepherd.send(&[input("stuck")]);
    assert!(matches!(shepherd.message().await, FromRunner::Progress { .. }));
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[tokio::test]
async fn the_death_of_a_runner_is_seen_at_once() {
    let (mut shepherd, mut child) = start(LONG).await;
    stuck(&mut shepherd).await;
    child.kill().unwrap();
    assert_eq!(shepherd.event().await, Event::Disconnected);
    child.wait().unwrap();
    // Another one in its place is found by the same connection.
    let mut child = command(&shepherd, LONG).spawn().unwrap();
    shepherd.ready().await;
    shepherd.send(&[input("one")]);
    assert_eq!(shepherd.message().await, done("one"));
    shepherd.shut_down(LONG);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn runners_killed_under_load_are_replaced() {
    let (mut shepherd, mut child) = start(LONG).await;
    for _ in 0..20 {
        let mut answers = 0;
        loop {
            // Some sends come after the end; then there is nobody to take them.
            let _ = shepherd.try_send(&[input("a"), input("b"), ToRunner::Ping { nonce: 1 }]);
            match shepherd.event().await {
                Event::Disconnected => break,
                Event::Garbage(garbage) => panic!("{garbage}"),
                Event::Connected | Event::Message(_) => {}
            }
            answers += 1;
            if answers == 200 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        child = command(&shepherd, LONG).spawn().unwrap();
        shepherd.ready().await;
    }
    shepherd.shut_down(LONG);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_signal_ends_an_idle_runner() {
    for which in [Signal::TERM, Signal::INT] {
        let (mut shepherd, mut child) = start(LONG).await;
        signal(&child, which);
        assert!(child.wait().unwrap().success());
        assert_eq!(shepherd.event().await, Event::Disconnected);
        assert!(!shepherd.path("runner.sock").exists());
    }
}

#[tokio::test]
async fn a_job_that_does_not_end_in_time_is_abandoned() {
    let (mut shepherd, mut child) = start(Duration::from_millis(50)).await;
    stuck(&mut shepherd).await;
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(shepherd.event().await, Event::Disconnected);

    let (mut shepherd, mut child) = start(LONG).await;
    stuck(&mut shepherd).await;
    shepherd.shut_down(Duration::from_millis(50));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(shepherd.event().await, Event::Disconnected);
}

#[tokio::test]
async fn one_of_several_jobs_that_does_not_end_in_time_is_abandoned() {
    let mut shepherd = Shepherd::new();
    let mut child = command(&shepherd, Duration::from_millis(50)).env("SLOTS", "3").spawn().unwrap();
    shepherd.ready().await;
    stuck(&mut shepherd).await;
    shepherd.send(&[input("one"), input("two")]);
    for _ in 0..2 {
        assert!(matches!(shepherd.message().await, FromRunner::Done { .. }));
    }
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(shepherd.event().await, Event::Disconnected);
}

#[tokio::test]
async fn nobody_who_reads_its_output_is_needed_for_its_end() {
    let mut shepherd = Shepherd::new();
    let mut child = command(&shepherd, Duration::from_millis(50)).stderr(Stdio::piped()).spawn().unwrap();
    shepherd.ready().await;
    stuck(&mut shepherd).await;
    drop(child.stderr.take());
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_second_signal_ends_the_runner_at_once() {
    let (mut shepherd, mut child) = start(LONG).await;
    stuck(&mut shepherd).await;
    // Signals that come together may be one: so until it is gone.
    let status = loop {
        signal(&child, Signal::TERM);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert_eq!(shepherd.event().await, Event::Disconnected);
}

#[tokio::test]
async fn an_orphan_without_a_shepherd_ends_itself() {
    let mut shepherd = Shepherd::new();
    let runner = command(&shepherd, LONG);
    let mut shell = Command::new("sh");
    // The shell holds the runner until its input ends, and then leaves it alone.
    shell.args(["-c", "\"$@\" <&- 2>&1 & read line", "sh"]).arg(runner.get_program()).args(runner.get_args());
    for (name, value) in runner.get_envs() {
        shell.env(name, value.unwrap());
    }
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shepherd.ready().await;
    drop(shell.stdin.take());
    shell.wait().unwrap();
    // As long as somebody is connected, somebody cares.
    shepherd.send(&[input("one")]);
    assert_eq!(shepherd.message().await, done("one"));
    drop(shepherd);
    // The end of its output is the end of the process.
    let mut output = String::new();
    shell.stdout.take().unwrap().read_to_string(&mut output).unwrap();
}
