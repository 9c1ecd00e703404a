//! The shepherd's part in a test.

#![allow(dead_code, reason = "every test program uses another part of it")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use shepherd_job::{Attempt, JobId, JobIdRule};
use shepherd_protocol::{Connection, Event, FromRunner, Input, Ready, SendError, ToRunner, Token};
use tempfile::TempDir;

/// Long enough for any machine; no test passes by waiting for it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) const ATTEMPT: Attempt = Attempt { epoch: 1, number: 2 };

/// What a runner that is launched with a token is launched with.
pub(crate) const TOKEN: &str = "the launch's secret";

pub(crate) fn job(id: &str) -> JobId {
    JobId::parse(id, JobIdRule::Prefix).unwrap()
}

/// An input without files.
pub(crate) fn input(id: &str) -> ToRunner {
    ToRunner::Input(Input {
        job: job(id),
        attempt: ATTEMPT,
        io_data_root: "/nonexistent".into(),
        deadline: None,
    })
}

pub(crate) fn done(id: &str) -> FromRunner {
    FromRunner::Done { job: id.to_owned(), attempt: Some(ATTEMPT) }
}

pub(crate) struct Shepherd {
    dir: TempDir,
    connection: Option<Connection>,
}

impl Shepherd {
    /// Dials a socket at which the runner will listen.
    pub(crate) fn new() -> Self {
        let mut shepherd = Self { dir: TempDir::new().unwrap(), connection: None };
        shepherd.reconnect();
        shepherd
    }

    pub(crate) fn url(&self) -> String {
        format!("ipc://{}/runner.sock", self.dir.path().display())
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Hangs up, and dials again.
    pub(crate) fn reconnect(&mut self) {
        self.hang_up();
        self.connection = Some(Connection::dial(&self.url()).unwrap().with_token(Token::new(TOKEN)));
    }

    pub(crate) async fn event(&mut self) -> Event<FromRunner> {
        let connection = self.connection.as_mut().unwrap();
        tokio::time::timeout(LONG, connection.recv()).await.expect("an event in time")
    }

    pub(crate) async fn message(&mut self) -> FromRunner {
        match self.event().await {
            Event::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// What a job printed, with the message after that.
    pub(crate) async fn log_and_message(&mut self, id: &str) -> (String, FromRunner) {
        let mut log = String::new();
        loop {
            match self.message().await {
                FromRunner::Log { job, attempt, text } => {
                    assert_eq!((job.as_str(), attempt), (id, Some(ATTEMPT)));
                    assert!(text.len() <= 32 << 10);
                    log.push_str(&text);
                }
                other => return (log, other),
            }
        }
    }

    /// Waits until the runner is ready. A connection that is replaced may flap,
    /// because the runner serves the old one until it sees its end.
    pub(crate) async fn ready(&mut self) -> Ready {
        loop {
            match self.event().await {
                Event::Connected | Event::Disconnected => {}
                Event::Message(FromRunner::Ready(ready)) => return ready,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn send(&self, messages: &[ToRunner]) {
        self.try_send(messages).unwrap();
    }

    pub(crate) fn try_send(&self, messages: &[ToRunner]) -> Result<(), SendError> {
        self.connection.as_ref().unwrap().send(messages)
    }

    pub(crate) fn shut_down(&self, grace: Duration) {
        self.send(&[ToRunner::Shutdown { grace }]);
    }

    /// An input whose files are in this shepherd's directory.
    pub(crate) fn input(&self, id: &str) -> ToRunner {
        let io_data_root = self.dir.path().to_str().unwrap().into();
        ToRunner::Input(Input { job: job(id), attempt: ATTEMPT, io_data_root, deadline: None })
    }

    pub(crate) fn stage(&self, id: &str, payload: &str) {
        fs::create_dir_all(self.path(&format!("{id}/inputs"))).unwrap();
        fs::create_dir_all(self.path(&format!("{id}/outputs"))).unwrap();
        fs::write(self.path(&format!("{id}/inputs/input")), payload).unwrap();
    }

    pub(crate) fn output(&self, id: &str) -> String {
        fs::read_to_string(self.path(&format!("{id}/outputs/output"))).unwrap()
    }
}
