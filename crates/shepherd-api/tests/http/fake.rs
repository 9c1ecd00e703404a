//! A shepherd that remembers what it was asked, and a server over it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use shepherd_api::{Api, ApiOptions, Backend, Drained, ServeOptions, serve};
use shepherd_core::{
    Accepted, Data, EventId, JobEvent, JobEventKind, JobRecord, ListQuery, Object, ObjectMeta, Progress,
    Readiness, SheepState, SheepView, ShepherdError, Submit,
};
use shepherd_job::{
    History, JobError, JobId, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, Phase, STATUS_OBJECT,
    SheepId, Timestamp,
};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::client::Client;

pub(crate) const AT: Timestamp = Timestamp::from_micros(1_795_383_059_336_682);

/// How a payload arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Stored,
    Payload(Bytes),
    /// Streamed: how many bytes in how many pieces, and their sum.
    Stream {
        bytes: usize,
        sum: u64,
    },
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) jobs: HashMap<String, Arc<JobRecord>>,
    pub(crate) objects: HashMap<(String, String), Bytes>,
    pub(crate) submits: Vec<(JobSpec, Got)>,
    pub(crate) queries: Vec<ListQuery>,
    /// What the next call is answered with.
    pub(crate) failure: Option<ShepherdError>,
    /// The job that the next submit finds queued or running.
    pub(crate) live: Option<Arc<JobRecord>>,
    pub(crate) problems: Vec<String>,
    pub(crate) panics: bool,
    pub(crate) cancelled: HashSet<String>,
    pub(crate) opens: usize,
    /// How often the storage was asked for a status document.
    pub(crate) stored_looks: usize,
    pub(crate) progress: HashMap<String, Progress>,
    pub(crate) events: HashMap<String, Vec<JobEvent>>,
    pub(crate) logs: HashMap<String, Vec<Bytes>>,
    /// Those who watch jobs are sent away.
    pub(crate) ended: bool,
    /// How many pieces of logs were taken.
    pub(crate) taken: usize,
}

#[derive(Clone)]
pub(crate) struct Fake {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    pub(crate) waiters: Arc<AtomicUsize>,
    /// How many ever waited.
    begun: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            world: Arc::default(),
            changed: watch::channel(0).0,
            waiters: Arc::default(),
            begun: Arc::default(),
        }
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let outcome = change(&mut self.world.lock().unwrap());
        self.changed.send_modify(|version| *version += 1);
        outcome
    }

    pub(crate) fn job(&self, id: &str, state: JobState) {
        self.with(|world| {
            let seq = world.jobs.len() as u64 + 1;
            world.jobs.insert(id.to_owned(), Arc::new(record(id, seq, state)));
        });
    }

    /// Something happens to a job.
    pub(crate) fn event(&self, job: &str, id: &str, kind: JobEventKind) {
        let event = JobEvent { id: id.parse().unwrap(), kind };
        self.with(|world| world.events.entry(job.to_owned()).or_default().push(event));
    }

    /// A job has this state now, and those who watch it hear of it.
    pub(crate) fn becomes(&self, job: &str, event: &str, state: JobState) {
        self.with(|world| {
            let seq = world.jobs.len() as u64 + 1;
            let record = Arc::new(record(job, seq, state));
            world.jobs.insert(job.to_owned(), Arc::clone(&record));
            let event = JobEvent { id: event.parse().unwrap(), kind: JobEventKind::State(record) };
            world.events.entry(job.to_owned()).or_default().push(event);
        });
    }

    pub(crate) fn print(&self, job: &str, text: impl Into<Bytes>) {
        self.with(|world| world.logs.entry(job.to_owned()).or_default().push(text.into()));
    }

    pub(crate) fn object(&self, id: &str, path: &str, bytes: impl Into<Bytes>) {
        self.with(|world| world.objects.insert((id.into(), path.into()), bytes.into()));
    }

    /// Waits until so many clients wait for jobs.
    pub(crate) async fn until_waiters(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        while self.waiters.load(Ordering::SeqCst) != count {
            changed.changed().await.unwrap();
        }
    }

    /// How many have begun to wait.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until so many clients have begun to wait.
    pub(crate) async fn until_begun(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        while self.begun.load(Ordering::SeqCst) < count {
            changed.changed().await.unwrap();
        }
    }

    /// Nothing was asked for that the test did not look at.
    #[track_caller]
    pub(crate) fn was_not_submitted_to(&self) {
        self.with(|world| assert!(world.submits.is_empty(), "{:?}", world.submits));
    }

    fn call<T>(
        &self,
        answer: impl FnOnce(&mut World) -> Result<T, ShepherdError>,
    ) -> Result<T, ShepherdError> {
        let mut world = self.world.lock().unwrap();
        let panics = world.panics;
        let failure = world.failure.take();
        if panics {
            drop(world);
            panic!("told to");
        }
        match failure {
            Some(failure) => Err(failure),
            None => answer(&mut world),
        }
    }

    fn look_up(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        self.call(|world| world.jobs.get(id.as_str()).cloned().ok_or(ShepherdError::UnknownJob))
    }

    /// What `pick` finds at places from `at` on, as it appears, until the job has
    /// finished.
    fn follow<T: Send + 'static>(
        &self,
        id: &JobId,
        at: usize,
        pick: impl Fn(&mut World, &str, usize) -> Option<T> + Send + Sync + 'static,
    ) -> BoxStream<'static, T> {
        let (waiter, changed, pick) = (Waiter::new(self), self.changed.subscribe(), Arc::new(pick));
        let id = id.to_string();
        stream::unfold((waiter, changed, id, at), move |(waiter, mut changed, id, at)| {
            let pick = Arc::clone(&pick);
            async move {
                loop {
                    {
                        let mut world = waiter.0.world.lock().unwrap();
                        changed.mark_unchanged();
                        if let Some(found) = pick(&mut world, &id, at) {
                            drop(world);
                            return Some((found, (waiter, changed, id, at + 1)));
                        }
                        if world.ended || world.jobs[&id].state.is_finished() {
                            return None;
                        }
                    }
                    changed.changed().await.unwrap();
                }
            }
        })
        .boxed()
    }

    fn find(&self, id: &JobId, path: &ObjectPath) -> Result<(Bytes, ObjectMeta), ShepherdError> {
        self.call(|world| {
            let is_stored = world.objects.keys().any(|(job, _)| job == id.as_str());
            if !world.jobs.contains_key(id.as_str()) && !is_stored {
                return Err(ShepherdError::UnknownJob);
            }
            let key = (id.to_string(), path.to_string());
            let bytes = world.objects.get(&key).cloned().ok_or(ShepherdError::UnknownObject)?;
            let meta = ObjectMeta { path: path.clone(), size: bytes.len() as u64, modified: AT };
            Ok((bytes, meta))
        })
    }
}

