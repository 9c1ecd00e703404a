//! Lives of one node, and its lease.

use super::*;

async fn renew(queue: &Node<impl Store>, held: &[Held]) -> Renewed {
    queue.renew(&queue.lease, held.to_vec(), at(30)).await.unwrap()
}

pub(crate) async fn a_life_of_a_node_has_a_higher_epoch_than_all_before(queue: &Node<impl Store>) {
    let mut last = queue.lease.epoch;
    assert!(last > 0);
    for _ in 0..3 {
        let lease = join(&**queue, "ann", 5).await;
        assert!(lease.epoch > last && lease.node.as_str() == "ann");
        last = lease.epoch;
        submit(queue, job(&format!("job-{last}"))).await;
        let claimed =
            queue.store.claim(&lease, Claim::new(model("m"), sheep("dolly"), 1, at(10))).await.unwrap();
        assert_eq!(claimed[0].attempt.epoch, last);
    }
}

pub(crate) async fn a_join_queues_again_what_the_node_held(queue: &Node<impl Store>) {
    queue
        .submit(vec![with_objects("one", &[object("inputs/input", "in")]), job("two"), job("three")])
        .await
        .unwrap();
    let old = claim(queue, 2).await;
    let begin = Event::Begin { attempt: old[1].attempt, at: at(15) };
    apply(queue, change(&id("two"), begin)).await.unwrap();
    deliver(queue).await;
    assert_eq!(queue.counts().await.unwrap().processing, 2);
    let lease = join(&**queue, "ann", 20).await;

    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.queued, counts.processing), (3, 0));
    let record = queue.get(&id("one")).await.unwrap().unwrap();
    let history = History { attempts: 1, crashes: 0 };
    assert_eq!(record.state, JobState::Queued { not_before: None, history });
    // Its status file may say that it is being processed.
    assert_eq!(queue.lag().jobs, 2);
    for (name, old) in ["one", "two"].iter().zip(&old) {
        assert!(matches!(
            apply(queue, change(&id(name), complete(old.attempt))).await,
            Err(ChangeRefused::Rejected(_))
        ));
    }
    let claim = Claim::new(model("m"), sheep("dolly"), 9, at(30));
    let again = queue.store.claim(&lease, claim).await.unwrap();
    assert_eq!(names(&again), ["one", "two", "three"]);
    assert_eq!(again[0].attempt, Attempt { epoch: lease.epoch, number: 2 });
    apply(queue, change(&id("one"), complete(again[0].attempt))).await.unwrap();
}

pub(crate) async fn an_earlier_life_of_a_node_is_fenced(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let old = claim_one(queue).await;
    join(&**queue, "ann", 20).await;
    let claim = Claim::new(model("m"), sheep("dolly"), 9, at(30));
    assert_eq!(queue.claim(claim).await.err(), Some(QueueError::Fenced));
    assert_eq!(queue.renew(&queue.lease, vec![held(&old)], at(30)).await, Err(QueueError::Fenced));
    assert_eq!(phase(queue, "job").await, Phase::Queued);
}

pub(crate) async fn a_lease_that_was_never_given_is_fenced(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    for lease in [
        Lease { epoch: queue.lease.epoch + 1, ..queue.lease.clone() },
        Lease { epoch: 0, ..queue.lease.clone() },
        Lease { node: NodeId::parse("bob").unwrap(), ..queue.lease.clone() },
    ] {
        let claim = Claim::new(model("m"), sheep("dolly"), 9, at(30));
        assert_eq!(queue.store.claim(&lease, claim).await.err(), Some(QueueError::Fenced));
        assert_eq!(queue.renew(&lease, Vec::new(), at(30)).await, Err(QueueError::Fenced));
    }
}

pub(crate) async fn renewing_tells_nothing_when_all_is_well(queue: &Node<impl Store>) {
    assert_eq!(renew(queue, &[]).await, Renewed::default());
    queue.submit(vec![job("one"), job("two"), job("waits")]).await.unwrap();
    let holds: Vec<Held> = claim(queue, 2).await.iter().map(held).collect();
    for _ in 0..2 {
        assert_eq!(renew(queue, &holds).await, Renewed::default());
    }
    assert_eq!(queue.counts().await.unwrap().processing, 2);
}

pub(crate) async fn renewing_tells_which_attempts_are_over(queue: &Node<impl Store>) {
    queue.submit(vec![job("done"), job("back"), job("again"), job("held")]).await.unwrap();
    let claimed = claim(queue, 9).await;
    apply(queue, change(&id("done"), complete(claimed[0].attempt))).await.unwrap();
    apply(queue, change(&id("back"), give_back(claimed[1].attempt, None))).await.unwrap();
    apply(queue, change(&id("again"), give_back(claimed[2].attempt, None))).await.unwrap();
    let again = claim(queue, 9).await;
    assert_eq!(names(&again), ["back", "again"]);
    apply(queue, change(&id("back"), give_back(again[0].attempt, None))).await.unwrap();

    let mut holds: Vec<Held> = claimed.iter().map(held).collect();
    holds.push(Held { job: id("stranger"), ..held(&claimed[0]) });
    let mut renewed = renew(queue, &holds).await;
    renewed.lost.sort();
    let mut lost = [holds[0].clone(), holds[1].clone(), holds[2].clone(), holds[4].clone()];
    lost.sort();
    assert_eq!(renewed.lost, lost);
    assert_eq!(renewed.cancelled, []);
    assert_eq!(renewed.unknown, [held(&again[1])]);
}

pub(crate) async fn renewing_tells_which_jobs_were_cancelled(queue: &Node<impl Store>) {
    queue.submit(vec![job("one"), job("two")]).await.unwrap();
    let holds: Vec<Held> = claim(queue, 9).await.iter().map(held).collect();
    apply(queue, change(&id("two"), Event::Cancel { at: at(20) })).await.unwrap();
    let expected = Renewed { cancelled: vec![holds[1].clone()], ..Renewed::default() };
    for _ in 0..2 {
        assert_eq!(renew(queue, &holds).await, expected);
    }
    assert_eq!(renew(queue, &holds[..1]).await, Renewed::default());
}

pub(crate) async fn a_claim_whose_answer_was_lost_is_told_when_renewing(queue: &Node<impl Store>) {
    queue.submit(vec![job("one"), job("two"), job("three")]).await.unwrap();
    let known = claim_one(queue).await;
    let lost = claim_one(queue).await;
    let renewed = renew(queue, &[held(&known)]).await;
    assert_eq!(renewed, Renewed { unknown: vec![held(&lost)], ..Renewed::default() });
    // The node gives it back, as often as it likes.
    for _ in 0..2 {
        let Held { job, attempt } = &renewed.unknown[0];
        let _ = apply(queue, change(job, give_back(*attempt, None))).await;
    }
    assert_eq!(renew(queue, &[held(&known)]).await, Renewed::default());
    assert_eq!(names(&claim(queue, 9).await), ["two", "three"]);
}
