//! Several jobs at once, on threads and as tasks, against a real connection.
//!
//! What holds for both is checked with both.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "support/shepherd.rs"]
mod shepherd;

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use shepherd_job::Attempt;
use shepherd_protocol::{CANCELLED, Event, FromRunner, ToRunner};
use shepherd_runner::{
    AsyncRunner, Job, Options, ParallelRunner, RunError, Runner, ServeError, Stop, serve, serve_async,
    serve_parallel,
};
use tokio::sync::oneshot;

use shepherd::{ATTEMPT, LONG, Shepherd, done, input, job};

/// What a job's work is, told by its id: `KIND-ANYTHING`. All but `wait` and `told` are
/// done at once.
///
/// | kind | |
/// |---|---|
/// | `wait` | until the test says so |
/// | `told` | until it is told to stop; then it returns as a job that is done |
/// | `fail`, `panic` | fails, panics |
#[derive(Clone, Default)]
struct Field {
    begun: Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>,
    began: Option<mpsc::Sender<String>>,
}

impl Field {
    fn new() -> (Self, mpsc::Receiver<String>) {
        let (began, begins) = mpsc::channel();
        (Self { began: Some(began), ..Self::default() }, begins)
    }

    fn begin(&self, job: &Job) -> oneshot::Receiver<()> {
        let (go_on, wait) = oneshot::channel();
        self.begun.lock().unwrap().insert(job.id().to_owned(), go_on);
        self.began.as_ref().unwrap().send(job.id().to_owned()).unwrap();
        wait
    }

    fn go_on(&self, id: &str) {
        self.begun.lock().unwrap().remove(id).unwrap().send(()).unwrap();
    }
}

fn at_once(job: &Job) -> Result<(), RunError> {
    match job.id().split('-').next().unwrap() {
        "fail" => Err(RunError::new("bad pixel")),
        "panic" => panic!("out of cheese"),
        _ => Ok(()),
    }
}

struct OnThreads(Field);

impl ParallelRunner for OnThreads {
    fn process(&self, job: &Job) -> Result<(), RunError> {
        let wait = self.0.begin(job);
        match job.id().split('-').next().unwrap() {
            "wait" => Ok(wait.blocking_recv()?),
            "told" => {
                let (tell, told) = mpsc::channel();
                job.on_stop(move |stop| tell.send(stop).unwrap());
                told.recv()?;
                assert!(job.cancelled() && job.checkpoint().is_err());
                Ok(())
            }
            _ => at_once(job),
        }
    }
}

struct AsTasks(Field);

impl AsyncRunner for AsTasks {
    async fn process(&self, job: &Job) -> Result<(), RunError> {
        let wait = self.0.begin(job);
        match job.id().split('-').next().unwrap() {
            "wait" => Ok(wait.await?),
            "told" => {
                job.unless_cancelled(std::future::pending::<()>()).await?;
                Ok(())
            }
            _ => at_once(job),
        }
    }
}

type Serving = JoinHandle<Result<(), ServeError>>;

