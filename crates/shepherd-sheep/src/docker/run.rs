//! One run of a runner, shared by the task that minds it and the handle that the
//! shepherd holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Exit, RunningSheep};

/// What the shepherd wants of a runner. It only ever goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// To live.
    #[default]
    Life,
    /// To end by itself.
    End,
    /// To be dead.
    Death,
}

/// What both sides know of a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    wish: watch::Sender<Wish>,
    exit: watch::Sender<Option<Exit>>,
}

impl Run {
    pub(super) fn want(&self, wish: Wish) {
        self.wish.send_if_modified(|now| {
            let is_new = wish > *now;
            *now = wish.max(*now);
            is_new
        });
    }

    pub(super) fn wish(&self) -> Wish {
        *self.wish.borrow()
    }

    /// Resolves once at least this is wanted.
    pub(super) async fn wanted(&self, wish: Wish) {
        // The sender is a field of `self`: it is not dropped meanwhile.
        let _ = self.wish.subscribe().wait_for(|now| *now >= wish).await;
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
        exit.map_or_else(|_| Exit::unknown(), |exit| exit.clone().unwrap_or_else(Exit::unknown))
    }
}

/// The shepherd's side of a run.
pub(super) struct Handle {
    run: Arc<Run>,
    pub(super) endpoint: String,
    data_root: PathBuf,
}

impl Handle {
    pub(super) fn new(run: Arc<Run>, data_root: PathBuf) -> Self {
        Self { run, endpoint: String::new(), data_root }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.run.want(Wish::Death);
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

    async fn stop(&mut self, grace: Duration) -> Exit {
        self.run.want(Wish::End);
        if let Ok(exit) = tokio::time::timeout(grace, self.run.ended()).await {
            return exit;
        }
        self.run.want(Wish::Death);
        self.run.ended().await
    }

    fn kill(&mut self) {
        self.run.want(Wish::Death);
    }
}
