//! The task that minds one run: it makes the container, starts and watches it, and
//! removes it. It lives until nothing of the run is left, whoever waits for it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use shepherd_job::ModelRef;
use tokio::sync::{oneshot, watch};

use super::backoff::Backoff;
use super::container::Container;
use super::engine::{Engine, Trouble};
use super::images::ImageInUse;
use super::logs::Logs;
use super::refusal::{self, Asked, Verdict};
use super::run::{Desired, Ending, Run};
use super::watch::{Death, Watch};
use super::{DockerOptions, engine_liveness, reclaim, spec, sweep, trial};
use crate::endpoint::Endpoint;
use crate::{Exit, ExitCause, SheepError};

/// How long the engine may take to learn the exit code of a container that the kernel saw die.
const EXIT_CODE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the last of a container's output may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a failed launch keeps its caller waiting for what it leaves to be gone, and an
/// ended run for its container to be removed.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often what a lost engine may have made is looked for, over a few seconds. It does not
/// run, so what is made later yet is in nobody's way until the next sweep.
const LEFTOVER_CHECKS: u32 = 7;

/// What a run is made of.
pub(super) struct Plan {
    pub(super) engine: Engine,
    pub(super) options: Arc<DockerOptions>,
    pub(super) model: ModelRef,
    /// The run's random name.
    pub(super) name: String,
    pub(super) image: ImageInUse,
    pub(super) endpoint: Endpoint,
    pub(super) logs: Logs,
}

/// Runs a runner from its start to its end. Answers `started` with the endpoint.
pub(super) async fn mind(
    mut plan: Plan,
    run: Arc<Run>,
    started: oneshot::Sender<Result<String, SheepError>>,
) {
    let ending = Ending(&run);
    let name = run.container().to_owned();
    let mut container = Container::known(&plan.engine, name.clone());
    if let Err(failure) = begin(&plan, &run, &mut container).await {
        // Nobody is to wait for a life that it will not have.
        run.want(Desired::Kill);
        let mut disposal = Box::pin(dispose(&container, failure.left));
        let is_gone = tokio::time::timeout(CLEANUP_TIMEOUT, &mut disposal).await.is_ok();
        if is_gone {
            // Ended first, so that who is told of the failure can launch again.
            drop(plan);
            drop(ending);
            let _ = started.send(Err(failure.error));
        } else {
            let _ = started.send(Err(failure.error));
            disposal.await;
            drop(plan);
        }
        return;
    }
    let endpoint = plan.endpoint.url();
    tracing::info!(
        sheep = %plan.options.id, model = %plan.model, container = name, endpoint, "started a runner"
    );
    // A launch that nobody waits for any more has wished its run dead.
    let _ = started.send(Ok(endpoint.to_owned()));
    let opening = open_socket(&plan);
    let (exit, is_there) = tokio::select! {
        ended = watch(&mut plan, &run, &container) => ended,
        never = opening => match never {},
    };
    tracing::info!(sheep = %plan.options.id, model = %plan.model, container = name, "the runner {}", exit.cause);
    if is_there {
        release(&plan, &container).await;
    }
    drop(plan);
    run.end(exit);
}

/// Sees to it that the runner's socket, which may be another user's, can be dialled.
fn open_socket(plan: &Plan) -> impl Future<Output = Infallible> + use<> {
    let (engine, options) = (plan.engine.clone(), Arc::clone(&plan.options));
    let path = plan.endpoint.url().strip_prefix("ipc://").map(PathBuf::from);
    async move {
        if let Some(path) = path {
            reclaim::socket(&engine, &options, path).await;
        }
        std::future::pending().await
    }
}

/// A launch that failed.
struct Failure {
    error: SheepError,
    left: Left,
}

/// What a failed launch may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// A container that was asked for, and may yet be made. It was never asked to start.
    Asked,
    /// A container that was never asked to start.
    Made,
    /// A container that may run.
    Started,
}

