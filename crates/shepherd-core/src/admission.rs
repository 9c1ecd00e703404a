//! The way of a job into the queue.
//!
//! ```text
//!  small payload or none:  check ids and data ─▶ queue, in one batch ─▶ answer
//!  large payload:          reserve id ─▶ mark ─▶ storage ─▶ sync ─▶ as above ─▶ unmark
//! ```
//!
//! All that arrives while a batch commits makes up the next one, so one commit
//! serves many clients. Where the storage is at the other end of a network, several
//! batches are under way, so that one that waits for it holds up no other. The work
//! runs in tasks of the shepherd: a client that leaves half-way changes nothing in
//! it.
//!
//! A large payload is in storage before its job is in the queue. A marker file
//! written before it says that it may have to be removed: by the same task when
//! the submit fails, by the next start when the daemon was killed in between.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use shepherd_job::{DEFAULT_INPUT, JobId, JobIdRule, JobSpec, ObjectPath};
use shepherd_queue::{Existing, JobRecord, NewJob, SmallObject, Submitted};
use shepherd_storage::{Body, StorageError};
use tokio::sync::{mpsc, oneshot};

use crate::ShepherdError;
use crate::clock::now;
use crate::data;
use crate::live::log_path;
use crate::retry::store_backoff;
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::write_back::WriteBack;

use submit_locks::{SubmitLock, SubmitLocks};

mod submit_locks;

/// How many submits one commit takes at most.
const BATCH: usize = 1024;

/// How long a storage may take to say which data it has before submits are refused.
const DATA_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How many batches are under way at most where the storage takes long to answer.
const MAX_BATCHES: usize = 32;

/// A job as a client submits it.
pub struct Submit {
    /// What to run.
    pub spec: JobSpec,
    /// Where its inputs are.
    pub data: Data,
}

/// Where the inputs of a submitted job are.
pub enum Data {
    /// In storage already.
    Stored,
    /// Here; it becomes `inputs/input`.
    Payload(Bytes),
    /// Here, too large to hold in memory; it becomes `inputs/input`.
    Stream(Body),
}

/// What became of a submit. Either way the job is in the queue, durably.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It was queued.
    Queued(Arc<JobRecord>),
    /// A job of this id is queued or running, and was left alone.
    Live(Arc<JobRecord>),
}

type Answer = Result<Accepted, ShepherdError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataCheck {
    /// There must be data in storage.
    Present,
    /// There must be none.
    Absent,
    /// The data was just written for this submit.
    Done,
}

struct Request {
    job: NewJob,
    check: DataCheck,
    /// Held until the request is answered, whether or not its client still waits.
    reserved: Option<SubmitLock>,
    answer: oneshot::Sender<Answer>,
}

pub(crate) struct Admission {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Request>,
    reserved: Arc<SubmitLocks>,
    markers: PathBuf,
}

impl Admission {
    /// Starts the task that takes batches.
    pub(crate) fn start(shared: &Arc<Shared>, write_back: &Arc<WriteBack>, markers: PathBuf) -> Arc<Self> {
        let (sender, receiver) = mpsc::channel(4 * BATCH);
        let task = admit(Arc::clone(shared), Arc::clone(write_back), markers.clone(), receiver);
        shared.tasks.spawn(TaskKind::Critical, "admission", task);
        Arc::new(Self { shared: Arc::clone(shared), sender, reserved: Arc::default(), markers })
    }

    pub(crate) async fn submit(self: &Arc<Self>, submit: Submit) -> Answer {
        let Submit { spec, data } = submit;
        let payload_path = || ObjectPath::parse(DEFAULT_INPUT).expect("the constant is a legal key");
        match data {
            Data::Stored => {
                let objects = stale_log(&self.shared, &spec.id).await?;
                self.request(spec, objects, DataCheck::Present).await
            }
            Data::Payload(bytes) if bytes.len() <= self.shared.small_objects().inputs => {
                self.request(spec, vec![(payload_path(), bytes)], DataCheck::Absent).await
            }
            Data::Payload(bytes) => {
                self.submit_large(spec, Box::pin(futures::stream::once(async move { Ok(bytes) }))).await
            }
            Data::Stream(body) => self.submit_large(spec, body).await,
        }
    }

