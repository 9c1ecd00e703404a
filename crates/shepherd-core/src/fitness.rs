//! Whether sheep without a runner could launch one, looked at from time to time: a problem
//! is told before a job needs the sheep.

use std::sync::Arc;
use std::time::Duration;

use crate::flock::{Cell, SheepState};
use crate::shared::Shared;

/// How often a sheep is asked.
const PERIOD: Duration = Duration::from_secs(5);
/// The same while something is wrong.
const UNWELL: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks after the flock until the shepherd drains.
pub(crate) async fn watch(shared: Arc<Shared>, cells: Arc<[Arc<Cell>]>) {
    let watch = async {
        loop {
            futures::future::join_all(cells.iter().map(|cell| check(cell))).await;
            let is_well = cells.iter().all(|cell| cell.facts().view.problem.is_none());
            tokio::time::sleep(if is_well { PERIOD } else { UNWELL }).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = shared.tasks.draining.cancelled() => {}
    }
}

/// While its keeper knows of a problem and waits before it tries again, nobody knows better.
fn is_idle(cell: &Cell) -> bool {
    let facts = cell.facts();
    facts.available && facts.view.state == SheepState::Stopped
}

async fn check(cell: &Cell) {
    if !is_idle(cell) {
        return;
    }
    let found = match tokio::time::timeout(CHECK_TIMEOUT, cell.sheep().check()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("the sheep did not say within {CHECK_TIMEOUT:?} whether it can run anything")),
    };
    if !is_idle(cell) {
        return;
    }
    let problem = &mut cell.facts().view.problem;
    let before = std::mem::replace(problem, found.clone());
    let id = cell.id();
    match (before, found) {
        (None, Some(problem)) => tracing::warn!(sheep = %id, %problem, "the sheep cannot run anything"),
        (Some(_), None) => tracing::info!(sheep = %id, "the sheep can run something again"),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

/// Why nothing can run, if no sheep can run anything.
pub(crate) fn problem(cells: &[Arc<Cell>]) -> Option<String> {
    let reason = |cell: &Arc<Cell>| {
        let facts = cell.facts();
        let problem = facts.view.problem.as_ref().filter(|_| facts.view.state != SheepState::Running)?;
        Some(format!("`{}`: {problem}", facts.view.id))
    };
    let reasons: Option<Vec<String>> = cells.iter().map(reason).collect();
    let reasons = reasons.filter(|reasons| !reasons.is_empty())?;
    Some(format!("no sheep can run anything: {}", reasons.join("; ")))
}
