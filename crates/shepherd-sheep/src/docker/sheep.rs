//! The sheep itself: launches and sweeps, one at a time.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shepherd_job::ModelRef;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tracing::instrument::WithSubscriber as _;

use super::activity::Activity;
use super::engine::Engine;
use super::logs::{Logs, SharedPrinted};
use super::monitor::{self, Plan};
use super::run::{Desired, Ending, Handle, Run};
use super::spec::{self, Us};
use super::sweep::{self, Unswept};
use super::{DockerOptions, reclaim};
use crate::endpoint::{Endpoint, Trust, make_home};
use crate::lines::AtWork;
use crate::{RunningSheep, Sheep, SheepError, Transport};

/// How long a launch waits for an earlier runner that was killed. It goes at once where the
/// engine obeys.
const EARLIER_RUNNER_TIMEOUT: Duration = Duration::from_secs(20);

type Runs = Vec<Arc<Run>>;

/// A sheep whose runners are containers.
pub struct DockerSheep {
    options: Arc<DockerOptions>,
    engine: Engine,
    activity: Activity,
    /// The runs that have not ended, of which at most one has not vacated its place. Their
    /// lock makes launches and sweeps take turns.
    runs: Arc<Mutex<Runs>>,
    /// Whether it was said that other users' directories stay.
    warned_foreign: AtomicBool,
}

impl DockerSheep {
    /// A sheep without a runner. Nothing is asked of the engine before
    /// [`sweep`](Sheep::sweep) or [`launch`](Sheep::launch).
    pub fn new(mut options: DockerOptions, engine: Engine) -> Self {
        // The engine has another working directory.
        if let Ok(absolute) = std::path::absolute(&options.data_root) {
            options.data_root = absolute;
        }
        Self {
            options: Arc::new(options),
            engine,
            activity: Activity::default(),
            runs: Arc::default(),
            warned_foreign: AtomicBool::new(false),
        }
    }

    /// Waits until no run is in its place, and keeps others from beginning one.
    async fn vacant(&self) -> Result<OwnedMutexGuard<Runs>, SheepError> {
        let mut runs = Arc::clone(&self.runs).lock_owned().await;
        runs.retain(|run| !run.has_ended());
        if let Some(run) = runs.iter().find(|run| !run.is_vacated()).cloned() {
            let id = &self.options.id;
            if run.desired() != Desired::Kill {
                return Err(SheepError::Unavailable(format!("the runner of sheep `{id}` is still running")));
            }
            if tokio::time::timeout(EARLIER_RUNNER_TIMEOUT, run.vacated()).await.is_err() {
                return Err(self.stays());
            }
            runs.retain(|run| !run.has_ended());
        }
        Ok(runs)
    }

    /// Waits until nothing of any run is left, and keeps others from beginning one.
    async fn alone(&self) -> Result<OwnedMutexGuard<Runs>, SheepError> {
        let all = async {
            let runs = self.vacant().await?;
            for run in runs.iter() {
                run.ended().await;
            }
            Ok(runs)
        };
        tokio::time::timeout(EARLIER_RUNNER_TIMEOUT, all).await.unwrap_or_else(|_| Err(self.stays()))
    }

    fn stays(&self) -> SheepError {
        SheepError::Unavailable(format!(
            "the killed runner of sheep `{}` does not end: its engine has not removed it",
            self.options.id
        ))
    }

    /// Makes the place where the runner listens. A stranger that holds the port is left
    /// alone, and named.
    async fn endpoint(&self, run: &str) -> Result<Endpoint, SheepError> {
        let options = &self.options;
        make_home(&options.data_root, Trust::Untrusted)?;
        match options.transport {
            Transport::Ipc => Endpoint::ipc(&options.data_root, Trust::Untrusted, run),
            Transport::Tcp => match Endpoint::tcp(Ipv4Addr::LOCALHOST, options.port) {
                Err(SheepError::Unavailable(_)) => Err(sweep::port_in_use(&self.engine, options.port).await),
                outcome => outcome,
            },
        }
    }
}

#[async_trait]
impl Sheep for DockerSheep {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn is_isolated(&self) -> bool {
        true
    }

    fn lacks(&self, model: &ModelRef) -> Option<String> {
        let patterns = self.options.models.as_ref()?;
        if patterns.iter().any(|pattern| pattern.matches(model)) {
            return None;
        }
        let patterns: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
        Some(format!("runs only models that match {}", patterns.join(", ")))
    }

    fn activity(&self) -> Option<String> {
        self.activity.get()
    }

