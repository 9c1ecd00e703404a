//! Two nodes that share a store, each through a handle of its own.

use super::*;

/// A time at which a lease that was last renewed at `since` has run out.
const fn expired(since: i64) -> i64 {
    since + LEASE
}

async fn claim_under(store: &impl Store, lease: &Lease, limit: usize) -> Vec<Claimed> {
    store.claim(lease, Claim::new(model("m"), sheep("dolly"), limit, at(10))).await.unwrap()
}

async fn submit_all(store: &impl Store, names: &[&str]) {
    store.submit(names.iter().map(|name| job(name)).collect()).await.unwrap();
}

async fn change_one(store: &impl Store, change: Change) -> Result<Arc<JobRecord>, ChangeRefused> {
    store.apply(vec![change]).await.unwrap().remove(0)
}

async fn phase_of(store: &impl Store, name: &str) -> Phase {
    store.get(&id(name)).await.unwrap().unwrap().state.phase()
}

pub(crate) async fn no_two_nodes_get_the_same_job(one: &impl Store, two: &impl Store) {
    submit_all(one, &["job-1", "job-2", "job-3", "job-4"]).await;
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    assert!(ann.epoch != bob.epoch);
    let claimed = [
        claim_under(one, &ann, 1).await,
        claim_under(two, &bob, 2).await,
        claim_under(one, &ann, 9).await,
        claim_under(two, &bob, 9).await,
    ];
    let names: Vec<Vec<&str>> = claimed.iter().map(|claimed| names(claimed)).collect();
    assert_eq!(names, [vec!["job-1"], vec!["job-2", "job-3"], vec!["job-4"], vec![]]);
}

pub(crate) async fn a_join_leaves_other_nodes_alone(one: &impl Store, two: &impl Store) {
    submit_all(one, &["hers", "his"]).await;
    let ann = join(one, "ann", 0).await;
    let hers = claim_under(one, &ann, 1).await.remove(0);
    let bob = join(two, "bob", 10).await;
    let his = claim_under(two, &bob, 1).await.remove(0);
    // Bob dies and starts again: only what he held is queued.
    let bob = join(two, "bob", 20).await;
    assert_eq!((phase_of(one, "hers").await, phase_of(one, "his").await), (Phase::Processing, Phase::Queued));
    assert_eq!(one.renew(&ann, vec![held(&hers)], at(30)).await.unwrap(), Renewed::default());
    assert!(change_one(two, change(&id("his"), complete(his.attempt))).await.is_err());
    change_one(one, change(&id("hers"), complete(hers.attempt))).await.unwrap();
    assert_eq!(names(&claim_under(two, &bob, 9).await), ["his"]);
}

pub(crate) async fn a_lease_that_ran_out_is_over_when_another_node_renews(
    one: &impl Store,
    two: &impl Store,
) {
    submit_all(one, &["job"]).await;
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    let old = claim_under(one, &ann, 1).await.remove(0);
    two.renew(&bob, Vec::new(), at(expired(0) - 1)).await.unwrap();
    assert_eq!(phase_of(two, "job").await, Phase::Processing, "a moment too early");
    two.renew(&bob, Vec::new(), at(expired(0))).await.unwrap();

    let record = two.get(&id("job")).await.unwrap().unwrap();
    let history = History { attempts: 1, crashes: 0 };
    assert_eq!(record.state, JobState::Queued { not_before: None, history }, "blameless");
    // The dead node's late messages are fenced, and so is the node.
    assert!(change_one(one, change(&id("job"), complete(old.attempt))).await.is_err());
    assert_eq!(one.renew(&ann, vec![held(&old)], at(expired(0) + 1)).await, Err(QueueError::Fenced));
    let claim = Claim::new(model("m"), sheep("dolly"), 1, at(expired(0) + 1));
    assert_eq!(one.claim(&ann, claim).await.err(), Some(QueueError::Fenced));
    let new = claim_under(two, &bob, 1).await.remove(0);
    assert_eq!(new.attempt, Attempt { epoch: bob.epoch, number: 2 });
    assert!(!new.first);
    change_one(two, change(&id("job"), complete(new.attempt))).await.unwrap();
}

pub(crate) async fn a_lease_that_ran_out_is_over_when_another_node_joins(one: &impl Store, two: &impl Store) {
    submit_all(one, &["job"]).await;
    let ann = join(one, "ann", 0).await;
    claim_under(one, &ann, 1).await;
    let bob = join(two, "bob", expired(0)).await;
    assert_eq!(names(&claim_under(two, &bob, 1).await), ["job"]);
    assert_eq!(one.renew(&ann, Vec::new(), at(expired(0))).await, Err(QueueError::Fenced));
}

pub(crate) async fn a_renewed_lease_does_not_run_out(one: &impl Store, two: &impl Store) {
    submit_all(one, &["job"]).await;
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    let hers = held(&claim_under(one, &ann, 1).await[0]);
    for round in 1..5 {
        let now = round * (LEASE - 1);
        assert_eq!(one.renew(&ann, vec![hers.clone()], at(now)).await.unwrap(), Renewed::default());
        two.renew(&bob, Vec::new(), at(now + 1)).await.unwrap();
    }
    // A time that is told late shortens no lease.
    one.renew(&ann, vec![hers], at(0)).await.unwrap();
    two.renew(&bob, Vec::new(), at(4 * (LEASE - 1) + LEASE - 1)).await.unwrap();
    assert_eq!(phase_of(two, "job").await, Phase::Processing);
}

