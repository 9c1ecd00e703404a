//! Removing records of finished jobs.

use super::*;
use crate::{Outcome, Prune};

/// Removes jobs that are done, however many.
const DONE: Prune =
    Prune { outcome: Outcome::Done, finished_before: None, keep_newest: 0, limit: usize::MAX };

async fn prune(queue: &Node<impl Store>, prune: Prune) -> Vec<String> {
    queue.prune(prune).await.unwrap().iter().map(ToString::to_string).collect()
}

/// Jobs that are done, in the order of their names, with nothing pending.
async fn done(queue: &Node<impl Store>, jobs: &[(&str, i64)]) {
    for (name, finished_at) in jobs {
        submit(queue, with_objects(name, &[object("inputs/input", "in")])).await;
        let attempt = claim_one(queue).await.attempt;
        let event = Event::Complete { attempt, at: at(*finished_at) };
        apply(queue, change(&id(name), event)).await.unwrap();
    }
    deliver(queue).await;
}

async fn listed(queue: &Node<impl Store>) -> Vec<String> {
    let records = queue.list(ListQuery { limit: 99, ..ListQuery::default() }).await.unwrap();
    records.iter().map(|record| record.spec.id.to_string()).collect()
}

pub(crate) async fn pruning_removes_what_finished_before_a_time(queue: &Node<impl Store>) {
    done(queue, &[("late", 300), ("early", 100), ("middle", 200)]).await;
    let before = |time| Prune { finished_before: Some(at(time)), ..DONE };
    assert_eq!(prune(queue, before(100)).await, [""; 0]);
    assert_eq!(prune(queue, before(201)).await, ["early", "middle"]);
    assert_eq!(prune(queue, before(201)).await, [""; 0]);
    assert_eq!(listed(queue).await, ["late"]);
    assert_eq!(queue.get(&id("early")).await.unwrap(), None);
    assert_eq!(queue.counts().await.unwrap().done, 1);
}

pub(crate) async fn pruning_keeps_the_newest(queue: &Node<impl Store>) {
    done(queue, &[("one", 100), ("two", 100), ("three", 100), ("four", 500)]).await;
    let keep = |keep_newest| Prune { keep_newest, ..DONE };
    assert_eq!(prune(queue, keep(4)).await, [""; 0]);
    assert_eq!(prune(queue, keep(u64::MAX)).await, [""; 0]);
    assert_eq!(prune(queue, keep(3)).await, ["one"]);
    // Both conditions must hold.
    let both = Prune { finished_before: Some(at(400)), ..keep(2) };
    assert_eq!(prune(queue, both).await, ["two"]);
    assert_eq!(prune(queue, Prune { keep_newest: 0, ..both }).await, ["three"]);
    assert_eq!(listed(queue).await, ["four"]);
}

pub(crate) async fn pruning_is_bounded(queue: &Node<impl Store>) {
    done(queue, &[("one", 100), ("two", 100), ("three", 100)]).await;
    let limit = |limit| Prune { limit, ..DONE };
    assert_eq!(prune(queue, limit(0)).await, [""; 0]);
    assert_eq!(prune(queue, limit(2)).await, ["one", "two"]);
    assert_eq!(prune(queue, limit(2)).await, ["three"]);
    assert_eq!(queue.counts().await.unwrap(), crate::Counts::default());
}

pub(crate) async fn pruning_is_by_outcome_and_leaves_what_is_not_finished(queue: &Node<impl Store>) {
    done(queue, &[("done", 100)]).await;
    queue.submit(vec![job("failed"), job("cancelled"), job("processing"), job("queued")]).await.unwrap();
    let attempt = claim_one(queue).await.attempt;
    apply(queue, change(&id("failed"), fail(attempt))).await.unwrap();
    apply(queue, change(&id("cancelled"), Event::Cancel { at: at(20) })).await.unwrap();
    claim_one(queue).await;
    deliver(queue).await;
    for (outcome, name) in
        [(Outcome::Failed, "failed"), (Outcome::Cancelled, "cancelled"), (Outcome::Done, "done")]
    {
        assert_eq!(prune(queue, Prune { outcome, ..DONE }).await, [name]);
    }
    assert_eq!(listed(queue).await, ["queued", "processing"]);
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts, crate::Counts { queued: 1, processing: 1, ..crate::Counts::default() });
}

pub(crate) async fn pruning_leaves_what_is_pending(queue: &Node<impl Store>) {
    finished(queue, with_objects("pending", &[object("inputs/input", "in")])).await;
    assert_eq!(prune(queue, DONE).await, [""; 0]);
    assert_eq!(queue.objects(&id("pending")).await.unwrap().len(), 1);
    deliver(queue).await;
    assert_eq!(prune(queue, DONE).await, ["pending"]);
    assert_eq!(queue.lag(), Lag::default());
}

pub(crate) async fn an_id_that_was_pruned_is_new(queue: &Node<impl Store>) {
    done(queue, &[("job", 100)]).await;
    let before = queue.get(&id("job")).await.unwrap().unwrap();
    prune(queue, DONE).await;
    assert_eq!(
        apply(queue, change(&id("job"), Event::Cancel { at: at(1) })).await,
        Err(ChangeRefused::Unknown)
    );
    let record = submit(queue, job("job")).await;
    assert!(record.seq > before.seq);
    assert_eq!(record.state, JobState::new());
    let claimed = claim_one(queue).await;
    assert!(claimed.objects.is_empty());
    apply(queue, change(&id("job"), complete(claimed.attempt))).await.unwrap();
}
