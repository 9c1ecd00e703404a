//! Which jobs are pending, and how much that is.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use shepherd_job::Timestamp;

use crate::{Lag, Position};

/// Since which change a job is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) position: u64,
    pub(super) at: Timestamp,
}

/// The pending jobs, in order.
#[derive(Debug, Default)]
pub(super) struct PendingSet {
    /// Jobs by position.
    order: BTreeMap<u64, (u64, Timestamp)>,
    positions: HashMap<u64, u64>,
    /// Pending jobs that are finished.
    finished: HashSet<u64>,
    /// Of all objects together.
    bytes: u64,
}

impl PendingSet {
    /// Adds a job, unless it is pending already.
    pub(super) fn insert(&mut self, seq: u64, since: Since) {
        if let Entry::Vacant(slot) = self.positions.entry(seq) {
            slot.insert(since.position);
            self.order.insert(since.position, (seq, since.at));
        }
    }

    pub(super) fn note_finished(&mut self, seq: u64) {
        self.finished.insert(seq);
    }

    pub(super) fn add_bytes(&mut self, bytes: i64) {
        self.bytes = self.bytes.saturating_add_signed(bytes);
    }

    pub(super) fn remove(&mut self, seq: u64) {
        self.finished.remove(&seq);
        if let Some(position) = self.positions.remove(&seq) {
            self.order.remove(&position);
            // After an outage of the storage, which may leave a million jobs pending.
            if self.positions.capacity() > 16_384 && self.positions.capacity() / 8 > self.positions.len() {
                self.positions.shrink_to(2 * self.positions.len());
            }
        }
    }

    pub(super) fn position(&self, seq: u64) -> Option<Position> {
        self.positions.get(&seq).copied().map(Position)
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.positions.contains_key(&seq)
    }

    pub(super) fn lag(&self) -> Lag {
        Lag {
            jobs: self.positions.len() as u64,
            bytes: self.bytes,
            since: self.order.first_key_value().map(|(_, (_, since))| *since),
            finished: self.finished.len() as u64,
        }
    }

    /// Jobs after a position, in order.
    pub(super) fn after(&self, after: Option<Position>) -> impl Iterator<Item = (Position, u64)> + '_ {
        let from = after.map_or(Bound::Unbounded, |Position(after)| Bound::Excluded(after));
        self.order.range((from, Bound::Unbounded)).map(|(position, (seq, _))| (Position(*position), *seq))
    }
}
