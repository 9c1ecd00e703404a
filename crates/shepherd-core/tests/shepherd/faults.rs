//! Storages that are far away, refuse, hang, or lose what they took.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shepherd_core::{Accepted, Data, Options, RunnerLimits, Shepherd, Submit};
use shepherd_job::{JobId, JobState, ObjectPath, STATUS_OBJECT};
use shepherd_protocol::Input;
use shepherd_queue::MemoryStore;
use shepherd_storage::{
    Body, JobObjects, LocalStorage, Object, ObjectMeta, Put, Replaces, Result, RunnerDir, SmallObjects,
    Storage, StorageError, Transfer, body,
};
use tokio::sync::Semaphore;

use crate::fake::{Harness, Io, PATIENCE, Script, echoing, file, spec};

/// How long a slow sync takes.
const SLOW_SYNC: Duration = Duration::from_millis(20);

/// A local storage that can be made to misbehave.
pub(crate) struct Faulty {
    local: Arc<LocalStorage>,
    remote: bool,
    /// Jobs of which nothing small can be stored.
    refused: Mutex<HashSet<JobId>>,
    /// How many syncs fail from now on.
    lost: AtomicU32,
    /// Publishing takes a permit, and is stopped while there is none.
    pub(crate) gate: Semaphore,
    /// Publishing has come to the gate so often.
    pub(crate) at_gate: Semaphore,
    /// How many publishings fail from now on.
    unpublished: AtomicU32,
    /// How many puts are stored from now on and yet said to have failed.
    unheard: AtomicU32,
    away: AtomicBool,
    /// Nothing is published for want of room.
    full: AtomicBool,
    /// New objects are neither stored nor refused.
    hangs: AtomicBool,
    /// How many puts of small objects meet the failure of somebody else's sync from now on.
    pub(crate) others_lost: AtomicU32,
    failed_syncs: AtomicU64,
    /// Syncs go one after another, each of which takes a moment.
    pub(crate) slow_syncs: AtomicBool,
    sync_turn: tokio::sync::Mutex<()>,
    /// Nothing small is stored for want of room.
    pub(crate) takes_nothing: AtomicBool,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Faulty {
    pub(crate) fn new(local: &Arc<LocalStorage>) -> Self {
        Self {
            local: Arc::clone(local),
            remote: false,
            refused: Mutex::default(),
            lost: AtomicU32::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            at_gate: Semaphore::new(0),
            unpublished: AtomicU32::new(0),
            unheard: AtomicU32::new(0),
            away: AtomicBool::new(false),
            full: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            others_lost: AtomicU32::new(0),
            failed_syncs: AtomicU64::new(0),
            slow_syncs: AtomicBool::new(false),
            sync_turn: tokio::sync::Mutex::default(),
            takes_nothing: AtomicBool::new(false),
            asked: Mutex::default(),
        }
    }

    fn answers(&self) -> Result<()> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(StorageError::Unavailable("away".into())),
            false => Ok(()),
        }
    }

    /// Whether this is one of so many calls that are to fail.
    fn counts_down(failing: &AtomicU32) -> bool {
        failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }
}

#[async_trait]
impl Storage for Faulty {
    fn small_objects(&self) -> SmallObjects {
        let small = self.local.small_objects();
        if self.remote { SmallObjects { outputs: 0, ..small } } else { small }
    }

    async fn contains(&self, job: &JobId) -> Result<bool> {
        self.answers()?;
        self.local.contains(job).await
    }

    async fn put(&self, job: &JobId, path: &ObjectPath, body: Body) -> Result<ObjectMeta> {
        self.answers()?;
        let stored = self.local.put(job, path, body).await;
        if Self::counts_down(&self.unheard) {
            return Err(StorageError::Unavailable("nobody heard".into()));
        }
        stored
    }