    /// Removes what submits left in storage when the daemon was killed before their
    /// jobs were in the queue. What cannot be removed now is tried again until it can
    /// be: a storage that is away does not keep the shepherd from starting.
    ///
    /// # Errors
    /// When the markers cannot be read.
    pub(crate) async fn sweep(self: &Arc<Self>) -> Result<(), ShepherdError> {
        let markers = std::fs::read_dir(&self.markers).map_err(|e| {
            ShepherdError::Unavailable(format!("cannot read {}: {e}", self.markers.display()))
        })?;
        // Job ids of either rule are legal here: which was in force then is not known.
        let id = |name: String| JobId::parse(&name, JobIdRule::Prefix).ok();
        let mut left: VecDeque<JobId> =
            markers.filter_map(|entry| entry.ok()?.file_name().into_string().ok().and_then(id)).collect();
        while let Some(id) = left.front() {
            if let Err(error) = self.sweep_one(id).await {
                tracing::warn!(payloads = left.len(), %error, "cannot remove payloads of submits that were cut off; trying again");
                break;
            }
            left.pop_front();
        }
        if !left.is_empty() {
            self.sweep_later(left);
        }
        Ok(())
    }

    /// Sweeps in a task, until all is swept or the shepherd ends.
    fn sweep_later(self: &Arc<Self>, mut left: VecDeque<JobId>) {
        let this = Arc::clone(self);
        self.shared.tasks.spawn(TaskKind::Request, "sweep", async move {
            let again = async {
                let mut backoff = store_backoff();
                while let Some(id) = left.pop_front() {
                    tokio::time::sleep(backoff.step()).await;
                    match this.sweep_one(&id).await {
                        Ok(()) => backoff.reset(),
                        Err(error) => {
                            tracing::debug!(job = %id, %error, "cannot remove the payload of a submit that was cut off");
                            left.push_back(id);
                        }
                    }
                }
            };
            tokio::select! {
                () = again => tracing::info!("payloads of submits that were cut off are removed"),
                () = this.shared.tasks.draining.cancelled() => {}
            }
        });
    }

    async fn sweep_one(&self, id: &JobId) -> Result<(), ShepherdError> {
        let busy = || ShepherdError::Unavailable(format!("job `{id}` is being submitted"));
        let _reserved = SubmitLock::alone(&self.reserved, id).ok_or_else(busy)?;
        self.sweep_reserved(id).await
    }

    /// Removes what a submit left whose job is not in the queue, and its marker. The
    /// caller holds the id.
    async fn sweep_reserved(&self, id: &JobId) -> Result<(), ShepherdError> {
        let Shared { queue, storage, .. } = &*self.shared;
        if queue.get(id).await?.is_none() {
            let left = storage.list(id, "", None, 2).await?;
            if left.iter().all(|object| object.path.as_str() == DEFAULT_INPUT) {
                tracing::info!(job = %id, "removing the payload of a submit that was cut off");
                storage.remove(id).await?;
            } else {
                tracing::info!(job = %id, "somebody has put data where a submit was cut off: it stays");
            }
        }
        unmark(&self.markers.join(id.as_str())).await;
        Ok(())
    }

    async fn request(&self, spec: JobSpec, objects: Vec<(ObjectPath, Bytes)>, check: DataCheck) -> Answer {
        let existing = match check {
            DataCheck::Present => Existing::Rerun,
            DataCheck::Absent | DataCheck::Done => Existing::Refuse,
        };
        let reserved = match check {
            DataCheck::Present | DataCheck::Absent => {
                Some(SubmitLock::share(&self.reserved, &spec.id).ok_or(ShepherdError::AlreadySubmitted)?)
            }
            DataCheck::Done => None,
        };
        let (answer, answered) = oneshot::channel();
        let job = NewJob { spec, submitted_at: now(), objects, existing };
        let request = Request { job, check, reserved, answer };
        self.sender.send(request).await.map_err(|_| ShepherdError::ShuttingDown)?;
        answered.await.map_err(|_| ShepherdError::ShuttingDown)?
    }

    async fn submit_large(self: &Arc<Self>, spec: JobSpec, body: Body) -> Answer {
        let (answer, answered) = oneshot::channel();
        let this = Arc::clone(self);
        self.shared.tasks.spawn(TaskKind::Request, "large payload", async move {
            let result = this.carry_large(spec, body).await;
            // The client may have left; the outcome stands all the same.
            let _ = answer.send(result);
        });
        answered.await.map_err(|_| ShepherdError::Unavailable("the submit broke off".into()))?
    }