    async fn check(&self) -> Result<(), SheepError> {
        self.engine.answer().await.map_err(|trouble| self.engine.unavailable(&trouble))
    }

    /// An engine that is away now is no error: what is left behind there is swept before
    /// the next launch.
    async fn sweep(&self) -> Result<(), SheepError> {
        let _runs = self.alone().await?;
        match sweep::sweep(&self.engine, &self.options, &[]).await {
            Ok(()) => Ok(()),
            Err(Unswept::Away(trouble)) => {
                let error = self.engine.unavailable(&trouble);
                tracing::warn!(sheep = %self.options.id, %error, "containers of an earlier life are looked for later");
                Ok(())
            }
            Err(Unswept::Remains(error)) => Err(error),
        }
    }

    async fn reclaim(&self, dir: &Path, names: &[OsString]) -> bool {
        if Us::effective().uid == 0 {
            return false;
        }
        // A launch, which does not wait for this, leaves the container alone.
        let name = uuid::Uuid::now_v7().simple().to_string();
        let container = spec::name(&self.engine.options().instance, self.options.id.as_str(), &name);
        let run = Arc::new(Run::aside(container));
        self.runs.lock().await.push(Arc::clone(&run));
        let _ending = Ending(&run);
        match reclaim::directories(&self.engine, &self.options, run.container(), dir, names).await {
            Ok(changed) => changed,
            Err(trouble) => {
                let (sheep, dir) = (&self.options.id, dir.display());
                let why = "other users' directories cannot be had back from the engine, and stay";
                if self.warned_foreign.swap(true, Ordering::Relaxed) {
                    tracing::debug!(%sheep, %dir, %trouble, "{why}");
                } else {
                    tracing::warn!(%sheep, %dir, %trouble, "{why}");
                }
                false
            }
        }
    }

    async fn settled(&self) {
        if let Err(error) = self.alone().await {
            tracing::warn!(sheep = %self.options.id, %error, "left to the next start of the shepherd");
        }
    }

    async fn launch(&self, model: &ModelRef) -> Result<Box<dyn RunningSheep>, SheepError> {
        // An engine that is away is the better answer than a runner that it does not end.
        self.engine.reached().await.map_err(|trouble| self.engine.unavailable(&trouble))?;
        let shown = Shown(&self.activity);
        shown.say("waiting for the earlier runner to end");
        let mut runs = self.vacant().await?;
        shown.say("starting a container");
        let in_care: Vec<String> = runs.iter().map(|run| run.container().to_owned()).collect();
        sweep::sweep(&self.engine, &self.options, &in_care).await.map_err(|unswept| match unswept {
            Unswept::Away(trouble) => self.engine.unavailable(&trouble),
            Unswept::Remains(error) => error,
        })?;
        let image = self.engine.images().obtain(model, self.options.pull, &self.activity).await?;
        shown.say("starting a container");
        let name = uuid::Uuid::now_v7().simple().to_string();
        let endpoint = self.endpoint(&name).await?;
        let printed = SharedPrinted::default();
        let at_work = AtWork::default();
        let logs = Logs::open(&self.options, Arc::clone(&printed), &at_work)?;
        let container = spec::name(&self.engine.options().instance, self.options.id.as_str(), &name);
        let run = Arc::new(Run::new(container, self.options.transport == Transport::Ipc));
        // Made before the task: when this future is dropped, it wishes the run dead.
        let mut handle = Handle::new(Arc::clone(&run), self.options.data_root.clone(), printed, at_work);
        let plan = Plan {
            engine: self.engine.clone(),
            options: Arc::clone(&self.options),
            model: model.clone(),
            name,
            image,
            endpoint,
            logs,
        };
        let (started, outcome) = oneshot::channel();
        runs.push(Arc::clone(&run));
        drop(runs);
        // Nobody holds this task: it goes on when nobody waits for it, and ends when nothing
        // of the run is left. Every way out of it ends the run, which is all that is awaited.
        tokio::spawn(monitor::mind(plan, run, started).with_current_subscriber());
        let broke = || SheepError::Unavailable("the launch of the runner broke off".to_owned());
        handle.endpoint = outcome.await.map_err(|_| broke())??;
        Ok(Box::new(handle))
    }
}

/// What a launch is busy with, until it ends or is dropped.
struct Shown<'a>(&'a Activity);

impl Shown<'_> {
    fn say(&self, phrase: &str) {
        self.0.set(Some(phrase.to_owned()));
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}
