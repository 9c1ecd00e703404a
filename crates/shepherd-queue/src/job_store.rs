//! The trait of the job store.

use std::sync::Arc;

use async_trait::async_trait;
use shepherd_job::{JobId, Timestamp};
use tokio::sync::watch;

use crate::{
    Change, Changed, Claim, Claimed, Counts, Feed, Held, JobRecord, Join, Lease, ListQuery, NewJob, Prune,
    Ready, Renewed, Result, Submitted,
};

/// The durable job store. See the crate's documentation for the contract that
/// all methods share. Those that only read can be repeated at will.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Begins a life of a node; durable when it returns. Attempts that earlier lives of the node
    /// hold are queued again, blameless, and the leases of those lives are over. So are the
    /// leases of other nodes that have been silent for too long, with the same consequence.
    ///
    /// When the outcome is unknown the node joins again: that takes back what the lost answer's
    /// life held, which is nothing.
    async fn join(&self, join: Join) -> Result<Lease>;

    /// Says that a node lives, and which attempts it holds. Leases of other nodes that have been
    /// silent for too long are over, and what they held is queued again, blameless.
    ///
    /// A node calls this several times within the length of its lease, and after every
    /// [`claim`](Self::claim) whose outcome is unknown. It gives back what
    /// [`Renewed::unknown`] names, once no claim is under way whose answer may bring it, and
    /// ends its work on the other attempts that are named.
    ///
    /// A lease that has run out is renewed as long as no other node has taken its jobs.
    /// Repeating a call is harmless.
    ///
    /// # Errors
    /// [`QueueError::Fenced`](crate::QueueError::Fenced): the lease is over, and so is every
    /// attempt of it.
    async fn renew(&self, lease: &Lease, held: Vec<Held>, at: Timestamp) -> Result<Renewed>;

    /// Accepts jobs; durable when it returns. Outcomes are in the order given.
    ///
    /// A call that is repeated after it took effect answers [`Submitted::Conflict`] or
    /// [`Submitted::Live`].
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>>;

    /// Hands out ready jobs of one model, by priority and then arrival.
    ///
    /// When the outcome is unknown, or the future is dropped, jobs may be held by the node
    /// without its knowledge. [`renew`](Self::renew) names them, and a later
    /// [`join`](Self::join) queues them again. The claim itself need not be durable where only
    /// one node lives: its token's epoch dies with the life that forgot it.
    ///
    /// # Errors
    /// [`QueueError::Fenced`](crate::QueueError::Fenced) when the lease is over.
    async fn claim(&self, lease: &Lease, claim: Claim) -> Result<Vec<Claimed>>;

    /// Applies changes through the state machine; durable when it returns.
    /// Outcomes are in the order given, each with the record after the change, or refused.
    ///
    /// A change that is repeated after it took effect is refused; [`get`](Self::get) tells what
    /// counted.
    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>>;

    /// What may be claimed at `now`.
    async fn ready(&self, now: Timestamp) -> Result<Ready>;

    /// One job's record.
    async fn get(&self, job: &JobId) -> Result<Option<Arc<JobRecord>>>;

    /// Records, newest first.
    async fn list(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>>;

    /// How many jobs are in each phase.
    async fn counts(&self) -> Result<Counts>;

    /// Removes records of finished jobs with all that the store has of them, and gives their ids;
    /// durable when it returns. Jobs that are pending in an [outbox](crate::Outbox) stay.
    ///
    /// What a call removed whose answer is lost is not told again. Whoever keeps something of
    /// the jobs elsewhere removes that first.
    async fn prune(&self, prune: Prune) -> Result<Vec<JobId>>;

    /// Every change of a job's state from now on, by whichever node, in the order in which the
    /// changes of each job took effect: submits, claims, changes, and jobs that are queued again.
    /// It is told after the change is durable; a claim, when it is made. Removed records are
    /// not told.
    ///
    /// For subscribers in this process, which may miss what they are too slow for
    /// ([`FeedItem::Gap`](crate::FeedItem::Gap)) and what happens while they are away. Who must
    /// miss nothing is a consumer of an [outbox](crate::Outbox).
    fn feed(&self) -> Feed;

    /// A value that changes whenever jobs may have become ready. A hint: it may
    /// change for nothing, and changes close together may be seen as one.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether the store can be used, as far as that shows without using it.
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Resolves when the store has failed for good: every further call fails, until the
    /// store is opened again. Pending for ever in a store that cannot fail like that.
    async fn failed(&self) {
        std::future::pending::<()>().await;
    }
}
