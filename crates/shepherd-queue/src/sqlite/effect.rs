//! What a commit changes in memory.

use std::sync::Arc;

use super::index::GroupId;
use super::pending::Since;
use crate::{JobRecord, Lease, SmallObject, Transition};

/// A change that is on the disk now.
#[derive(Debug)]
pub(super) enum Effect {
    /// A job was accepted.
    Accepted {
        record: Arc<JobRecord>,
        group: GroupId,
        /// All its objects, where they are known.
        objects: Option<Vec<SmallObject>>,
        /// The run of it that this one replaces.
        replaces: Option<Arc<JobRecord>>,
        since: Since,
    },
    /// A job's state changed.
    Changed { before: Arc<JobRecord>, after: Arc<JobRecord>, objects: Vec<SmallObject>, since: Since },
    /// A finished job was removed.
    Pruned(Arc<JobRecord>),
    /// A group has no job any more.
    Emptied(GroupId),
    /// A node has joined.
    Joined(Lease),
    /// Objects of a job are in storage.
    Written { seq: u64, objects: Vec<SmallObject>, settled: bool },
}

impl Effect {
    pub(super) fn transition(&self) -> Option<Transition> {
        match self {
            Self::Accepted { record, replaces, .. } => {
                let before = replaces.as_ref().map(|old| old.state.phase());
                Some(Transition { before, job: Arc::clone(record) })
            }
            Self::Changed { before, after, .. } => {
                Some(Transition { before: Some(before.state.phase()), job: Arc::clone(after) })
            }
            Self::Pruned(_) | Self::Emptied(_) | Self::Joined(_) | Self::Written { .. } => None,
        }
    }
}
