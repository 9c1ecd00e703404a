//! What a program implements: one of four traits, by how its jobs are worked on.

use std::future::Future;

use crate::{Job, RunError};

/// Works on one job after another. Served by [`serve`](crate::serve).
pub trait Runner {
    /// Loads the model. Called once, on the thread that called
    /// [`serve`](crate::serve), while heartbeats are answered already; jobs come only
    /// after it.
    ///
    /// # Errors
    /// The runner cannot work; [`serve`](crate::serve) gives up.
    fn setup(&mut self) -> Result<(), RunError> {
        Ok(())
    }

    /// Works on one job, on the thread that called [`serve`](crate::serve).
    ///
    /// When it panics the job has failed, and the next one is processed with
    /// `self` as the panic left it.
    ///
    /// # Errors
    /// The job has failed, and this is what its client is told. A job that was
    /// told to stop ([`Job::cancelled`]) ends with [`RunError::interrupted`].
    fn process(&mut self, job: &Job) -> Result<(), RunError>;
}

/// Works on several jobs at once, each on a thread of its own. Served by
/// [`serve_parallel`](crate::serve_parallel).
pub trait ParallelRunner: Sync {
    /// Loads the model, as [`Runner::setup`].
    ///
    /// # Errors
    /// The runner cannot work, and is not served.
    fn setup(&mut self) -> Result<(), RunError> {
        Ok(())
    }

    /// Works on one job, while other threads work on others.
    ///
    /// # Errors
    /// The job has failed, as with [`Runner::process`]; no other is touched.
    fn process(&self, job: &Job) -> Result<(), RunError>;
}

/// Works on several jobs together, such as a model that is fastest when fed many
/// inputs at a time. Served by [`serve_batches`](crate::serve_batches).
pub trait BatchRunner {
    /// Loads the model, as [`Runner::setup`].
    ///
    /// # Errors
    /// The runner cannot work, and is not served.
    fn setup(&mut self) -> Result<(), RunError> {
        Ok(())
    }

    /// Works on one to [`Options::max_batch`](crate::Options::max_batch) jobs, on the
    /// thread that called [`serve_batches`](crate::serve_batches). A job that fails
    /// while the others do not is told so: [`Job::fail`]. One that was told to stop may
    /// be left out; nobody waits for its result.
    ///
    /// # Errors
    /// The batch broke off, for whose fault nobody knows, and so with a panic. The
    /// outputs of its jobs are emptied and each is processed as a batch of one, so that
    /// a job fails only by its own fault.
    fn process_batch(&mut self, jobs: &[Job]) -> Result<(), RunError>;
}

/// Works on several jobs at once in one task. Served by
/// [`serve_async`](crate::serve_async).
///
/// Both methods may be written as `async fn`.
pub trait AsyncRunner: Send + Sync {
    /// Loads the model, as [`Runner::setup`].
    ///
    /// # Errors
    /// The runner cannot work, and is not served.
    fn setup(&mut self) -> impl Future<Output = Result<(), RunError>> + Send {
        async { Ok(()) }
    }

    /// Works on one job, while the same task works on others: what computes for long
    /// belongs on a thread (with a clone of the job, if it needs it).
    ///
    /// A job that was told to stop is not interrupted: what it waits for may be wrapped
    /// in [`Job::unless_cancelled`].
    ///
    /// # Errors
    /// The job has failed, as with [`Runner::process`]; no other is touched.
    fn process(&self, job: &Job) -> impl Future<Output = Result<(), RunError>> + Send;
}
