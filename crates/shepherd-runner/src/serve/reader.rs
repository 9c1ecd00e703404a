//! The thread that reads what the shepherd says, and answers what cannot wait.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::getppid;
use shepherd_job::JobError;
use shepherd_protocol::{Event, FromRunner, RecvError, RunnerReceiver, ToRunner};

use super::answers::Answers;
use super::outcome::cancelled;
use super::shutdown;
use super::work::{Cancelling, Work};

/// How often a runner without a shepherd looks whether it is an orphan.
const ORPHAN_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Reads until the socket is closed.
pub(super) fn run(mut receiver: RunnerReceiver, work: &Arc<Work>, answers: &Answers, grace: Duration) {
    let parent = getppid();
    let mut connected = false;
    loop {
        match receiver.recv(ORPHAN_CHECK_PERIOD) {
            Ok(Event::Connected) => {
                connected = true;
                work.connected(receiver.connection());
            }
            Ok(Event::Message(message)) => on_message(message, work, answers),
            Ok(Event::Garbage(garbage)) => {
                work.outlet().output.say(&format!("ignored a message: {garbage}"));
            }
            Ok(Event::Disconnected) => {
                connected = false;
                work.disconnected();
            }
            Err(RecvError::Timeout) => {
                // Where no parent-death signal was set, an orphan ends here.
                if !connected && getppid() != parent {
                    shutdown::begin(work, grace);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn on_message(message: ToRunner, work: &Arc<Work>, answers: &Answers) {
    match message {
        ToRunner::Ping { nonce } => {
            // One that cannot be sent goes with its connection, or is one too many.
            let _ = work.outlet().sender.send_to(work.connection(), &[FromRunner::Pong { nonce }]);
        }
        ToRunner::Input(input) => {
            let (job, attempt) = (input.job.clone(), input.attempt);
            if !work.push(input) {
                let error = JobError::new("more inputs were sent ahead than the runner takes");
                let answer =
                    FromRunner::Error { job: job.as_str().to_owned(), attempt: Some(attempt), error };
                answers.post(work.connection(), [answer]);
            }
        }
        ToRunner::Cancel { job, attempt } => match work.cancel(&job, attempt) {
            Cancelling::Waiting => {
                let answer = FromRunner::Error {
                    job: job.as_str().to_owned(),
                    attempt: Some(attempt),
                    error: cancelled(),
                };
                answers.post(work.connection(), [answer]);
            }
            Cancelling::Running | Cancelling::Unknown => {}
        },
        ToRunner::Shutdown { grace } => shutdown::begin(work, grace),
    }
}