    async fn carry_large(self: &Arc<Self>, spec: JobSpec, body: Body) -> Answer {
        let id = spec.id.clone();
        let _reserved = SubmitLock::alone(&self.reserved, &id).ok_or(ShepherdError::AlreadySubmitted)?;
        let Shared { queue, storage, .. } = &*self.shared;
        if queue.get(&id).await?.is_some() {
            return Err(ShepherdError::AlreadySubmitted);
        }
        if storage.contains(&id).await? {
            if !is_marked(&self.markers, &id).await {
                return Err(ShepherdError::AlreadySubmitted);
            }
            // It was never accepted: its client may well try again.
            self.sweep_reserved(&id).await?;
        }
        let marker = self.markers.join(id.as_str());
        mark(&marker).await?;
        let stored = async {
            let path = ObjectPath::parse(DEFAULT_INPUT).expect("the constant is a legal key");
            let failed_before = storage.failed_syncs();
            storage.put(&id, &path, body).await?;
            self.shared.sync_since(failed_before).await?;
            self.request(spec, Vec::new(), DataCheck::Done).await
        };
        let answer = stored.await;
        match &answer {
            Ok(_) => unmark(&marker).await,
            // The queue may have taken the job before it failed: what it says decides.
            Err(_) => {
                if self.sweep_reserved(&id).await.is_err() {
                    self.sweep_later(VecDeque::from([id]));
                }
            }
        }
        answer
    }
}

/// Whether a submit of this id was cut off and what it left is not removed yet.
async fn is_marked(markers: &Path, id: &JobId) -> bool {
    tokio::fs::try_exists(markers.join(id.as_str())).await.unwrap_or(false)
}

async fn mark(marker: &Path) -> Result<(), ShepherdError> {
    let marker = marker.to_owned();
    let made = tokio::task::spawn_blocking(move || {
        std::fs::File::create(&marker)?.sync_all()?;
        // The name must last as well as the file.
        marker.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    });
    match made.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::StorageFull => Err(ShepherdError::Full),
        Ok(Err(e)) => Err(ShepherdError::Unavailable(format!("cannot write to the state directory: {e}"))),
        Err(e) => Err(ShepherdError::Unavailable(e.to_string())),
    }
}

async fn unmark(marker: &Path) {
    if let Err(error) = tokio::fs::remove_file(marker).await {
        // Harmless: the next start finds the job in the queue, and removes the marker alone.
        tracing::warn!(marker = %marker.display(), %error, "cannot remove a marker");
    }
}

