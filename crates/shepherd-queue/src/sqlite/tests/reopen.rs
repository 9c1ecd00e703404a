//! What is kept when the store is closed and opened again.

use rusqlite::Connection;
use shepherd_job::{Attempt, Event, History, JobState, Phase};

use super::super::schema;
use super::{Fresh, SqliteOptions, SqliteStore, open, tiny};
use crate::contract::{
    Node, apply, at, change, claim, claim_at, claim_one, complete, deliver, fail, finished, give_back, id,
    job, join, model, names, object, phase, pinned, prioritised, rerun, sheep, submit, with_objects,
};
use crate::{Change, Counts, JobStore as _, ListQuery, Outbox as _, PendingLimits, Store};

async fn everything(
    queue: &Node<impl Store>,
) -> (Vec<crate::JobRecord>, Vec<crate::SmallObject>, Vec<String>, crate::Ready) {
    let records = queue.list(ListQuery { limit: usize::MAX, ..ListQuery::default() }).await.unwrap();
    let mut objects = Vec::new();
    for record in &records {
        objects.extend(queue.objects(&record.spec.id).await.unwrap());
    }
    let pending = queue.pending(None, PendingLimits::jobs(usize::MAX)).await.unwrap();
    let pending =
        pending.iter().map(|b| format!("{} {:?} {:?}", b.job.spec.id, b.job.state, b.objects)).collect();
    let ready = queue.ready(at(50)).await.unwrap();
    (records.iter().map(|record| (**record).clone()).collect(), objects, pending, ready)
}

#[tokio::test]
async fn reopening_changes_nothing_but_attempts_in_flight() {
    for options in [SqliteOptions::default(), tiny()] {
        let mut queue = Fresh::new(options.clone()).await;
        finished(&*queue, with_objects("done", &[object("inputs/input", "in")])).await;
        submit(&*queue, job("failed")).await;
        let attempt = claim_one(&*queue).await.attempt;
        let objects = vec![object("outputs/output", "half")];
        apply(&*queue, Change { job: id("failed"), event: fail(attempt), objects }).await.unwrap();
        finished(&*queue, job("again")).await;
        deliver(&*queue).await;
        submit(&*queue, rerun(with_objects("again", &[object("inputs/input", "in")]))).await;
        submit(&*queue, prioritised("delayed", 1)).await;
        let attempt = claim_one(&*queue).await.attempt;
        apply(&*queue, change(&id("delayed"), give_back(attempt, Some(100)))).await.unwrap();
        submit(&*queue, pinned("pinned", "shaun")).await;
        submit(&*queue, prioritised("urgent", 5)).await;
        submit(&*queue, job("cancelled")).await;
        apply(&*queue, change(&id("cancelled"), Event::Cancel { at: at(20) })).await.unwrap();

        let before = everything(&*queue).await;
        let (counts, lag) = (queue.counts().await.unwrap(), queue.lag());
        assert_eq!((lag.jobs, lag.bytes, lag.since), (5, 2, Some(at(1))));
        assert_eq!(counts, Counts { queued: 4, processing: 0, done: 1, failed: 1, cancelled: 1 });
        queue.reopen(options).await;
        assert_eq!(everything(&*queue).await, before);
        assert_eq!((queue.counts().await.unwrap(), queue.lag()), (counts, lag));
        assert_eq!(names(&claim(&*queue, 9).await), ["urgent", "again"]);
        assert_eq!(names(&claim_at(&*queue, 9, 100).await), ["delayed"]);
    }
}

#[tokio::test]
async fn attempts_in_flight_are_given_back_under_a_higher_epoch() {
    let mut queue = Fresh::new(SqliteOptions::default()).await;
    queue.submit(vec![with_objects("job-1", &[object("inputs/input", "in")]), job("job-2")]).await.unwrap();
    let old = claim_one(&*queue).await;
    deliver(&*queue).await;
    assert_eq!(queue.lag().jobs, 0);
    queue.reopen(SqliteOptions::default()).await;

    let record = queue.get(&id("job-1")).await.unwrap().unwrap();
    assert_eq!(
        record.state,
        JobState::Queued { not_before: None, history: History { attempts: 1, crashes: 0 } }
    );
    assert_eq!(queue.counts().await.unwrap().queued, 2);
    // Its status file may say that it is being processed.
    assert_eq!(queue.pending(None, PendingLimits::jobs(9)).await.unwrap()[0].job, record);
    assert!(apply(&*queue, change(&id("job-1"), complete(old.attempt))).await.is_err());
    let new = claim_one(&*queue).await;
    assert_eq!(new.attempt, Attempt { epoch: old.attempt.epoch + 1, number: 2 });
    apply(&*queue, change(&id("job-1"), complete(new.attempt))).await.unwrap();
    assert_eq!(phase(&*queue, "job-1").await, Phase::Done);
}

