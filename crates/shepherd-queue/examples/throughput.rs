//! Measures the embedded store on this machine's disk: durable submits, whole lives
//! of jobs, and opening with a million queued jobs.
//!
//! `cargo run --release -p shepherd-queue --example throughput -- [JOBS] [DIR]`;
//! with `keep` after that the store stays in DIR, and `open DIR` opens it again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use shepherd_job::{Event, JobId, JobIdRule, JobSpec, ModelRef, NodeId, ObjectPath, SheepId, Timestamp};
use shepherd_queue::{
    Change, Claim, Claimed, Existing, JobStore as _, Join, Lease, NewJob, Outbox as _, PendingLimits,
    SqliteOptions, SqliteStore,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).map_or(0, |kb: u64| kb / 1024)
}

/// The store as its only node uses it.
struct Node {
    store: SqliteStore,
    lease: Lease,
}

impl Node {
    async fn open(dir: &Path) -> Result<Self, Error> {
        let store = SqliteStore::open(dir, SqliteOptions::default())?;
        let node = NodeId::parse("shepherd")?;
        let lease = store.join(Join { node, at: now(), lease: Duration::from_secs(30) }).await?;
        Ok(Self { store, lease })
    }

    async fn claim(&self, claim: Claim) -> shepherd_queue::Result<Vec<Claimed>> {
        self.store.claim(&self.lease, claim).await
    }
}

impl std::ops::Deref for Node {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

#[derive(Clone, Copy)]
enum Ids {
    Ordered,
    Random,
}

fn new_job(n: u64, ids: Ids, object: Option<usize>) -> Result<NewJob, Error> {
    let text = match ids {
        Ids::Ordered => format!("0190-{n:012x}-job-job-job-job-job-jo"),
        Ids::Random => {
            let mixed = (n ^ 0x5bd1_e995).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            format!("{:016x}-{n:x}-job-job-job-jo", mixed ^ (mixed >> 29))
        }
    };
    let objects = match object {
        Some(bytes) => vec![(ObjectPath::parse("inputs/input")?, Bytes::from(vec![b'x'; bytes]))],
        None => Vec::new(),
    };
    let spec = JobSpec {
        id: JobId::parse(&text, JobIdRule::Bucket)?,
        model: ModelRef::parse("noop", "1")?,
        sheep: None,
        priority: 0,
    };
    Ok(NewJob { spec, submitted_at: now(), objects, existing: Existing::Refuse })
}

/// Runs `work` in tasks until `total` numbers from `first` are used up; prints the rate.
async fn measure<F, R>(name: &str, tasks: usize, first: u64, total: u64, work: F) -> Result<(), Error>
where
    F: Fn(Arc<AtomicU64>, u64) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Vec<Duration>, Error>> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(first));
    let (begin, begin_cpu) = (Instant::now(), cpu());
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        set.spawn(work(Arc::clone(&next), first + total));
    }
    let mut times = Vec::new();
    while let Some(out) = set.join_next().await {
        times.extend(out??);
    }
    let (wall, used) = (begin.elapsed(), cpu() - begin_cpu);
    times.sort_unstable();
    let at = |p: usize| times.get(times.len() * p / 100).copied().unwrap_or_default();
    println!(
        "{name:<44} {:>8.0}/s  cpu {:>5.1} us each  p50 {:>7.2?} p99 {:>7.2?}  rss {} MB",
        total as f64 / wall.as_secs_f64(),
        used.as_secs_f64() * 1e6 / total as f64,
        at(50),
        at(99),
        resident_mb()
    );
    Ok(())
}

async fn submits(queue: &Arc<Node>, tasks: usize, first: u64, total: u64, ids: Ids) -> Result<(), Error> {
    let kind = match ids {
        Ids::Ordered => "ordered",
        Ids::Random => "random",
    };
    let name = format!("submit, {tasks} callers, {kind} ids");
    let queue = Arc::clone(queue);
    measure(&name, tasks, first, total, move |next, end| {
        let queue = Arc::clone(&queue);
        async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= end {
                    return Ok(times);
                }
                let begin = Instant::now();
                queue.submit(vec![new_job(n, ids, None)?]).await?;
                times.push(begin.elapsed());
            }
        }
    })
    .await
}

fn done(c: &Claimed, object: bool) -> Result<Change, Error> {
    let mut objects = Vec::new();
    if object {
        objects.push((ObjectPath::parse("outputs/output")?, Bytes::from(vec![b'y'; 100])));
    }
    let event = Event::Complete { attempt: c.attempt, at: now() };
    Ok(Change { job: c.job.spec.id.clone(), event, objects })
}

fn claim_of(limit: usize) -> Result<Claim, Error> {
    Ok(Claim::new(ModelRef::parse("noop", "1")?, SheepId::parse("dolly")?, limit, now()))
}

/// Claims one job and finishes it, in each task.
async fn finishes(queue: &Arc<Node>, name: &str, tasks: usize, total: u64) -> Result<(), Error> {
    let queue = Arc::clone(queue);
    measure(name, tasks, 0, total, move |next, end| {
        let queue = Arc::clone(&queue);
        async move {
            let mut times = Vec::new();
            loop {
                if next.fetch_add(1, Ordering::Relaxed) >= end {
                    return Ok(times);
                }
                let begin = Instant::now();
                let claimed = queue.claim(claim_of(1)?).await?;
                let c = claimed.first().ok_or("the queue is empty")?;
                for out in queue.apply(vec![done(c, false)?]).await? {
                    out?;
                }
                times.push(begin.elapsed());
            }
        }
    })
    .await
}

