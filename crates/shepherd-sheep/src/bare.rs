//! Runners as plain processes of this machine.
//!
//! ```text
//! launch ──▶ monitor thread: model there? earlier run gone? endpoint free?
//!                 │          record ─▶ fork, exec ─▶ record with the process id
//!                 ▼
//!            watches the process and its output ◀── signals from the RunningSheep
//!                 │ death
//!                 ▼
//!            ends the rest of the tree ─▶ removes the record ─▶ reaps ─▶ Exit
//! ```
//!
//! Nothing that a runner started outlives it, whichever dies first:
//!
//! - **The runner** is the leader of a session of its own, and its monitor is the
//!   thread that forked it: the parent-death signal comes when that *thread* ends,
//!   so the thread lives exactly as long as the process. The daemon's end, however
//!   sudden, is the runner's too.
//! - **Its descendants** are found by session, group, parentage and a random mark
//!   in their environment (`SHEPHERD_SHEEP_RUN`), which those that daemonized carry
//!   too. The dead leader is not reaped before they are gone, so that its id cannot
//!   come to mean another process. One that left the session, lost its parent *and*
//!   cleared its environment is in the run's own control group ([`group`]), where the
//!   daemon may make one, and out of reach where it may not.
//! - **Descendants that outlive a killed daemon** are found at the next
//!   [`sweep`](crate::Sheep::sweep) or launch through the record of the run, which
//!   was on disk before the fork. Only what carries the mark, or is the very process
//!   recorded (same boot, id and start time), or descends from such is ended.
//!
//! The runner's environment is the daemon's without the configuration's own
//! variables (`SHEPHERD__...`, which may hold secrets) and those withheld by
//! option, then the options' variables, then `CUDA_VISIBLE_DEVICES`,
//! `SHEPHERD_LISTEN`, `SHEPHERD_TOKEN`, `SHEPHERD_SHEEP`, `SHEPHERD_MODEL` and
//! `SHEPHERD_SHEEP_RUN`. It inherits no descriptor but the standard three.
//!
//! # Who listens at a port
//! Over ipc, the runner's socket lies in a directory that only the daemon's user can write to,
//! and only that user can connect to it. A port of the loopback interface is open to every
//! user of the machine, who may connect to it, or listen there before the runner does. So:
//!
//! - A port that somebody listens at is not used for a launch.
//! - Each launch has a random token, which the runner finds in its environment, where only its
//!   own user and root can read it. Runners of this version and their shepherd prove to each
//!   other that they know it; see `shepherd-protocol`.
//! - Whoever proves nothing, as runners that were made before there were tokens, must be one of
//!   the run's processes: the process that has the other end of the connection open.
//!   Such a runner itself takes jobs from whoever connects to it first.

mod command;
mod endpoint;
mod group;
mod monitor;
mod output;
mod process;
mod record;
mod run;
mod sockets;
mod spawn;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shepherd_job::{ModelRef, SheepId};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use crate::{RunningSheep, Sheep, SheepError};
use record::RecordFile;
use run::{Handle, Run};
pub(crate) use spawn::between_forks;

/// How long killed processes may take to go. Tearing down a large process takes
/// part of a second; only one that hangs in a driver takes longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How the shepherd reaches the runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// A socket file in the sheep's directory.
    #[default]
    Ipc,
    /// The sheep's port on the loopback interface.
    Tcp,
}

/// How a bare sheep runs its runners. Relative paths are relative to the daemon's
/// working directory.
#[derive(Clone)]
pub struct BareOptions {
    /// The sheep's name.
    pub id: SheepId,
    /// Where runners run, and below which `NAME/VERSION/config.yaml` lies.
    pub working_directory: PathBuf,
    /// The sheep's own directory, below which jobs' directories lie.
    pub data_root: PathBuf,
    /// Where the record of a run is kept, as `sheep/ID.json`. It must survive a
    /// restart of the daemon.
    pub state_dir: PathBuf,
    /// The port given to the runner as `-p`; not 0 when the transport is TCP.
    pub port: u16,
    /// How the runner is reached.
    pub transport: Transport,
    /// Devices of the runner; of them `/dev/nvidiaN` counts, as a visible GPU.
    pub devices: Vec<String>,
    /// The file that standard output is appended to, in place of the daemon's log.
    pub stdout_file: Option<PathBuf>,
    /// The file that standard error is appended to, in place of the daemon's log.
    pub stderr_file: Option<PathBuf>,
    /// The program and its first arguments. A name without a slash is looked for beside the
    /// daemon's binary and then on `PATH`; with [`Transport::Tcp`], which runners of the first
    /// shepherd know too, on `PATH` first, as they are. A relative path with a slash is found
    /// as one typed in `working_directory`.
    pub runner_command: Vec<String>,
    /// Variables to set in the runner's environment.
    pub env: Vec<(String, String)>,
    /// Names of the daemon's variables that runners must not see, such as those
    /// that secrets in its configuration came from.
    pub withheld_env: Vec<String>,
}

