//! The trait of the job store.

use std::sync::Arc;

use async_trait::async_trait;
use shepherd_job::{JobId, Timestamp};
use tokio::sync::watch;

use crate::{Changed, Claim, Claimed, Counts, JobRecord, ListQuery, NewJob, Ready, Result, Submitted};

/// The durable job store. See the crate's documentation for the contract that
/// all methods share.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Accepts jobs; durable when it returns. Outcomes are in the order given.
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>>;

    /// Hands out ready jobs of one model, by priority and then arrival. The claim
    /// itself need not be durable: its token's epoch dies with this opening.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>>;

    /// Applies changes through the state machine; durable when it returns.
    /// Outcomes are in the order given, each with the record after the change.
    async fn apply(&self, changes: Vec<crate::Change>) -> Result<Vec<Changed>>;

    /// What may be claimed at `now`.
    async fn ready(&self, now: Timestamp) -> Result<Ready>;

    /// One job's record.
    async fn get(&self, job: &JobId) -> Result<Option<Arc<JobRecord>>>;

    /// Records, newest first.
    async fn list(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>>;

    /// How many jobs are in each phase.
    async fn counts(&self) -> Result<Counts>;

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
