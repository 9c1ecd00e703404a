//! Watching a container die, and seeing to it.
//!
//! Two know that a container ended: the engine, which has to be asked again after each
//! loss of it, and the kernel, where this machine shows the container's first process
//! ([`Init`]). The kernel's word is certain and comes at once; the engine knows the exit
//! code. Neither the loss of a connection nor the engine's silence says anything of the
//! container. What ended while the engine was lost ended with it; what ended while it was
//! slow did not.
//!
//! While the engine is away, a container can be killed only where its first process is
//! seen. Where it is not, the killing waits for the engine: a run is not over before its
//! processes are certainly gone.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::container::Container;
use super::engine::Trouble;
use super::process::Init;
use super::run::{Desired, Run};

/// How long the engine may take to hear of a death that the kernel told of.
const HEARSAY: Duration = Duration::from_secs(5);
/// A connection to another machine can be lost without a sign.
const WATCH_CHECK_PERIOD: Duration = Duration::from_secs(30);
/// The engine is given so long to kill a container before the kernel is asked to.
const ENGINE_KILL_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known of a container's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The engine said with which code.
    Told(i64),
    /// It is not running, and nobody saw it end.
    Found,
    /// It is not there: another removed it.
    Removed,
    /// It ended while the engine was lost.
    WithEngine,
}

/// One container that was started.
pub(super) struct Watch<'a> {
    container: &'a Container,
    run: &'a Run,
    init: OnceLock<Init>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(container: &'a Container, run: &'a Run) -> Self {
        Self { container, run, init: OnceLock::new() }
    }

    /// Whether something of the dead container was killed for want of memory, where this
    /// machine's kernel could tell.
    pub(super) fn is_out_of_memory(&self) -> Option<bool> {
        self.init.get()?.is_out_of_memory()
    }

    /// Does what is wished of the container, until all its processes are gone.
    pub(super) async fn until_dead(&self) -> Death {
        tokio::select! {
            death = self.death() => death,
            never = self.obey() => match never {},
        }
    }

    async fn death(&self) -> Death {
        let mut backoff = Backoff::new();
        // Whether the engine was lost since it last said that the container lives.
        let mut is_lost = false;
        loop {
            let death = match self.container.inspect().await {
                Ok(Some(seen)) if seen.is_running => {
                    is_lost = false;
                    if let Some(init) = seen.pid.and_then(|pid| Init::find(pid, self.container.key())) {
                        let _ = self.init.set(init);
                    }
                    match self.next(&mut backoff).await {
                        Next::Death(death) => Some(death),
                        Next::Lost => {
                            is_lost = true;
                            None
                        }
                        Next::Look => None,
                    }
                }
                Ok(Some(_)) => Some(Death::Found),
                Ok(None) => Some(Death::Removed),
                Err(trouble) => {
                    is_lost |= is_loss(&trouble);
                    tokio::select! {
                        () = self.init_died() => return unheard(is_lost),
                        () = backoff.pause() => {}
                    }
                    None
                }
            };
            match death {
                Some(_) if is_lost => {
                    self.make_certain().await;
                    return Death::WithEngine;
                }
                Some(death) => {
                    self.make_certain().await;
                    return death;
                }
                None => {}
            }
        }
    }

    /// Waits for a container that was just seen running.
    async fn next(&self, backoff: &mut Backoff) -> Next {
        let since = Instant::now();
        let mut waiting = std::pin::pin!(self.container.wait());
        let answer = tokio::select! {
            answer = &mut waiting => answer,
            () = self.init_died() => match tokio::time::timeout(HEARSAY, waiting).await {
                Ok(answer) => match answer {
                    Ok(code) => return Next::Death(Death::Told(code)),
                    Err(trouble) if trouble.is_status(404) => return Next::Death(Death::Removed),
                    Err(trouble) => return Next::Death(unheard(is_loss(&trouble))),
                },
                Err(_) => return Next::Death(Death::Found),
            },
            () = tokio::time::sleep(WATCH_CHECK_PERIOD), if self.init.get().is_none() => return Next::Look,
        };
        match answer {
            Ok(code) => Next::Death(Death::Told(code)),
            Err(trouble) => {
                let is_gone = trouble.is_status(404);
                if is_gone {
                    return Next::Death(Death::Removed);
                }
                tracing::debug!(container = self.container.key(), %trouble, "the engine stopped watching a container");
                if since.elapsed() > WATCH_CHECK_PERIOD {
                    backoff.reset();
                }
                tokio::select! {
                    () = self.init_died() => return Next::Death(unheard(is_loss(&trouble))),
                    () = backoff.pause() => {}
                }
                if is_loss(&trouble) { Next::Lost } else { Next::Look }
            }
        }
    }

    /// The engine says that the container is over: so it must be.
    async fn make_certain(&self) {
        let Some(init) = self.init.get() else { return };
        let mut backoff = Backoff::new();
        loop {
            tokio::select! {
                biased;
                () = init.died() => return,
                () = backoff.pause() => init.kill(),
            }
        }
    }

    async fn init_died(&self) {
        match self.init.get() {
            Some(init) => {
                init.died().await;
                self.run.died();
            }
            None => std::future::pending().await,
        }
    }

    /// Ends the container when that is wished.
    async fn obey(&self) -> Infallible {
        self.run.wanted(Desired::Stop).await;
        tokio::select! {
            () = self.ask_to_end() => {}
            () = self.run.wanted(Desired::Kill) => {}
        }
        self.run.wanted(Desired::Kill).await;
        let mut backoff = Backoff::new();
        loop {
            let killing = async {
                let killed = self.container.kill().await;
                // Its processes go within a moment; until then, there is nothing to repeat.
                if killed.is_ok() {
                    std::future::pending::<()>().await;
                }
                killed
            };
            if let Ok(Err(trouble)) = tokio::time::timeout(ENGINE_KILL_TIMEOUT, killing).await {
                tracing::debug!(container = self.container.key(), %trouble, "the engine does not kill a container");
            }
            if let Some(init) = self.init.get() {
                init.kill();
            }
            backoff.pause().await;
        }
    }

    async fn ask_to_end(&self) {
        let mut backoff = Backoff::new();
        while let Err(trouble) = self.container.signal("SIGTERM").await {
            tracing::debug!(container = self.container.key(), %trouble, "the engine does not ask a container to end");
            backoff.pause().await;
        }
        // One that is paused acts on it only once it goes on.
        if matches!(self.container.inspect().await, Ok(Some(seen)) if seen.is_paused) {
            let _ = self.container.unpause().await;
        }
    }
}

