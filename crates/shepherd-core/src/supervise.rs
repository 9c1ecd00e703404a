//! The tasks of the shepherd, by kind. None is spawned bare: a panic, or an end
//! that was not asked for, is noticed and means what its kind says.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task is for, and so what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskKind {
    /// Lives as long as the shepherd: its end before shutdown is fatal. Nothing is
    /// lost by a restart, and much could be by going on without it.
    Critical,
    /// Does something for the flock and ends. A panic is fatal: the driver would wait for its
    /// answer for ever.
    Effect,
    /// Carries one request to its end, whatever its client does. A panic is that
    /// request's failure.
    Request,
}

/// The tasks of one shepherd.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Set once the shepherd drains: pillars may end now.
    pub(crate) draining: CancellationToken,
    /// Set when a pillar fell.
    pub(crate) failed: CancellationToken,
    failed_name: Arc<OnceLock<&'static str>>,
}

impl Tasks {
    pub(crate) fn spawn(
        &self,
        kind: TaskKind,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            tasks.note_end(kind, name, panicked);
        });
    }

    /// The same of work that blocks.
    pub(crate) fn spawn_blocking(
        &self,
        kind: TaskKind,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) {
        let tasks = self.clone();
        self.tracker.spawn_blocking(move || {
            let panicked = std::panic::catch_unwind(AssertUnwindSafe(work)).is_err();
            tasks.note_end(kind, name, panicked);
        });
    }

    fn note_end(&self, kind: TaskKind, name: &'static str, panicked: bool) {
        let is_fatal = match kind {
            TaskKind::Critical => panicked || !self.draining.is_cancelled(),
            TaskKind::Effect => panicked,
            TaskKind::Request => false,
        };
        if is_fatal {
            // First of all: nothing that logging does may hide the end of a task.
            let _ = self.failed_name.set(name);
            self.failed.cancel();
            tracing::error!(task = name, panicked, "a task of the shepherd ended unexpectedly");
        } else if panicked {
            tracing::error!(task = name, "a request's task panicked");
        }
    }

    /// The name of the pillar that fell first, if one did.
    pub(crate) fn failed_name(&self) -> Option<&'static str> {
        self.failed_name.get().copied()
    }

    /// Resolves when all tasks have ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::{TaskKind, Tasks};

    #[tokio::test]
    async fn a_pillar_that_panics_is_noticed() {
        let tasks = Tasks::default();
        tasks.spawn(TaskKind::Critical, "test", async { panic!("on purpose") });
        tasks.failed.cancelled().await;
        assert_eq!(tasks.failed_name(), Some("test"));
        tasks.ended().await;
    }

    #[tokio::test]
    async fn a_pillar_that_ends_while_draining_is_as_it_should_be() {
        let tasks = Tasks::default();
        tasks.draining.cancel();
        tasks.spawn(TaskKind::Critical, "test", async {});
        tasks.ended().await;
        assert!(!tasks.failed.is_cancelled());
    }

    #[tokio::test]
    async fn a_request_that_panics_takes_nothing_with_it() {
        let tasks = Tasks::default();
        tasks.spawn(TaskKind::Request, "test", async { panic!("on purpose") });
        tasks.ended().await;
        assert!(!tasks.failed.is_cancelled());
    }
}
