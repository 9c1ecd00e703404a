//! Records that are at hand without the disk.
//!
//! Jobs being processed are always here. Of the others the cache keeps what will
//! be asked for soonest, within a budget of bytes for each kind: of the queued the
//! oldest, which leave first, and of the finished the newest, whose clients are
//! about to ask. An entry holds *all* of its job's spooled objects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use shepherd_job::{JobId, Phase};

use crate::{JobRecord, SmallObject};

/// What an entry costs beside its strings and objects, roughly.
const ENTRY_BYTES: usize = 400;
const OBJECT_BYTES: usize = 96;

/// A record with all of its job's spooled objects, by path.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<JobRecord>,
    pub(super) objects: Vec<SmallObject>,
}

impl Entry {
    fn bytes(&self) -> usize {
        let objects = self.objects.iter().map(|(path, data)| OBJECT_BYTES + path.as_str().len() + data.len());
        ENTRY_BYTES + self.record.spec.id.as_str().len() + objects.sum::<usize>()
    }
}

/// The entries, by sequence number and by id.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// The budget of each kind.
    limit: usize,
    ids: HashMap<JobId, u64>,
    queued: BTreeMap<u64, Entry>,
    queued_bytes: usize,
    processing: HashMap<u64, Entry>,
    finished: HashMap<u64, Entry>,
    finished_bytes: usize,
    /// In the order of their coming; may name some that are gone.
    finished_order: VecDeque<u64>,
}

impl Cache {
    /// A cache that keeps about this many bytes beside the jobs being processed.
    pub(super) fn new(bytes: usize) -> Self {
        Self { limit: bytes / 2, ..Self::default() }
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        self.processing.get(&seq).or_else(|| self.queued.get(&seq)).or_else(|| self.finished.get(&seq))
    }

    pub(super) fn find(&self, id: &JobId) -> Option<&Entry> {
        self.get(*self.ids.get(id)?)
    }

    pub(super) fn is_processing(&self, seq: u64) -> bool {
        self.processing.contains_key(&seq)
    }

    pub(super) fn processing(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.processing.values()
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let seq = entry.record.seq;
        self.remove(seq);
        self.ids.insert(entry.record.spec.id.clone(), seq);
        match entry.record.state.phase() {
            Phase::Queued => {
                self.queued_bytes += entry.bytes();
                self.queued.insert(seq, entry);
            }
            Phase::Processing => {
                self.processing.insert(seq, entry);
            }
            Phase::Done | Phase::Failed | Phase::Cancelled => {
                self.finished_bytes += entry.bytes();
                self.finished.insert(seq, entry);
                self.finished_order.push_back(seq);
            }
        }
        self.evict();
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        let entry = if let Some(entry) = self.processing.remove(&seq) {
            entry
        } else if let Some(entry) = self.queued.remove(&seq) {
            self.queued_bytes -= entry.bytes();
            entry
        } else {
            let entry = self.finished.remove(&seq)?;
            self.finished_bytes -= entry.bytes();
            entry
        };
        let id = &entry.record.spec.id;
        if self.ids.get(id) == Some(&seq) {
            self.ids.remove(id);
        }
        Some(entry)
    }

    /// Changes an entry's objects.
    pub(super) fn edit(&mut self, seq: u64, change: impl FnOnce(&mut Vec<SmallObject>)) {
        if let Some(entry) = self.processing.get_mut(&seq) {
            change(&mut entry.objects);
        } else if let Some(entry) = self.queued.get_mut(&seq) {
            self.queued_bytes -= entry.bytes();
            change(&mut entry.objects);
            self.queued_bytes += entry.bytes();
        } else if let Some(entry) = self.finished.get_mut(&seq) {
            self.finished_bytes -= entry.bytes();
            change(&mut entry.objects);
            self.finished_bytes += entry.bytes();
        }
    }

    fn evict(&mut self) {
        while self.queued_bytes > self.limit {
            let Some((&last, _)) = self.queued.last_key_value() else { break };
            self.remove(last);
        }
        while self.finished_bytes > self.limit {
            let Some(first) = self.finished_order.pop_front() else { break };
            if self.finished.contains_key(&first) {
                self.remove(first);
            }
        }
        // Reruns leave their old numbers behind; without this they would gather
        // when nothing is ever evicted.
        if self.finished_order.len() > 2 * self.finished.len() + 1024 {
            self.finished_order.retain(|seq| self.finished.contains_key(seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shepherd_job::{History, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, Timestamp};

    use super::*;

    fn entry(seq: u64, state: JobState, bytes: usize) -> Entry {
        let spec = JobSpec {
            id: JobId::parse(&format!("job-{seq}"), JobIdRule::Bucket).unwrap(),
            model: ModelRef::parse("m", "1").unwrap(),
            sheep: None,
            priority: 0,
        };
        let record = JobRecord { seq, spec, submitted_at: Timestamp::default(), state };
        let object = (ObjectPath::parse("inputs/input").unwrap(), Bytes::from(vec![0; bytes]));
        Entry { record: Arc::new(record), objects: vec![object] }
    }

    fn done() -> JobState {
        let at = Timestamp::default();
        JobState::Done { started_at: at, finished_at: at, history: History::default() }
    }

    #[test]
    fn the_oldest_queued_and_the_newest_finished_stay() {
        let mut cache = Cache::new(20_000);
        for seq in 1..=20 {
            cache.insert(entry(seq, JobState::new(), 1000));
            cache.insert(entry(100 + seq, done(), 1000));
        }
        assert!(cache.get(1).is_some() && cache.get(20).is_none());
        assert!(cache.get(101).is_none() && cache.get(120).is_some());
        assert!(cache.queued_bytes <= 10_000 && cache.finished_bytes <= 10_000);
        assert_eq!(cache.ids.len(), cache.queued.len() + cache.finished.len());
    }

    #[test]
    fn bytes_are_counted_back() {
        let mut cache = Cache::new(1 << 20);
        cache.insert(entry(1, JobState::new(), 500));
        cache.insert(entry(2, done(), 500));
        cache.edit(1, Vec::clear);
        cache.edit(2, Vec::clear);
        cache.insert(entry(1, done(), 10));
        cache.remove(1);
        cache.remove(2);
        assert_eq!((cache.queued_bytes, cache.finished_bytes, cache.ids.len()), (0, 0, 0));
    }
}
