//! What cancelled jobs print until their runners let go of them.

use std::sync::Arc;

use shepherd_job::{Attempt as Token, JobId, JobState};
use shepherd_storage::{JobObjects, Put};

use crate::ShepherdError;
use crate::data;
use crate::live::{Log, log_path};
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::write_back::WriteBack;

/// Adds to the log of a cancelled job, which the queue or the storage has, what it printed until
/// its runner let go of it, and of `own`, the end of all that it printed, what is in neither.
pub(super) fn join(shared: &Arc<Shared>, write_back: &Arc<WriteBack>, job: JobId, token: Token, own: String) {
    let late = shared.live.take_split(&job, token.number);
    let Some(late) = late.filter(|late| !late.is_empty() || !own.is_empty()) else { return };
    let (shared_too, write_back) = (Arc::clone(shared), Arc::clone(write_back));
    shared.tasks.spawn(TaskKind::Effect, "log", async move {
        if let Err(error) = add_to_log(&shared_too, &write_back, &job, token.number, &late, &own).await {
            tracing::warn!(%job, %error, "what a cancelled job printed last is lost");
        }
    });
}

async fn add_to_log(
    shared: &Shared,
    write_back: &WriteBack,
    id: &JobId,
    attempt: u32,
    late: &Log,
    own: &str,
) -> Result<(), ShepherdError> {
    let _lock = shared.publish_locks.lock(id).await;
    // What still rides in the queue would come to storage after this, and in its place.
    write_back.flush(shared, id).await?;
    let mut log = shared.live.new_log();
    let before = data::log(shared, id).await?;
    log.push(attempt, &String::from_utf8_lossy(&before));
    log.push(attempt, &late.kept());
    log.complete(attempt, own);
    let text = log.kept();
    // A job that runs again by now has a log of its own.
    let is_cancelled = shared.queue.get(id).await?.is_some_and(
        |record| matches!(&record.state, JobState::Cancelled { history, .. } if history.attempts == attempt),
    );
    if is_cancelled && text.as_bytes() != &*before {
        let log = JobObjects::new(id.clone(), &Put::Beside, [(log_path(), text.into())]);
        let failed_before = shared.storage.failed_syncs();
        shared.storage.put_small(vec![log]).await.into_iter().collect::<Result<(), _>>()?;
        shared.sync_since(failed_before).await?;
    }
    Ok(())
}
