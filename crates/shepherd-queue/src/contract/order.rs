//! Which job leaves next.

use super::*;
use crate::{Group, Pins};

pub(crate) async fn first_come_first_served_within_a_priority(queue: &Node<impl Store>) {
    for name in ["job-b", "job-a", "job-c"] {
        submit(queue, job(name)).await;
    }
    assert_eq!(names(&claim(queue, 2).await), ["job-b", "job-a"]);
    assert_eq!(names(&claim(queue, 2).await), ["job-c"]);
    assert!(claim(queue, 2).await.is_empty());
}

pub(crate) async fn a_higher_priority_goes_first(queue: &Node<impl Store>) {
    let jobs = [("low", i32::MIN), ("mid", 0), ("high", i32::MAX), ("mid-2", 0)];
    queue.submit(jobs.map(|(name, priority)| prioritised(name, priority)).to_vec()).await.unwrap();
    assert_eq!(names(&claim(queue, 9).await), ["high", "mid", "mid-2", "low"]);
}

pub(crate) async fn a_pinned_job_goes_to_its_sheep_only(queue: &Node<impl Store>) {
    let jobs = vec![pinned("hers", "dolly"), job("any-1"), pinned("other", "shaun"), job("any-2")];
    queue.submit(jobs).await.unwrap();
    assert_eq!(names(&claim(queue, 9).await), ["hers", "any-1", "any-2"]);
    let shaun = Claim::new(model("m"), sheep("shaun"), 9, at(10));
    assert_eq!(names(&queue.claim(shaun).await.unwrap()), ["other"]);
}

pub(crate) async fn jobs_pinned_to_a_sheep_that_is_no_more_can_be_had(queue: &Node<impl Store>) {
    let jobs =
        || vec![pinned("hers", "dolly"), job("any"), pinned("gone-1", "shaun"), pinned("gone-2", "shaun")];
    queue.submit(jobs()).await.unwrap();
    let mut claim = Claim::new(model("m"), sheep("dolly"), 3, at(10));
    claim.pins = Pins::OwnAnd([sheep("shaun")].into());
    let claimed = queue.claim(claim).await.unwrap();
    assert_eq!(names(&claimed), ["hers", "any", "gone-1"]);
    assert!(
        claimed
            .iter()
            .all(|c| matches!(&c.job.state, JobState::Processing { sheep: s, .. } if *s == sheep("dolly")))
    );
    submit(queue, job("any-2")).await;
    let only = Claim { pins: Pins::Only, ..Claim::new(model("m"), sheep("shaun"), 9, at(10)) };
    assert_eq!(names(&queue.claim(only).await.unwrap()), ["gone-2"]);
}

pub(crate) async fn a_job_that_waited_too_long_goes_first_whatever_its_priority(queue: &Node<impl Store>) {
    let jobs = [("low", -5, 1), ("mid", 0, 2), ("high", 9, 3), ("high-2", 9, 4)];
    let jobs = jobs.map(|(name, priority, t)| NewJob { submitted_at: at(t), ..prioritised(name, priority) });
    queue.submit(jobs.to_vec()).await.unwrap();
    let claim = |overdue, limit| Claim {
        overdue: Some(at(overdue)),
        ..Claim::new(model("m"), sheep("dolly"), limit, at(10))
    };
    assert_eq!(names(&queue.claim(claim(1, 1)).await.unwrap()), ["high"], "none waited so long");
    assert_eq!(names(&queue.claim(claim(3, 2)).await.unwrap()), ["low", "high-2"]);
    assert_eq!(names(&queue.claim(claim(3, 9)).await.unwrap()), ["mid"]);
}

pub(crate) async fn models_do_not_mix(queue: &Node<impl Store>) {
    let mut other = job("other");
    other.spec.model = ModelRef::parse("m", "2").unwrap();
    queue.submit(vec![other, job("job")]).await.unwrap();
    assert_eq!(names(&claim(queue, 9).await), ["job"]);
    let empty_version = Claim::new(ModelRef::parse("m", "").unwrap(), sheep("dolly"), 9, at(10));
    assert!(queue.claim(empty_version).await.unwrap().is_empty());
}

pub(crate) async fn a_claim_is_bounded(queue: &Node<impl Store>) {
    queue.submit(vec![job("job-1"), job("job-2")]).await.unwrap();
    assert!(claim(queue, 0).await.is_empty());
    assert_eq!(claim(queue, 1).await.len(), 1);
    assert_eq!(claim(queue, usize::MAX).await.len(), 1);
}

pub(crate) async fn a_delayed_job_waits_for_its_time(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let first = claim_one(queue).await;
    let back = apply(queue, change(&id("job"), give_back(first.attempt, Some(100)))).await.unwrap();
    assert!(matches!(back.state, JobState::Queued { not_before: Some(t), .. } if t == at(100)));

    assert!(claim_at(queue, 9, 99).await.is_empty());
    let ready = queue.ready(at(99)).await.unwrap();
    assert_eq!((ready.groups.len(), ready.next_due), (0, Some(at(100))));
    let ready = queue.ready(at(100)).await.unwrap();
    assert_eq!((ready.groups.len(), ready.next_due), (1, None));
    // Once offered it stays so, whatever a clock says.
    let again = claim_at(queue, 9, 50).await.remove(0);
    assert_eq!(again.attempt.number, 2);
    assert!(matches!(again.job.state, JobState::Processing { started_at, .. } if started_at == at(50)));
}

pub(crate) async fn ready_shows_groups_in_the_order_they_leave(queue: &Node<impl Store>) {
    assert_eq!(queue.ready(at(1)).await.unwrap(), crate::Ready::default());
    let mut urgent = prioritised("urgent", 7);
    urgent.spec.model = model("n");
    urgent.submitted_at = at(5);
    let jobs = vec![job("job-1"), pinned("job-2", "dolly"), urgent, job("job-3")];
    queue.submit(jobs).await.unwrap();
    let group = |name: &str, pin: Option<&str>, ready, priority, seq, t| Group {
        model: model(name),
        sheep: pin.map(sheep),
        ready,
        priority,
        seq,
        submitted_at: at(t),
    };
    let seq = async |name: &str| queue.get(&id(name)).await.unwrap().unwrap().seq;
    let expected = vec![
        group("n", None, 1, 7, seq("urgent").await, 5),
        group("m", None, 2, 0, seq("job-1").await, 1),
        group("m", Some("dolly"), 1, 0, seq("job-2").await, 1),
    ];
    assert_eq!(queue.ready(at(10)).await.unwrap().groups, expected);
    claim(queue, 1).await;
    let rest = queue.ready(at(10)).await.unwrap();
    let order: Vec<u64> = rest.groups.iter().map(|g| g.seq).collect();
    assert_eq!(order, [seq("urgent").await, seq("job-2").await, seq("job-3").await]);
}
