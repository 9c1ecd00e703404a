//! The SDK against a real connection.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "support/shepherd.rs"]
mod shepherd;

use std::fs;
use std::sync::mpsc;

use shepherd_job::JobError;
use shepherd_protocol::{CANCELLED, Event, FromRunner, PROTOCOL_VERSION, ToRunner};
use shepherd_runner::{Job, Options, RunError, Runner, ServeError, Stop, serve};

use shepherd::{ATTEMPT, LONG, Shepherd, done, input, job};

/// Runs a closure for every job.
struct Closure<F>(F);

impl<F: FnMut(&Job) -> Result<(), RunError>> Runner for Closure<F> {
    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        (self.0)(job)
    }
}

/// Serves on a thread until the shepherd says to stop.
fn start(
    shepherd: &Shepherd,
    process: impl FnMut(&Job) -> Result<(), RunError> + Send + 'static,
) -> std::thread::JoinHandle<Result<(), ServeError>> {
    let options = Options { name: "test".to_owned(), ..Options::new(shepherd.url()) };
    std::thread::spawn(move || serve(Closure(process), options))
}

fn error_of(event: FromRunner) -> (String, JobError) {
    match event {
        FromRunner::Error { job, attempt, error } => {
            assert_eq!(attempt, Some(ATTEMPT));
            (job, error)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn jobs_are_done_in_order_on_their_files() {
    let mut shepherd = Shepherd::new();
    let runner = start(&shepherd, |job| {
        let text = fs::read_to_string(job.inputs().join("input"))?;
        assert_eq!(job.attempt(), ATTEMPT);
        fs::write(job.outputs().join("output"), format!("{} {text}", job.id()))?;
        Ok(())
    });
    let ready = shepherd.ready().await;
    assert_eq!((ready.protocol, ready.name.as_str(), ready.slots), (PROTOCOL_VERSION, "test", 1));
    assert_eq!((ready.ahead, ready.batch), (32, 32));
    let ids: Vec<_> = (0..100).map(|number| format!("job-{number}")).collect();
    for id in &ids {
        shepherd.stage(id, "payload");
    }
    shepherd.send(&ids.iter().map(|id| shepherd.input(id)).collect::<Vec<_>>());
    for id in &ids {
        assert_eq!(shepherd.message().await, done(id));
        assert_eq!(shepherd.output(id), format!("{id} payload"));
    }
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
    assert_eq!(shepherd.event().await, Event::Disconnected);
}

#[tokio::test]
async fn inputs_are_found_by_their_keys() {
    let mut shepherd = Shepherd::new();
    let runner = start(&shepherd, |job| {
        let mut told = String::new();
        for (key, path) in job.input_keys()? {
            told += &format!("{key} {}\n", fs::read_to_string(path)?);
        }
        fs::write(job.outputs().join("output"), told)?;
        Ok(())
    });
    shepherd.ready().await;
    shepherd.stage("keyed", "plain");
    let inputs = shepherd.path("keyed/inputs");
    for dir in [".shepherd-keys", "deep/.shepherd-keys"] {
        fs::create_dir_all(inputs.join(dir)).unwrap();
    }
    for name in
        [".shepherd-keys/=%2Fx", ".shepherd-keys/=d%2F", ".shepherd-keys/other", "deep/.shepherd-keys/=a"]
    {
        fs::write(inputs.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("input", inputs.join("link")).unwrap();
    shepherd.send(&[shepherd.input("keyed")]);
    assert_eq!(shepherd.message().await, done("keyed"));
    let told = shepherd.output("keyed");
    let expected = [
        ".shepherd-keys/other .shepherd-keys/other",
        "/x .shepherd-keys/=%2Fx",
        "d/ .shepherd-keys/=d%2F",
        "deep/.shepherd-keys/=a deep/.shepherd-keys/=a",
        "input plain",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn errors_and_panics_are_the_jobs_and_the_runner_goes_on() {
    let mut shepherd = Shepherd::new();
    let runner = start(&shepherd, |job| match job.id() {
        "missing" => Ok(fs::read(job.inputs().join("no such file")).map(drop)?),
        "own" => Err(RunError::new("bad pixel").with_type("PixelError").with_traceback("row 7")),
        "panic" => panic!("out of {}", "cheese"),
        _ => Ok(()),
    });
    shepherd.ready().await;
    shepherd.send(&[input("missing"), input("own"), input("panic"), input("good")]);
    let (job, error) = error_of(shepherd.message().await);
    assert_eq!((job.as_str(), error.exception_type.as_str()), ("missing", "std::io::error::Error"));
    assert!(error.message.contains("No such file"), "{}", error.message);
    let (_, error) = error_of(shepherd.message().await);
    let wanted = JobError {
        message: "bad pixel".into(),
        exception_type: "PixelError".into(),
        exception_traceback: "row 7".into(),
    };
    assert_eq!(error, wanted);
    let (_, error) = error_of(shepherd.message().await);
    assert_eq!(error.message, "the runner panicked: out of cheese");
    assert_eq!(error.exception_type, "panic");
    assert!(error.exception_traceback.starts_with("panicked at "), "{}", error.exception_traceback);
    assert!(error.exception_traceback.contains(file!()), "{}", error.exception_traceback);
    assert_eq!(shepherd.message().await, done("good"));
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn heartbeats_are_answered_while_a_job_is_in_work() {
    let mut shepherd = Shepherd::new();
    let (go_on, wait) = mpsc::channel::<()>();
    let runner = start(&shepherd, move |_| Ok(wait.recv()?));
    shepherd.ready().await;
    shepherd.send(&[input("long")]);
    for nonce in 0..5 {
        shepherd.send(&[ToRunner::Ping { nonce }]);
        assert_eq!(shepherd.message().await, FromRunner::Pong { nonce });
    }
    go_on.send(()).unwrap();
    assert_eq!(shepherd.message().await, done("long"));
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn no_answer_waits_for_the_next_job() {
    let mut shepherd = Shepherd::new();
    let (go_on, wait) = mpsc::channel::<()>();
    let runner = start(&shepherd, move |job| {
        if job.id() == "long" {
            wait.recv()?;
        }
        Ok(())
    });
    shepherd.ready().await;
    shepherd.send(&[input("short-1"), input("short-2"), input("long")]);
    assert_eq!(shepherd.message().await, done("short-1"));
    assert_eq!(shepherd.message().await, done("short-2"));
    go_on.send(()).unwrap();
    assert_eq!(shepherd.message().await, done("long"));
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn progress_comes_before_the_end() {
    let mut shepherd = Shepherd::new();
    let runner = start(&shepherd, |job| {
        job.progress(0.25, "loading");
        job.progress(0.5, "dropped, because it comes at once");
        Ok(())
    });
    shepherd.ready().await;
    shepherd.send(&[input("one")]);
    let progress = FromRunner::Progress {
        job: "one".into(),
        attempt: Some(ATTEMPT),
        fraction: Some(0.25),
        message: Some("loading".into()),
    };
    assert_eq!(shepherd.message().await, progress);
    assert_eq!(shepherd.message().await, done("one"));
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

/// Tells that a job began, and waits until it is told to stop.
fn until_stopped(began: mpsc::Sender<String>) -> impl FnMut(&Job) -> Result<(), RunError> + Send {
    move |job| {
        began.send(job.id().to_owned()).unwrap();
        let (tell, told) = mpsc::channel();
        job.on_stop(move |stop| tell.send(stop).unwrap());
        let stop = told.recv().unwrap();
        assert!(job.is_stopped() && job.stop_reason() == Some(stop));
        if let Stop::Shutdown { within } = stop {
            assert!(within <= LONG);
        }
        began.send(format!("{stop:?}")).unwrap();
        Err(RunError::interrupted())
    }
}

#[tokio::test]
async fn a_cancelled_job_is_told_so_or_never_begun() {
    let mut shepherd = Shepherd::new();
    let (began, begun) = mpsc::channel();
    let runner = start(&shepherd, until_stopped(began));
    shepherd.ready().await;
    shepherd.send(&[input("running"), input("waiting"), input("last")]);
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "running");
    let cancel = |id: &str| ToRunner::Cancel { job: job(id), attempt: ATTEMPT };
    let other = shepherd_job::Attempt { epoch: 9, number: 9 };
    // An attempt that is unknown here is nobody's business.
    shepherd.send(&[ToRunner::Cancel { job: job("running"), attempt: other }, cancel("unknown")]);
    shepherd.send(&[cancel("waiting")]);
    let (id, error) = error_of(shepherd.message().await);
    assert_eq!((id.as_str(), error.exception_type.as_str()), ("waiting", CANCELLED));
    shepherd.send(&[cancel("running")]);
    let (id, error) = error_of(shepherd.message().await);
    assert_eq!((id.as_str(), error.exception_type.as_str()), ("running", CANCELLED));
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "Cancelled");
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "last");
    shepherd.send(&[cancel("last")]);
    assert_eq!(error_of(shepherd.message().await).0, "last");
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_lets_the_job_in_work_end_and_begins_no_other() {
    let mut shepherd = Shepherd::new();
    let (began, begun) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let runner = start(&shepherd, move |job| {
        began.send(job.id().to_owned())?;
        Ok(wait.recv()?)
    });
    shepherd.ready().await;
    shepherd.send(&[input("first"), input("second")]);
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "first");
    shepherd.shut_down(LONG);
    // Another runner gets what has not begun, at once and without blame.
    let (job, error) = error_of(shepherd.message().await);
    assert_eq!((job.as_str(), error.exception_type.as_str()), ("second", CANCELLED));
    shepherd.send(&[input("late")]);
    let (job, error) = error_of(shepherd.message().await);
    assert_eq!((job.as_str(), error.exception_type.as_str()), ("late", CANCELLED));
    go_on.send(()).unwrap();
    assert_eq!(shepherd.message().await, done("first"));
    assert_eq!(shepherd.event().await, Event::Disconnected);
    runner.join().unwrap().unwrap();
    assert!(begun.try_recv().is_err());
}

#[tokio::test]
async fn an_interrupted_job_is_not_answered_at_a_shutdown() {
    let mut shepherd = Shepherd::new();
    let (began, begun) = mpsc::channel();
    let runner = start(&shepherd, until_stopped(began));
    shepherd.ready().await;
    shepherd.send(&[input("one")]);
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "one");
    shepherd.shut_down(LONG);
    assert_eq!(shepherd.event().await, Event::Disconnected);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_new_shepherd_gets_nothing_of_the_old_ones() {
    let mut shepherd = Shepherd::new();
    let (began, begun) = mpsc::channel();
    let mut block = until_stopped(began);
    let runner = start(&shepherd, move |job| if job.id() == "new" { Ok(()) } else { block(job) });
    shepherd.ready().await;
    shepherd.send(&[input("old"), input("older")]);
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "old");
    shepherd.reconnect();
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "Disconnected");
    shepherd.ready().await;
    shepherd.send(&[input("new")]);
    assert_eq!(shepherd.message().await, done("new"));
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
    assert!(begun.try_recv().is_err());
}

struct Loading(mpsc::Receiver<Result<(), RunError>>);

impl Runner for Loading {
    fn setup(&mut self) -> Result<(), RunError> {
        self.0.recv()?
    }

    fn process(&mut self, _: &Job) -> Result<(), RunError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_runner_is_ready_only_when_its_model_is_loaded() {
    let mut shepherd = Shepherd::new();
    let (loaded, loading) = mpsc::channel();
    let options = Options::new(shepherd.url());
    let runner = std::thread::spawn(move || serve(Loading(loading), options));
    assert_eq!(shepherd.event().await, Event::Connected);
    shepherd.send(&[ToRunner::Ping { nonce: 1 }]);
    assert_eq!(shepherd.message().await, FromRunner::Pong { nonce: 1 });
    loaded.send(Ok(())).unwrap();
    assert!(matches!(shepherd.message().await, FromRunner::Ready(_)));
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_runner_whose_model_does_not_load_gives_up() {
    let mut shepherd = Shepherd::new();
    let (loaded, loading) = mpsc::channel();
    loaded.send(Err(RunError::new("no weights"))).unwrap();
    match serve(Loading(loading), Options::new(shepherd.url())) {
        Err(ServeError::Setup(message)) => assert_eq!(message, "no weights"),
        other => panic!("{other:?}"),
    }
    shepherd.reconnect();
    let taken = Options::new("tcp://127.0.0.1:not-a-port");
    let (_, loading) = mpsc::channel();
    assert!(matches!(serve(Loading(loading), taken), Err(ServeError::Listen(_))));
}

#[tokio::test]
async fn garbage_does_no_harm() {
    use nng::options::{Options as _, RecvTimeout};
    let mut shepherd = Shepherd::new();
    shepherd.hang_up();
    let runner = start(&shepherd, |_| Ok(()));
    let raw = nng::Socket::new(nng::Protocol::Pair1).unwrap();
    raw.set_opt::<RecvTimeout>(Some(LONG)).unwrap();
    raw.dial_async(&shepherd.url()).unwrap();
    let text = |frame: nng::Message| String::from_utf8(frame.to_vec()).unwrap();
    assert!(text(raw.recv().unwrap()).contains("ReadyMessage"));
    for garbage in [
        &b"\xff\xfe"[..],
        b"",
        br#"{"message": {"message_type": "InputMessage", "job_id": "../..", "attempt": "1-1", "io_data_root": "/"}}"#,
        br#"{"message": {"message_type": "ShutdownMessage", "grace": -1}}"#,
        br#"{"messages": [{"message_type": "NewMessage"}, {"message_type": "PingMessage", "nonce": 3}]}"#,
    ] {
        raw.send(garbage).unwrap();
    }
    assert_eq!(text(raw.recv().unwrap()), r#"{"message":{"nonce":3,"message_type":"PongMessage"}}"#);
    raw.send(&br#"{"message": {"message_type": "ShutdownMessage", "grace": 1e300}}"#[..]).unwrap();
    raw.send(&br#"{"message": {"message_type": "ShutdownMessage", "grace": 1e15}}"#[..]).unwrap();
    runner.join().unwrap().unwrap();
}

#[tokio::test]
async fn a_shepherd_that_goes_does_not_end_the_runner() {
    let mut shepherd = Shepherd::new();
    let runner = start(&shepherd, |_| Ok(()));
    for _ in 0..10 {
        shepherd.ready().await;
        shepherd.send(&(0..50).map(|number| input(&format!("job-{number}"))).collect::<Vec<_>>());
        for number in 0..50 {
            assert_eq!(shepherd.message().await, done(&format!("job-{number}")));
        }
        shepherd.reconnect();
    }
    shepherd.ready().await;
    shepherd.shut_down(LONG);
    runner.join().unwrap().unwrap();
}
