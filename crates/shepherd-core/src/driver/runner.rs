//! A launched runner: its process and the connection to it, as one thing that can
//! be told something, heard, and ended.

use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{JobError, JobId, ModelRef};
use shepherd_protocol::{Connection, Event, FromRunner, Peer, Ready, SendError, ToRunner, Token};
use shepherd_sheep::{Astray, Exit, ExitCause, RunningSheep, Sheep, SheepError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{DIED, Death, LaunchFailure, RunnerFacts};

/// How long what a dead runner had said may take to arrive.
const LAST_MESSAGES_TIMEOUT: Duration = Duration::from_millis(500);

/// How many letters of a runner's last line are part of an error's message.
const MAX_LAST_LINE: usize = 300;

/// How long a runner whose connection is gone may take to be seen dead: an engine
/// has to tell the end of a container, and why it ended.
const EXIT_REPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a runner may take to listen before it is looked at whether it listens elsewhere, and
/// how often it is looked at again.
const ASTRAY_CHECK: Duration = Duration::from_secs(3);

/// The signals by which people and systems end processes: HUP, INT, KILL and TERM.
const SENT_SIGNALS: [i32; 4] = [1, 2, 9, 15];

/// Something that a runner did.
#[derive(Debug)]
pub(super) enum Heard {
    Messages(Vec<FromRunner>),
    /// It said something that is no message.
    Garbage(String),
    /// It is dead, or as good as that.
    Died(Death),
}

impl From<Exit> for Death {
    fn from(exit: Exit) -> Self {
        let is_from_outside = match exit.cause {
            ExitCause::Code(code) => code == 0 || SENT_SIGNALS.contains(&(code - 128)),
            ExitCause::Signal(signal) => SENT_SIGNALS.contains(&signal),
            ExitCause::OutOfMemory { .. } | ExitCause::EngineStopped => true,
            ExitCause::Unknown => false,
        };
        Self {
            how: exit.cause.to_string(),
            is_blameless: exit.cause == ExitCause::EngineStopped,
            is_from_outside,
            at: Instant::now(),
        }
    }
}

/// A runner whose process is gone.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Reads after "the runner".
    pub(super) how: String,
    /// What it printed last.
    pub(super) printed: String,
}

pub(super) struct Runner {
    process: Box<dyn RunningSheep>,
    connection: Connection,
    io_data_root: Arc<str>,
    name: String,
    slots: usize,
    ahead: usize,
    /// Whether it says itself what its jobs print.
    logs: bool,
    batch: usize,
    /// Received after messages that were returned first.
    next: Option<Event<FromRunner>>,
    /// How its process ended, once it has, and until when its last words may come.
    exit: Option<(Death, Instant)>,
    /// The connection ended; until when the process may say how it did.
    gone: Option<Instant>,
}

impl Runner {
    /// Launches a runner and waits until it says that it is ready. Dropping the
    /// future ends what was launched.
    pub(super) async fn start(
        sheep: Arc<dyn Sheep>,
        model: ModelRef,
        timeout: Duration,
    ) -> Result<Box<Self>, LaunchFailure> {
        let mut process = sheep.launch(&model).await.map_err(|error| match error {
            SheepError::Model(message) => {
                let message = format!("Failed to start sheep for this job ({message})");
                LaunchFailure::Refused(JobError::new(message))
            }
            other => LaunchFailure::Sheep(other.to_string()),
        })?;
        let io_data_root = process.io_data_root().to_string_lossy().into_owned().into();
        let mut connection =
            Connection::dial(process.endpoint()).map_err(|error| LaunchFailure::Sheep(error.to_string()))?;
        if let Some(token) = process.token() {
            connection = connection.with_token(Token::new(token));
        }
        let ready = match become_ready(&mut *process, &mut connection, timeout).await {
            Ok(ready) => ready,
            Err(NotReady::Dead(exit)) if exit.cause == ExitCause::EngineStopped => {
                return Err(LaunchFailure::Sheep(format!("the runner {exit}")));
            }
            Err(NotReady::Dead(exit)) => {
                let error = JobError {
                    message: not_ready(&exit),
                    exception_type: "RunnerDied".to_owned(),
                    exception_traceback: exit.to_string(),
                };
                return Err(LaunchFailure::Died(error));
            }
            Err(NotReady::Hopeless(message)) => {
                let exit = process.stop(Duration::ZERO).await;
                let error = JobError {
                    message,
                    exception_type: "RunnerNotReady".to_owned(),
                    exception_traceback: exit.to_string(),
                };
                return Err(LaunchFailure::Died(error));
            }
            Err(NotReady::Impostor(problem)) => {
                process.stop(Duration::ZERO).await;
                return Err(LaunchFailure::Sheep(problem));
            }
        };
        let at_least_one = |n: u32| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        let runner = Box::new(Self {
            process,
            connection,
            io_data_root,
            name: ready.name,
            slots: at_least_one(ready.slots),
            ahead: usize::try_from(ready.ahead).unwrap_or(usize::MAX),
            logs: ready.logs,
            batch: at_least_one(ready.batch),
            next: None,
            exit: None,
            gone: None,
        });
        if runner.prints_for_jobs() {
            // What it printed on its way here must not come when it has a job.
            tokio::time::sleep(runner.print_delay()).await;
        }
        Ok(runner)
    }

