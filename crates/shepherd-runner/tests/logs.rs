//! What jobs log, against a real connection.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "support/shepherd.rs"]
mod shepherd;

use std::io::Write as _;
use std::sync::{Barrier, mpsc};

use shepherd_protocol::{Event, FromRunner};
use shepherd_runner::{Job, Options, ParallelRunner, RunError, Runner, serve, serve_parallel};

use shepherd::{LONG, Shepherd, done, input};

/// Runs a closure for every job.
struct Closure<F>(F);

impl<F: FnMut(&Job) -> Result<(), RunError>> Runner for Closure<F> {
    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        (self.0)(job)
    }
}

impl<F: Fn(&Job) -> Result<(), RunError> + Sync> ParallelRunner for Closure<F> {
    fn process(&self, job: &Job) -> Result<(), RunError> {
        (self.0)(job)
    }
}

#[tokio::test]
async fn a_log_comes_before_the_answer_and_while_the_job_runs() {
    let mut shepherd = Shepherd::new();
    let options = Options::new(shepherd.url()).logs(true);
    let (go_on, wait) = mpsc::channel::<()>();
    let process = move |job: &Job| {
        match job.id() {
            "quiet" => {}
            "long" => {
                job.log("begun");
                wait.recv()?;
                write!(job.log_writer(), "no end of a line")?;
            }
            "fails" => {
                job.log("about to fail\n");
                return Err(RunError::new("failed"));
            }
            _ => job.log("a line"),
        }
        Ok(())
    };
    let serving = std::thread::spawn(move || serve(Closure(process), options));
    assert!(shepherd.ready().await.logs);
    shepherd.send(&["quiet", "one", "fails", "long"].map(input));
    assert_eq!(shepherd.log_and_message("quiet").await, (String::new(), done("quiet")));
    assert_eq!(shepherd.log_and_message("one").await, ("a line\n".to_owned(), done("one")));
    let (log, answer) = shepherd.log_and_message("fails").await;
    assert!(log == "about to fail\n" && matches!(answer, FromRunner::Error { .. }));
    // Only this lets it go on.
    match shepherd.message().await {
        FromRunner::Log { text, .. } => assert_eq!(text, "begun\n"),
        other => panic!("{other:?}"),
    }
    go_on.send(()).unwrap();
    assert_eq!(shepherd.log_and_message("long").await, ("no end of a line".to_owned(), done("long")));
    shepherd.shut_down(LONG);
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn without_the_option_nothing_is_sent() {
    let mut shepherd = Shepherd::new();
    let options = Options::new(shepherd.url());
    let process = |job: &Job| {
        job.log("for standard error");
        writeln!(job.log_writer(), "too")?;
        Ok(())
    };
    let serving = std::thread::spawn(move || serve(Closure(process), options));
    assert!(!shepherd.ready().await.logs);
    shepherd.send(&[input("one")]);
    assert_eq!(shepherd.message().await, done("one"));
    shepherd.shut_down(LONG);
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn bytes_are_text_wherever_they_are_cut() {
    let mut shepherd = Shepherd::new();
    let options = Options::new(shepherd.url()).logs(true);
    let process = |job: &Job| {
        let (mut one, mut other) = (job.log_writer().silent(), job.log_writer().silent());
        for byte in "žluť\n".bytes() {
            one.write_all(&[byte])?;
        }
        // Half a letter, before that of another stream, and never its end.
        one.write_all(b"\xc5")?;
        other.write_all("🐑".as_bytes())?;
        other.write_all(b"\xff\0")?;
        drop(one);
        Ok(())
    };
    let serving = std::thread::spawn(move || serve(Closure(process), options));
    shepherd.ready().await;
    shepherd.send(&[input("one")]);
    assert_eq!(shepherd.log_and_message("one").await, ("žluť\n🐑\u{fffd}\0\u{fffd}".to_owned(), done("one")));
    shepherd.shut_down(LONG);
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_chatty_job_keeps_its_end_and_holds_up_nobody() {
    const LINES: usize = 1_000_000;
    let mut shepherd = Shepherd::new();
    let options = Options::new(shepherd.url()).logs(true);
    let process = |job: &Job| {
        let mut log = job.log_writer().silent();
        for number in 0..LINES {
            writeln!(log, "line {number}")?;
        }
        Ok(())
    };
    let serving = std::thread::spawn(move || serve(Closure(process), options));
    shepherd.ready().await;
    for id in ["one", "two"] {
        shepherd.send(&[input(id)]);
        let (log, answer) = shepherd.log_and_message(id).await;
        assert_eq!(answer, done(id));
        assert!(log.ends_with(&format!("\nline {}\n", LINES - 1)));
        // What is there is in order, and what is not is counted.
        let whole: usize = (0..LINES).map(|number| format!("line {number}\n").len()).sum();
        let (mut left_out, mut notes) = (0, 0);
        for line in log.lines().filter(|line| line.ends_with(" bytes were left out here]")) {
            left_out += line[1..].split(' ').next().unwrap().parse::<usize>().unwrap();
            notes += line.len() + 1;
        }
        // A note within a line ends that line first.
        let breaks = log.len() - notes + left_out - whole;
        assert!(breaks <= log.matches(" bytes were left out here]").count(), "{breaks}");
    }
    shepherd.shut_down(LONG);
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_shepherd_that_does_not_read_holds_up_no_job_that_prints() {
    let mut shepherd = Shepherd::new();
    let options = Options::new(shepherd.url()).logs(true);
    let (printed, print) = mpsc::channel();
    let process = move |job: &Job| {
        for _ in 0..2000 {
            job.log_writer().silent().write_all(&[b'x'; 64 << 10])?;
        }
        printed.send(())?;
        Ok(())
    };
    let serving = std::thread::spawn(move || serve(Closure(process), options));
    shepherd.ready().await;
    shepherd.send(&[input("one")]);
    // This test's runtime has one thread, and it reads nothing here.
    print.recv_timeout(LONG).unwrap();
    let (log, answer) = shepherd.log_and_message("one").await;
    assert_eq!(answer, done("one"));
    assert!(log.ends_with("xxx"));
    shepherd.shut_down(LONG);
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn several_jobs_have_each_their_own_log() {
    const SLOTS: usize = 4;
    let mut shepherd = Shepherd::new();
    let options = Options::new(shepherd.url()).logs(true).slots(SLOTS as u32);
    let together = Barrier::new(SLOTS);
    let process = move |job: &Job| {
        together.wait();
        for _ in 0..5 {
            job.log(job.id());
        }
        let late = job.clone();
        std::thread::spawn(move || late.log("perhaps after the answer, and then not at all"));
        Ok(())
    };
    let serving = std::thread::spawn(move || serve_parallel(Closure(process), options));
    shepherd.ready().await;
    let ids: Vec<_> = (0..SLOTS * 10).map(|number| format!("job-{number}")).collect();
    shepherd.send(&ids.iter().map(|id| input(id)).collect::<Vec<_>>());
    let mut logs = std::collections::HashMap::<String, String>::new();
    let mut answered = 0;
    while answered < ids.len() {
        match shepherd.message().await {
            FromRunner::Log { job, text, .. } => logs.entry(job).or_default().push_str(&text),
            FromRunner::Done { job, .. } => {
                let log = logs.remove(&job).unwrap();
                assert_eq!(log.lines().filter(|line| *line == job).count(), 5);
                assert!(log.lines().skip(5).all(|line| line.starts_with("perhaps")));
                answered += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(logs.is_empty());
    shepherd.shut_down(LONG);
    assert_eq!(shepherd.event().await, Event::Disconnected);
    serving.join().unwrap().unwrap();
}
