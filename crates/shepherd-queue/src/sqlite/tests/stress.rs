//! Many callers at once, on several threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use shepherd_job::{Event, Phase};

use super::{Fresh, SqliteOptions, tiny};
use crate::contract::{at, change, claim_at, complete, give_back, id, object, with_objects};
use crate::{JobStore as _, ListQuery, Outbox as _, PendingLimits, Submitted};

const SUBMITTERS: usize = 4;
const JOBS: usize = 150;
const ALL: usize = SUBMITTERS * JOBS;

async fn many_callers(options: SqliteOptions) {
    let queue = Arc::new(Fresh::new(options).await);
    let finished = Arc::new(AtomicUsize::new(0));
    let tokens = Arc::new(Mutex::new(HashSet::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for submitter in 0..SUBMITTERS {
        let (queue, finished) = (Arc::clone(&queue), Arc::clone(&finished));
        tasks.spawn(async move {
            for n in 0..JOBS {
                let name = format!("job-{submitter}-{n}");
                let job = with_objects(&name, &[object("inputs/input", &name)]);
                let out = queue.submit(vec![job]).await.unwrap();
                assert!(matches!(out[..], [Submitted::Accepted(_)]));
                if n % 5 == 0 {
                    let cancel = change(&id(&name), Event::Cancel { at: at(20) });
                    let out = queue.apply(vec![cancel]).await.unwrap();
                    finished.fetch_add(usize::from(out[0].is_ok()), Ordering::Relaxed);
                }
                assert!(queue.get(&id(&name)).await.unwrap().is_some());
            }
        });
    }
    for worker in 0..3 {
        let (queue, finished, tokens) = (Arc::clone(&queue), Arc::clone(&finished), Arc::clone(&tokens));
        tasks.spawn(async move {
            let mut changes = queue.changes();
            while finished.load(Ordering::Relaxed) < ALL {
                changes.mark_unchanged();
                let claimed = claim_at(&queue, 4, 10).await;
                let idle = claimed.is_empty();
                let mut batch = Vec::new();
                for c in claimed {
                    let name = c.job.spec.id.to_string();
                    assert!(c.objects.is_empty() || c.objects == [object("inputs/input", &name)]);
                    assert!(tokens.lock().unwrap().insert((name, c.attempt)));
                    let first = c.attempt.number == 1 && worker == 0;
                    let event = if first { give_back(c.attempt, None) } else { complete(c.attempt) };
                    batch.push(change(&c.job.spec.id, event));
                }
                for out in queue.apply(batch).await.unwrap() {
                    // An error here is a job that was cancelled meanwhile.
                    let done = out.is_ok_and(|record| record.state.phase() == Phase::Done);
                    finished.fetch_add(usize::from(done), Ordering::Relaxed);
                }
                let pending = queue.pending(None, PendingLimits::jobs(16)).await.unwrap();
                queue.delivered(pending).await.unwrap();
                if idle {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.queued, counts.processing), (0, 0));
    assert_eq!(counts.done + counts.cancelled, ALL as u64);
    let all = queue.list(ListQuery { limit: usize::MAX, ..ListQuery::default() }).await.unwrap();
    assert_eq!(all.len(), ALL);
    assert!(all.iter().all(|record| record.state.is_finished()));
    while queue.lag().jobs > 0 {
        let pending = queue.pending(None, PendingLimits::jobs(usize::MAX)).await.unwrap();
        queue.delivered(pending).await.unwrap();
    }
    for record in all {
        assert!(queue.objects(&record.spec.id).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_job_of_many_callers_finishes_once() {
    many_callers(SqliteOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_job_of_many_callers_finishes_once_without_a_cache() {
    many_callers(tiny()).await;
}

#[tokio::test]
async fn an_abandoned_call_takes_no_job_away() {
    let queue = Fresh::new(tiny()).await;
    let jobs = (0..20).map(|n| with_objects(&format!("job-{n}"), &[]));
    queue.submit(jobs.collect()).await.unwrap();
    let mut taken = 0;
    for _ in 0..50 {
        // The claim reads from the disk, so its first poll seldom ends it.
        let mut claim = Box::pin(claim_at(&queue, 3, 10));
        if let std::task::Poll::Ready(claimed) = poll_once(&mut claim) {
            taken += claimed.len();
        }
    }
    assert_eq!(taken + claim_at(&queue, 99, 10).await.len(), 20);
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut context)
}
