//! What the directory does not hold yet.

use async_trait::async_trait;
use shepherd_job::{JobId, Timestamp};

/// A queue may hold small objects of a job that are no files yet. Before a bucket
/// is looked at or changed, they must be.
#[async_trait]
pub trait Flusher: Send + Sync + 'static {
    /// Returns once everything of `bucket` that was there when this was called is in
    /// the directory. Cheap when nothing lags.
    ///
    /// # Errors
    /// Why not now, as a message for the client: it is answered that the service is
    /// unavailable.
    async fn flush(&self, bucket: &JobId) -> Result<(), String>;

    /// The jobs that have data and may be no directories yet, and when each was made.
    /// Asked for each listing of the buckets, so it must cost little for many.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    async fn unflushed(&self) -> Result<Vec<(JobId, Timestamp)>, String>;
}

/// For a directory that is all there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFlusher;

#[async_trait]
impl Flusher for NoFlusher {
    async fn flush(&self, _: &JobId) -> Result<(), String> {
        Ok(())
    }

    async fn unflushed(&self) -> Result<Vec<(JobId, Timestamp)>, String> {
        Ok(Vec::new())
    }
}