impl BareOptions {
    /// Options with the defaults: `shepherd-runner` over ipc, no GPU, output to the
    /// daemon's log, port 9999 (the runner's own default), and the record beside the
    /// sheep's directory in `state`.
    pub fn new(id: SheepId, working_directory: PathBuf, data_root: PathBuf) -> Self {
        Self {
            id,
            working_directory,
            state_dir: data_root.with_file_name("state"),
            data_root,
            port: 9999,
            transport: Transport::default(),
            devices: Vec::new(),
            stdout_file: None,
            stderr_file: None,
            runner_command: vec!["shepherd-runner".to_owned()],
            env: Vec::new(),
            withheld_env: Vec::new(),
        }
    }

    /// Checks that the program of [`runner_command`](Self::runner_command) is there.
    ///
    /// # Errors
    /// [`SheepError::Misconfigured`] with what was looked for, and where.
    pub fn check_program(&self) -> Result<(), SheepError> {
        command::check_program(self)
    }
}

/// A sheep whose runners are processes of this machine.
pub struct BareSheep {
    options: Arc<BareOptions>,
    /// The latest run. Its lock makes launches and sweeps take turns.
    latest: Arc<Mutex<Option<Arc<Run>>>>,
}

impl BareSheep {
    /// A sheep without a runner. Nothing is touched before
    /// [`sweep`](Sheep::sweep) or [`launch`](Sheep::launch).
    pub fn new(mut options: BareOptions) -> Self {
        // The runner has another working directory; the path it is told must hold there.
        if let Ok(absolute) = std::path::absolute(&options.data_root) {
            options.data_root = absolute;
        }
        Self { options: Arc::new(options), latest: Arc::default() }
    }

    /// Waits until no run is left, and keeps others from beginning one.
    async fn vacant(&self) -> Result<OwnedMutexGuard<Option<Arc<Run>>>, SheepError> {
        let latest = Arc::clone(&self.latest).lock_owned().await;
        if let Some(run) = &*latest
            && !run.has_ended()
        {
            let id = &self.options.id;
            if !run.is_doomed() {
                return Err(SheepError::Unavailable(format!("the runner of sheep `{id}` is still running")));
            }
            // The run itself waits KILL_TIMEOUT for its descendants once its leader is dead.
            if tokio::time::timeout(2 * KILL_TIMEOUT, run.ended()).await.is_err() {
                return Err(SheepError::Unavailable(format!(
                    "the killed runner of sheep `{id}` does not end"
                )));
            }
        }
        Ok(latest)
    }
}

#[async_trait]
impl Sheep for BareSheep {
    fn kind(&self) -> &'static str {
        "bare"
    }

    fn lacks(&self, model: &ModelRef) -> Option<String> {
        match command::check_model(&self.options, model) {
            Err(SheepError::Model(_)) => {
                Some(format!("has no file `{}`", command::config_path(model).display()))
            }
            // It may have the model; what is wrong is told when it is to run it.
            Ok(()) | Err(SheepError::Misconfigured(_) | SheepError::Unavailable(_)) => None,
        }
    }

    async fn check(&self) -> Result<(), SheepError> {
        let options = Arc::clone(&self.options);
        let checked = tokio::task::spawn_blocking(move || command::check(&options));
        checked.await.unwrap_or_else(|e| Err(SheepError::Unavailable(format!("the check broke off: {e}"))))
    }

    fn model_stamp(&self, model: &ModelRef) -> Option<u64> {
        command::model_stamp(&self.options, model)
    }

    async fn sweep(&self) -> Result<(), SheepError> {
        let vacant = self.vacant().await?;
        let options = Arc::clone(&self.options);
        let swept = tokio::task::spawn_blocking(move || {
            let swept = RecordFile::of(&options).sweep();
            // Held to here: a sweep that nobody waits for must not meet a launch.
            drop(vacant);
            swept
        });
        swept.await.unwrap_or_else(|e| Err(SheepError::Unavailable(format!("the sweep broke off: {e}"))))
    }

    async fn settled(&self) {
        // What does not end now does with the program: its parent's death is its own.
        let _ = self.vacant().await;
    }

    async fn launch(&self, model: &ModelRef) -> Result<Box<dyn RunningSheep>, SheepError> {
        let mut latest = self.vacant().await?;
        let run = Arc::new(Run::default());
        // Made before the thread: when this future is dropped, it dooms the run.
        let mut handle = Handle::new(Arc::clone(&run), Arc::clone(&self.options));
        let (started, outcome) = oneshot::channel();
        let (options, model, its_run) = (Arc::clone(&self.options), model.clone(), Arc::clone(&run));
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::Builder::new()
            .name("sheep".to_owned())
            .spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || {
                    monitor::mind(&options, &model, &its_run, started);
                });
            })
            .map_err(|e| SheepError::Unavailable(format!("cannot start a thread for the runner: {e}")))?;
        *latest = Some(run);
        drop(latest);
        let broke = || SheepError::Unavailable("the launch of the runner broke off".to_owned());
        handle.endpoint = outcome.await.map_err(|_| broke())??;
        Ok(Box::new(handle))
    }
}
