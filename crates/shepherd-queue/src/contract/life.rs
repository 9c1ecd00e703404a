//! What happens to a job, and what is refused.

use super::*;

pub(crate) async fn an_accepted_job_is_queued(queue: &Node<impl Store>) {
    let accepted = submit(queue, pinned("job", "dolly")).await;
    assert_eq!(accepted.spec, pinned("job", "dolly").spec);
    assert_eq!((accepted.submitted_at, &accepted.state), (at(1), &JobState::new()));
    assert_eq!(queue.get(&id("job")).await.unwrap(), Some(accepted));
}

pub(crate) async fn a_known_id_is_refused(queue: &Node<impl Store>) {
    let first = submit(queue, with_objects("job", &[object("inputs/input", "1")])).await;
    let again = with_objects("job", &[object("inputs/input", "2")]);
    let out = queue.submit(vec![again.clone(), job("new")]).await.unwrap();
    assert!(matches!(out[..], [Submitted::Conflict, Submitted::Accepted(_)]));
    assert_eq!(queue.get(&id("job")).await.unwrap(), Some(first));
    assert_eq!(queue.objects(&id("job")).await.unwrap(), [object("inputs/input", "1")]);

    let claimed = claim_one(queue).await;
    assert!(matches!(queue.submit(vec![again.clone()]).await.unwrap()[..], [Submitted::Conflict]));
    apply(queue, change(&id("job"), complete(claimed.attempt))).await.unwrap();
    assert!(matches!(queue.submit(vec![again]).await.unwrap()[..], [Submitted::Conflict]));
    assert_eq!(phase(queue, "job").await, Phase::Done);
}

pub(crate) async fn a_duplicate_in_one_batch_is_refused(queue: &Node<impl Store>) {
    let out = queue.submit(vec![job("job"), job("job"), rerun(job("job"))]).await.unwrap();
    assert!(matches!(&out[..], [Submitted::Accepted(a), Submitted::Conflict, Submitted::Live(b)] if a == b));
    assert_eq!(claim(queue, 9).await.len(), 1);
}

pub(crate) async fn a_live_job_is_not_run_twice(queue: &Node<impl Store>) {
    let first = submit(queue, rerun(job("job"))).await;
    let again = async || queue.submit(vec![rerun(prioritised("job", 9))]).await.unwrap().remove(0);
    assert!(matches!(again().await, Submitted::Live(record) if record == first));
    let claimed = claim_one(queue).await;
    assert!(matches!(again().await, Submitted::Live(record) if record == claimed.job));
    assert!(claim(queue, 9).await.is_empty());
}

pub(crate) async fn a_finished_job_can_run_again(queue: &Node<impl Store>) {
    let first = finished(queue, job("job")).await;
    submit(queue, job("later")).await;
    let mut spec = rerun(prioritised("job", 3));
    spec.spec.model = model("n");
    let again = submit(queue, spec.clone()).await;
    assert!(again.seq > queue.get(&id("later")).await.unwrap().unwrap().seq);
    assert_eq!(again.spec, spec.spec);
    assert_eq!(names(&claim(queue, 9).await), ["later"]);

    let claim = Claim::new(model("n"), sheep("dolly"), 9, at(30));
    let second = queue.claim(claim).await.unwrap().remove(0);
    assert_eq!(second.attempt, Attempt { number: first.attempt.number + 1, ..first.attempt });
    assert_eq!(
        apply(queue, change(&id("job"), complete(first.attempt))).await,
        Err(ChangeRefused::Rejected(shepherd_job::Rejected::Stale { got: first.attempt }))
    );
    apply(queue, change(&id("job"), complete(second.attempt))).await.unwrap();
    assert_eq!(queue.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap().len(), 2);
}

