//! What the API needs of a shepherd.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use shepherd_core::{
    Accepted, EventId, JobEvent, JobRecord, ListQuery, Object, ObjectMeta, Progress, Readiness, SheepView,
    Shepherd, ShepherdError, Submit,
};
use shepherd_job::{JobId, ObjectPath};

/// The shepherd as the API sees it, method for method.
///
/// It exists so that the API is tested against a fake; calls are static, and
/// cost nothing over calling the shepherd itself. Dropping a returned future
/// must be harmless, since that is what happens when a client leaves.
pub trait Backend: Send + Sync + 'static {
    /// Whether a sheep of this name is configured.
    fn knows_sheep(&self, id: &str) -> bool;
    /// Accepts a job; durable when it returns.
    fn submit(&self, submit: Submit) -> impl Future<Output = Result<Accepted, ShepherdError>> + Send;
    /// One job's record.
    fn job(&self, id: &JobId) -> impl Future<Output = Result<Arc<JobRecord>, ShepherdError>> + Send;
    /// The status document that storage has of a job that the queue does not know.
    fn stored_status(&self, id: &JobId) -> impl Future<Output = Result<Bytes, ShepherdError>> + Send;
    /// Records, newest first.
    fn jobs(
        &self,
        query: ListQuery,
    ) -> impl Future<Output = Result<Vec<Arc<JobRecord>>, ShepherdError>> + Send;
    /// Waits until the job is finished.
    fn finished(&self, id: &JobId) -> impl Future<Output = Result<Arc<JobRecord>, ShepherdError>> + Send;
    /// Withdraws a job that is not finished.
    fn cancel(&self, id: &JobId) -> impl Future<Output = Result<Arc<JobRecord>, ShepherdError>> + Send;
    /// Opens an object of a job, or a part of it.
    fn open(
        &self,
        id: &JobId,
        path: &ObjectPath,
        range: Option<Range<u64>>,
    ) -> impl Future<Output = Result<Object, ShepherdError>> + Send;
    /// What is known of an object of a job.
    fn head(
        &self,
        id: &JobId,
        path: &ObjectPath,
    ) -> impl Future<Output = Result<ObjectMeta, ShepherdError>> + Send;
    /// How far a job in work is, if it has said so.
    fn progress(&self, id: &JobId) -> Option<Progress>;
    /// What happens to a job, after an event or from its present state on. The first
    /// event is there at once, unless `after` is the last so far; the end, when the
    /// job has finished or the shepherd ends.
    fn events(
        &self,
        id: &JobId,
        after: Option<EventId>,
    ) -> impl Future<Output = Result<BoxStream<'static, JobEvent>, ShepherdError>> + Send;
    /// What a job has printed so far, as UTF-8; empty when there is nothing.
    fn log(&self, id: &JobId) -> impl Future<Output = Result<Bytes, ShepherdError>> + Send;
    /// What a job prints, from the beginning until it has finished or the shepherd
    /// ends.
    fn follow_log(
        &self,
        id: &JobId,
    ) -> impl Future<Output = Result<BoxStream<'static, Bytes>, ShepherdError>> + Send;
    /// All sheep.
    fn flock(&self) -> Vec<SheepView>;
    /// Whether jobs can be taken and run.
    fn readiness(&self) -> Readiness;
}

impl Backend for Shepherd {
    fn knows_sheep(&self, id: &str) -> bool {
        Self::knows_sheep(self, id)
    }
    fn submit(&self, submit: Submit) -> impl Future<Output = Result<Accepted, ShepherdError>> + Send {
        Self::submit(self, submit)
    }
    fn job(&self, id: &JobId) -> impl Future<Output = Result<Arc<JobRecord>, ShepherdError>> + Send {
        Self::job(self, id)
    }
    fn stored_status(&self, id: &JobId) -> impl Future<Output = Result<Bytes, ShepherdError>> + Send {
        Self::stored_status(self, id)
    }
    fn jobs(
        &self,
        query: ListQuery,
    ) -> impl Future<Output = Result<Vec<Arc<JobRecord>>, ShepherdError>> + Send {
        Self::jobs(self, query)
    }
    fn finished(&self, id: &JobId) -> impl Future<Output = Result<Arc<JobRecord>, ShepherdError>> + Send {
        Self::finished(self, id)
    }
    fn cancel(&self, id: &JobId) -> impl Future<Output = Result<Arc<JobRecord>, ShepherdError>> + Send {
        Self::cancel(self, id)
    }
    fn open(
        &self,
        id: &JobId,
        path: &ObjectPath,
        range: Option<Range<u64>>,
    ) -> impl Future<Output = Result<Object, ShepherdError>> + Send {
        Self::open(self, id, path, range)
    }
    fn head(
        &self,
        id: &JobId,
        path: &ObjectPath,
    ) -> impl Future<Output = Result<ObjectMeta, ShepherdError>> + Send {
        Self::head(self, id, path)
    }
    fn progress(&self, id: &JobId) -> Option<Progress> {
        Self::progress(self, id)
    }
    fn events(
        &self,
        id: &JobId,
        after: Option<EventId>,
    ) -> impl Future<Output = Result<BoxStream<'static, JobEvent>, ShepherdError>> + Send {
        Self::events(self, id, after)
    }
    fn log(&self, id: &JobId) -> impl Future<Output = Result<Bytes, ShepherdError>> + Send {
        Self::log(self, id)
    }
    fn follow_log(
        &self,
        id: &JobId,
    ) -> impl Future<Output = Result<BoxStream<'static, Bytes>, ShepherdError>> + Send {
        Self::follow_log(self, id)
    }
    fn flock(&self) -> Vec<SheepView> {
        Self::flock(self)
    }
    fn readiness(&self) -> Readiness {
        Self::readiness(self)
    }
}
