//! The façade: what a program that embeds the shepherd holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use shepherd_job::{Event, JobId, JobState, NodeId, ObjectPath, Phase, Rejected, SheepId, Timestamp};
use shepherd_queue::{Change, ChangeRefused, JobRecord, Join, ListQuery, Store};
use shepherd_sheep::Sheep;
use shepherd_storage::{Object, ObjectMeta, Storage, Trust};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{Accepted, Admission, Data, Submit};
use crate::clock::now;
use crate::data_root::DataRoot;
use crate::driver::{self, Inputs, Kept, Parts, Views};
use crate::engine::{Input, RunnerLimits, SheepView};
use crate::health::{Health, Places, Unpublished};
use crate::journal;
use crate::live::{EventId, JobEvent, Live, Progress};
use crate::models::{Models, UnknownModels};
use crate::orphans::{Orphans, RemovedSheep};
use crate::publish_locks::PublishLocks;
use crate::shared::{Shared, StatusDocument};
use crate::supervise::{TaskKind, Tasks};
use crate::waiters::Waiters;
use crate::workdir::{OutputPool, WorkDirs};
use crate::write_back::WriteBack;
use crate::{ShepherdError, StartError, data, data_root};

/// A sheep to be kept.
pub struct Member {
    /// Its name.
    pub id: SheepId,
    /// How its runners are started and ended.
    pub sheep: Arc<dyn Sheep>,
    /// Bounds of its runners.
    pub limits: RunnerLimits,
}

/// What a shepherd needs to start.
pub struct Options {
    /// The name of this daemon among those that share its job store; the same in every life.
    pub node: NodeId,
    /// Working directories, `DATA_ROOT/<sheep>/<job>`; disposable, cleaned at every
    /// start.
    pub data_root: PathBuf,
    /// What must last beside the queue. May lie below `data_root`.
    pub state_dir: PathBuf,
    /// The permissions that are taken from the data root where it has them. Where a sheep is
    /// fenced, those of users outside its group are taken anyway.
    pub data_root_mask: u32,
    /// The flock.
    pub flock: Vec<Member>,
    /// How long jobs may wait because sheep keep to the models they have.
    pub max_wait: Duration,
    /// What becomes of jobs whose model no sheep has.
    pub unknown_models: UnknownModels,
    /// What becomes of jobs that are pinned to a sheep that is not configured any more.
    pub removed_sheep: RemovedSheep,
    /// How much is kept of what a job prints, in bytes: the end. Nothing with 0.
    pub job_log: usize,
    /// Renders `job_status.json`; none is written without it.
    pub status_document: Option<StatusDocument>,
}

impl Options {
    /// Options with the default bounds and an empty flock.
    pub fn new(data_root: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            node: NodeId::parse("shepherd").expect("the constant is a legal name"),
            data_root: data_root.into(),
            state_dir: state_dir.into(),
            data_root_mask: 0,
            flock: Vec::new(),
            max_wait: Duration::from_secs(300),
            unknown_models: UnknownModels::default(),
            removed_sheep: RemovedSheep::default(),
            job_log: 64 << 10,
            status_document: None,
        }
    }
}

/// Whether jobs can be taken and worked on.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// What is in the way, for a person; empty when all is well.
    pub problems: Vec<String>,
    /// What an operator should know though jobs can be taken and worked on.
    pub notices: Vec<String>,
}

/// A running shepherd. Cheap to clone; all clones are the same one.
///
/// It goes on until [`shutdown`](Self::shutdown), even when every clone is dropped.
#[derive(Clone)]
pub struct Shepherd {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    write_back: Arc<WriteBack>,
    health: Arc<Health>,
    sheep: Arc<[(SheepId, Arc<dyn Sheep>)]>,
    views: Arc<Views>,
    inputs: Inputs,
    models: Arc<Models>,
    orphans: Arc<Orphans>,
    forced: CancellationToken,
}