    /// As a service that passes over conditions: what is there is replaced, unless it was looked
    /// for.
    async fn put_small(&self, jobs: Vec<JobObjects>) -> Vec<Result<()>> {
        let mut outcomes = Vec::new();
        for mut job in jobs {
            if self.hangs.load(Ordering::SeqCst) && job.objects.iter().any(|object| object.how == Put::New) {
                std::future::pending::<()>().await;
            }
            let takes = match self.takes_nothing.load(Ordering::SeqCst) {
                true => Err(StorageError::Full),
                false => self.answers(),
            };
            if let Err(error) = takes {
                outcomes.push(Err(error));
                continue;
            }
            for object in &mut job.objects {
                self.note(format!("put {}/{}", job.job, object.path));
                if object.how == Put::New {
                    object.how = Put::Replace;
                }
            }
            let is_refused = self.refused.lock().unwrap().contains(&job.job);
            match is_refused {
                true => outcomes.push(Err(StorageError::Denied("refused".into()))),
                false => outcomes.extend(self.local.put_small(vec![job]).await),
            }
            if Self::counts_down(&self.others_lost) {
                self.failed_syncs.fetch_add(1, Ordering::SeqCst);
            }
        }
        outcomes
    }

    async fn get(&self, job: &JobId, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Object> {
        self.answers()?;
        self.local.get(job, path, range).await
    }

    async fn head(&self, job: &JobId, path: &ObjectPath) -> Result<ObjectMeta> {
        self.answers()?;
        self.local.head(job, path).await
    }

    async fn list(
        &self,
        job: &JobId,
        prefix: &str,
        after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.answers()?;
        self.local.list(job, prefix, after, limit).await
    }

    async fn stage(&self, job: &JobId, to: &RunnerDir) -> Result<Transfer> {
        self.answers()?;
        self.local.stage(job, to).await
    }

    async fn publish(&self, job: &JobId, from: &RunnerDir, replaces: Replaces) -> Result<Transfer> {
        self.note(format!("publish {job} {replaces:?}"));
        self.at_gate.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.answers()?;
        if self.full.load(Ordering::SeqCst) {
            return Err(StorageError::Full);
        }
        if Self::counts_down(&self.unpublished) {
            return Err(StorageError::Unavailable("not now".into()));
        }
        self.local.publish(job, from, replaces).await
    }

    async fn sync(&self) -> Result<()> {
        if Self::counts_down(&self.lost) {
            self.failed_syncs.fetch_add(1, Ordering::SeqCst);
            return Err(StorageError::Unavailable("lost".into()));
        }
        if self.slow_syncs.load(Ordering::SeqCst) {
            let _turn = self.sync_turn.lock().await;
            tokio::time::sleep(SLOW_SYNC).await;
        }
        self.local.sync().await
    }

    fn failed_syncs(&self) -> u64 {
        self.failed_syncs.load(Ordering::SeqCst)
    }

    async fn remove(&self, job: &JobId) -> Result<()> {
        self.answers()?;
        self.local.remove(job).await
    }

    async fn check(&self) -> Result<()> {
        self.answers()?;
        self.local.check().await
    }
}

/// A harness of one sheep over a storage that `change` made faulty.
pub(crate) async fn harness(
    scripts: Vec<Script>,
    change: impl FnOnce(&mut Faulty),
) -> (Harness, Arc<Faulty>) {
    let mut faulty = None;
    let harness = Harness::over(scripts, RunnerLimits::default(), |local| {
        let mut storage = Faulty::new(local);
        change(&mut storage);
        let storage = Arc::new(storage);
        faulty = Some(Arc::clone(&storage));
        storage
    });
    (harness.await, faulty.unwrap())
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

fn id(name: &str) -> JobId {
    spec(name, "m").id
}

/// Answers with outputs too large to ride in the queue's commit, saying who it is.
fn large(name: &'static str) -> Script {
    Arc::new(move |io: &mut Io| {
        while let Some(input) = io.next() {
            write_large(&input, name);
            io.done(&input);
        }
    })
}

fn write_large(input: &Input, name: &str) {
    std::fs::write(file(input, "outputs/output"), name.repeat(100_000)).unwrap();
}

pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to hold");
}

pub(crate) fn exists(harness: &Harness, path: &str) -> bool {
    harness.dir.path().join("storage").join(path).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_attempt_that_still_publishes_does_not_replace_the_winner() {
    // Whichever sheep comes first is the one whose publishing hangs.
    let change = |faulty: &mut Faulty| {
        faulty.gate = Semaphore::new(0);
        faulty.unpublished = AtomicU32::new(1);
    };
    let (harness, storage) = harness(vec![large("a"), large("b")], change).await;
    let id = harness.submit("job-1", "m", "x").await;
    storage.at_gate.acquire().await.unwrap().forget();
    let first = harness.shepherd.job(&id).await.unwrap();
    let JobState::Processing { sheep: first, .. } = &first.state else { panic!("{:?}", first.state) };
    harness.shepherd.cancel(&id).await.unwrap();

    // The same job again, on the other sheep. The first attempt's try fails, and would be repeated.
    let other = if first.as_str() == "sheep-0" { "sheep-1" } else { "sheep-0" };
    let mut again = spec("job-1", "m");
    again.sheep = Some(shepherd_job::SheepId::parse(other).unwrap());
    harness.shepherd.flush(&id).await.unwrap();
    let accepted = harness.shepherd.submit(Submit { spec: again, data: Data::Stored }).await.unwrap();
    assert!(matches!(accepted, Accepted::Queued(_)));
    storage.gate.add_permits(9);
    harness.is_done(&id).await;
    let winner = if other == "sheep-0" { "a" } else { "b" };
    let output = harness.dir.path().join("storage/job-1/outputs/output");
    tokio::time::timeout(PATIENCE, harness.shepherd.shutdown(Duration::from_secs(5))).await.unwrap();
    assert_eq!(std::fs::read(output).unwrap(), winner.repeat(100_000).as_bytes());
    let tries = storage.asked.lock().unwrap().iter().filter(|asked| asked.starts_with("publish")).count();
    assert_eq!(tries, 2, "one of each attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_not_the_jobs_any_more_does_not_try_again() {
    let change = |faulty: &mut Faulty| {
        faulty.gate = Semaphore::new(0);
        faulty.unpublished = AtomicU32::new(1);
    };
    let (harness, storage) = harness(vec![large("a")], change).await;
    let id = harness.submit("job-1", "m", "x").await;
    storage.at_gate.acquire().await.unwrap().forget();
    harness.shepherd.cancel(&id).await.unwrap();
    storage.gate.add_permits(1);
    // The directory is free only once the attempt was given up.
    storage.gate.add_permits(1);
    let next = harness.submit("job-2", "m", "x").await;
    harness.is_done(&next).await;
    harness.shutdown().await;
    assert!(storage.local.list(&id, "outputs/", None, 9).await.unwrap().is_empty());
    let tries = storage.asked.lock().unwrap().iter().filter(|a| a.starts_with("publish job-1")).count();
    assert_eq!(tries, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_a_failed_sync_may_have_lost_are_made_again() {
    let (harness, storage) = harness(vec![large("a")], |faulty| faulty.remote = true).await;
    storage.local.put(&id("job-1"), &path("inputs/input"), body("x")).await.unwrap();
    harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data: Data::Stored }).await.unwrap();
    storage.lost.store(u32::MAX, Ordering::SeqCst);
    storage.at_gate.acquire().await.unwrap().forget();
    // It has published once; the sync that follows fails, and so do those of the settler.
    let given_back = async || {
        let record = harness.shepherd.job(&id("job-1")).await.unwrap();
        matches!(record.state, JobState::Queued { .. })
    };
    eventually(given_back).await;
    storage.lost.store(0, Ordering::SeqCst);
    harness.is_done(&id("job-1")).await;
    let published = storage.asked.lock().unwrap().iter().filter(|asked| asked.starts_with("publish")).count();
    assert_eq!(published, 2);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_done_finds_all_of_it_in_a_remote_storage() {
    let (harness, storage) = harness(vec![echoing()], |faulty| faulty.remote = true).await;
    let mut jobs = Vec::new();
    for number in 0..50 {
        jobs.push(harness.submit(&format!("job-{number}"), "m", "hello").await);
    }
    for id in &jobs {
        harness.is_done(id).await;
        assert!(exists(&harness, &format!("{id}/outputs/output")));
        assert!(exists(&harness, &format!("{id}/inputs/input")));
    }
    harness.shutdown().await;
    let asked = storage.asked.lock().unwrap();
    assert!(
        asked.iter().filter(|asked| asked.starts_with("publish")).all(|asked| asked.ends_with("Nothing"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_written_holds_up_no_other() {
    let refuse = |faulty: &mut Faulty| {
        let refused = (0..600).map(|number| id(&format!("sour-{number}")));
        faulty.refused = Mutex::new(refused.collect());
    };
    let (harness, _storage) = harness(Vec::new(), refuse).await;
    for number in 0..600 {
        harness.submit(&format!("sour-{number}"), "m", "x").await;
    }
    let good = harness.submit("good", "m", "x").await;
    eventually(async || exists(&harness, "good/inputs/input")).await;
    assert!(harness.shepherd.flush(&id("sour-0")).await.is_err());
    harness.shepherd.flush(&good).await.unwrap();
    assert_eq!(harness.shepherd.unflushed().await.unwrap().len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_there_for_those_who_ask() {
    // They follow fast: their outputs ride in the queue's commits.
    let (harness, _storage) = harness(vec![echoing()], |_| ()).await;
    for number in 0..200 {
        let id = harness.submit(&format!("job-{number}"), "m", "hello").await;
        harness.is_done(&id).await;
        harness.shepherd.flush(&id).await.unwrap();
        assert!(exists(&harness, &format!("{id}/outputs/output")));
        assert!(exists(&harness, &format!("{id}/{STATUS_OBJECT}")));
    }
    harness.shepherd.flush(&id("nobody-knows-it")).await.unwrap();
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_delays_jobs_and_loses_none() {
    let (harness, storage) = harness(vec![large("a")], |faulty| faulty.remote = true).await;
    let jobs = [harness.submit("job-1", "m", "x").await, harness.submit("job-2", "m", "x").await];
    storage.away.store(true, Ordering::SeqCst);
    let refused = harness.shepherd.submit(Submit { spec: spec("job-3", "m"), data: Data::Stored }).await;
    assert!(refused.is_err(), "nobody can say whether its data is there");
    eventually(async || !harness.shepherd.readiness().problems.is_empty()).await;
    storage.away.store(false, Ordering::SeqCst);
    for id in &jobs {
        harness.is_done(id).await;
        assert_eq!(harness.read(id, "outputs/output").await, "a".repeat(100_000).as_bytes());
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_does_not_keep_the_shepherd_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let object = dir.path().join("storage/cut-off/inputs/input");
    let marker = dir.path().join("state/incoming/cut-off");
    for file in [&object, &marker] {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    }
    let storage = Arc::new(Faulty::new(&Arc::new(LocalStorage::open(&dir.path().join("storage")).unwrap())));
    storage.away.store(true, Ordering::SeqCst);
    let options = Options::new(dir.path().join("data"), dir.path().join("state"));
    let queue = Arc::new(MemoryStore::new());
    let shepherd = Shepherd::start(options, queue, Arc::clone(&storage) as _).await.unwrap();
    assert!(!shepherd.readiness().problems.is_empty());
    storage.away.store(false, Ordering::SeqCst);
    // What was cut off is removed as soon as that can be done.
    eventually(async || !object.exists() && !marker.exists()).await;
    eventually(async || shepherd.readiness().problems.is_empty()).await;
    shepherd.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_its_client_mended_is_not_replaced_by_the_old_one() {
    let (harness, storage) = harness(vec![particular()], |faulty| faulty.remote = true).await;
    for number in 0..20 {
        let id = harness.submit(&format!("job-{number}"), "m", "bad").await;
        assert_eq!(harness.failure(&id).await.message, "bad input");
        storage.local.put(&id, &path("inputs/input"), body("good")).await.unwrap();
        let again = Submit { spec: spec(id.as_str(), "m"), data: Data::Stored };
        harness.shepherd.submit(again).await.unwrap();
        harness.is_done(&id).await;
    }
    let dir = harness.dir.path().join("storage");
    tokio::time::timeout(PATIENCE, harness.shepherd.shutdown(Duration::from_secs(5))).await.unwrap();
    for number in 0..20 {
        assert_eq!(std::fs::read(dir.join(format!("job-{number}/inputs/input"))).unwrap(), b"good");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_submit_that_broke_off_can_be_repeated() {
    let (harness, storage) = harness(vec![echoing()], |faulty| faulty.remote = true).await;
    let payload = vec![b'x'; 500_000];
    let submit = || Submit { spec: spec("job-1", "m"), data: Data::Payload(payload.clone().into()) };
    storage.unheard.store(2, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(harness.shepherd.submit(submit()).await.is_err());
        assert!(!exists(&harness, "job-1"), "it was never accepted");
    }
    harness.shepherd.submit(submit()).await.unwrap();
    harness.is_done(&id("job-1")).await;
    assert_eq!(harness.read(&id("job-1"), "outputs/output").await, payload);
    assert_eq!(std::fs::read_dir(harness.dir.path().join("state/incoming")).unwrap().count(), 0);
    harness.shutdown().await;
}

/// A runner that fails every job whose input is not `good`.
fn particular() -> Script {
    Arc::new(move |io: &mut Io| {
        while let Some(input) = io.next() {
            match std::fs::read(file(&input, "inputs/input")).unwrap() == b"good" {
                true => io.done(&input),
                false => io.fail(&input, "bad input"),
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_its_client_mended_stays_when_the_old_one_could_not_be_stored_before() {
    let ids = ["failed", "cancelled"].map(id);
    let refuse = |faulty: &mut Faulty| {
        faulty.remote = true;
        faulty.refused = Mutex::new(ids.iter().cloned().collect());
    };
    let (harness, storage) = harness(vec![particular()], refuse).await;
    harness.submit("failed", "m", "bad").await;
    assert_eq!(harness.failure(&ids[0]).await.message, "bad input");
    let mut waits = spec("cancelled", "m");
    waits.model = shepherd_job::ModelRef::parse("other", "1").unwrap();
    harness.shepherd.submit(Submit { spec: waits, data: Data::Payload("bad".into()) }).await.unwrap();
    // It may have failed before it is cancelled: either way it has ended, and its client knows.
    let _ = harness.shepherd.cancel(&ids[1]).await;
    for id in &ids {
        assert!(harness.shepherd.flush(id).await.is_err(), "the old input is not stored yet");
        storage.local.put(id, &path("inputs/input"), body("good")).await.unwrap();
    }
    storage.refused.lock().unwrap().clear();
    for id in &ids {
        harness.shepherd.flush(id).await.unwrap();
        assert_eq!(harness.read(id, "inputs/input").await, b"good");
        let again = Submit { spec: spec(id.as_str(), "m"), data: Data::Stored };
        harness.shepherd.submit(again).await.unwrap();
        harness.is_done(id).await;
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_a_cancel_are_told_while_the_storage_takes_no_input() {
    let hang = |faulty: &mut Faulty| {
        faulty.remote = true;
        faulty.hangs = AtomicBool::new(true);
    };
    let (working, _storage) = harness(vec![particular()], hang).await;
    let failed = working.submit("failed", "m", "bad").await;
    assert_eq!(working.failure(&failed).await.message, "bad input");
    let (idle, _storage) = harness(Vec::new(), hang).await;
    let waits = idle.submit("cancelled", "m", "bad").await;
    let cancelled = tokio::time::timeout(PATIENCE, idle.shepherd.cancel(&waits)).await;
    cancelled.expect("the cancel is answered").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_a_failed_job_come_to_a_remote_storage_and_not_when_they_were_removed() {
    let script: Script = Arc::new(|io: &mut Io| {
        while let Some(input) = io.next() {
            let size = if input.job.as_str() == "large" { 300_000 } else { 3 };
            std::fs::write(file(&input, "outputs/output"), vec![b'x'; size]).unwrap();
            io.fail(&input, "no luck");
        }
    });
    let (harness, storage) = harness(vec![script], |faulty| faulty.remote = true).await;
    for (name, size) in [("small", 3), ("large", 300_000)] {
        let id = harness.submit(name, "m", "x").await;
        assert_eq!(harness.failure(&id).await.message, "no luck");
        harness.shepherd.flush(&id).await.unwrap();
        assert_eq!(harness.read(&id, "outputs/output").await.len(), size, "{name}");
    }
    // One whose storage is away fails all the same, and a large output of it is given up.
    let away = harness.submit("small-2", "m", "x").await;
    assert_eq!(harness.failure(&away).await.message, "no luck");
    storage.unpublished.store(u32::MAX, Ordering::SeqCst);
    harness.shepherd.submit(Submit { spec: spec("large", "m"), data: Data::Stored }).await.unwrap();
    assert_eq!(harness.failure(&id("large")).await.message, "no luck");
    let output_pool = harness.dir.path().join("data/.attic");
    eventually(async || std::fs::read_dir(&output_pool).unwrap().count() == 0).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_wait_for_room_in_the_storage_are_told() {
    let (harness, storage) = harness(vec![large("a")], |faulty| faulty.full = AtomicBool::new(true)).await;
    let id = harness.submit("job-1", "m", "x").await;
    let problems = || harness.shepherd.readiness().problems;
    eventually(async || problems() == ["the storage is full: the outputs of 1 jobs wait for room"]).await;
    storage.full.store(false, Ordering::SeqCst);
    harness.is_done(&id).await;
    assert!(problems().is_empty());
    harness.shutdown().await;
}