pub(crate) async fn the_outcome_of_an_attempt_is_kept(queue: &Node<impl Store>) {
    queue.submit(vec![job("good"), job("bad")]).await.unwrap();
    let claimed = claim(queue, 2).await;
    // The second began later than it was claimed.
    let begin = Event::Begin { attempt: claimed[1].attempt, at: at(15) };
    let begun = apply(queue, change(&id("bad"), begin)).await.unwrap();
    assert!(matches!(begun.state, JobState::Processing { started_at, .. } if started_at == at(15)));
    assert_eq!(queue.get(&id("bad")).await.unwrap(), Some(begun));
    let changes =
        vec![change(&id("good"), complete(claimed[0].attempt)), change(&id("bad"), fail(claimed[1].attempt))];
    let out: Vec<_> = queue.apply(changes).await.unwrap().into_iter().map(Result::unwrap).collect();
    for (before, after) in claimed.iter().zip(&out) {
        assert_eq!((before.job.seq, &before.job.spec), (after.seq, &after.spec));
        assert_eq!(queue.get(&after.spec.id).await.unwrap().as_ref(), Some(after));
    }
    assert!(matches!(out[0].state, JobState::Done { started_at, finished_at, history }
        if (started_at, finished_at, history.attempts) == (at(10), at(20), 1)));
    assert!(matches!(&out[1].state, JobState::Failed { started_at, error, .. } if *started_at == at(15)
        && error.exception_type == "ValueError" && error.exception_traceback.ends_with("\n\0line 2")));
}

pub(crate) async fn a_stale_token_is_fenced_off(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let old = claim_one(queue).await.attempt;
    apply(queue, change(&id("job"), give_back(old, None))).await.unwrap();
    for event in [complete(old), fail(old), give_back(old, None)] {
        assert!(matches!(apply(queue, change(&id("job"), event)).await, Err(ChangeRefused::Rejected(_))));
    }
    let new = claim_one(queue).await.attempt;
    let other_epoch = Attempt { epoch: new.epoch + 1, ..new };
    for stale in [old, other_epoch] {
        let out = queue
            .apply(vec![change(&id("job"), complete(stale)), change(&id("job"), fail(stale))])
            .await
            .unwrap();
        assert!(out.iter().all(|o| matches!(o, Err(ChangeRefused::Rejected(_)))), "{out:?}");
    }
    assert_eq!(phase(queue, "job").await, Phase::Processing);
    apply(queue, change(&id("job"), complete(new))).await.unwrap();
    assert!(apply(queue, change(&id("job"), complete(new))).await.is_err());
}

pub(crate) async fn no_token_comes_twice(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let mut seen = std::collections::HashSet::new();
    for round in 0..6 {
        let attempt = claim_one(queue).await.attempt;
        assert!(seen.insert(attempt), "{attempt} came twice");
        if round % 2 == 0 {
            apply(queue, change(&id("job"), give_back(attempt, None))).await.unwrap();
        } else {
            apply(queue, change(&id("job"), complete(attempt))).await.unwrap();
            submit(queue, rerun(job("job"))).await;
        }
    }
}

pub(crate) async fn crashes_are_counted(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    for crashes in 1..=3 {
        let attempt = claim_one(queue).await.attempt;
        let event = Event::GiveBack { attempt, cause: GiveBack::Crashed, not_before: None };
        let record = apply(queue, change(&id("job"), event)).await.unwrap();
        assert!(matches!(record.state, JobState::Queued { history, .. }
            if (history.attempts, history.crashes) == (crashes, crashes)));
    }
}

pub(crate) async fn the_first_attempt_is_known_as_such(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let first = claim_one(queue).await;
    assert!(first.first);
    apply(queue, change(&id("job"), give_back(first.attempt, None))).await.unwrap();
    let second = claim_one(queue).await;
    assert!(!second.first);
    apply(queue, change(&id("job"), complete(second.attempt))).await.unwrap();
    submit(queue, rerun(job("job"))).await;
    assert!(!claim_one(queue).await.first, "an earlier run may have left outputs");
}

pub(crate) async fn a_queued_job_can_be_cancelled(queue: &Node<impl Store>) {
    queue.submit(vec![job("job"), job("other")]).await.unwrap();
    let record = apply(queue, change(&id("job"), Event::Cancel { at: at(5) })).await.unwrap();
    assert!(
        matches!(record.state, JobState::Cancelled { started_at: None, finished_at, .. } if finished_at == at(5))
    );
    assert_eq!(names(&claim(queue, 9).await), ["other"]);
    assert_eq!(queue.get(&id("job")).await.unwrap(), Some(record));
}

