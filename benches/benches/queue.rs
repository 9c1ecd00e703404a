//! What the embedded store costs, on the disk that holds the build's target
//! directory. Every write here is durable when it is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shepherd_job::{Event, JobId, JobIdRule, JobSpec, ModelRef, NodeId, ObjectPath, SheepId, Timestamp};
use shepherd_queue::{
    Change, Claim, Claimed, Existing, JobStore as _, Join, Lease, NewJob, Outbox as _, PendingLimits,
    SqliteOptions, SqliteStore,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A store with what is needed to use it.
struct Store {
    runtime: Runtime,
    queue: Arc<SqliteStore>,
    lease: Lease,
    model: ModelRef,
    sheep: SheepId,
    submitted: u64,
    dir: TempDir,
}

impl Store {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        // Not the system's temporary directory, which may be in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let queue = SqliteStore::open(dir.path(), SqliteOptions::default()).expect("a new store");
        let node = NodeId::parse("shepherd").expect("a legal name");
        let join = Join { node, at: AT, lease: Duration::from_secs(30) };
        let lease = runtime.block_on(queue.join(join)).expect("a lease");
        Self {
            runtime,
            queue: Arc::new(queue),
            lease,
            model: ModelRef::parse("noop", "1").expect("a legal model"),
            sheep: SheepId::parse("dolly").expect("a legal name"),
            submitted: 0,
            dir,
        }
    }

    fn new_jobs(&mut self, count: u64) -> Vec<NewJob> {
        let input = ObjectPath::parse("inputs/input").expect("a legal path");
        let first = self.submitted;
        self.submitted += count;
        (first..self.submitted)
            .map(|n| NewJob {
                spec: JobSpec {
                    id: JobId::parse(&format!("job-{n:032}"), JobIdRule::Bucket).expect("a legal id"),
                    model: self.model.clone(),
                    sheep: None,
                    priority: 0,
                },
                submitted_at: AT,
                objects: vec![(input.clone(), vec![b'x'; 100].into())],
                existing: Existing::Refuse,
            })
            .collect()
    }

    fn submit(&mut self, count: u64) {
        let jobs = self.new_jobs(count);
        self.runtime.block_on(self.queue.submit(jobs)).expect("a submit");
    }

    fn claim(&self, limit: u64) -> Vec<Claimed> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let claim = Claim::new(self.model.clone(), self.sheep.clone(), limit, AT);
        self.runtime.block_on(self.queue.claim(&self.lease, claim)).expect("a claim")
    }

    fn finish(&self, claimed: &[Claimed]) {
        let changes = claimed.iter().map(|c| Change {
            job: c.job.spec.id.clone(),
            event: Event::Complete { attempt: c.attempt, at: AT },
            objects: Vec::new(),
        });
        let out = self.runtime.block_on(self.queue.apply(changes.collect())).expect("a change");
        assert!(out.iter().all(Result::is_ok));
    }

    fn deliver(&self) {
        self.runtime.block_on(async {
            while self.queue.lag().jobs > 0 {
                let pending =
                    self.queue.pending(None, PendingLimits::jobs(2000)).await.expect("what is behind");
                self.queue.delivered(pending).await.expect("a write");
            }
        });
    }

    /// Brings this many jobs to their ends.
    fn grow(&mut self, jobs: u64) {
        for _ in 0..jobs / 2000 {
            self.submit(2000);
            self.finish(&self.claim(2000));
            self.deliver();
        }
    }

    /// Runs one call for each of `count` jobs from as many tasks, all at once.
    fn together(&mut self, count: u64) -> Duration {
        let jobs = self.new_jobs(count);
        let queue = &self.queue;
        self.runtime.block_on(async {
            let begin = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for job in jobs {
                let queue = Arc::clone(queue);
                tasks.spawn(async move { queue.submit(vec![job]).await });
            }
            while let Some(out) = tasks.join_next().await {
                out.expect("no panic").expect("a submit");
            }
            begin.elapsed()
        })
    }
}

fn submit(c: &mut Criterion) {
    let mut group = c.benchmark_group("submit");
    for callers in [1, 64, 256] {
        let mut store = Store::new();
        group.throughput(Throughput::Elements(callers));
        group.bench_function(format!("{callers} callers"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| store.together(callers)).sum());
        });
    }
    group.finish();
}

fn claim_and_finish(c: &mut Criterion) {
    let mut group = c.benchmark_group("claim and finish 64 jobs");
    group.throughput(Throughput::Elements(64));
    for finished in [0, 200_000] {
        let mut store = Store::new();
        store.grow(finished);
        group.bench_function(format!("{finished} finished before"), |b| {
            b.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    store.submit(64);
                    let begin = Instant::now();
                    let claimed = store.claim(64);
                    store.finish(&claimed);
                    time += begin.elapsed();
                    store.deliver();
                }
                time
            });
        });
    }
    group.finish();
}

fn views(c: &mut Criterion) {
    let mut store = Store::new();
    store.submit(100_000);
    store.submit(1);
    let oldest = store.claim(1).remove(0).job.spec.id.clone();
    c.bench_function("get a job at hand", |b| {
        b.iter(|| store.runtime.block_on(store.queue.get(&oldest)).expect("an answer"));
    });
    c.bench_function("what is ready of 100,000", |b| {
        b.iter(|| store.runtime.block_on(store.queue.ready(AT)).expect("an answer"));
    });
}

fn open(c: &mut Criterion) {
    let mut store = Store::new();
    for _ in 0..100 {
        store.submit(2000);
        store.deliver();
    }
    let Store { runtime, queue, dir, .. } = store;
    drop(queue);
    let _guard = runtime.enter();
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    group.bench_function("200,000 queued", |b| {
        b.iter(|| SqliteStore::open(dir.path(), SqliteOptions::default()).expect("the store"));
    });
    group.finish();
}

criterion_group!(benches, submit, claim_and_finish, views, open);
criterion_main!(benches);