pub(crate) async fn a_lease_that_ran_out_can_be_renewed_until_another_node_calls(
    one: &impl Store,
    two: &impl Store,
) {
    submit_all(one, &["job", "next"]).await;
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    let hers = held(&claim_under(one, &ann, 1).await[0]);
    // The store was away for both: whoever is back first must not lose everything.
    let now = expired(0) + 500;
    assert_eq!(one.renew(&ann, vec![hers.clone()], at(now)).await.unwrap(), Renewed::default());
    assert_eq!(claim_under(one, &ann, 1).await.len(), 1);
    assert_eq!(two.renew(&bob, Vec::new(), at(now)).await, Err(QueueError::Fenced));
    assert_eq!(phase_of(two, "job").await, Phase::Processing);
}

pub(crate) async fn a_late_change_counts_until_the_job_is_taken_back(one: &impl Store, two: &impl Store) {
    submit_all(one, &["in-time", "late"]).await;
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    let claimed = claim_under(one, &ann, 2).await;
    two.renew(&bob, Vec::new(), at(LEASE - 1)).await.unwrap();
    let done = Event::Complete { attempt: claimed[0].attempt, at: at(expired(0) + 1) };
    change_one(one, change(&id("in-time"), done)).await.unwrap();
    two.renew(&bob, Vec::new(), at(expired(0) + 2)).await.unwrap();
    let late = change_one(one, change(&id("late"), complete(claimed[1].attempt))).await;
    assert!(matches!(late, Err(ChangeRefused::Rejected(_))));
    assert_eq!((phase_of(two, "in-time").await, phase_of(two, "late").await), (Phase::Done, Phase::Queued));
}

pub(crate) async fn a_fenced_node_joins_again(one: &impl Store, two: &impl Store) {
    submit_all(one, &["job"]).await;
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    claim_under(one, &ann, 1).await;
    two.renew(&bob, Vec::new(), at(expired(0))).await.unwrap();
    let his = claim_under(two, &bob, 1).await.remove(0);
    let again = join(one, "ann", expired(0) + 1).await;
    assert!(again.epoch > ann.epoch && again.epoch > bob.epoch);
    // What another has by now stays with him.
    assert_eq!(two.renew(&bob, vec![held(&his)], at(expired(0) + 2)).await.unwrap(), Renewed::default());
    assert!(claim_under(one, &again, 1).await.is_empty());
    change_one(two, change(&id("job"), complete(his.attempt))).await.unwrap();
}

pub(crate) async fn a_cancel_by_another_node_is_told_when_renewing(one: &impl Store, two: &impl Store) {
    submit_all(one, &["job", "other"]).await;
    let ann = join(one, "ann", 0).await;
    join(two, "bob", 0).await;
    let holds: Vec<Held> = claim_under(one, &ann, 2).await.iter().map(held).collect();
    let cancelled = change_one(two, change(&id("job"), Event::Cancel { at: at(20) })).await.unwrap();
    assert!(matches!(cancelled.state, JobState::Cancelled { started_at: Some(_), .. }));
    let renewed = one.renew(&ann, holds.clone(), at(30)).await.unwrap();
    assert_eq!(renewed, Renewed { cancelled: vec![holds[0].clone()], ..Renewed::default() });
    assert!(change_one(one, change(&id("job"), complete(holds[0].attempt))).await.is_err());
}

pub(crate) async fn every_node_sees_every_job(one: &impl Store, two: &impl Store) {
    let ann = join(one, "ann", 0).await;
    join(two, "bob", 0).await;
    submit_all(two, &["job"]).await;
    let claimed = claim_under(one, &ann, 1).await.remove(0);
    assert_eq!(two.get(&id("job")).await.unwrap().as_ref(), Some(&claimed.job));
    let done = change_one(one, change(&id("job"), complete(claimed.attempt))).await.unwrap();
    let listed = two.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap();
    assert_eq!(listed, [done]);
    assert_eq!(two.counts().await.unwrap(), one.counts().await.unwrap());
}

pub(crate) async fn every_node_hears_of_every_change(one: &impl Store, two: &impl Store) {
    let (ann, bob) = (join(one, "ann", 0).await, join(two, "bob", 0).await);
    let mut feed = two.feed();
    submit_all(one, &["job"]).await;
    claim_under(one, &ann, 1).await;
    two.renew(&bob, Vec::new(), at(expired(0))).await.unwrap();
    let mut phases = Vec::new();
    while phases.len() < 3 {
        match feed.next().await.unwrap() {
            crate::FeedItem::Transitions(some) => phases.extend(some.iter().map(|t| t.job.state.phase())),
            crate::FeedItem::Gap => panic!("it missed something"),
        }
    }
    assert_eq!(phases, [Phase::Queued, Phase::Processing, Phase::Queued]);
}