async fn begin(plan: &Plan, run: &Run, container: &mut Container) -> Result<(), Failure> {
    let options = &plan.options;
    let private_socket = plan.endpoint.private_socket();
    let body = spec::body(
        options,
        &spec::Run {
            name: &plan.name,
            instance: &plan.engine.options().instance,
            model: &plan.model,
            image: &plan.image.id,
            endpoint: plan.endpoint.url(),
            token: &run.token,
            private_socket,
            us: spec::Us::effective(),
        },
    );
    // Its answer is waited for in any case: what is not there yet cannot be removed.
    if let Err(trouble) = container.create(body.clone()).await {
        let left = match &trouble {
            Trouble::Refused { .. } => Left::Nothing,
            Trouble::Lost(_) | Trouble::Late(_) | Trouble::Garbled(_) => Left::Asked,
        };
        return Err(Failure { error: blame(plan, run, body, &trouble).await, left });
    }
    if run.desired() == Desired::Kill {
        return Err(Failure { error: given_up(), left: Left::Made });
    }
    let started = tokio::select! {
        started = container.start() => started,
        () = run.wanted(Desired::Kill) => return Err(Failure { error: given_up(), left: Left::Started }),
    };
    let Err(trouble) = started else { return Ok(()) };
    if matches!(&trouble, Trouble::Refused { message, .. } if refusal::is_port_taken(message)) {
        let error = sweep::port_in_use(&plan.engine, options.port).await;
        return Err(Failure { error, left: Left::Made });
    }
    let left = match &trouble {
        Trouble::Refused { .. } => Left::Made,
        Trouble::Lost(_) | Trouble::Late(_) | Trouble::Garbled(_) => Left::Started,
    };
    Err(Failure { error: blame(plan, run, body, &trouble).await, left })
}

fn given_up() -> SheepError {
    SheepError::Unavailable("the launch was given up".to_owned())
}

/// Why the container that `body` describes could not be made or started, by who is to blame.
async fn blame(plan: &Plan, run: &Run, body: ContainerCreateBody, trouble: &Trouble) -> SheepError {
    let Plan { engine, options, image, .. } = plan;
    let asked = Asked { options, image: &image.name, private_socket: plan.endpoint.private_socket() };
    let error = match refusal::of_trouble(&asked, trouble, |lost| engine.unavailable(lost)) {
        Verdict::Known(error) => return error,
        Verdict::Unclear(error) => error,
    };
    if run.desired() == Desired::Kill {
        return error;
    }
    match trial::of_empty_image(engine, format!("{}-trial", run.container()), body).await {
        Ok(()) => refusal::of_image(&image.name, trouble),
        Err(other) => {
            tracing::debug!(sheep = %options.id, %other, "an empty image cannot be run either");
            error
        }
    }
}

/// Removes what a failed launch left. Only what may run is waited for without end.
async fn dispose(container: &Container, left: Left) {
    let mut backoff = Backoff::new();
    let looks = match left {
        Left::Nothing => return,
        Left::Asked | Left::Made => LEFTOVER_CHECKS,
        Left::Started => u32::MAX,
    };
    for _ in 0..looks {
        match remove(container, left).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(trouble) => {
                tracing::debug!(container = container.key(), %trouble, "a container is not removed yet");
            }
        }
        backoff.pause().await;
    }
}

/// Whether nothing of the container is left, nor comes yet.
async fn remove(container: &Container, left: Left) -> Result<bool, Trouble> {
    // That it is not there says nothing while it may yet be made.
    if left == Left::Asked && container.inspect().await?.is_none() {
        return Ok(false);
    }
    container.remove().await.map(|()| true)
}

/// Waits for the runner's death. Whether the engine is there then comes back, too.
async fn watch(plan: &mut Plan, run: &Run, container: &Container) -> (Exit, bool) {
    let (over, is_over) = watch::channel(false);
    let (death, is_read, is_out_of_memory) = {
        let watch = Watch::new(container, run);
        let mut reading = std::pin::pin!(plan.logs.follow(container, is_over));
        let mut is_read = false;
        let mut dying = std::pin::pin!(watch.until_dead());
        let death = loop {
            tokio::select! {
                death = &mut dying => break death,
                () = &mut reading, if !is_read => is_read = true,
            }
        };
        over.send_replace(true);
        // What ended with the engine cannot be read from it.
        if !is_read && death != Death::WithEngine {
            is_read = tokio::time::timeout(LAST_WORDS, reading).await.is_ok();
        }
        (death, is_read, watch.is_out_of_memory())
    };
    if !is_read && death != Death::WithEngine {
        tracing::warn!(
            container = container.key(),
            "a runner wrote more than could be read: some of it is lost"
        );
        match tokio::time::timeout(LAST_WORDS, plan.logs.skip_to_end(container)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(trouble)) => {
                tracing::debug!(container = container.key(), %trouble, "a runner's last words are lost");
            }
        }
    }
    let memory = Memory { limit: plan.options.memory, is_out: is_out_of_memory };
    let (cause, is_there) = cause(run, container, death, memory).await;
    (Exit { cause, log_tail: plan.logs.tail() }, is_there)
}

/// What is known of a dead container's memory.
#[derive(Clone, Copy)]
struct Memory {
    /// The most bytes that it may have.
    limit: Option<u64>,
    /// Whether the kernel killed for want of it, where it could be asked.
    is_out: Option<bool>,
}

