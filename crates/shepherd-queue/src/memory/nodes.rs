//! The nodes that share the store, and their leases.

use std::time::Duration;

use shepherd_job::{Event, GiveBack, JobState, NodeId, Timestamp};

use super::{Job, Store};
use crate::rules::{self, Standing};
use crate::{Held, Join, Lease, QueueError, Renewed, Result};

/// The present life of a node.
#[derive(Debug)]
pub(super) struct Node {
    epoch: u64,
    lease: Duration,
    /// When others may have what it holds. `None`: they have it.
    expires: Option<Timestamp>,
}

impl Store {
    /// Ends the leases that have run out, but that of `caller`.
    fn expire(&mut self, caller: &NodeId, at: Timestamp) {
        self.clock = self.clock.max(at);
        let mut over = Vec::new();
        for (id, node) in &mut self.nodes {
            if id != caller && node.expires.is_some_and(|expires| expires <= at) {
                node.expires = None;
                over.push(node.epoch);
            }
        }
        over.into_iter().for_each(|epoch| self.take_back(epoch, at));
    }

    /// Queues again what a life of a node holds.
    fn take_back(&mut self, epoch: u64, at: Timestamp) {
        let held = |job: &Job| match &job.record.state {
            JobState::Processing { attempt, .. } if attempt.epoch == epoch => {
                let event =
                    Event::GiveBack { attempt: *attempt, cause: GiveBack::Blameless, not_before: None };
                Some((job.record.seq, rules::changed(&job.record.state, event).ok()?))
            }
            JobState::Processing { .. }
            | JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => None,
        };
        let held: Vec<(u64, JobState)> = self.jobs.values().filter_map(held).collect();
        for (seq, state) in held {
            self.set_state(seq, state, at);
        }
    }

    pub(super) fn join(&mut self, join: Join) -> Lease {
        let Join { node, at, lease } = join;
        self.expire(&node, at);
        self.epoch += 1;
        let life = Node { epoch: self.epoch, lease, expires: Some(at.after(lease)) };
        if let Some(earlier) = self.nodes.insert(node.clone(), life) {
            self.take_back(earlier.epoch, at);
        }
        Lease { node, epoch: self.epoch }
    }

    /// Whether a lease is not over.
    pub(super) fn check(&self, lease: &Lease) -> Result<()> {
        let node = self.nodes.get(&lease.node);
        let holds = node.is_some_and(|node| node.epoch == lease.epoch && node.expires.is_some());
        if holds { Ok(()) } else { Err(QueueError::Fenced) }
    }

    pub(super) fn renew(&mut self, lease: &Lease, held: Vec<Held>, at: Timestamp) -> Result<Renewed> {
        self.check(lease)?;
        if let Some(node) = self.nodes.get_mut(&lease.node) {
            node.expires = node.expires.max(Some(at.after(node.lease)));
        }
        self.expire(&lease.node, at);
        let mut renewed = Renewed::default();
        for job in self.jobs.values() {
            if let JobState::Processing { attempt, .. } = job.record.state
                && attempt.epoch == lease.epoch
            {
                let known = Held { job: job.record.spec.id.clone(), attempt };
                if !held.contains(&known) {
                    renewed.unknown.push(known);
                }
            }
        }
        for held in held {
            match rules::standing(&held, self.job(&held.job).map(|job| &*job.record)) {
                Standing::Current => {}
                Standing::Cancelled => renewed.cancelled.push(held),
                Standing::Lost => renewed.lost.push(held),
            }
        }
        Ok(renewed)
    }
}
