//! Output that is captured, in a process of its own: the test program starts itself.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "support/shepherd.rs"]
mod shepherd;

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shepherd_protocol::{Event, FromRunner};
use shepherd_runner::{
    AsyncRunner, BatchRunner, Job, Options, RunError, Runner, serve, serve_async, serve_batches,
};

use shepherd::{LONG, Shepherd, done, input};

struct Prints;

fn print(id: &str) -> Result<(), RunError> {
    match id {
        "quiet" => {}
        "flood" => (0..20_000).for_each(|number| println!("line {number}")),
        "panic" => panic!("out of cheese"),
        "stuck" => {
            println!("last words");
            loop {
                std::thread::park();
            }
        }
        _ => {
            println!("{id} to stdout");
            eprintln!("{id} to stderr");
            let child = format!("echo {id} of a child; printf '\\305\\276' >&2");
            Command::new("sh").args(["-c", &child]).status()?;
            print!("{id} without an end");
        }
    }
    Ok(())
}

impl Runner for Prints {
    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        job.log("logged");
        print(job.id())
    }
}

impl AsyncRunner for Prints {
    async fn process(&self, job: &Job) -> Result<(), RunError> {
        tokio::task::yield_now().await;
        job.log("logged");
        print(job.id())
    }
}

impl BatchRunner for Prints {
    fn process_batch(&mut self, jobs: &[Job]) -> Result<(), RunError> {
        println!("a batch of {}", jobs.len());
        Ok(())
    }
}

#[test]
#[ignore = "the runner that the other tests start"]
fn runner_process() {
    let grace = Duration::from_millis(50);
    let options = Options { grace, ..Options::from_env(0) }.capture_output(true);
    match std::env::var("KIND").unwrap().as_str() {
        "batches" => serve_batches(Prints, options.batches(2, LONG)).unwrap(),
        "tasks" => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(serve_async(Prints, options)).unwrap();
        }
        _ => serve(Prints, options).unwrap(),
    }
    println!("after it");
}

async fn start(kind: &str) -> (Shepherd, Child) {
    let mut shepherd = Shepherd::new();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "runner_process", "--quiet", "--nocapture"])
        .env("SHEPHERD_LISTEN", shepherd.url())
        .env("KIND", kind)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(shepherd.ready().await.logs);
    (shepherd, child)
}

/// What the process printed, after its end.
fn printed(mut child: Child) -> (String, String) {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    child.wait().unwrap();
    (stdout, stderr)
}

#[tokio::test]
async fn whatever_is_written_during_a_job_is_its_own_and_goes_on_to_the_operator() {
    for kind in ["jobs", "tasks"] {
        let (mut shepherd, child) = start(kind).await;
        shepherd.send(&["quiet", "one", "panic", "two"].map(input));
        assert_eq!(shepherd.log_and_message("quiet").await, ("logged\n".to_owned(), done("quiet")));
        for id in ["one", "two"] {
            if id == "two" {
                let (log, answer) = shepherd.log_and_message("panic").await;
                assert!(log.contains("out of cheese"), "{log}");
                assert!(matches!(answer, FromRunner::Error { .. }));
            }
            let (log, answer) = shepherd.log_and_message(id).await;
            assert_eq!(answer, done(id));
            for part in [
                "logged\n",
                &format!("{id} to stdout\n"),
                &format!("{id} to stderr\n"),
                &format!("{id} of a child\n"),
                "ž",
                &format!("{id} without an end"),
            ] {
                assert_eq!(log.matches(part).count(), 1, "`{part}` in `{log}`");
            }
        }
        shepherd.shut_down(LONG);
        let (stdout, stderr) = printed(child);
        for part in ["one to stdout\n", "one of a child\n", "two without an end", "after it\n"] {
            assert_eq!(stdout.matches(part).count(), 1, "`{part}` in `{stdout}`");
        }
        assert_eq!(stderr.matches("logged\n").count(), 4, "{stderr}");
        assert!(stderr.contains("two to stderr\n") && stderr.contains("out of cheese"), "{stderr}");
    }
}

#[tokio::test]
async fn a_flood_is_passed_on_whole() {
    let (mut shepherd, child) = start("jobs").await;
    let reader = std::thread::spawn(move || printed(child));
    shepherd.send(&[input("flood")]);
    let (log, answer) = shepherd.log_and_message("flood").await;
    assert_eq!(answer, done("flood"));
    assert!(log.ends_with("line 19999\n"));
    shepherd.shut_down(LONG);
    let (stdout, _) = reader.join().unwrap();
    assert_eq!(stdout.matches("line ").count(), 20_000);
}

#[tokio::test]
async fn each_job_of_a_batch_has_what_the_batch_prints() {
    let (mut shepherd, child) = start("batches").await;
    shepherd.send(&["one", "two"].map(input));
    for id in ["one", "two"] {
        assert_eq!(shepherd.log_and_message(id).await, ("a batch of 2\n".to_owned(), done(id)));
    }
    shepherd.shut_down(LONG);
    assert_eq!(printed(child).0.matches("a batch of 2\n").count(), 1);
}

#[tokio::test]
async fn a_job_that_is_abandoned_has_printed_what_it_printed() {
    let (mut shepherd, child) = start("jobs").await;
    shepherd.send(&[input("stuck")]);
    let mut log = String::new();
    while log != "logged\nlast words\n" {
        match shepherd.message().await {
            FromRunner::Log { text, .. } => log.push_str(&text),
            other => panic!("{other:?}"),
        }
    }
    shepherd.shut_down(Duration::ZERO);
    assert_eq!(shepherd.event().await, Event::Disconnected);
    let (stdout, stderr) = printed(child);
    assert!(stdout.contains("last words\n"), "{stdout}");
    assert!(stderr.contains("abandoned\n"), "{stderr}");
}