/// What takes the place of the log that an earlier run of the job left.
async fn stale_log(shared: &Shared, id: &JobId) -> Result<Vec<SmallObject>, ShepherdError> {
    if !shared.queue.get(id).await?.is_some_and(|record| record.state.is_finished()) {
        return Ok(Vec::new());
    }
    match data::head(shared, id, &log_path()).await {
        Ok(meta) if meta.size > 0 => Ok(vec![(log_path(), Bytes::new())]),
        Ok(_) | Err(ShepherdError::UnknownObject | ShepherdError::UnknownJob) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn admit(
    shared: Arc<Shared>,
    write_back: Arc<WriteBack>,
    markers: PathBuf,
    mut requests: mpsc::Receiver<Request>,
) {
    let most = if shared.storage_is_remote() { MAX_BATCHES } else { 1 };
    let mut under_way = FuturesUnordered::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut ended = false;
    while !ended || !under_way.is_empty() {
        // Closing at the drain lets what was sent before be served, and refuses the rest.
        tokio::select! {
            Some(()) = under_way.next() => continue,
            count = requests.recv_many(&mut batch, BATCH), if !ended && under_way.len() < most => {
                ended = count == 0;
            }
            () = shared.tasks.draining.cancelled(), if !requests.is_closed() => {
                requests.close();
                continue;
            }
        }
        if batch.is_empty() {
            continue;
        }
        under_way.push(admit_batch(&shared, &write_back, &markers, std::mem::take(&mut batch)));
    }
}

async fn admit_batch(shared: &Shared, write_back: &WriteBack, markers: &Path, batch: Vec<Request>) {
    // At the drain nobody makes room any more.
    let has_room = tokio::select! {
        has_room = write_back.admits(shared) => has_room,
        () = shared.tasks.draining.cancelled() => true,
    };
    if !has_room {
        let message = "the storage does not take what was submitted before";
        for request in batch {
            let _ = request.answer.send(Err(ShepherdError::Unavailable(message.to_owned())));
        }
        return;
    }
    let batch = check_data(shared, markers, batch).await;
    let is_new = |request: &Request| request.check == DataCheck::Absent && shared.storage_is_remote();
    let new: HashSet<JobId> = batch.iter().filter(|r| is_new(r)).map(|r| r.job.spec.id.clone()).collect();
    let (jobs, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|r| (r.job, (r.answer, r.reserved))).unzip();
    if jobs.is_empty() {
        return;
    }
    match shared.queue.submit(jobs).await {
        Ok(outcomes) => {
            make_homes(shared, &outcomes, &new).await;
            for (outcome, (answer, _held)) in outcomes.into_iter().zip(answers) {
                let _ = answer.send(match outcome {
                    Submitted::Accepted(record) => Ok(Accepted::Queued(record)),
                    Submitted::Live(record) => Ok(Accepted::Live(record)),
                    Submitted::Conflict => Err(ShepherdError::AlreadySubmitted),
                });
            }
        }
        Err(error) => {
            tracing::warn!(%error, submits = answers.len(), "cannot accept jobs");
            let full = matches!(error, shepherd_queue::QueueError::Full);
            let message = error.to_string();
            for (answer, _held) in answers {
                let error =
                    if full { ShepherdError::Full } else { ShepherdError::Unavailable(message.clone()) };
                let _ = answer.send(Err(error));
            }
        }
    }
}

/// Makes the places in storage of those accepted jobs that are `new` there: whoever hears
/// that a job was accepted may put more beside its input. It was accepted all the same
/// where that cannot be done now, and the place is made together with its input.
async fn make_homes(shared: &Shared, outcomes: &[Submitted], new: &HashSet<JobId>) {
    let accepted = outcomes.iter().filter_map(|outcome| match outcome {
        Submitted::Accepted(record) => Some(&record.spec.id),
        Submitted::Live(_) | Submitted::Conflict => None,
    });
    let jobs: Vec<JobId> = accepted.filter(|id| new.contains(*id)).cloned().collect();
    if jobs.is_empty() {
        return;
    }
    let made = shared.storage.make_homes(&jobs).await;
    if let Some((job, error)) = jobs.iter().zip(made).find_map(|(job, made)| Some((job, made.err()?))) {
        tracing::warn!(%job, %error, "cannot make the place of an accepted job in storage yet");
    }
}

/// Answers the requests whose data is not as it must be, and returns the others.
async fn check_data(shared: &Shared, markers: &Path, batch: Vec<Request>) -> Vec<Request> {
    let ids: Vec<JobId> =
        batch.iter().filter(|r| r.check != DataCheck::Done).map(|r| r.job.spec.id.clone()).collect();
    let looked = tokio::time::timeout(DATA_CHECK_TIMEOUT, shared.storage.contains_each(&ids)).await;
    let away = || StorageError::Unavailable("the storage does not say whether the data exists".to_owned());
    let mut present = looked.unwrap_or_else(|_| ids.iter().map(|_| Err(away())).collect()).into_iter();
    let mut good = Vec::with_capacity(batch.len());
    for request in batch {
        let verdict = match request.check {
            DataCheck::Done => Ok(()),
            check => match (present.next().expect("an answer for each id"), check) {
                (Err(error), _) => Err(error.into()),
                (Ok(true), DataCheck::Absent) => match is_marked(markers, &request.job.spec.id).await {
                    true => Err(ShepherdError::Unavailable(
                        "what an earlier submit of this id left is being removed".to_owned(),
                    )),
                    false => Err(ShepherdError::AlreadySubmitted),
                },
                (Ok(false), DataCheck::Present) => match shared.queue.get(&request.job.spec.id).await {
                    // Its data may still ride in the queue.
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err(ShepherdError::NoData),
                    Err(error) => Err(error.into()),
                },
                (Ok(_), _) => Ok(()),
            },
        };
        match verdict {
            Ok(()) => good.push(request),
            Err(error) => {
                let _ = request.answer.send(Err(error));
            }
        }
    }
    good
}