    /// Whether what its process prints is its job's.
    pub(super) fn prints_for_jobs(&self) -> bool {
        !self.logs && self.slots == 1
    }

    /// What the engine is to know of it. `stamp` is the state of its model before it was launched.
    pub(super) fn facts(&self, stamp: Option<u64>) -> RunnerFacts {
        RunnerFacts {
            name: self.name.clone(),
            slots: self.slots,
            ahead: self.ahead,
            can_cancel: self.connection.can_cancel(),
            stamp,
            io_data_root: Arc::clone(&self.io_data_root),
        }
    }

    /// Sends messages, in frames no larger than the runner takes.
    ///
    /// # Errors
    /// Why the runner must be ended.
    pub(super) fn send(&self, messages: &[ToRunner]) -> Result<(), String> {
        for frame in messages.chunks(self.batch) {
            match self.connection.send(frame) {
                // That the connection ended will be heard, after the last answers on it.
                Ok(()) | Err(SendError::NotConnected) => {}
                Err(SendError::Full) => {
                    return Err("the runner does not read its messages".to_owned());
                }
            }
        }
        Ok(())
    }

    /// What the runner has printed since this was asked last.
    pub(super) fn printed(&mut self) -> String {
        self.process.printed()
    }

    /// Says which job what the process prints is of, where it can be only one.
    pub(super) fn works_on(&self, job: Option<&JobId>) {
        if self.slots == 1 {
            self.process.works_on(job);
        }
    }

    /// How much later than it was printed something may be there to be asked for.
    pub(super) fn print_delay(&self) -> Duration {
        self.process.print_delay()
    }

    /// Whether it is there, as far as is known: what is sent to one that is not is lost.
    pub(super) fn is_there(&self) -> bool {
        self.exit.is_none() && self.gone.is_none()
    }

    /// The next thing the runner does. Cancel-safe: whatever was seen is returned or
    /// kept, with the time until which more is waited for.
    pub(super) async fn hear(&mut self) -> Heard {
        if let Some(event) = self.next.take() {
            return self.take(event);
        }
        if let Some(by) = self.gone {
            // The process knows best how it ended, if it did.
            return Heard::Died(match tokio::time::timeout_at(by, self.process.exited()).await {
                Ok(exit) => exit.into(),
                Err(_) => Death {
                    how: "closed its connection".to_owned(),
                    is_blameless: false,
                    is_from_outside: false,
                    at: Instant::now(),
                },
            });
        }
        if self.exit.is_none() {
            tokio::select! {
                biased;
                event = self.connection.recv() => return self.take(event),
                exit = self.process.exited() => {
                    self.exit = Some((exit.into(), Instant::now() + LAST_MESSAGES_TIMEOUT));
                    // Whoever sends to it is to know at once.
                    return Heard::Messages(Vec::new());
                }
            }
        }
        // Dead; but its last answers may still be on their way.
        let Some((death, by)) = self.exit.clone() else { return Heard::Messages(Vec::new()) };
        match tokio::time::timeout_at(by, self.connection.recv()).await {
            Ok(event) => self.take(event),
            Err(_) => Heard::Died(death),
        }
    }

    fn take(&mut self, event: Event<FromRunner>) -> Heard {
        match event {
            Event::Message(first) => {
                // The connection bounds what comes together, and yields before it reads on.
                let mut messages = vec![first];
                while self.next.is_none() {
                    match self.connection.try_recv() {
                        Some(Event::Message(message)) => messages.push(message),
                        Some(other) => self.next = Some(other),
                        None => break,
                    }
                }
                Heard::Messages(messages)
            }
            Event::Garbage(garbage) => Heard::Garbage(garbage.to_string()),
            Event::Connected => Heard::Messages(Vec::new()),
            Event::Disconnected => match &self.exit {
                Some((death, _)) => Heard::Died(death.clone()),
                None => {
                    self.gone = Some(Instant::now() + EXIT_REPORT_TIMEOUT);
                    Heard::Messages(Vec::new())
                }
            },
        }
    }

    /// Ends the runner, at the latest when `forced` is cancelled; resolves when its
    /// process is gone.
    pub(super) async fn stop(mut self: Box<Self>, grace: Duration, forced: CancellationToken) -> Ended {
        let asked = async {
            self.ask_to_end(grace);
            self.process.stop(grace).await
        };
        let exit = tokio::select! {
            exit = asked, if !grace.is_zero() => Some(exit),
            () = forced.cancelled(), if !grace.is_zero() => None,
            else => None,
        };
        let exit = match exit {
            Some(exit) => exit,
            None => self.process.stop(Duration::ZERO).await,
        };
        Ended { how: exit.cause.to_string(), printed: self.process.printed() }
    }

    /// Ends a runner that has no jobs; resolves as soon as another may be launched.
    pub(super) async fn leave(mut self: Box<Self>, grace: Duration, forced: CancellationToken) {
        self.ask_to_end(grace);
        tokio::select! {
            () = self.process.vacate(grace) => return,
            () = forced.cancelled() => {}
        }
        self.process.vacate(Duration::ZERO).await;
    }