impl Shepherd {
    /// Ends what an earlier life left running, cleans the data root, and starts.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(
        options: Options,
        queue: Arc<dyn Store>,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, StartError> {
        let Options {
            node,
            data_root,
            state_dir,
            data_root_mask,
            flock,
            max_wait,
            unknown_models,
            removed_sheep,
            job_log,
            status_document,
        } = options;
        let is_isolated = flock.iter().any(|member| member.sheep.is_isolated());
        let mask = data_root_mask | if is_isolated { data_root::OTHERS } else { 0 };
        // First: nothing of a shepherd that runs is touched.
        let locked = DataRoot::lock(&data_root, mask)?;
        for member in &flock {
            let swept = member.sheep.sweep().await;
            swept.map_err(|e| StartError::Sheep { sheep: member.id.clone(), message: e.to_string() })?;
        }
        let directory = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source| StartError::Directory { path, source }
        };
        let markers = state_dir.join("incoming");
        std::fs::create_dir_all(&markers).map_err(directory(&markers))?;
        data_root::clean(&data_root, &state_dir, flock.iter().map(|member| &member.id))
            .map_err(directory(&data_root))?;
        data_root::close(&data_root, mask).map_err(directory(&data_root))?;
        let sheep = flock.iter().map(|member| &*member.sheep);
        data_root::reclaim(&data_root, sheep).await.map_err(directory(&data_root))?;

        // What the earlier life held is queued again only now that nothing of it runs any more.
        let lease = queue.join(Join { node, at: now(), lease: NODE_LEASE }).await?;

        let waiters = Waiters::default();
        let output_pool = Arc::new(OutputPool::open(&data_root).map_err(directory(&data_root))?);
        let tasks = Tasks::default();
        let shared = Arc::new(Shared {
            queue,
            lease,
            storage,
            waiters,
            live: Arc::new(Live::new(job_log)),
            tasks,
            data_root: locked,
            output_pool: Arc::clone(&output_pool),
            publish_locks: PublishLocks::default(),
            unpublished: Unpublished::default(),
            status_document,
        });
        let mut homes = Vec::with_capacity(flock.len());
        for member in &flock {
            let path = data_root.join(member.id.as_str());
            let trust = if member.sheep.is_isolated() { Trust::Untrusted } else { Trust::Trusted };
            let home = WorkDirs::open(&path, Arc::clone(&output_pool), trust).map_err(directory(&path))?;
            homes.push(Arc::new(home));
        }