/// Why the container ended, and whether the engine is there.
async fn cause(run: &Run, container: &Container, death: Death, memory: Memory) -> (ExitCause, bool) {
    let was_asked = run.desired() != Desired::Run;
    let out_of_memory = ExitCause::OutOfMemory { limit: memory.limit };
    // Asked first: the sooner, the more certain it is that an engine that ends does not answer.
    let is_there = match death {
        Death::WithEngine => {
            return (ExitCause::EngineStopped, container.engine().answers(engine_liveness::PROMPT).await);
        }
        Death::Told(_) | Death::Found | Death::Removed => {
            engine_liveness::is_there(container, engine_liveness::PROMPT, engine_liveness::SLOW).await
        }
    };
    let told = match death {
        Death::Removed => {
            tracing::warn!(container = container.key(), "another removed a runner's container");
            None
        }
        // The kernel told; a busy engine may take its time to hear of it.
        Death::Found => match tokio::time::timeout(EXIT_CODE_TIMEOUT, container.wait()).await {
            Ok(Ok(code)) => Some(code),
            Ok(Err(_)) | Err(_) => None,
        },
        Death::Told(code) => Some(code),
        Death::WithEngine => None,
    };
    if !is_there {
        return match told {
            // An engine is slow, too, on a machine without memory.
            Some(_) | None if memory.is_out == Some(true) && !was_asked => (out_of_memory, false),
            Some(code) if was_asked => (ExitCause::of_container(code), false),
            Some(_) | None => (ExitCause::EngineStopped, false),
        };
    }
    // Looked at even if the code is known: this tells of memory, too.
    let seen = container.inspect().await.ok().flatten();
    // Of one that it believes to run, the engine gives the code 0.
    let last = seen.as_ref().filter(|seen| !seen.is_running).and_then(|seen| seen.code);
    let code = told.or(last);
    let is_out_of_memory = code != Some(0)
        && match memory.is_out {
            _ if seen.as_ref().is_some_and(|seen| seen.is_out_of_memory) => true,
            Some(is_out) => is_out,
            None => memory.limit.is_some() && !was_asked && container.was_out_of_memory().await,
        };
    let cause = match code {
        _ if is_out_of_memory => out_of_memory,
        Some(code) => ExitCause::of_container(code),
        None => ExitCause::Unknown,
    };
    (cause, true)
}

/// Removes the dead container, or leaves it for inspection until the next launch, which
/// removes what is not removed here.
async fn release(plan: &Plan, container: &Container) {
    // One that another started again is not dead, whatever is to become of it.
    if !plan.options.autoremove && matches!(container.inspect().await, Ok(Some(seen)) if !seen.is_running) {
        return;
    }
    let removing = async {
        let mut backoff = Backoff::new();
        while let Err(trouble) = sweep::remove(container).await {
            tracing::debug!(container = container.key(), %trouble, "a container is not removed yet");
            backoff.pause().await;
        }
    };
    if tokio::time::timeout(CLEANUP_TIMEOUT, removing).await.is_err() {
        tracing::warn!(container = container.key(), "a container stays behind until the next launch");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::fixtures::{self, Answer};

    const GONE: Answer = Answer::Json(404, "{\"message\":\"No such container\"}");

    /// What is asked to dispose of a container that is made once it was looked for so often.
    async fn disposal(left: Left, looks: usize) -> Vec<String> {
        let mut asked = Vec::new();
        let answer = |request: &str| {
            let method = request.split(' ').next().unwrap_or_default();
            if request != "ping" {
                asked.push(method.to_owned());
            }
            let is_there = asked.len() > looks;
            match method {
                "ping" => Answer::Json(200, ""),
                _ if !is_there => GONE,
                "GET" => Answer::Json(200, "{\"State\":{\"Running\":false}}"),
                _ => Answer::Json(204, ""),
            }
        };
        fixtures::with_fake(answer, async |engine| {
            dispose(&Container::known(&engine, "c".to_owned()), left).await;
        })
        .await;
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_lost_engine_makes_late_is_removed() {
        assert_eq!(disposal(Left::Asked, 2).await, ["GET", "GET", "GET", "DELETE"]);
        assert_eq!(disposal(Left::Asked, usize::MAX).await.len(), 7, "it is not looked for without end");
        assert_eq!(disposal(Left::Made, usize::MAX).await, ["DELETE"]);
        assert_eq!(disposal(Left::Started, 0).await, ["DELETE"]);
        assert!(disposal(Left::Nothing, 0).await.is_empty());
    }
}