/// Whether the engine was lost. One that is slow is there, and so is one that refuses.
fn is_loss(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Lost(_) => true,
        Trouble::Late(_) | Trouble::Refused { .. } | Trouble::Garbled(_) => false,
    }
}

/// A death that the kernel told of and the engine did not.
fn unheard(is_lost: bool) -> Death {
    if is_lost { Death::WithEngine } else { Death::Found }
}

/// What came of waiting.
enum Next {
    Death(Death),
    /// The engine was lost.
    Lost,
    /// Look again.
    Look,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::fixtures::{self, Answer};

    const RUNS: Answer = Answer::Json(200, "{\"State\":{\"Running\":true,\"Pid\":0}}");
    const ENDED: Answer = Answer::Json(200, "{\"State\":{\"Running\":false,\"ExitCode\":1}}");

    /// How a container dies of which the engine says this, one after the other, while a wait for its end comes to
    /// this.
    async fn death(inspections: Vec<Answer>, wait: fn() -> Answer) -> Death {
        let mut inspections = inspections.into_iter();
        let answer = |request: &str| match request {
            "ping" => Answer::Json(200, ""),
            request if request.starts_with("POST") => wait(),
            _ => inspections.next().unwrap_or(ENDED),
        };
        fixtures::with_fake(answer, async |engine| {
            let container = Container::known(&engine, "c".to_owned());
            Watch::new(&container, &Run::default()).until_dead().await
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_while_the_engine_is_slow_did_not_end_with_it() {
        let death = death(vec![RUNS, Answer::Silence, ENDED], || Answer::Silence).await;
        assert_eq!(death, Death::Found);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_while_the_engine_is_lost_ended_with_it() {
        let death = death(vec![RUNS, Answer::Silence, ENDED], || Answer::Break).await;
        assert_eq!(death, Death::WithEngine);
        let death = self::death(vec![RUNS, Answer::Break, ENDED], || Answer::Silence).await;
        assert_eq!(death, Death::WithEngine);
    }
}
