//! Those who watch a job: what they are given, each at its own pace.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use shepherd_job::JobId;
use shepherd_queue::JobRecord;
use tokio::sync::watch;

use super::{End, EventId, JobEvent, JobEventKind, Live, LiveJob};

/// A place among those who watch a job. Dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Watch {
    all: Arc<Live>,
    id: JobId,
    live: Arc<LiveJob>,
    changed: watch::Receiver<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.all.leave(&self.id, &self.live);
    }
}

impl Watch {
    pub(super) fn new(all: Arc<Live>, id: JobId, live: Arc<LiveJob>) -> Self {
        let changed = live.changed.subscribe();
        Self { all, id, live, changed }
    }

    /// The job's events after `after`, or from its present state on. `record` was read
    /// after the place was taken.
    pub(crate) fn events(
        self,
        record: Arc<JobRecord>,
        after: Option<EventId>,
    ) -> BoxStream<'static, JobEvent> {
        if let Some(end) = EventId::end_of(&record) {
            let event = JobEvent { id: end, kind: JobEventKind::State(record) };
            return stream::iter((after != Some(end)).then_some(event)).boxed();
        }
        let (first, seen) = self.begin(record, after);
        let rest = stream::unfold((self, seen), |(mut watch, mut seen)| async move {
            loop {
                {
                    let state = watch.live.lock();
                    if let Some((number, event)) = state.events.iter().find(|(number, _)| *number > seen) {
                        seen = *number;
                        let event = event.clone();
                        drop(state);
                        return Some((event, (watch, seen)));
                    }
                    if state.end != End::NotYet {
                        return None;
                    }
                }
                // The sender is in what the place holds.
                watch.changed.changed().await.ok()?;
            }
        });
        stream::iter(first).chain(rest).boxed()
    }

    /// The events to begin with, and the number after which the others follow.
    fn begin(&self, record: Arc<JobRecord>, after: Option<EventId>) -> (Vec<JobEvent>, u64) {
        let state = self.live.lock();
        let known = after.and_then(|id| id.number_in(self.all.life)).filter(|number| *number >= state.floor);
        if let Some(number) = known {
            return (Vec::new(), number);
        }
        if state.end == End::Finished {
            // It finished after it was looked at: only that matters.
            return (Vec::new(), state.events.back().map_or(0, |(number, _)| number - 1));
        }
        let number = self.all.next.fetch_add(1, Ordering::Relaxed);
        let id = EventId::new(self.all.life, number);
        // What was noted is not older: a change that is not noted yet comes as an event.
        let record = state.record.clone().unwrap_or(record);
        let mut first = vec![JobEvent { id, kind: JobEventKind::State(record) }];
        let progress = state.progress.clone().map(JobEventKind::Progress);
        first.extend(progress.map(|kind| JobEvent { id, kind }));
        (first, number)
    }

    /// What the job prints, from the beginning of what is known of it.
    pub(crate) fn log(self) -> BoxStream<'static, Bytes> {
        stream::unfold((self, 0), |(mut watch, mut offset)| async move {
            loop {
                {
                    let state = watch.live.lock();
                    if let Some(text) = state.log.after(&mut offset) {
                        drop(state);
                        return Some((text.into(), (watch, offset)));
                    }
                    if state.end != End::NotYet {
                        return None;
                    }
                }
                watch.changed.changed().await.ok()?;
            }
        })
        .boxed()
    }
}
