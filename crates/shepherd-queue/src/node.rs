//! Nodes: the daemons that share a job store, and what they hold.

use std::time::Duration;

use shepherd_job::{Attempt, JobId, NodeId, Timestamp};

/// A node that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its name, the same in every life.
    pub node: NodeId,
    /// Now.
    pub at: Timestamp,
    /// How long the node may stay silent before others may have its jobs. It must be longer
    /// than the clocks of the nodes differ, and than the store is ever away for a short time.
    /// A store of one node does not look at it.
    pub lease: Duration,
}

/// The right of one life of a node to hold jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// Number of this life: greater than that of every life of every node before it. The
    /// tokens of its attempts carry it.
    pub epoch: u64,
}

/// An attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// The attempt's token.
    pub attempt: Attempt,
}

/// What a node learns when it renews its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Attempts that the node named and whose jobs were cancelled, by whichever node.
    pub cancelled: Vec<Held>,
    /// Attempts that the node named and that are over for another reason: the store takes no
    /// outcome of them any more.
    pub lost: Vec<Held>,
    /// Attempts of this lease that the node did not name. Their claims were not answered, or
    /// not yet.
    pub unknown: Vec<Held>,
}
