//! The scripted runners themselves, without a daemon: what the other tests build on.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use shepherd_job::{Attempt, JobId, JobIdRule};
use shepherd_protocol::{Connection, Event, FromRunner, Input, ToRunner};
use shepherd_tests::ids::{RAW, SCRIPTED};
use shepherd_tests::{Harness, Model, Script, built};

struct Runner {
    child: Child,
    connection: Connection,
    root: String,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Runner {
    async fn start(harness: &Harness, model: Model) -> Self {
        let url = format!("ipc://{}", harness.path(format!("{}.sock", model.name)).display());
        let child = Command::new(built("scripted_runner"))
            .arg("--journal")
            .arg(harness.journal().path())
            .args(["-p", "9999"])
            .arg(format!("{}/{}/config.yaml", model.name, model.version))
            .current_dir(harness.path("models"))
            .env("SHEPHERD_LISTEN", &url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the runner starts");
        let connection = Connection::dial(&url).expect("a good URL");
        let mut runner = Self { child, connection, root: harness.path("data/dolly").display().to_string() };
        match runner.message().await {
            FromRunner::Ready(ready) => assert_eq!((ready.protocol, ready.slots), (1, 1)),
            other => panic!("{other:?}"),
        }
        runner
    }

    async fn event(&mut self) -> Event<FromRunner> {
        tokio::time::timeout(shepherd_tests::PATIENCE, self.connection.recv())
            .await
            .expect("it says something")
    }

    async fn message(&mut self) -> FromRunner {
        loop {
            match self.event().await {
                Event::Message(message) => return message,
                Event::Connected => {}
                other @ (Event::Garbage(_) | Event::Disconnected) => panic!("{other:?}"),
            }
        }
    }

    fn send(&mut self, job: &str, number: u32, script: &Script) {
        let dir = Path::new(&self.root).join(job);
        for name in ["inputs", "outputs"] {
            std::fs::create_dir_all(dir.join(name)).expect("a directory can be made");
        }
        std::fs::write(dir.join("inputs/input"), script.text()).expect("a file can be written");
        let input = Input {
            job: JobId::parse(job, JobIdRule::Bucket).expect("a good id"),
            attempt: Attempt { epoch: 3, number },
            io_data_root: self.root.as_str().into(),
            deadline: None,
        };
        self.connection.send(&[ToRunner::Input(input)]).expect("it is connected");
    }

    fn output(&self, job: &str) -> String {
        std::fs::read_to_string(Path::new(&self.root).join(job).join("outputs/output")).unwrap_or_default()
    }
}

fn attempt(number: u32) -> Option<Attempt> {
    Some(Attempt { epoch: 3, number })
}

#[tokio::test]
async fn both_manners_do_what_a_job_says() {
    let harness = Harness::new();
    for model in [SCRIPTED, RAW] {
        let mut runner = Runner::start(&harness, model).await;
        runner.send("say", 1, &Script::Say("hello".into()));
        assert_eq!(runner.message().await, FromRunner::Done { job: "say".into(), attempt: attempt(1) });
        assert_eq!(runner.output("say"), "hello");
        runner.send("fail", 2, &Script::Fail("because".into()));
        match runner.message().await {
            FromRunner::Error { job, attempt: token, error } => {
                assert_eq!((job.as_str(), token, error.message.as_str()), ("fail", attempt(2), "because"));
            }
            other => panic!("{other:?}"),
        }
        // Heartbeats are answered while a job is in work.
        let gate = harness.path(format!("gate-{}", model.name));
        runner.send("gate", 3, &Script::Gate(gate.clone()));
        runner.connection.send(&[ToRunner::Ping { nonce: 7 }]).unwrap();
        assert_eq!(runner.message().await, FromRunner::Pong { nonce: 7 });
        harness.open_gate(&gate);
        assert_eq!(runner.message().await, FromRunner::Done { job: "gate".into(), attempt: attempt(3) });
        runner.send("exit", 4, &Script::Exit(5));
        assert_eq!(runner.event().await, Event::Disconnected);
        assert_eq!(runner.child.wait().unwrap().code(), Some(5));
    }
    let jobs: Vec<_> =
        harness.journal().runs().into_iter().map(|run| (run.job, run.attempt, run.sheep)).collect();
    assert_eq!(jobs.len(), 8);
    assert_eq!(jobs[0], ("say".into(), "3-1".into(), "dolly".into()));
    assert_eq!(harness.journal().starts().len(), 2);
}

#[tokio::test]
async fn a_raw_runner_misbehaves_on_the_wire() {
    let harness = Harness::new();
    let mut runner = Runner::start(&harness, RAW).await;
    runner.send("liar", 1, &Script::AnswerFor { job: "other".into() });
    assert_eq!(runner.message().await, FromRunner::Done { job: "other".into(), attempt: attempt(1) });
    assert_eq!(runner.message().await, FromRunner::Done { job: "other".into(), attempt: None });
    assert!(matches!(runner.message().await, FromRunner::Error { job, .. } if job == "liar"));
    runner.send("twice", 1, &Script::AnswerTwice);
    assert!(matches!(runner.message().await, FromRunner::Done { .. }));
    assert!(matches!(runner.message().await, FromRunner::Error { .. }));
    assert!(matches!(runner.message().await, FromRunner::Done { .. }));
    runner.send("garbage", 1, &Script::Garbage);
    let mut garbage = 0;
    loop {
        match runner.event().await {
            Event::Garbage(_) => garbage += 1,
            Event::Message(FromRunner::Done { job, .. }) if job == "garbage" => break,
            Event::Message(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(garbage > 5, "{garbage}");
}
