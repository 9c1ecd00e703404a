//! Rules that every implementation shares, as pure functions.

use bytes::Bytes;
use shepherd_job::{Attempt, Event, History, JobState, ObjectPath, Rejected, SheepId, Timestamp};

use crate::{Held, JobRecord, SmallObject};

/// The prefix of a job's outputs, as the storage layout has it.
pub(crate) const OUTPUTS: &str = "outputs/";

/// Whether an object belongs to one run of a job only, and not to the job.
pub(crate) fn is_output(path: &ObjectPath) -> bool {
    path.as_str().starts_with(OUTPUTS)
}

/// The state after a [`Change`](crate::Change)'s event. Claims and reruns have
/// doors of their own, with effects that a plain change does not have.
pub(crate) fn changed(state: &JobState, event: Event) -> Result<JobState, Rejected> {
    match event {
        Event::Claim { attempt, .. } => Err(Rejected::Stale { got: attempt }),
        Event::Rerun => Err(if state.is_finished() { Rejected::Finished } else { Rejected::NotFinished }),
        Event::Begin { .. }
        | Event::Complete { .. }
        | Event::Fail { .. }
        | Event::GiveBack { .. }
        | Event::Cancel { .. } => state.apply(event),
    }
}

/// When an event happens, if it says so.
pub(crate) fn time_of(event: &Event) -> Option<Timestamp> {
    match event {
        Event::Claim { at, .. }
        | Event::Begin { at, .. }
        | Event::Complete { at, .. }
        | Event::Fail { at, .. }
        | Event::Cancel { at } => Some(*at),
        Event::GiveBack { .. } | Event::Rerun => None,
    }
}

/// When a job finished, if it did.
pub(crate) const fn finished_at(state: &JobState) -> Option<Timestamp> {
    match state {
        JobState::Queued { .. } | JobState::Processing { .. } => None,
        JobState::Done { finished_at, .. }
        | JobState::Failed { finished_at, .. }
        | JobState::Cancelled { finished_at, .. } => Some(*finished_at),
    }
}

/// The next attempt at a queued job whose time has come.
///
/// Its time is not looked at again: a clock that was set back does not make a job
/// that was offered unclaimable.
pub(crate) fn claimed(history: History, epoch: u64, sheep: SheepId, at: Timestamp) -> (Attempt, JobState) {
    let attempt = Attempt { epoch, number: history.attempts.saturating_add(1) };
    let history = History { attempts: attempt.number, ..history };
    (attempt, JobState::Processing { attempt, sheep, started_at: at, history })
}

/// What an attempt is to the node that held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its outcome is still awaited.
    Current,
    /// Its job was cancelled while it was current.
    Cancelled,
    /// It is over.
    Lost,
}

/// What an attempt is, as the job's record says.
pub(crate) fn standing(held: &Held, record: Option<&JobRecord>) -> Standing {
    match record.map(|record| &record.state) {
        Some(JobState::Processing { attempt, .. }) if *attempt == held.attempt => Standing::Current,
        // The last attempt at a job that is cancelled was current until then.
        Some(JobState::Cancelled { started_at: Some(_), history, .. })
            if history.attempts == held.attempt.number =>
        {
            Standing::Cancelled
        }
        Some(
            JobState::Queued { .. }
            | JobState::Processing { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. },
        )
        | None => Standing::Lost,
    }
}

/// Whether files written from `given` are all that `current` asks for.
///
/// A claim in between does not count: a claim makes no job pending, so a job that
/// was claimed before its files were written lags no more than one claimed after.
pub(crate) fn settles(given: &JobRecord, current: &JobRecord) -> bool {
    if given.seq != current.seq {
        return false;
    }
    if given.state == current.state {
        return true;
    }
    if let (JobState::Queued { history: before, .. }, JobState::Processing { history: after, .. }) =
        (&given.state, &current.state)
    {
        return after.attempts == before.attempts.saturating_add(1) && after.crashes == before.crashes;
    }
    false
}

/// Puts an object among others that are sorted by path, in place of an older one.
pub(crate) fn put_object(objects: &mut Vec<SmallObject>, object: SmallObject) {
    match objects.binary_search_by(|(path, _)| path.cmp(&object.0)) {
        Ok(at) => objects[at] = object,
        Err(at) => objects.insert(at, object),
    }
}

/// Objects in the order in which they are kept and given.
pub(crate) fn sorted(objects: &[SmallObject]) -> Vec<SmallObject> {
    let mut all = Vec::with_capacity(objects.len());
    for object in objects {
        put_object(&mut all, object.clone());
    }
    all
}

/// Drops the objects that are exactly those given: one that was replaced by other
/// bytes since is not in storage yet.
pub(crate) fn drop_objects(objects: &mut Vec<SmallObject>, given: &[SmallObject]) {
    objects.retain(|(path, data)| !given.iter().any(|(p, d)| p == path && same_bytes(d, data)));
}

/// Whether two lists hold the same objects.
pub(crate) fn same_objects(a: &[SmallObject], b: &[SmallObject]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((p, d), (q, e))| p == q && same_bytes(d, e))
}

/// Compares the buffers before the bytes: mostly they are one and the same.
fn same_bytes(a: &Bytes, b: &Bytes) -> bool {
    (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b
}