pub(crate) fn record(id: &str, seq: u64, state: JobState) -> JobRecord {
    JobRecord {
        seq,
        spec: JobSpec {
            id: JobId::parse(id, JobIdRule::Prefix).unwrap(),
            model: ModelRef::parse("ocr", "latest").unwrap(),
            sheep: None,
            priority: 0,
        },
        submitted_at: AT,
        state,
    }
}

pub(crate) fn done() -> JobState {
    JobState::Done { started_at: AT, finished_at: AT, history: History::default() }
}

pub(crate) fn failed(message: &str) -> JobState {
    JobState::Failed {
        started_at: AT,
        finished_at: AT,
        error: JobError::new(message),
        history: History::default(),
    }
}

pub(crate) fn cancelled() -> JobState {
    JobState::Cancelled { started_at: None, finished_at: AT, history: History::default() }
}

struct Waiter(Fake);

impl Waiter {
    fn new(fake: &Fake) -> Self {
        fake.waiters.fetch_add(1, Ordering::SeqCst);
        fake.begun.fetch_add(1, Ordering::SeqCst);
        fake.changed.send_modify(|version| *version += 1);
        Self(fake.clone())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.send_modify(|version| *version += 1);
    }
}

impl Backend for Fake {
    fn knows_sheep(&self, id: &str) -> bool {
        id == "sheep-1"
    }

    async fn submit(&self, submit: Submit) -> Result<Accepted, ShepherdError> {
        let got = match submit.data {
            Data::Stored => Got::Stored,
            Data::Payload(bytes) => Got::Payload(bytes),
            Data::Stream(mut body) => {
                let (mut bytes, mut sum) = (0, 0_u64);
                while let Some(piece) = body.try_next().await.unwrap() {
                    bytes += piece.len();
                    sum += piece.iter().map(|&b| u64::from(b)).sum::<u64>();
                }
                Got::Stream { bytes, sum }
            }
        };
        self.call(|world| {
            let job = Arc::new(record(submit.spec.id.as_str(), 1, JobState::new()));
            world.submits.push((submit.spec, got));
            Ok(world.live.take().map_or(Accepted::Queued(job), Accepted::Live))
        })
    }

    async fn job(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        self.look_up(id)
    }

    async fn stored_status(&self, id: &JobId) -> Result<Bytes, ShepherdError> {
        self.call(|world| {
            world.stored_looks += 1;
            let key = (id.to_string(), STATUS_OBJECT.to_owned());
            world.objects.get(&key).cloned().ok_or(ShepherdError::UnknownJob)
        })
    }

