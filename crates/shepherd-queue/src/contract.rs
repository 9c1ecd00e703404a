//! What every implementation of [`Store`] must do. [`suite!`] makes tests of an
//! expression that gives a node of a fresh, empty store; [`several!`] makes those that need two
//! nodes. What must outlive the store itself is tested beside each durable implementation.

use std::sync::Arc;

use bytes::Bytes;
use shepherd_job::{
    Attempt, Event, GiveBack, History, JobError, JobId, JobIdRule, JobSpec, JobState, ModelRef, NodeId,
    ObjectPath, Phase, SheepId, Timestamp,
};

use crate::{
    Change, ChangeRefused, Claim, Claimed, Existing, Held, JobRecord, Join, Lag, Lease, ListQuery, NewJob,
    Pending, PendingLimits, QueueError, Renewed, SmallObject, Store, Submitted, Unstored,
};

pub(crate) mod feed;
pub(crate) mod fleet;
pub(crate) mod life;
pub(crate) mod lives;
pub(crate) mod order;
pub(crate) mod outbox;
pub(crate) mod prune;
pub(crate) mod views;

/// A store as one of its nodes uses it.
#[derive(Debug)]
pub(crate) struct Node<S> {
    store: S,
    pub(crate) lease: Lease,
}

impl<S: Store> Node<S> {
    /// The first life of the node `ann`.
    pub(crate) async fn join(store: S) -> Self {
        let lease = join(&store, "ann", 0).await;
        Self { store, lease }
    }

    /// Claims under the node's lease.
    pub(crate) async fn claim(&self, claim: Claim) -> crate::Result<Vec<Claimed>> {
        self.store.claim(&self.lease, claim).await
    }

    pub(crate) fn into_store(self) -> S {
        self.store
    }
}

impl<S> std::ops::Deref for Node<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.store
    }
}

/// How long leases are here, in microseconds.
pub(crate) const LEASE: i64 = 1000;

pub(crate) async fn try_join(store: &impl Store, node: &str, now: i64) -> crate::Result<Lease> {
    let node = NodeId::parse(node).unwrap();
    let lease = std::time::Duration::from_micros(LEASE.unsigned_abs());
    store.join(Join { node, at: at(now), lease }).await
}

pub(crate) async fn join(store: &impl Store, node: &str, now: i64) -> Lease {
    try_join(store, node, now).await.unwrap()
}

/// Makes one test of each rule of the contract.
macro_rules! suite {
    ($queue:expr) => {
        $crate::contract::suite! { @tests $queue;
            order: first_come_first_served_within_a_priority, a_higher_priority_goes_first,
                a_pinned_job_goes_to_its_sheep_only, jobs_pinned_to_a_sheep_that_is_no_more_can_be_had,
                a_job_that_waited_too_long_goes_first_whatever_its_priority, models_do_not_mix, a_claim_is_bounded,
                a_delayed_job_waits_for_its_time, ready_shows_groups_in_the_order_they_leave;
            life: an_accepted_job_is_queued, a_known_id_is_refused, a_duplicate_in_one_batch_is_refused,
                a_live_job_is_not_run_twice, a_finished_job_can_run_again, the_outcome_of_an_attempt_is_kept,
                a_stale_token_is_fenced_off, no_token_comes_twice, the_first_attempt_is_known_as_such, crashes_are_counted,
                a_queued_job_can_be_cancelled, a_delayed_job_can_be_cancelled, a_running_job_can_be_cancelled,
                a_finished_job_cannot_be_cancelled, an_unknown_job_is_unknown, claims_and_reruns_are_no_changes,
                one_batch_may_change_a_job_twice, an_empty_batch_is_nothing;
            outbox: objects_come_with_the_claim, objects_of_a_change_are_kept, a_refused_change_keeps_nothing,
                a_submitted_job_is_pending, unstored_objects_are_told_until_they_are_delivered, pending_can_be_asked_by_job, pending_goes_on_after_a_position, pending_is_bounded_by_bytes, the_lag_counts_jobs_bytes_and_age,
                the_lag_of_a_rerun_leaves_out_what_was_dropped, delivered_drops_what_was_given, a_change_meanwhile_stays_pending,
                a_claim_makes_no_job_pending, a_give_back_makes_a_job_pending,
                pending_is_in_the_order_since_when, a_rerun_keeps_inputs_and_drops_outputs,
                an_input_of_a_rerun_replaces_the_older, delivering_an_older_run_settles_nothing,
                any_path_and_any_bytes_are_kept;
            lives: a_life_of_a_node_has_a_higher_epoch_than_all_before, a_join_queues_again_what_the_node_held,
                an_earlier_life_of_a_node_is_fenced, a_lease_that_was_never_given_is_fenced,
                renewing_tells_nothing_when_all_is_well, renewing_tells_which_attempts_are_over,
                renewing_tells_which_jobs_were_cancelled, a_claim_whose_answer_was_lost_is_told_when_renewing;
            feed: the_feed_tells_every_change_in_order, a_slow_subscriber_is_told_of_a_gap;
            prune: pruning_removes_what_finished_before_a_time, pruning_keeps_the_newest, pruning_is_bounded,
                pruning_is_by_outcome_and_leaves_what_is_not_finished, pruning_leaves_what_is_pending,
                an_id_that_was_pruned_is_new;
            views: a_listing_is_newest_first, a_listing_goes_on_from_a_key, a_listing_filters_phases,
                a_listing_knows_claims, changes_tells_of_ready_jobs;
        }
    };
    (@tests $queue:expr; $($module:ident: $($name:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $name() {
                $crate::contract::$module::$name(&$queue).await;
            }
        )+)+
    };
}
pub(crate) use suite;