    fn ask_to_end(&self, grace: Duration) {
        // It may be deaf; the signal that follows is not a matter of hearing.
        let _ = self.connection.send(&[ToRunner::Shutdown { grace }]);
    }
}

/// Why a runner that was launched takes no jobs.
enum NotReady {
    /// It died.
    Dead(Exit),
    /// It does not say that it is ready, and is not waited for any more.
    Hopeless(String),
    /// Somebody else answers at its endpoint.
    Impostor(String),
}

/// Waits until the runner says that it is ready, and makes sure that it is the runner who says
/// so: by the launch's token or, where it knows none, by its process.
async fn become_ready(
    process: &mut dyn RunningSheep,
    connection: &mut Connection,
    timeout: Duration,
) -> Result<Ready, NotReady> {
    let (mut left, mut is_told) = (timeout, false);
    let ready = loop {
        let step = left.min(ASTRAY_CHECK);
        tokio::select! {
            biased;
            ready = wait_until_ready(connection) => break ready.map_err(NotReady::Impostor)?,
            exit = process.exited() => return Err(NotReady::Dead(exit)),
            () = running_time(step) => left -= step,
        }
        let astray = process.astray().await;
        match (left.is_zero(), astray) {
            (true, None) => {
                return Err(NotReady::Hopeless(format!("The runner was not ready within {timeout:?}")));
            }
            (true, Some(Astray { message, .. })) => {
                let message = format!("The runner was not ready within {timeout:?}: {message}");
                return Err(NotReady::Hopeless(message));
            }
            (false, Some(Astray { message, is_for_good: true })) => {
                return Err(NotReady::Hopeless(format!("The runner cannot be reached: {message}")));
            }
            (false, Some(Astray { message, is_for_good: false })) if !is_told => {
                is_told = true;
                tracing::warn!(endpoint = process.endpoint(), "the runner cannot be reached yet: {message}");
            }
            (false, Some(_) | None) => {}
        }
    };
    if connection.peer() != Peer::Proven
        && let Some((ours, theirs)) = connection.tcp_ends()
    {
        process.verify_peer(ours, theirs).await.map_err(NotReady::Impostor)?;
    }
    Ok(ready)
}

/// Waits for `limit` of time in which this process runs: while it is stopped itself, nobody
/// keeps it waiting.
async fn running_time(limit: Duration) {
    let mut left = limit;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(1));
        tokio::time::sleep(step).await;
        left -= step;
    }
}

/// Why a job failed whose runner ended before it was ready: it has printed no other job's
/// words, and its last line mostly says it.
fn not_ready(exit: &Exit) -> String {
    let last = exit.log_tail.lines().map(str::trim).rfind(|line| !line.is_empty());
    let last = last.map(|line| {
        let short: String = line.chars().take(MAX_LAST_LINE).collect();
        format!(": {short}{}", if short.len() < line.len() { "…" } else { "" })
    });
    format!("the runner {} before it was ready{} ({DIED})", exit.cause, last.unwrap_or_default())
}

/// What a runner says before it is ready is passed over; a connection that comes
/// and goes is dialled again by itself. Cancel-safe.
///
/// # Errors
/// Whoever answers is not the runner.
async fn wait_until_ready(connection: &mut Connection) -> Result<Ready, String> {
    loop {
        match connection.recv().await {
            Event::Message(FromRunner::Ready(ready)) => return Ok(ready),
            Event::Garbage(garbage) if connection.peer() == Peer::Impostor => {
                return Err(format!("somebody else than the runner listens at its endpoint: {garbage}"));
            }
            Event::Message(_) | Event::Connected | Event::Garbage(_) | Event::Disconnected => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_daemon_counts_as_no_time_of_a_runners_start() {
        let (limit, begun) = (Duration::from_secs(600), Instant::now());
        let mut waiting = std::pin::pin!(running_time(limit));
        assert!(futures::poll!(&mut waiting).is_pending());
        let pause = Duration::from_secs(3600);
        tokio::time::advance(pause).await;
        waiting.await;
        let waited = begun.elapsed() - pause;
        assert!(waited >= limit - Duration::from_secs(2) && waited <= limit, "{waited:?}");
    }

    #[test]
    fn a_runner_that_was_never_ready_is_quoted() {
        let said = |cause, tail: &str| not_ready(&Exit { cause, log_tail: tail.to_owned() });
        assert_eq!(
            said(
                ExitCause::Code(1),
                "Traceback:\n  File \"x\"\nModuleNotFoundError: No module named 'nope'\n  "
            ),
            "the runner exited with code 1 before it was ready: ModuleNotFoundError: No module named 'nope' \
             (Sheep container died without notice)"
        );
        assert_eq!(
            said(ExitCause::Code(0), ""),
            "the runner exited with code 0 before it was ready (Sheep container died without notice)"
        );
        assert!(said(ExitCause::Code(3), &"ž".repeat(2 * MAX_LAST_LINE)).contains("ž… ("));
    }
}
