//! One run of a runner, shared by the task that minds it and the handle that the
//! shepherd holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use shepherd_job::JobId;
use tokio::sync::watch;

use super::logs::SharedPrinted;
use crate::lines::AtWork;
use crate::token::Token;
use crate::{Exit, RunningSheep};

/// Through the engine and its record a line takes 0.6 ms, and 1 ms on a busy machine.
const PRINT_DELAY: Duration = Duration::from_millis(10);

/// What the shepherd wants of a runner. It only ever goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Desired {
    /// To run.
    #[default]
    Run,
    /// To stop by itself.
    Stop,
    /// To be killed.
    Kill,
}

/// What both sides know of a run.
///
/// It is over in two steps: first another may take its place, and then, when its container
/// was seen to as well, nothing of it is left.
#[derive(Debug, Default)]
pub(super) struct Run {
    container: String,
    /// The secret of the launch.
    pub(super) token: Token,
    /// Whether nothing but its processes is in another's way: the engine holds nothing for
    /// the container, such as a port.
    is_free_at_death: bool,
    desired: watch::Sender<Desired>,
    is_vacated: watch::Sender<bool>,
    exit: watch::Sender<Option<Exit>>,
}

impl Run {
    /// One in the container of this name.
    pub(super) fn new(container: String, is_free_at_death: bool) -> Self {
        Self { container, is_free_at_death, ..Self::default() }
    }

    /// One that has no runner, and is in nobody's way.
    pub(super) fn aside(container: String) -> Self {
        let run = Self { container, ..Self::default() };
        run.is_vacated.send_replace(true);
        run
    }

    /// Its container's name.
    pub(super) fn container(&self) -> &str {
        &self.container
    }

    pub(super) fn want(&self, desired: Desired) {
        self.desired.send_if_modified(|now| {
            let is_new = desired > *now;
            *now = desired.max(*now);
            is_new
        });
    }

    pub(super) fn desired(&self) -> Desired {
        *self.desired.borrow()
    }

    /// Resolves once at least this is wanted.
    pub(super) async fn wanted(&self, desired: Desired) {
        // The sender is a field of `self`: it is not dropped meanwhile.
        let _ = self.desired.subscribe().wait_for(|now| *now >= desired).await;
    }

    /// The kernel says that all its processes are gone.
    pub(super) fn died(&self) {
        if self.is_free_at_death {
            self.is_vacated.send_replace(true);
        }
    }

    pub(super) fn is_vacated(&self) -> bool {
        *self.is_vacated.borrow()
    }

    /// Resolves once another may take its place.
    pub(super) async fn vacated(&self) {
        // As above.
        let _ = self.is_vacated.subscribe().wait_for(|is_vacated| *is_vacated).await;
    }

    /// Nothing of the run is left.
    pub(super) fn end(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
        self.is_vacated.send_replace(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    pub(super) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await;
        exit.map_or_else(|_| Exit::unknown(), |exit| exit.clone().unwrap_or_else(Exit::unknown))
    }
}

/// Ends the run on every way out of a task, also where that is a panic or the end of
/// the program's runtime. A container that is left is found by its labels.
pub(super) struct Ending<'a>(pub(super) &'a Run);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.end(Exit::unknown());
        }
    }
}

/// The shepherd's side of a run.
pub(super) struct Handle {
    run: Arc<Run>,
    pub(super) endpoint: String,
    data_root: PathBuf,
    printed: SharedPrinted,
    at_work: AtWork,
}

impl Handle {
    pub(super) fn new(run: Arc<Run>, data_root: PathBuf, printed: SharedPrinted, at_work: AtWork) -> Self {
        Self { run, endpoint: String::new(), data_root, printed, at_work }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The dead need not be killed.
        if !self.run.is_vacated() {
            self.run.want(Desired::Kill);
        }
    }
}

#[async_trait]
impl RunningSheep for Handle {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn token(&self) -> Option<&str> {
        Some(self.run.token.as_str())
    }

    fn io_data_root(&self) -> &Path {
        &self.data_root
    }

    async fn exited(&mut self) -> Exit {
        self.run.ended().await
    }

    fn printed(&mut self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn print_delay(&self) -> Duration {
        PRINT_DELAY
    }

    fn works_on(&self, job: Option<&JobId>) {
        self.at_work.set(job.cloned());
    }

    async fn stop(&mut self, grace: Duration) -> Exit {
        self.run.want(Desired::Stop);
        if let Ok(exit) = tokio::time::timeout(grace, self.run.ended()).await {
            return exit;
        }
        self.run.want(Desired::Kill);
        self.run.ended().await
    }

    async fn vacate(&mut self, grace: Duration) {
        self.run.want(Desired::Stop);
        if tokio::time::timeout(grace, self.run.vacated()).await.is_err() {
            self.run.want(Desired::Kill);
            self.run.vacated().await;
        }
    }

    fn kill(&mut self) {
        self.run.want(Desired::Kill);
    }
}