        let kinds = flock.iter().map(|member| (member.id.clone(), Arc::clone(&member.sheep)));
        let models = Arc::new(Models::new(kinds.collect(), unknown_models));
        let ids = flock.iter().map(|member| member.id.clone()).collect();
        let orphans = Arc::new(Orphans::new(ids, removed_sheep));
        let (queue, draining) = (Arc::clone(&shared.queue), shared.tasks.draining.clone());
        shared.tasks.spawn(TaskKind::Critical, "job store", async move {
            tokio::select! {
                () = queue.failed() => {}
                () = draining.cancelled() => {}
            }
        });
        let write_back = WriteBack::start(&shared);
        let admission = Admission::start(&shared, &write_back, markers);
        if let Err(error) = admission.sweep().await {
            shared.tasks.draining.cancel();
            return Err(error.into());
        }
        let health = Health::start(&shared, Places { data_root, state_dir }).await;
        let forced = CancellationToken::new();
        let sheep = flock.iter().map(|member| (member.id.clone(), Arc::clone(&member.sheep))).collect();
        let kept = |(member, dirs): (Member, Arc<WorkDirs>)| {
            let Member { id, sheep, limits } = member;
            Kept { id, sheep, limits, home: Arc::new(Mutex::new(dirs)) }
        };
        let (inputs, views) = driver::start(Parts {
            shared: Arc::clone(&shared),
            write_back: Arc::clone(&write_back),
            models: Arc::clone(&models),
            orphans: Arc::clone(&orphans),
            max_wait,
            forced: forced.clone(),
            flock: flock.into_iter().zip(homes).map(kept).collect(),
        });
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                admission,
                write_back,
                health,
                sheep,
                views,
                inputs,
                models,
                orphans,
                forced,
            }),
        })
    }

    /// Whether a sheep of this name is configured.
    pub fn knows_sheep(&self, id: &str) -> bool {
        self.inner.sheep.iter().any(|(known, _)| known.as_str() == id)
    }

    /// Accepts a job. It is durable when this returns, and goes on whether or not
    /// the caller waits for that.
    ///
    /// # Errors
    /// [`ShepherdError`]; nothing is left behind unless the outcome is unknown.
    pub async fn submit(&self, submit: Submit) -> Result<Accepted, ShepherdError> {
        if self.inner.shared.tasks.draining.is_cancelled() {
            return Err(ShepherdError::ShuttingDown);
        }
        if let Some(sheep) = submit.spec.sheep.as_ref().filter(|sheep| !self.knows_sheep(sheep.as_str())) {
            return Err(ShepherdError::UnknownSheep(sheep.to_string()));
        }
        if let Some(reason) = self.inner.models.refusal(&submit.spec).await {
            return Err(ShepherdError::UnknownModel(reason));
        }
        if matches!(submit.data, Data::Stored) {
            self.flush_earlier_run(&submit.spec.id).await?;
        }
        let accepted = self.inner.admission.submit(submit).await;
        self.inner.write_back.wake();
        accepted
    }

    /// Brings what an earlier run of the job left to storage before it runs again: it must
    /// neither come behind what its client has put there since, nor be taken for that.
    async fn flush_earlier_run(&self, id: &JobId) -> Result<(), ShepherdError> {
        let queue = &self.inner.shared.queue;
        // The record may have to be read from the disk.
        if queue.lag().finished == 0 || !queue.get(id).await?.is_some_and(|record| record.state.is_finished())
        {
            return Ok(());
        }
        let settled = tokio::time::timeout(SUBMIT_WAITS, self.flush(id)).await;
        settled.unwrap_or_else(|_| {
            let message = "the storage has not taken what an earlier run of the job left yet";
            Err(ShepherdError::Unavailable(message.to_owned()))
        })
    }

    /// One job's record.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownJob`], or when the queue does not answer.
    pub async fn job(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        self.inner.shared.queue.get(id).await?.ok_or(ShepherdError::UnknownJob)
    }

    /// The status document that storage has of a job that the queue does not know, such
    /// as one of another shepherd's: at most [`MAX_STATUS_DOCUMENT`](crate::MAX_STATUS_DOCUMENT)
    /// bytes, whatever a client has put there. Costs one request to the storage.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownJob`], or when the storage does not answer.
    pub async fn stored_status(&self, id: &JobId) -> Result<Bytes, ShepherdError> {
        data::stored_status(&self.inner.shared, id).await
    }

    /// Records of jobs, newest first.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn jobs(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>, ShepherdError> {
        Ok(self.inner.shared.queue.list(query).await?)
    }

    /// Waits until the job is finished. Dropping the future costs nothing.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownJob`]; [`ShepherdError::ShuttingDown`] when the
    /// shepherd ends first.
    pub async fn finished(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        let waiting = self.inner.shared.waiters.wait_for(id);
        let record = self.job(id).await?;
        if record.state.is_finished() {
            return Ok(record);
        }
        waiting.finished().await.ok_or(ShepherdError::ShuttingDown)
    }

    /// Withdraws a job. What its runner does with it from now on is void. A job that is
    /// cancelled already stays as it is.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownJob`]; [`ShepherdError::Finished`] when it is done or has failed.
    pub async fn cancel(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        let (answer, answered) = oneshot::channel();
        let (this, id) = (self.clone(), id.clone());
        self.inner.shared.tasks.spawn(TaskKind::Request, "cancel", async move {
            // The client may have left; those who wait for the job have not.
            let _ = answer.send(this.carry_cancel(&id).await);
        });
        answered.await.map_err(|_| ShepherdError::Unavailable("the cancel broke off".into()))?
    }

    async fn carry_cancel(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        let shared = &self.inner.shared;
        if shared.storage_is_remote() {
            // From then on its input in storage is its client's to replace.
            self.inner.write_back.store_inputs_soon(shared, id).await;
        }
        let objects = shared.live.log_object(id).into_iter().collect();
        let change = Change { job: id.clone(), event: Event::Cancel { at: now() }, objects };
        let result = shared.queue.apply(vec![change]).await?.pop();
        let record = match result {
            Some(Ok(record)) => record,
            Some(Err(ChangeRefused::Unknown)) | None => return Err(ShepherdError::UnknownJob),
            Some(Err(ChangeRefused::Rejected(Rejected::Finished))) => {
                // To cancel again what is cancelled is no mistake.
                let cancelled =
                    shared.queue.get(id).await?.filter(|job| job.state.phase() == Phase::Cancelled);
                return cancelled.ok_or(ShepherdError::Finished);
            }
            Some(Err(ChangeRefused::Rejected(other))) => {
                return Err(ShepherdError::Unavailable(other.to_string()));
            }
        };
        journal::ended(&record, None);
        shared.tell(&record);
        self.inner.write_back.wake();
        if let JobState::Cancelled { started_at: Some(_), history, .. } = record.state {
            let number = history.attempts;
            self.inner.inputs.send(Input::Cancelled { job: id.clone(), number }).await;
        }
        Ok(record)
    }

    /// Opens an object of a job, or the part of it in `range`, clipped to its end.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownObject`], [`ShepherdError::Range`], or when the
    /// storage does not answer.
    pub async fn open(
        &self,
        id: &JobId,
        path: &ObjectPath,
        range: Option<Range<u64>>,
    ) -> Result<Object, ShepherdError> {
        data::open(&self.inner.shared, id, path, range).await
    }

    /// What is known of an object of a job.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn head(&self, id: &JobId, path: &ObjectPath) -> Result<ObjectMeta, ShepherdError> {
        data::head(&self.inner.shared, id, path).await
    }

    /// How far a job in work is, as its runner said last.
    pub fn progress(&self, id: &JobId) -> Option<Progress> {
        self.inner.shared.live.progress(id)
    }

    /// What happens to a job, after the event `after` where what followed it is still
    /// known, otherwise beginning with the job's present state. Ends when the job has
    /// finished, or the shepherd; is empty when `after` was the job's end.
    ///
    /// Nothing is kept for one who takes events slowly: progress that was outdated
    /// meanwhile is left out.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownJob`], or when the queue does not answer.
    pub async fn events(
        &self,
        id: &JobId,
        after: Option<EventId>,
    ) -> Result<BoxStream<'static, JobEvent>, ShepherdError> {
        let watch = self.inner.shared.live.watch(id);
        let record = self.job(id).await?;
        Ok(watch.events(record, after))
    }

    /// What a job has printed so far; of a long log the end. Empty when there is none.
    ///
    /// # Errors
    /// [`ShepherdError::UnknownJob`], or when the queue or the storage does not answer.
    pub async fn log(&self, id: &JobId) -> Result<Bytes, ShepherdError> {
        if let Some(log) = self.inner.shared.live.log(id) {
            return Ok(log);
        }
        if !self.job(id).await?.state.is_finished() {
            return Ok(Bytes::new());
        }
        data::log(&self.inner.shared, id).await
    }

    /// What a job prints, from the beginning of what is known of it, until it has
    /// finished or the shepherd ends. One who reads slowly misses what is in the middle
    /// of a long log, and is told so in it.
    ///
    /// # Errors
    /// As [`log`](Self::log).
    pub async fn follow_log(&self, id: &JobId) -> Result<BoxStream<'static, Bytes>, ShepherdError> {
        let watch = self.inner.shared.live.watch(id);
        if !self.job(id).await?.state.is_finished() {
            return Ok(watch.log());
        }
        let log = data::log(&self.inner.shared, id).await?;
        Ok(stream::iter((!log.is_empty()).then_some(log)).boxed())
    }

    /// Brings a job's files in storage up to date: the small ones that the queue
    /// still has, and its status document. For those who read or change the storage
    /// by themselves; what this façade gives is up to date anyway.
    ///
    /// # Errors
    /// [`ShepherdError::Unavailable`] and [`ShepherdError::ShuttingDown`]. A job that
    /// is not known has nothing to bring there.
    pub async fn flush(&self, id: &JobId) -> Result<(), ShepherdError> {
        self.inner.write_back.flush(&self.inner.shared, id).await
    }

    /// Jobs with data that is not in storage yet, where nothing of them may be, with
    /// when each was submitted. It is only told, so it costs little for many.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn unflushed(&self) -> Result<Vec<(JobId, Timestamp)>, ShepherdError> {
        let mut unstored = self.inner.shared.queue.unstored().await?;
        unstored.retain(|object| self.inner.write_back.will_make_data(&object.job, &object.path));
        let jobs: BTreeMap<_, _> =
            unstored.into_iter().map(|object| (object.job, object.submitted_at)).collect();
        Ok(jobs.into_iter().collect())
    }

    /// The flock, in the order it was configured.
    pub fn flock(&self) -> Vec<SheepView> {
        let activity = self.inner.sheep.iter().map(|(_, sheep)| sheep.activity());
        let views = self.inner.views.get().into_iter().zip(activity);
        views.map(|(view, activity)| SheepView { activity, ..view }).collect()
    }

    /// Whether jobs can be taken and worked on.
    pub fn readiness(&self) -> Readiness {
        let tasks = &self.inner.shared.tasks;
        let mut problems = Vec::new();
        if tasks.draining.is_cancelled() {
            problems.push("the shepherd is shutting down".to_owned());
        }
        if let Some(name) = tasks.failed_name() {
            problems.push(format!("the task `{name}` of the shepherd has ended"));
        }
        problems.extend(self.inner.health.problems());
        problems.extend(self.inner.shared.unpublished.problem());
        problems.extend(self.inner.write_back.problem(&self.inner.shared));
        problems.extend(self.inner.views.problem());
        Readiness { problems, notices: self.inner.orphans.notices() }
    }

    /// Resolves when the shepherd cannot go on and should be started anew. Nothing
    /// that was accepted is lost by that.
    pub async fn failed(&self) {
        self.inner.shared.tasks.failed.cancelled().await;
    }

    /// Ends the shepherd within `grace`: refuses new jobs, lets running ones finish,
    /// gives those back that do not, ends the runners, and brings storage up to
    /// date as far as the time allows.
    pub async fn shutdown(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let Inner { shared, write_back, forced, .. } = &*self.inner;
        shared.tasks.draining.cancel();
        // What is kept for giving jobs back and ending runners by force.
        let reserve = (grace / 4).min(Duration::from_secs(2));
        let ended = shared.tasks.ended();
        tokio::pin!(ended);
        let in_time = tokio::select! {
            () = &mut ended => true,
            () = tokio::time::sleep_until(deadline - reserve) => false,
            () = forced.cancelled() => false,
        };
        if !in_time {
            forced.cancel();
            let last = deadline.max(Instant::now() + FORCED_END_TIMEOUT);
            if tokio::time::timeout_at(last, ended).await.is_err() {
                tracing::warn!("some work did not end in time; it is done again at the next start");
            }
        }
        if !forced.is_cancelled() {
            write_back.flush_all(shared, deadline.saturating_duration_since(Instant::now())).await;
        }
        shared.waiters.dismiss();
        shared.live.dismiss();
    }

    /// Cuts a [`shutdown`](Self::shutdown) short: runners are killed and their jobs
    /// given back.
    pub fn force_shutdown(&self) {
        self.inner.forced.cancel();
    }
}

/// How long a submit waits for what an earlier run of the job left to come to storage.
const SUBMIT_WAITS: Duration = Duration::from_millis(1500);

/// How long the daemon may be silent before other nodes of a shared store take its jobs.
const NODE_LEASE: Duration = Duration::from_secs(30);

/// What giving back and killing take at the most, when there is no grace left.
const FORCED_END_TIMEOUT: Duration = Duration::from_secs(2);

impl std::fmt::Debug for Shepherd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shepherd").field("flock", &self.flock()).finish_non_exhaustive()
    }
}
