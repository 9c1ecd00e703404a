//! Freeing working directories, making them again, and asking sheep how they are.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shepherd_job::JobId;
use shepherd_sheep::Sheep;

use super::{Home, Inputs, on_disk};
use crate::engine::{AttemptKey, Input, Release, SheepNo};
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::workdir::{RECLAIMS, WorkDirs};

/// An attempt whose directory is not needed any more.
pub(super) type ToRelease = (AttemptKey, JobId, Release);

/// How long a sheep may take to say whether it could launch a runner.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Frees directories.
pub(super) fn release(shared: &Arc<Shared>, inputs: &Inputs, dirs: &Arc<WorkDirs>, jobs: Vec<ToRelease>) {
    let (dirs, inputs) = (Arc::clone(dirs), inputs.clone());
    shared.tasks.spawn_blocking(TaskKind::Effect, "releasing", move || {
        let release = |(attempt, job, how)| {
            match how {
                Release::Keep => dirs.release(&job),
                Release::Discard => dirs.discard(&job),
            }
            Input::Released { attempt }
        };
        inputs.send_all_blocking(jobs.into_iter().map(release));
    });
}

/// Makes the data root and the sheep's directory in it again. No job may use what was there.
pub(super) fn reopen(shared: &Arc<Shared>, inputs: &Inputs, home: Home, sheep: SheepNo) {
    let (shared_too, inputs) = (Arc::clone(shared), inputs.clone());
    shared.tasks.spawn_blocking(TaskKind::Effect, "reopening", move || {
        let old = Arc::clone(&home.lock().unwrap_or_else(PoisonError::into_inner));
        let reopened = shared_too.data_root.restore().and_then(|()| old.reopen());
        let result = match reopened {
            Ok(dirs) => {
                *home.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(dirs);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        inputs.send_all_blocking([Input::Reopened { sheep, result }]);
    });
}

/// Removes what could not be removed while there was a runner. What is other users', the sheep may
/// make ours.
pub(super) fn empty_trash(shared: &Arc<Shared>, dirs: &Arc<WorkDirs>, sheep: &Arc<dyn Sheep>) {
    if !dirs.has_trash() {
        return;
    }
    let (dirs, sheep) = (Arc::clone(dirs), Arc::clone(sheep));
    shared.tasks.spawn(TaskKind::Effect, "trash", async move {
        on_disk(&dirs, WorkDirs::empty_trash).await;
        for _ in 0..RECLAIMS {
            let mut changed = false;
            for (dir, names) in dirs.trash() {
                changed |= sheep.reclaim(&dir, &names).await;
            }
            if !changed {
                break;
            }
            on_disk(&dirs, WorkDirs::empty_trash).await;
        }
    });
}

/// Asks a sheep whether it could launch a runner.
pub(super) fn check(shared: &Arc<Shared>, inputs: &Inputs, of: &Arc<dyn Sheep>, sheep: SheepNo) {
    let (of, inputs, draining) = (Arc::clone(of), inputs.clone(), shared.tasks.draining.clone());
    shared.tasks.spawn(TaskKind::Effect, "check", async move {
        let checked = tokio::select! {
            checked = tokio::time::timeout(CHECK_TIMEOUT, of.check()) => checked,
            () = draining.cancelled() => return,
        };
        let problem = match checked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                Some(format!("the sheep did not say within {CHECK_TIMEOUT:?} whether it can run anything"))
            }
        };
        inputs.send(Input::Checked { sheep, problem }).await;
    });
}
