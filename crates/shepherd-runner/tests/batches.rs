//! Batches of jobs, against a real connection.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "support/shepherd.rs"]
mod shepherd;

use std::fs;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use shepherd_protocol::{CANCELLED, Event, FromRunner, ToRunner};
use shepherd_runner::{BatchRunner, Job, Options, RunError, ServeError, serve_batches};

use shepherd::{ATTEMPT, LONG, Shepherd, done, input, job};

/// Runs a closure for every batch, and says whose jobs it had.
struct Closure<F> {
    batches: mpsc::Sender<Vec<String>>,
    process: F,
}

impl<F: FnMut(&[Job]) -> Result<(), RunError>> BatchRunner for Closure<F> {
    fn process_batch(&mut self, jobs: &[Job]) -> Result<(), RunError> {
        self.batches.send(jobs.iter().map(|job| job.id().to_owned()).collect()).unwrap();
        (self.process)(jobs)
    }
}

struct Batches {
    shepherd: Shepherd,
    batches: mpsc::Receiver<Vec<String>>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Batches {
    async fn new(
        max_batch: u32,
        max_wait: Duration,
        process: impl FnMut(&[Job]) -> Result<(), RunError> + Send + 'static,
    ) -> Self {
        let mut shepherd = Shepherd::new();
        let (sender, batches) = mpsc::channel();
        let options = Options::new(shepherd.url()).batches(max_batch, max_wait);
        let runner = Closure { batches: sender, process };
        let serving = std::thread::spawn(move || serve_batches(runner, options));
        assert_eq!(shepherd.ready().await.slots, max_batch);
        Self { shepherd, batches, serving }
    }

    fn batch(&self) -> Vec<String> {
        self.batches.recv_timeout(LONG).unwrap()
    }

    async fn end(self) {
        self.shepherd.shut_down(LONG);
        self.ended().await;
    }

    async fn ended(mut self) {
        assert_eq!(self.shepherd.event().await, Event::Disconnected);
        self.serving.join().unwrap().unwrap();
    }
}

fn cancel(id: &str) -> ToRunner {
    ToRunner::Cancel { job: job(id), attempt: ATTEMPT }
}

async fn error_of(shepherd: &mut Shepherd, id: &str) -> (String, String) {
    match shepherd.message().await {
        FromRunner::Error { job, attempt, error } => {
            assert_eq!((job.as_str(), attempt), (id, Some(ATTEMPT)));
            (error.exception_type, error.message)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_is_full_or_has_waited_long_enough() {
    // One that waited for its time would never begin.
    let mut batches = Batches::new(3, Duration::from_secs(100_000), |_| Ok(())).await;
    batches.shepherd.send(&["1", "2"].map(input));
    batches.shepherd.send(&["3", "4", "5", "6"].map(input));
    assert_eq!(batches.batch(), ["1", "2", "3"]);
    assert_eq!(batches.batch(), ["4", "5", "6"]);
    for id in ["1", "2", "3", "4", "5", "6"] {
        assert_eq!(batches.shepherd.message().await, done(id));
    }
    // The shutdown ends the wait, and another runner gets what waits.
    batches.shepherd.send(&[input("7")]);
    batches.shepherd.shut_down(LONG);
    assert_eq!(error_of(&mut batches.shepherd, "7").await.0, CANCELLED);
    batches.ended().await;

    let mut batches = Batches::new(1000, Duration::from_millis(1), |_| Ok(())).await;
    for id in ["1", "2"] {
        batches.shepherd.send(&[input(id)]);
        assert_eq!(batches.batch(), [id]);
        assert_eq!(batches.shepherd.message().await, done(id));
    }
    batches.end().await;
}

#[tokio::test]
async fn without_a_wait_a_batch_is_what_is_there() {
    let (go_on, wait) = mpsc::channel::<()>();
    let mut batches = Batches::new(4, Duration::ZERO, move |_| Ok(wait.recv()?)).await;
    batches.shepherd.send(&[input("first")]);
    assert_eq!(batches.batch(), ["first"]);
    batches.shepherd.send(&["1", "2", "3", "4", "5", "6"].map(input));
    batches.shepherd.send(&[cancel("2"), ToRunner::Ping { nonce: 1 }]);
    let mut said = [batches.shepherd.message().await, batches.shepherd.message().await];
    said.sort_by_key(FromRunner::is_answer);
    assert_eq!(said[0], FromRunner::Pong { nonce: 1 });
    for _ in 0..3 {
        go_on.send(()).unwrap();
    }
    assert_eq!(batches.batch(), ["1", "3", "4", "5"]);
    assert_eq!(batches.batch(), ["6"]);
    for id in ["first", "1", "3", "4", "5", "6"] {
        assert_eq!(batches.shepherd.message().await, done(id));
    }
    batches.end().await;
}

#[tokio::test]
async fn a_batch_whose_jobs_were_all_cancelled_waits_for_the_next() {
    let mut batches = Batches::new(2, Duration::from_secs(100_000), |_| Ok(())).await;
    batches.shepherd.send(&[input("1")]);
    batches.shepherd.send(&[cancel("1")]);
    assert_eq!(error_of(&mut batches.shepherd, "1").await.0, CANCELLED);
    batches.shepherd.send(&["2", "3"].map(input));
    assert_eq!(batches.batch(), ["2", "3"]);
    assert_eq!(batches.shepherd.message().await, done("2"));
    assert_eq!(batches.shepherd.message().await, done("3"));
    batches.end().await;
}

#[tokio::test]
async fn a_job_of_a_batch_fails_for_itself_alone() {
    let process = |jobs: &[Job]| {
        for job in jobs {
            fs::write(job.outputs().join("output"), format!("{} of {}", job.id(), jobs.len()))?;
            match job.id() {
                "said" => job.fail(RunError::new("bad pixel").with_type("PixelError")),
                "error" => return Err(RunError::new("bad row")),
                "panic" => panic!("out of cheese"),
                _ => {}
            }
        }
        Ok(())
    };
    let mut batches = Batches::new(3, Duration::from_secs(100_000), process).await;
    let send = |shepherd: &Shepherd, ids: [&str; 3]| {
        for id in ids {
            shepherd.stage(id, "");
            fs::create_dir_all(shepherd.path(&format!("{id}/outputs/left/behind"))).unwrap();
        }
        shepherd.send(&ids.map(|id| shepherd.input(id)));
    };
    let shepherd = &mut batches.shepherd;
    send(shepherd, ["a", "said", "b"]);
    assert_eq!(shepherd.message().await, done("a"));
    assert_eq!(error_of(shepherd, "said").await, ("PixelError".into(), "bad pixel".into()));
    assert_eq!(shepherd.message().await, done("b"));
    assert_eq!(shepherd.output("b"), "b of 3");
    for (bad, message) in [("error", "bad row"), ("panic", "the runner panicked: out of cheese")] {
        let (first, last) = (format!("{bad}-first"), format!("{bad}-last"));
        send(shepherd, [&first, bad, &last]);
        assert_eq!(shepherd.message().await, done(&first));
        assert_eq!(error_of(shepherd, bad).await.1, message);
        assert_eq!(shepherd.message().await, done(&last));
        for id in [first, last] {
            assert_eq!(shepherd.output(&id), format!("{id} of 1"));
            assert!(!shepherd.path(&format!("{id}/outputs/left")).exists());
        }
    }
    // What was said before the batch broke off holds.
    send(shepherd, ["said", "error", "c"]);
    assert_eq!(error_of(shepherd, "said").await.1, "bad pixel");
    assert_eq!(error_of(shepherd, "error").await.1, "bad row");
    assert_eq!(shepherd.message().await, done("c"));
    batches.end().await;
}

#[tokio::test]
async fn one_of_a_batch_is_cancelled() {
    let process = |jobs: &[Job]| {
        let (tell, told) = mpsc::channel();
        for job in jobs {
            let (id, tell) = (job.id().to_owned(), tell.clone());
            job.on_stop(move |_| tell.send(id).unwrap());
        }
        assert_eq!(told.recv().unwrap(), "2");
        // Only this one was told.
        assert_eq!(jobs.iter().filter(|job| job.cancelled()).count(), 1);
        Ok(())
    };
    let mut batches = Batches::new(3, Duration::from_secs(100_000), process).await;
    batches.shepherd.send(&["1", "2", "3"].map(input));
    batches.batch();
    batches.shepherd.send(&[cancel("2")]);
    assert_eq!(batches.shepherd.message().await, done("1"));
    assert_eq!(error_of(&mut batches.shepherd, "2").await.0, CANCELLED);
    assert_eq!(batches.shepherd.message().await, done("3"));
    batches.end().await;
}

#[test]
fn a_batch_of_none_is_refused() {
    let (sender, _batches) = mpsc::channel();
    let runner = Closure { batches: sender, process: |_: &[Job]| Ok(()) };
    let options = Options::new("tcp://127.0.0.1:0").batches(0, Duration::ZERO);
    assert!(matches!(serve_batches(runner, options), Err(ServeError::Options(_))));
}