/// Makes one test of each rule for several nodes. The expression gives a fresh store as two
/// handles, one for each node.
macro_rules! several {
    ($handles:expr) => {
        $crate::contract::several! { @tests $handles;
            no_two_nodes_get_the_same_job, a_join_leaves_other_nodes_alone,
            a_lease_that_ran_out_is_over_when_another_node_renews, a_lease_that_ran_out_is_over_when_another_node_joins,
            a_renewed_lease_does_not_run_out, a_lease_that_ran_out_can_be_renewed_until_another_node_calls,
            a_late_change_counts_until_the_job_is_taken_back, a_fenced_node_joins_again,
            a_cancel_by_another_node_is_told_when_renewing, every_node_sees_every_job,
            every_node_hears_of_every_change
        }
    };
    (@tests $handles:expr; $($name:ident),+) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (one, two) = $handles;
                $crate::contract::fleet::$name(&*one, &*two).await;
            }
        )+
    };
}
pub(crate) use several;

// The rest is what the rules are written with; tests of one implementation use it too.

pub(crate) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

pub(crate) fn id(text: &str) -> JobId {
    JobId::parse(text, JobIdRule::Bucket).unwrap()
}

pub(crate) fn model(name: &str) -> ModelRef {
    ModelRef::parse(name, "1").unwrap()
}

pub(crate) fn sheep(name: &str) -> SheepId {
    SheepId::parse(name).unwrap()
}

pub(crate) fn object(path: &str, data: impl AsRef<[u8]>) -> SmallObject {
    (ObjectPath::parse(path).unwrap(), Bytes::copy_from_slice(data.as_ref()))
}

/// A job of model `m` for any sheep, without objects.
pub(crate) fn job(name: &str) -> NewJob {
    let spec = JobSpec { id: id(name), model: model("m"), sheep: None, priority: 0 };
    NewJob { spec, submitted_at: at(1), objects: Vec::new(), existing: Existing::Refuse }
}

pub(crate) fn prioritised(name: &str, priority: i32) -> NewJob {
    let mut job = job(name);
    job.spec.priority = priority;
    job
}

pub(crate) fn pinned(name: &str, to: &str) -> NewJob {
    let mut job = job(name);
    job.spec.sheep = Some(sheep(to));
    job
}

pub(crate) fn with_objects(name: &str, objects: &[SmallObject]) -> NewJob {
    NewJob { objects: objects.to_vec(), ..job(name) }
}

pub(crate) fn rerun(mut job: NewJob) -> NewJob {
    job.existing = Existing::Rerun;
    job
}

pub(crate) async fn submit(queue: &Node<impl Store>, job: NewJob) -> Arc<JobRecord> {
    match queue.submit(vec![job]).await.unwrap().remove(0) {
        Submitted::Accepted(record) => record,
        other @ (Submitted::Live(_) | Submitted::Conflict) => panic!("not accepted: {other:?}"),
    }
}

/// Claims jobs of model `m` for sheep `dolly`.
pub(crate) async fn claim_at(queue: &Node<impl Store>, limit: usize, now: i64) -> Vec<Claimed> {
    queue.claim(Claim::new(model("m"), sheep("dolly"), limit, at(now))).await.unwrap()
}

pub(crate) async fn claim(queue: &Node<impl Store>, limit: usize) -> Vec<Claimed> {
    claim_at(queue, limit, 10).await
}

pub(crate) async fn claim_one(queue: &Node<impl Store>) -> Claimed {
    claim(queue, 1).await.remove(0)
}

pub(crate) fn names(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|c| c.job.spec.id.as_str()).collect()
}

pub(crate) fn change(job: &JobId, event: Event) -> Change {
    Change { job: job.clone(), event, objects: Vec::new() }
}

pub(crate) async fn apply(queue: &Node<impl Store>, change: Change) -> Result<Arc<JobRecord>, ChangeRefused> {
    queue.apply(vec![change]).await.unwrap().remove(0)
}

pub(crate) fn complete(attempt: Attempt) -> Event {
    Event::Complete { attempt, at: at(20) }
}

pub(crate) fn fail(attempt: Attempt) -> Event {
    let error = JobError {
        message: "no".to_owned(),
        exception_type: "ValueError".to_owned(),
        exception_traceback: "line 1\n\0line 2".to_owned(),
    };
    Event::Fail { attempt, error, at: at(20) }
}

pub(crate) fn give_back(attempt: Attempt, not_before: Option<i64>) -> Event {
    Event::GiveBack { attempt, cause: GiveBack::Blameless, not_before: not_before.map(at) }
}

pub(crate) fn held(claimed: &Claimed) -> Held {
    Held { job: claimed.job.spec.id.clone(), attempt: claimed.attempt }
}

/// Submits, claims and completes a job.
pub(crate) async fn finished(queue: &Node<impl Store>, job: NewJob) -> Claimed {
    submit(queue, job).await;
    let claimed = claim_one(queue).await;
    apply(queue, change(&claimed.job.spec.id, complete(claimed.attempt))).await.unwrap();
    claimed
}

pub(crate) async fn phase(queue: &Node<impl Store>, name: &str) -> Phase {
    queue.get(&id(name)).await.unwrap().unwrap().state.phase()
}

/// Delivers everything.
pub(crate) async fn deliver(queue: &Node<impl Store>) {
    let pending = queue.pending(None, PendingLimits::jobs(usize::MAX)).await.unwrap();
    queue.delivered(pending).await.unwrap();
}
