//! What the API needs of a shepherd.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use shepherd_core::{
    Accepted, JobRecord, ListQuery, Object, ObjectMeta, Readiness, SheepView, Shepherd, ShepherdError, Submit,
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
    fn flock(&self) -> Vec<SheepView> {
        Self::flock(self)
    }
    fn readiness(&self) -> Readiness {
        Self::readiness(self)
    }
}