#[tokio::test]
async fn opening_alone_takes_nothing_over() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    queue.submit(vec![with_objects("held", &[object("inputs/input", "in")]), job("waits")]).await.unwrap();
    let claimed = claim_one(&queue).await;
    drop(queue);
    for _ in 0..2 {
        let store = SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
        assert_eq!(store.get(&id("held")).await.unwrap().as_ref(), Some(&claimed.job));
        assert_eq!(store.objects(&id("held")).await.unwrap(), [object("inputs/input", "in")]);
        let counts = store.counts().await.unwrap();
        assert_eq!((counts.queued, counts.processing), (1, 1));
        let query = ListQuery { phases: vec![Phase::Processing], limit: 9, before: None };
        assert_eq!(store.list(query).await.unwrap(), std::slice::from_ref(&claimed.job));
        assert_eq!(store.ready(at(20)).await.unwrap().groups[0].ready, 1);
    }
    // The attempt goes on as long as nobody joins.
    let store = SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
    let done = store.apply(vec![change(&id("held"), complete(claimed.attempt))]).await.unwrap();
    assert!(done[0].is_ok());
}

#[tokio::test]
async fn a_node_of_another_name_takes_over_what_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    submit(&queue, job("job")).await;
    let old = claim_one(&queue).await;
    drop(queue);
    let store = SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
    let lease = join(&store, "bob", 0).await;
    let claim = crate::Claim::new(model("m"), sheep("dolly"), 9, at(20));
    let claimed = store.claim(&lease, claim).await.unwrap();
    assert_eq!(claimed[0].attempt, Attempt { epoch: old.attempt.epoch + 1, number: 2 });
}

#[tokio::test]
async fn no_attempt_after_a_crash_is_taken_for_the_first() {
    let mut queue = Fresh::new(SqliteOptions::default()).await;
    submit(&*queue, job("old")).await;
    assert!(claim_one(&*queue).await.first);
    queue.reopen(SqliteOptions::default()).await;
    submit(&*queue, job("new")).await;
    let first: Vec<bool> = claim(&*queue, 9).await.iter().map(|claimed| claimed.first).collect();
    assert_eq!(first, [false, true], "the claim of the last life may have been forgotten");
}

#[tokio::test]
async fn every_opening_has_an_epoch_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for n in 0..4 {
        let queue = open(dir.path()).await;
        submit(&queue, job(&format!("job-{n}"))).await;
        let epoch = claim_one(&queue).await.attempt.epoch;
        assert!(epoch > last);
        last = epoch;
    }
}

#[tokio::test]
async fn sequence_numbers_go_on() {
    let mut queue = Fresh::new(SqliteOptions::default()).await;
    let first = finished(&*queue, job("job-1")).await.job.seq;
    queue.reopen(SqliteOptions::default()).await;
    let second = submit(&*queue, rerun(job("job-1"))).await.seq;
    queue.reopen(SqliteOptions::default()).await;
    let third = submit(&*queue, job("job-2")).await.seq;
    assert!(first < second && second < third);
}

#[tokio::test]
async fn closing_writes_claims_and_operators_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    queue.submit(vec![job("job-1"), pinned("job-2", "shaun")]).await.unwrap();
    claim_one(&queue).await;
    drop(queue);
    let conn = Connection::open(dir.path().join(schema::FILE)).unwrap();
    let sql = "SELECT concat_ws(' ', id, state, sheep, pinned_to, attempts) FROM jobs ORDER BY seq";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    let rows: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
    assert_eq!(rows, ["job-1 processing dolly 1", "job-2 queued shaun 0"]);
}

#[tokio::test]
async fn a_closed_store_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    submit(&queue, job("job")).await;
    queue.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap();
    drop(queue);
    let files = std::fs::read_dir(dir.path()).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["queue.lock", schema::FILE]);
}

#[tokio::test]
async fn a_deep_queue_is_read_from_the_disk_in_order() {
    let mut queue = Fresh::new(SqliteOptions::default()).await;
    let jobs = (0..1000).map(|n| {
        let data = format!("input {n}");
        let mut job = with_objects(&format!("job-{n:04}"), &[object("inputs/input", data)]);
        job.spec.priority = n % 3;
        job
    });
    queue.submit(jobs.collect()).await.unwrap();
    queue.reopen(SqliteOptions::default()).await;
    let mut seen = Vec::new();
    loop {
        let claimed = claim(&*queue, 7).await;
        if claimed.is_empty() {
            break;
        }
        for c in claimed {
            let n: usize = c.job.spec.id.as_str()[4..].parse().unwrap();
            assert_eq!(c.objects, [object("inputs/input", format!("input {n}"))]);
            seen.push(n);
        }
    }
    let mut expected: Vec<usize> = (0..1000).collect();
    expected.sort_by_key(|n| (std::cmp::Reverse(n % 3), *n));
    assert_eq!(seen, expected);
}