/// Starts a runner of each kind, each with a shepherd of its own, and has `check` look
/// at it.
async fn with_both<F: Future<Output = ()>>(
    slots: u32,
    check: impl Fn(Shepherd, Field, mpsc::Receiver<String>, Serving) -> F,
) {
    for on_threads in [true, false] {
        let shepherd = Shepherd::new();
        let (field, begins) = Field::new();
        let options = Options::new(shepherd.url()).slots(slots);
        let own = field.clone();
        let serving = std::thread::spawn(move || {
            if on_threads {
                return serve_parallel(OnThreads(own), options);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(serve_async(AsTasks(own), options))
        });
        check(shepherd, field, begins, serving).await;
    }
}

fn cancel(id: &str) -> ToRunner {
    ToRunner::Cancel { job: job(id), attempt: ATTEMPT }
}

fn began(begins: &mpsc::Receiver<String>, count: usize) -> Vec<String> {
    let mut ids: Vec<_> = (0..count).map(|_| begins.recv_timeout(LONG).unwrap()).collect();
    ids.sort_unstable();
    ids
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

async fn end(shepherd: &mut Shepherd, serving: Serving) {
    shepherd.shut_down(LONG);
    assert_eq!(shepherd.event().await, Event::Disconnected);
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn slots_work_at_once_and_answer_as_they_end() {
    with_both(3, |mut shepherd, field, begins, serving| async move {
        assert_eq!(shepherd.ready().await.slots, 3);
        shepherd.send(&["wait-1", "wait-2", "wait-3", "wait-4"].map(input));
        // The fourth waits for a slot.
        assert_eq!(began(&begins, 3), ["wait-1", "wait-2", "wait-3"]);
        field.go_on("wait-2");
        assert_eq!(shepherd.message().await, done("wait-2"));
        assert_eq!(began(&begins, 1), ["wait-4"]);
        for id in ["wait-4", "wait-1", "wait-3"] {
            field.go_on(id);
            assert_eq!(shepherd.message().await, done(id));
        }
        end(&mut shepherd, serving).await;
    })
    .await;
}

#[tokio::test]
async fn one_of_several_is_cancelled_and_late_or_stale_cancellations_are_nobodys() {
    with_both(3, |mut shepherd, field, begins, serving| async move {
        shepherd.ready().await;
        shepherd.send(&["told-1", "told-2", "wait", "waiting"].map(input));
        began(&begins, 3);
        let other = Attempt { epoch: 9, number: 9 };
        shepherd.send(&[ToRunner::Cancel { job: job("told-1"), attempt: other }, cancel("unknown")]);
        shepherd.send(&[cancel("waiting"), cancel("told-2")]);
        let mut ended = Vec::new();
        for _ in 0..2 {
            match shepherd.message().await {
                FromRunner::Error { job, error, .. } => ended.push((job, error.exception_type)),
                other => panic!("{other:?}"),
            }
        }
        ended.sort_unstable();
        assert_eq!(ended, [("told-2", CANCELLED), ("waiting", CANCELLED)].map(|(a, b)| (a.into(), b.into())));
        // One that is answered already, and one that never looks.
        shepherd.send(&[cancel("told-2"), cancel("wait")]);
        field.go_on("wait");
        assert_eq!(shepherd.message().await, done("wait"));
        shepherd.send(&[cancel("told-1")]);
        assert_eq!(error_of(&mut shepherd, "told-1").await.0, CANCELLED);
        end(&mut shepherd, serving).await;
        assert!(begins.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn a_job_that_fails_or_panics_disturbs_no_other() {
    with_both(2, |mut shepherd, field, begins, serving| async move {
        shepherd.ready().await;
        shepherd.send(&[input("wait")]);
        began(&begins, 1);
        for round in 0..10 {
            let (panics, fails, good) =
                (format!("panic-{round}"), format!("fail-{round}"), format!("good-{round}"));
            shepherd.send(&[input(&panics), input(&fails), input(&good)]);
            let (kind, message) = error_of(&mut shepherd, &panics).await;
            assert_eq!((kind.as_str(), message.as_str()), ("panic", "the runner panicked: out of cheese"));
            assert_eq!(error_of(&mut shepherd, &fails).await.1, "bad pixel");
            assert_eq!(shepherd.message().await, done(&good));
        }
        field.go_on("wait");
        assert_eq!(shepherd.message().await, done("wait"));
        end(&mut shepherd, serving).await;
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_tells_all_in_work_and_waits_for_those_who_go_on() {
    with_both(3, |mut shepherd, field, begins, serving| async move {
        shepherd.ready().await;
        shepherd.send(&["told", "wait-1", "wait-2", "never"].map(input));
        began(&begins, 3);
        shepherd.shut_down(LONG);
        assert_eq!(error_of(&mut shepherd, "never").await.0, CANCELLED);
        // What gives up is not answered: another runner gets it.
        for id in ["wait-2", "wait-1"] {
            field.go_on(id);
            assert_eq!(shepherd.message().await, done(id));
        }
        assert_eq!(shepherd.event().await, Event::Disconnected);
        serving.join().unwrap().unwrap();
        assert!(begins.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn every_shepherd_is_greeted_once_and_gets_nothing_of_the_one_before() {
    with_both(2, |mut shepherd, field, begins, serving| async move {
        shepherd.ready().await;
        shepherd.send(&["told-old", "wait-old", "older"].map(input));
        began(&begins, 2);
        shepherd.reconnect();
        // One slot is free again at once; what the other says is for nobody.
        shepherd.ready().await;
        shepherd.send(&[input("new"), ToRunner::Ping { nonce: 3 }]);
        let mut said = [shepherd.message().await, shepherd.message().await];
        said.sort_by_key(FromRunner::is_answer);
        assert_eq!(said, [FromRunner::Pong { nonce: 3 }, done("new")]);
        field.go_on("wait-old");
        shepherd.send(&["a", "b", "c"].map(input));
        for _ in 0..3 {
            assert!(matches!(shepherd.message().await, FromRunner::Done { job, .. } if job.len() == 1));
        }
        end(&mut shepherd, serving).await;
    })
    .await;
}

#[tokio::test]
async fn many_jobs_are_each_done_once() {
    with_both(7, |mut shepherd, _, begins, serving| async move {
        shepherd.ready().await;
        let ids: Vec<_> = (0..2000).map(|number| format!("job-{number:04}")).collect();
        for some in ids.chunks(40) {
            shepherd.send(&some.iter().map(|id| input(id)).collect::<Vec<_>>());
        }
        let mut answered = Vec::new();
        for _ in &ids {
            match shepherd.message().await {
                FromRunner::Done { job, .. } => answered.push(job),
                other => panic!("{other:?}"),
            }
        }
        answered.sort_unstable();
        assert_eq!(answered, ids);
        assert_eq!(began(&begins, ids.len()), ids);
        end(&mut shepherd, serving).await;
    })
    .await;
}

/// Hands its futures to whoever else polls them, and hears of a stop in several places.
struct Elsewhere;

impl AsyncRunner for Elsewhere {
    async fn setup(&mut self) -> Result<(), RunError> {
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn process(&self, job: &Job) -> Result<(), RunError> {
        if job.id() == "files" {
            let own = job.clone();
            let copy = move || fs::copy(own.inputs().join("input"), own.outputs().join("output"));
            tokio::task::spawn_blocking(copy).await??;
            return Ok(());
        }
        let own = job.clone();
        let (first, second) = tokio::join!(
            job.until_cancelled(),
            tokio::spawn(async move {
                own.progress_message("waiting");
                own.until_cancelled().await
            })
        );
        assert_eq!((first, second.unwrap()), (Stop::Cancelled, Stop::Cancelled));
        // Whatever it returns now, it gave up.
        Err(RunError::new("torn down"))
    }
}

#[tokio::test]
async fn an_async_job_may_use_the_runtime_it_is_on() {
    let mut shepherd = Shepherd::new();
    let serving = tokio::spawn(serve_async(Elsewhere, Options::new(shepherd.url()).slots(2)));
    shepherd.ready().await;
    shepherd.stage("files", "payload");
    shepherd.send(&[input("stop"), shepherd.input("files")]);
    let mut said = [shepherd.message().await, shepherd.message().await];
    said.sort_by_key(FromRunner::is_answer);
    assert_eq!(said[1], done("files"));
    assert!(
        matches!(&said[0], FromRunner::Progress { fraction: None, message: Some(text), .. } if text == "waiting")
    );
    assert_eq!(shepherd.output("files"), "payload");
    shepherd.send(&[cancel("stop")]);
    assert_eq!(error_of(&mut shepherd, "stop").await.0, CANCELLED);
    shepherd.shut_down(LONG);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_service_that_is_dropped_drops_its_jobs_and_is_gone() {
    let mut shepherd = Shepherd::new();
    let (field, begins) = Field::new();
    let serving = tokio::spawn(serve_async(AsTasks(field.clone()), Options::new(shepherd.url()).slots(2)));
    shepherd.ready().await;
    shepherd.send(&[input("wait"), input("told")]);
    tokio::task::spawn_blocking(move || began(&begins, 2)).await.unwrap();
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert_eq!(shepherd.event().await, Event::Disconnected);
    assert!(field.begun.lock().unwrap().remove("wait").unwrap().is_closed());
    // The place is free for another.
    let (field, _begins) = Field::new();
    let serving = tokio::spawn(serve_async(AsTasks(field), Options::new(shepherd.url())));
    shepherd.ready().await;
    shepherd.send(&[input("good")]);
    assert_eq!(shepherd.message().await, done("good"));
    shepherd.shut_down(LONG);
    serving.await.unwrap().unwrap();
}

struct DoesNotLoad;

impl AsyncRunner for DoesNotLoad {
    async fn setup(&mut self) -> Result<(), RunError> {
        panic!("no weights")
    }

    async fn process(&self, _: &Job) -> Result<(), RunError> {
        Ok(())
    }
}

impl ParallelRunner for DoesNotLoad {
    fn setup(&mut self) -> Result<(), RunError> {
        Err(RunError::new("no weights"))
    }

    fn process(&self, _: &Job) -> Result<(), RunError> {
        Ok(())
    }
}

impl Runner for DoesNotLoad {
    fn process(&mut self, _: &Job) -> Result<(), RunError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_told() {
    let shepherd = Shepherd::new();
    let options = || Options::new(shepherd.url()).slots(2);
    match serve_async(DoesNotLoad, options()).await {
        Err(ServeError::Setup(message)) => assert_eq!(message, "the runner panicked: no weights"),
        other => panic!("{other:?}"),
    }
    match serve_parallel(DoesNotLoad, options()) {
        Err(ServeError::Setup(message)) => assert_eq!(message, "no weights"),
        other => panic!("{other:?}"),
    }
    for mistaken in [
        serve(DoesNotLoad, options()),
        serve_parallel(DoesNotLoad, options().slots(0)),
        serve_parallel(DoesNotLoad, options().capture_output(true)),
    ] {
        assert!(matches!(mistaken, Err(ServeError::Options(_))));
    }
    let grace = Duration::from_secs(1);
    let options = Options { grace, ..Options::new("tcp://127.0.0.1:no") };
    assert!(matches!(serve_async(DoesNotLoad, options).await, Err(ServeError::Listen(_))));
}