pub(crate) async fn a_delayed_job_can_be_cancelled(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let attempt = claim_one(queue).await.attempt;
    apply(queue, change(&id("job"), give_back(attempt, Some(100)))).await.unwrap();
    apply(queue, change(&id("job"), Event::Cancel { at: at(20) })).await.unwrap();
    assert_eq!(queue.ready(at(200)).await.unwrap(), crate::Ready::default());
}

pub(crate) async fn a_running_job_can_be_cancelled(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let attempt = claim_one(queue).await.attempt;
    let record = apply(queue, change(&id("job"), Event::Cancel { at: at(12) })).await.unwrap();
    assert!(matches!(record.state, JobState::Cancelled { started_at: Some(t), .. } if t == at(10)));
    assert!(apply(queue, change(&id("job"), complete(attempt))).await.is_err());
    assert!(claim(queue, 9).await.is_empty());
}

pub(crate) async fn a_finished_job_cannot_be_cancelled(queue: &Node<impl Store>) {
    finished(queue, job("job")).await;
    let refused = apply(queue, change(&id("job"), Event::Cancel { at: at(30) })).await;
    assert_eq!(refused, Err(ChangeRefused::Rejected(shepherd_job::Rejected::Finished)));
    assert_eq!(phase(queue, "job").await, Phase::Done);
}

pub(crate) async fn an_unknown_job_is_unknown(queue: &Node<impl Store>) {
    assert_eq!(queue.get(&id("none")).await.unwrap(), None);
    assert!(queue.objects(&id("none")).await.unwrap().is_empty());
    let attempt = Attempt { epoch: 1, number: 1 };
    for event in [complete(attempt), Event::Cancel { at: at(1) }] {
        assert_eq!(apply(queue, change(&id("none"), event)).await, Err(ChangeRefused::Unknown));
    }
}

pub(crate) async fn claims_and_reruns_are_no_changes(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let attempt = Attempt { epoch: 1, number: 1 };
    let claim = Event::Claim { attempt, sheep: sheep("dolly"), at: at(10) };
    for event in [claim, Event::Rerun] {
        assert!(matches!(apply(queue, change(&id("job"), event)).await, Err(ChangeRefused::Rejected(_))));
    }
    finished(queue, prioritised("done", 1)).await;
    assert!(matches!(apply(queue, change(&id("done"), Event::Rerun)).await, Err(ChangeRefused::Rejected(_))));
    assert_eq!((phase(queue, "job").await, phase(queue, "done").await), (Phase::Queued, Phase::Done));
}

pub(crate) async fn one_batch_may_change_a_job_twice(queue: &Node<impl Store>) {
    queue.submit(vec![job("job-1"), job("job-2")]).await.unwrap();
    let claimed = claim(queue, 2).await;
    let out = queue
        .apply(vec![
            change(&id("job-1"), give_back(claimed[0].attempt, None)),
            change(&id("job-1"), Event::Cancel { at: at(30) }),
            change(&id("job-2"), complete(claimed[1].attempt)),
            change(&id("job-2"), fail(claimed[1].attempt)),
        ])
        .await
        .unwrap();
    assert!(matches!(&out[..], [Ok(_), Ok(a), Ok(b), Err(_)]
        if a.state.phase() == Phase::Cancelled && b.state.phase() == Phase::Done));
    assert_eq!(queue.ready(at(40)).await.unwrap(), crate::Ready::default());
}

pub(crate) async fn an_empty_batch_is_nothing(queue: &Node<impl Store>) {
    assert!(queue.submit(Vec::new()).await.unwrap().is_empty());
    assert!(queue.apply(Vec::new()).await.unwrap().is_empty());
    queue.delivered(Vec::new()).await.unwrap();
    assert!(queue.pending(None, PendingLimits::jobs(9)).await.unwrap().is_empty());
    assert!(queue.list(ListQuery::default()).await.unwrap().is_empty());
}
