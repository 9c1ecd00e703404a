//! One container, and what the engine can be asked about it. Every request has a time
//! limit; one that names what is gone already has come to its end.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt as _;

use super::engine::{Engine, Trouble};

/// For what the engine looks up.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For what it tells the container's processes.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(10);
/// For making one, which may mean copying an image's volumes; and for removing one.
const MAKE: Duration = Duration::from_secs(60);
/// For hearing of what happened already.
const RECENT_EVENT_TIMEOUT: Duration = Duration::from_secs(1);
/// For starting one: drivers of GPUs take their time.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A container that may be there.
#[derive(Clone)]
pub(super) struct Container {
    engine: Engine,
    /// Its name until its id is known: a name can be given to another.
    key: String,
}

/// What an inspection shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether its processes are there, be they paused.
    pub(super) is_running: bool,
    pub(super) is_paused: bool,
    /// Its first process, as the engine's machine numbers it.
    pub(super) pid: Option<i32>,
    pub(super) code: Option<i64>,
    /// Whether something in it was killed for want of memory.
    pub(super) is_out_of_memory: bool,
}

/// Asks, and hears within a time.
async fn ask<T>(
    engine: &Engine,
    limit: Duration,
    request: impl AsyncFnOnce(&Docker) -> Result<T, Error>,
) -> Result<T, Trouble> {
    let asking = async { Ok(request(engine.reached().await?).await?) };
    match tokio::time::timeout(limit, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(Trouble::Late(format!("it did not answer within {limit:?}"))),
    }
}

/// Containers that carry these labels, or all; stopped ones too, or only running ones.
pub(super) async fn list(
    engine: &Engine,
    labels: &[(&str, &str)],
    all: bool,
) -> Result<Vec<ContainerSummary>, Trouble> {
    let filters = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    let mut options = ListContainersOptionsBuilder::default().all(all);
    if !filters.is_empty() {
        options = options.filters(&HashMap::from([("label", filters)]));
    }
    ask(engine, INSPECT_TIMEOUT, async |docker| docker.list_containers(Some(options.build())).await).await
}

impl Container {
    /// One that is known by its name or its id.
    pub(super) fn known(engine: &Engine, key: String) -> Self {
        Self { engine: engine.clone(), key }
    }

    /// Its id, once it has one that was heard of.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Makes it, under its name.
    pub(super) async fn create(&mut self, body: ContainerCreateBody) -> Result<(), Trouble> {
        let options = CreateContainerOptionsBuilder::default().name(&self.key).build();
        let create = async |docker: &Docker| docker.create_container(Some(options), body).await;
        let made = ask(&self.engine, MAKE, create).await?;
        for warning in made.warnings.iter().filter(|warning| !warning.is_empty()) {
            tracing::warn!(
                container = self.key,
                warning,
                "the engine made a container otherwise than it was asked to"
            );
        }
        self.key = made.id;
        Ok(())
    }

    pub(super) async fn start(&self) -> Result<(), Trouble> {
        ask(&self.engine, START_TIMEOUT, async |docker| docker.start_container(&self.key, None).await).await
    }

    /// What there is of it, if it is there.
    pub(super) async fn inspect(&self) -> Result<Option<Seen>, Trouble> {
        let inspect = async |docker: &Docker| docker.inspect_container(&self.key, None).await;
        let seen = match ask(&self.engine, INSPECT_TIMEOUT, inspect).await {
            Ok(seen) => seen,
            Err(trouble) if trouble.is_status(404) => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let Some(state) = seen.state else {
            return Err(Trouble::Garbled("a container without a state".to_owned()));
        };
        Ok(Some(Seen {
            is_running: state.running.unwrap_or_default(),
            is_paused: state.paused.unwrap_or_default(),
            pid: state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
            code: state.exit_code,
            is_out_of_memory: state.oom_killed.unwrap_or_default(),
        }))
    }

    /// Sends its first process a signal; none where it does not run.
    pub(super) async fn signal(&self, signal: &str) -> Result<(), Trouble> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        let told = ask(&self.engine, SIGNAL_TIMEOUT, async |docker| {
            docker.kill_container(&self.key, Some(options)).await
        });
        match told.await {
            Err(trouble) if trouble.is_status(404) || trouble.is_status(409) => Ok(()),
            answer => answer,
        }
    }

    pub(super) async fn unpause(&self) -> Result<(), Trouble> {
        ask(&self.engine, SIGNAL_TIMEOUT, async |docker| docker.unpause_container(&self.key).await).await
    }

    /// Kills its processes, paused or not; they may take a moment to go.
    pub(super) async fn kill(&self) -> Result<(), Trouble> {
        self.signal("SIGKILL").await?;
        // One that is paused dies when it goes on, on some kernels and engines.
        if self.inspect().await?.is_some_and(|seen| seen.is_paused) {
            self.unpause().await?;
        }
        Ok(())
    }

    /// Kills and removes it, with the volumes that were made for it.
    ///
    /// # Errors
    /// With status 409, another is about to remove it.
    pub(super) async fn remove(&self) -> Result<(), Trouble> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed =
            ask(&self.engine, MAKE, async |docker| docker.remove_container(&self.key, Some(options)).await);
        match removed.await {
            Err(trouble) if trouble.is_status(404) => Ok(()),
            answer => answer,
        }
    }

    /// Waits until it does not run; the code that its first process ended with. Has no
    /// time limit once the engine began to answer.
    pub(super) async fn wait(&self) -> Result<i64, Trouble> {
        let docker = self.engine.reached().await?;
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut waiting = Box::pin(docker.wait_container(&self.key, Some(options)));
        match waiting.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(error.into()),
            None => Err(Trouble::Lost("it closed the connection without a word".to_owned())),
        }
    }

    /// Whether the engine says that something in it was killed for want of memory. It may say
    /// so a little after it says that the container ended; it is listened to for a while.
    pub(super) async fn was_out_of_memory(&self) -> bool {
        let Ok(docker) = self.engine.reached().await else { return false };
        let filters = HashMap::from([("container", vec![self.key.as_str()]), ("event", vec!["oom"])]);
        // From the beginning: the engine keeps its latest events for those who ask later.
        let options = EventsOptionsBuilder::default().since("1").filters(&filters).build();
        let mut events = Box::pin(docker.events(Some(options)));
        matches!(tokio::time::timeout(RECENT_EVENT_TIMEOUT, events.next()).await, Ok(Some(Ok(_))))
    }
}
