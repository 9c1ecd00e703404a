//! One run of a runner, shared by the thread that minds it and the handle that
//! the shepherd holds.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use super::output::Output;
use crate::{Exit, RunningSheep};

/// What both sides know of a run.
#[derive(Default)]
pub(super) struct Run {
    target: Mutex<Target>,
    exit: watch::Sender<Option<Exit>>,
    /// From the runner's start on.
    output: Mutex<Option<Output>>,
}

#[derive(Default)]
struct Target {
    /// The leader of the runner's group, from after its fork until before it is
    /// reaped: a signal sent under the lock never meets another process.
    leader: Option<Pid>,
    /// Whether it is to die as soon as it can.
    doomed: bool,
}

impl Run {
    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The minder forked the runner.
    pub(super) fn born(&self, leader: Pid, output: Output) {
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        let mut target = self.target();
        target.leader = Some(leader);
        if target.doomed {
            signal(leader, Signal::KILL);
        }
    }

    /// Does something with what the runner writes, once there is a runner.
    pub(super) fn with_output<T>(&self, work: impl FnOnce(&mut Output) -> T) -> Option<T> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    /// The minder is about to reap the runner.
    pub(super) fn dead(&self) {
        self.target().leader = None;
    }

    /// Nothing of the run is left.
    pub(super) fn end(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    pub(super) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await;
        // The sender is a field of `self`: it is not dropped meanwhile.
        exit.map_or_else(|_| Exit::unknown(), |exit| exit.clone().unwrap_or_else(Exit::unknown))
    }

    pub(super) fn doom(&self) {
        let mut target = self.target();
        target.doomed = true;
        if let Some(leader) = target.leader {
            signal(leader, Signal::KILL);
        }
    }

    pub(super) fn is_doomed(&self) -> bool {
        self.target().doomed
    }

    fn ask_to_end(&self) {
        if let Some(leader) = self.target().leader {
            signal(leader, Signal::TERM);
            // A stopped process acts on the first signal only once it continues.
            signal(leader, Signal::CONT);
        }
    }
}

fn signal(leader: Pid, signal: Signal) {
    // The unreaped leader keeps its group in being; only a runner that changed its
    // user can refuse, and the minder then finds it alive and says so.
    let _ = rustix::process::kill_process_group(leader, signal);
}

/// The shepherd's side of a run.
pub(super) struct Handle {
    run: std::sync::Arc<Run>,
    pub(super) endpoint: String,
    data_root: PathBuf,
}

impl Handle {
    pub(super) fn new(run: std::sync::Arc<Run>, data_root: PathBuf) -> Self {
        Self { run, endpoint: String::new(), data_root }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.run.doom();
    }
}

#[async_trait]
impl RunningSheep for Handle {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn io_data_root(&self) -> &Path {
        &self.data_root
    }

    async fn exited(&mut self) -> Exit {
        self.run.ended().await
    }

    fn printed(&mut self) -> String {
        self.run.with_output(Output::printed).unwrap_or_default()
    }

    async fn stop(&mut self, grace: Duration) -> Exit {
        self.run.ask_to_end();
        if let Ok(exit) = tokio::time::timeout(grace, self.run.ended()).await {
            return exit;
        }
        self.run.doom();
        self.run.ended().await
    }

    fn kill(&mut self) {
        self.run.doom();
    }
}