    async fn jobs(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>, ShepherdError> {
        self.call(|world| {
            let mut jobs: Vec<_> = world.jobs.values().cloned().collect();
            jobs.sort_by_key(|job| std::cmp::Reverse(job.seq));
            jobs.retain(|job| query.before.is_none_or(|before| job.seq < before));
            jobs.retain(|job| query.phases.is_empty() || query.phases.contains(&job.state.phase()));
            jobs.truncate(query.limit);
            world.queries.push(query);
            Ok(jobs)
        })
    }

    async fn finished(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        let mut changed = self.changed.subscribe();
        let _waiter = Waiter::new(self);
        loop {
            let job = self.look_up(id)?;
            if job.state.is_finished() {
                return Ok(job);
            }
            changed.changed().await.unwrap();
        }
    }

    async fn cancel(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        let job = self.look_up(id)?;
        match job.state.phase() {
            Phase::Cancelled => return Ok(job),
            Phase::Done | Phase::Failed => return Err(ShepherdError::Finished),
            Phase::Queued | Phase::Processing => {}
        }
        let job = Arc::new(record(id.as_str(), job.seq, cancelled()));
        self.with(|world| {
            world.cancelled.insert(id.to_string());
            world.jobs.insert(id.to_string(), Arc::clone(&job));
        });
        Ok(job)
    }

    async fn open(
        &self,
        id: &JobId,
        path: &ObjectPath,
        range: Option<Range<u64>>,
    ) -> Result<Object, ShepherdError> {
        let (bytes, meta) = self.find(id, path)?;
        self.with(|world| world.opens += 1);
        let range = match range {
            None => 0..meta.size,
            Some(range) if range.start >= meta.size => return Err(ShepherdError::Range { size: meta.size }),
            Some(range) => range.start..range.end.min(meta.size),
        };
        let part = bytes.slice(range.start as usize..range.end as usize);
        let pieces: Vec<_> = part.chunks(100_000).map(|piece| Ok(part.slice_ref(piece))).collect();
        Ok(Object { meta, range, body: stream::iter(pieces).boxed() })
    }

    async fn head(&self, id: &JobId, path: &ObjectPath) -> Result<ObjectMeta, ShepherdError> {
        Ok(self.find(id, path)?.1)
    }

    fn progress(&self, id: &JobId) -> Option<Progress> {
        self.with(|world| world.progress.get(id.as_str()).cloned())
    }

    async fn events(
        &self,
        id: &JobId,
        after: Option<EventId>,
    ) -> Result<BoxStream<'static, JobEvent>, ShepherdError> {
        self.look_up(id)?;
        let known = self.with(|world| {
            let events = world.events.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            events.iter().position(|event| Some(event.id) == after)
        });
        let from = known.map_or(0, |at| at + 1);
        Ok(self.follow(id, from, |world, id, at| world.events.get(id)?.get(at).cloned()))
    }

    async fn log(&self, id: &JobId) -> Result<Bytes, ShepherdError> {
        self.look_up(id)?;
        Ok(self.with(|world| world.logs.get(id.as_str()).map_or(Vec::new(), |log| log.concat())).into())
    }

    async fn follow_log(&self, id: &JobId) -> Result<BoxStream<'static, Bytes>, ShepherdError> {
        self.look_up(id)?;
        Ok(self.follow(id, 0, |world, id, at| {
            let piece = world.logs.get(id)?.get(at).cloned()?;
            world.taken += 1;
            Some(piece)
        }))
    }

    fn flock(&self) -> Vec<SheepView> {
        vec![SheepView {
            id: SheepId::parse("sheep-1").unwrap(),
            kind: "bare",
            state: SheepState::Running,
            model: None,
            job: None,
            problem: None,
            activity: None,
        }]
    }

    fn readiness(&self) -> Readiness {
        Readiness { problems: self.with(|world| world.problems.clone()), notices: Vec::new() }
    }
}

/// A server that is running.
pub(crate) struct Server {
    pub(crate) fake: Fake,
    pub(crate) address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<Drained>,
    spool: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ApiOptions, &mut ServeOptions)) -> Self {
        let spool = tempfile::tempdir().unwrap();
        let mut api = ApiOptions::new(JobIdRule::Bucket, spool.path().join("spool"));
        let mut options = ServeOptions::default();
        change(&mut api, &mut options);
        let fake = Fake::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel();
        let api = Api::new(fake.clone(), api);
        let task = tokio::spawn(serve(listener, api, options, async move {
            let _ = told.await;
        }));
        Self { fake, address, shutdown: Some(shutdown), task, spool }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn drained(self) -> Drained {
        self.task.await.unwrap()
    }

    /// Whether nothing is left of payloads.
    pub(crate) fn spool_is_empty(&self) -> bool {
        std::fs::read_dir(self.spool.path().join("spool")).map_or(true, |mut files| files.next().is_none())
    }
}