/// Whole lives, as the daemon leads them: 64 clients submit with a payload, one
/// sheep's worth of workers claims and finishes with a result, a flusher catches up.
async fn lives(queue: &Arc<Node>, first: u64, total: u64) -> Result<(), Error> {
    let flushing = Arc::clone(queue);
    let flusher = tokio::spawn(async move {
        loop {
            let pending = flushing.pending(None, PendingLimits::jobs(256)).await?;
            if pending.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            // Time for a storage to write files; more of them are written together.
            tokio::time::sleep(Duration::from_millis(5)).await;
            flushing.delivered(pending).await?;
        }
        #[allow(unreachable_code)]
        Ok::<(), shepherd_queue::QueueError>(())
    });
    let queue_ = Arc::clone(queue);
    measure("whole life with objects and deliveries", 64, first, total, move |next, end| {
        let queue = Arc::clone(&queue_);
        async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= end {
                    return Ok(times);
                }
                let begin = Instant::now();
                queue.submit(vec![new_job(n, Ids::Ordered, Some(100))?]).await?;
                let claimed = queue.claim(claim_of(1)?).await?;
                let c = claimed.first().ok_or("the queue is empty")?;
                for out in queue.apply(vec![done(c, true)?]).await? {
                    out?;
                }
                times.push(begin.elapsed());
            }
        }
    })
    .await?;
    while queue.lag().jobs > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    flusher.abort();
    Ok(())
}

async fn open(dir: &Path, name: &str) -> Result<Arc<Node>, Error> {
    let begin = Instant::now();
    let queue = Node::open(dir).await?;
    println!("{name:<44} {:>8.3} s  rss {} MB", begin.elapsed().as_secs_f64(), resident_mb());
    Ok(Arc::new(queue))
}

/// Submits in big batches: only to fill the store.
async fn fill(queue: &Node, first: u64, total: u64) -> Result<(), Error> {
    for from in (first..first + total).step_by(2000) {
        let to = (from + 2000).min(first + total);
        queue.submit((from..to).map(|n| new_job(n, Ids::Ordered, None)).collect::<Result<_, _>>()?).await?;
    }
    Ok(())
}

async fn drain(queue: &Node) -> Result<(), Error> {
    loop {
        let claimed = queue.claim(claim_of(2000)?).await?;
        if claimed.is_empty() {
            return Ok(());
        }
        queue.apply(claimed.iter().map(|c| done(c, false)).collect::<Result<_, _>>()?).await?;
    }
}

async fn deliver(queue: &Node) -> Result<(), Error> {
    while queue.lag().jobs > 0 {
        let pending = queue.pending(None, PendingLimits::jobs(2000)).await?;
        queue.delivered(pending).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["open", dir] = args[..] {
        println!("{:?}", open(Path::new(dir), "open").await?.counts().await?);
        return Ok(());
    }
    let many: u64 = args.first().map_or(Ok(1_000_000), |text| text.parse())?;
    let mut dir = tempfile::tempdir_in(args.get(1).unwrap_or(&"."))?;
    dir.disable_cleanup(args.get(2) == Some(&"keep"));
    let few = (many / 5).clamp(1000, 100_000);

    let queue = open(dir.path(), "open, new").await?;
    submits(&queue, 1, 0, few / 20, Ids::Ordered).await?;
    submits(&queue, 64, few, few, Ids::Ordered).await?;
    submits(&queue, 256, 2 * few, few, Ids::Ordered).await?;
    submits(&queue, 64, 3 * few, few, Ids::Random).await?;
    finishes(&queue, "claim and finish, 64 callers", 64, few).await?;
    drain(&queue).await?;
    deliver(&queue).await?;
    lives(&queue, 10_000_000, few).await?;

    fill(&queue, 20_000_000, many).await?;
    drain(&queue).await?;
    deliver(&queue).await?;
    println!("-- {many} more jobs are finished");
    submits(&queue, 64, 30_000_000, few, Ids::Ordered).await?;
    finishes(&queue, "claim and finish, 64 callers", 64, few).await?;
    deliver(&queue).await?;
    lives(&queue, 40_000_000, few).await?;

    fill(&queue, 50_000_000, many).await?;
    deliver(&queue).await?;
    println!("-- {many} jobs are queued, rss {} MB", resident_mb());
    finishes(&queue, "claim and finish, 64 callers", 64, few).await?;
    let begin = Instant::now();
    drop(queue);
    println!("{:<44} {:>8.3} s", "close", begin.elapsed().as_secs_f64());
    let queue = open(dir.path(), "open").await?;
    let begin = Instant::now();
    assert_eq!(queue.claim(claim_of(1)?).await?.len(), 1);
    println!("{:<44} {:>8.3} ms", "first claim", begin.elapsed().as_secs_f64() * 1e3);
    println!("{:?}", queue.counts().await?);
    finishes(&queue, "claim and finish, 64 callers", 64, few).await?;
    Ok(())
}
