//! Small objects, and the jobs that are pending for the consumer.

use super::*;

pub(crate) async fn objects_come_with_the_claim(queue: &Node<impl Store>) {
    let objects = [object("inputs/a", "1"), object("inputs/b", "")];
    submit(queue, with_objects("job", &[objects[1].clone(), objects[0].clone()])).await;
    assert_eq!(queue.objects(&id("job")).await.unwrap(), objects);
    let claimed = claim_one(queue).await;
    assert_eq!(claimed.objects, objects);
    assert_eq!(queue.objects(&id("job")).await.unwrap(), objects);
    apply(queue, change(&id("job"), give_back(claimed.attempt, None))).await.unwrap();
    assert_eq!(claim_one(queue).await.objects, objects);
}

pub(crate) async fn objects_of_a_change_are_kept(queue: &Node<impl Store>) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    let attempt = claim_one(queue).await.attempt;
    let objects = vec![object("outputs/output", "out")];
    let done = Change { job: id("job"), event: complete(attempt), objects };
    apply(queue, done).await.unwrap();
    let all = [object("inputs/input", "in"), object("outputs/output", "out")];
    assert_eq!(queue.objects(&id("job")).await.unwrap(), all);
    assert_eq!(queue.pending(None, PendingLimits::jobs(9)).await.unwrap()[0].objects, all);
}

pub(crate) async fn a_refused_change_keeps_nothing(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let objects = vec![object("outputs/output", "out")];
    let stale = Change { job: id("job"), event: complete(Attempt { epoch: 0, number: 1 }), objects };
    assert!(apply(queue, stale).await.is_err());
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
}

pub(crate) async fn a_submitted_job_is_pending(queue: &Node<impl Store>) {
    assert_eq!(queue.lag().jobs, 0);
    let record = submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    assert_eq!(queue.lag().jobs, 1);
    let pending = queue.pending(None, PendingLimits::jobs(9)).await.unwrap().remove(0);
    assert_eq!((pending.job, pending.objects), (record, vec![object("inputs/input", "in")]));
    assert!(queue.pending(None, PendingLimits::jobs(0)).await.unwrap().is_empty());
}

pub(crate) async fn unstored_objects_are_told_until_they_are_delivered(queue: &Node<impl Store>) {
    assert!(queue.unstored().await.unwrap().is_empty());
    let record = submit(queue, with_objects("job", &[object("inputs/a", "1"), object("inputs/b", "")])).await;
    submit(queue, job("none")).await;
    let path = |text| object(text, "").0;
    let mut told = queue.unstored().await.unwrap();
    told.sort();
    let unstored = |text| Unstored { job: id("job"), submitted_at: record.submitted_at, path: path(text) };
    assert_eq!(told, [unstored("inputs/a"), unstored("inputs/b")]);
    queue.delivered(queue.pending(None, PendingLimits::jobs(9)).await.unwrap()).await.unwrap();
    assert!(queue.unstored().await.unwrap().is_empty());
}

pub(crate) async fn pending_can_be_asked_by_job(queue: &Node<impl Store>) {
    for name in ["ann", "bob", "cid"] {
        submit(queue, with_objects(name, &[object("inputs/input", name)])).await;
    }
    let names =
        |pending: &[Pending]| -> Vec<String> { pending.iter().map(|p| p.job.spec.id.to_string()).collect() };
    let asked = [id("cid"), id("stranger"), id("ann")];
    let pending = queue.pending_of(&asked).await.unwrap();
    assert_eq!(names(&pending), ["cid", "ann"]);
    assert_eq!(pending[0].objects, [object("inputs/input", "cid")]);
    queue.delivered(pending).await.unwrap();
    assert!(queue.pending_of(&asked).await.unwrap().is_empty());
    assert_eq!(names(&queue.pending(None, PendingLimits::jobs(9)).await.unwrap()), ["bob"]);
}

pub(crate) async fn pending_goes_on_after_a_position(queue: &Node<impl Store>) {
    queue.submit(["ann", "bob", "cid", "dan"].map(job).to_vec()).await.unwrap();
    let two = PendingLimits::jobs(2);
    let first = queue.pending(None, two).await.unwrap();
    let after = first.last().map(|pending| pending.position);
    // Positions stay when others before them are delivered.
    queue.delivered(vec![first[0].clone()]).await.unwrap();
    let rest = queue.pending(after, two).await.unwrap();
    let names: Vec<&str> = rest.iter().map(|pending| pending.job.spec.id.as_str()).collect();
    assert_eq!(names, ["cid", "dan"]);
    assert!(queue.pending(Some(rest[1].position), two).await.unwrap().is_empty());
    let of = queue.pending_of(&[id("bob")]).await.unwrap();
    assert_eq!(Some(of[0].position), after);
}

pub(crate) async fn pending_is_bounded_by_bytes(queue: &Node<impl Store>) {
    for (name, bytes) in [("ann", 100), ("bob", 0), ("cid", 100), ("dan", 100)] {
        submit(queue, with_objects(name, &[object("inputs/input", vec![b'x'; bytes])])).await;
    }
    for (bytes, jobs) in [(0, 1), (99, 1), (100, 2), (199, 2), (200, 3), (1000, 4)] {
        let pending = queue.pending(None, PendingLimits { jobs: 9, bytes }).await.unwrap();
        assert_eq!(pending.len(), jobs, "{bytes} bytes");
        assert_eq!(pending[0].bytes(), 100);
    }
    let large = PendingLimits { jobs: 1, bytes: 1 };
    assert!(queue.pending(None, PendingLimits { jobs: 0, ..large }).await.unwrap().is_empty());
}

pub(crate) async fn the_lag_counts_jobs_bytes_and_age(queue: &Node<impl Store>) {
    assert_eq!(queue.lag(), Lag::default());
    let lag = |jobs, bytes, since| (jobs, bytes, Some(at(since)));
    let told = || {
        let Lag { jobs, bytes, since, finished: _ } = queue.lag();
        (jobs, bytes, since)
    };
    let new = |name, now, bytes: usize| NewJob {
        submitted_at: at(now),
        ..with_objects(name, &[object("inputs/a", vec![0; bytes]), object("inputs/b", "b")])
    };
    queue.submit(vec![new("one", 100, 7), new("two", 200, 70_000)]).await.unwrap();
    assert_eq!(told(), lag(2, 70_009, 100));
    let one = claim_one(queue).await;
    assert_eq!(told(), lag(2, 70_009, 100), "a claim makes no job pending");
    // An object that replaces another counts once.
    let objects = vec![object("inputs/a", "12"), object("outputs/output", "123")];
    let done = Change { job: id("one"), event: complete(one.attempt), objects };
    apply(queue, done).await.unwrap();
    assert_eq!(told(), lag(2, 70_007, 100));
    queue.delivered(queue.pending_of(&[id("one")]).await.unwrap()).await.unwrap();
    assert_eq!(told(), lag(1, 70_001, 200));
    // A change before the delivery keeps what it gave.
    let two = claim_one(queue).await;
    let given = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
    let begin = Event::Begin { attempt: two.attempt, at: at(400) };
    let objects = vec![object("inputs/a", "new")];
    apply(queue, Change { job: id("two"), event: begin, objects }).await.unwrap();
    queue.delivered(given).await.unwrap();
    assert_eq!(told(), lag(1, 3, 200));
    deliver(queue).await;
    assert_eq!(queue.lag(), Lag::default());
    apply(queue, change(&id("two"), fail(two.attempt))).await.unwrap();
    assert_eq!(told(), lag(1, 0, 20));
    deliver(queue).await;
    // Given back, at the latest time that was told.
    submit(queue, job("three")).await;
    deliver(queue).await;
    let three = claim_at(queue, 1, 500).await.remove(0);
    apply(queue, change(&id("three"), give_back(three.attempt, None))).await.unwrap();
    assert_eq!(told(), lag(1, 0, 500));
}

pub(crate) async fn the_lag_of_a_rerun_leaves_out_what_was_dropped(queue: &Node<impl Store>) {
    submit(queue, with_objects("job", &[object("inputs/input", "12345")])).await;
    let attempt = claim_one(queue).await.attempt;
    let objects = vec![object("outputs/output", "123"), object("outputs/more", "1")];
    apply(queue, Change { job: id("job"), event: complete(attempt), objects }).await.unwrap();
    assert_eq!(queue.lag().bytes, 9);
    let again = NewJob { submitted_at: at(300), ..with_objects("job", &[object("inputs/input", "12")]) };
    submit(queue, rerun(again)).await;
    let Lag { jobs, bytes, since, finished } = queue.lag();
    assert_eq!((jobs, bytes, since, finished), (1, 2, Some(at(300)), 0));
    deliver(queue).await;
    assert_eq!(queue.lag(), Lag::default());
}

pub(crate) async fn delivered_drops_what_was_given(queue: &Node<impl Store>) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    submit(queue, job("other")).await;
    let given = queue.pending(None, PendingLimits::jobs(1)).await.unwrap();
    queue.delivered(given.clone()).await.unwrap();
    assert_eq!(queue.lag().jobs, 1);
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
    assert_eq!(queue.pending(None, PendingLimits::jobs(9)).await.unwrap()[0].job.spec.id, id("other"));
    // Saying it again, or of a job that nobody knows, is harmless.
    queue.delivered(given.clone()).await.unwrap();
    let stranger = JobRecord { spec: job("stranger").spec, ..(*given[0].job).clone() };
    queue.delivered(vec![Pending { job: Arc::new(stranger), ..given[0].clone() }]).await.unwrap();
    assert_eq!(queue.lag().jobs, 1);
    assert!(claim_one(queue).await.objects.is_empty());
}

pub(crate) async fn a_change_meanwhile_stays_pending(queue: &Node<impl Store>) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    let attempt = claim_one(queue).await.attempt;
    let given = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
    assert_eq!(queue.lag().finished, 0);
    let objects = vec![object("outputs/output", "out")];
    apply(queue, Change { job: id("job"), event: complete(attempt), objects }).await.unwrap();
    queue.delivered(given).await.unwrap();
    let still = queue.pending(None, PendingLimits::jobs(9)).await.unwrap().remove(0);
    assert_eq!(still.job.state.phase(), Phase::Done);
    assert_eq!(queue.lag().finished, 1);
    assert_eq!(still.objects, [object("outputs/output", "out")]);
    queue.delivered(vec![still]).await.unwrap();
    assert_eq!(queue.lag().jobs, 0);
    assert_eq!(queue.lag().finished, 0);
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
}

pub(crate) async fn a_claim_makes_no_job_pending(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let given = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
    claim_one(queue).await;
    assert_eq!(
        queue.pending(None, PendingLimits::jobs(9)).await.unwrap()[0].job.state.phase(),
        Phase::Processing
    );
    queue.delivered(given).await.unwrap();
    assert_eq!(queue.lag().jobs, 0);
}

pub(crate) async fn a_give_back_makes_a_job_pending(queue: &Node<impl Store>) {
    submit(queue, job("job")).await;
    let given = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
    let first = claim_one(queue).await;
    deliver(queue).await;
    apply(queue, change(&id("job"), give_back(first.attempt, None))).await.unwrap();
    assert_eq!(queue.lag().jobs, 1);
    // What was given before the attempt says nothing of the state after it.
    queue.delivered(given).await.unwrap();
    assert_eq!(queue.lag().jobs, 1);
    deliver(queue).await;
    assert_eq!(queue.lag().jobs, 0);
}

pub(crate) async fn pending_is_in_the_order_since_when(queue: &Node<impl Store>) {
    queue.submit(vec![job("job-1"), job("job-2"), job("job-3")]).await.unwrap();
    let order = async || {
        let pending = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
        pending.iter().map(|b| b.job.spec.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order().await, ["job-1", "job-2", "job-3"]);
    let first = queue.pending(None, PendingLimits::jobs(1)).await.unwrap();
    queue.delivered(first).await.unwrap();
    let cancel = |name: &str| change(&id(name), Event::Cancel { at: at(5) });
    queue.apply(vec![cancel("job-3"), cancel("job-1")]).await.unwrap();
    assert_eq!(order().await, ["job-2", "job-3", "job-1"]);
}

pub(crate) async fn a_rerun_keeps_inputs_and_drops_outputs(queue: &Node<impl Store>) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    let attempt = claim_one(queue).await.attempt;
    let objects = vec![object("outputs/output", "out"), object("extra", "x")];
    apply(queue, Change { job: id("job"), event: complete(attempt), objects }).await.unwrap();
    submit(queue, rerun(with_objects("job", &[object("inputs/more", "2")]))).await;
    let left = [object("extra", "x"), object("inputs/input", "in"), object("inputs/more", "2")];
    assert_eq!(queue.objects(&id("job")).await.unwrap(), left);
    assert_eq!(queue.lag().jobs, 1);
    assert_eq!(claim_one(queue).await.objects, left);
}

pub(crate) async fn an_input_of_a_rerun_replaces_the_older(queue: &Node<impl Store>) {
    finished(queue, with_objects("job", &[object("inputs/input", "old")])).await;
    let given = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
    submit(queue, rerun(with_objects("job", &[object("inputs/input", "new")]))).await;
    queue.delivered(given).await.unwrap();
    assert_eq!(queue.lag().jobs, 1);
    assert_eq!(claim_one(queue).await.objects, [object("inputs/input", "new")]);
}

pub(crate) async fn delivering_an_older_run_settles_nothing(queue: &Node<impl Store>) {
    let objects = [object("inputs/input", "in"), object("inputs/other", "in")];
    finished(queue, with_objects("job", &objects)).await;
    let given = queue.pending(None, PendingLimits::jobs(9)).await.unwrap();
    submit(queue, rerun(with_objects("job", &[object("inputs/new", "in")]))).await;
    queue.delivered(given).await.unwrap();
    // Those that storage has by now are dropped; the new one is not.
    assert_eq!(queue.objects(&id("job")).await.unwrap(), [object("inputs/new", "in")]);
    assert_eq!(
        queue.pending(None, PendingLimits::jobs(9)).await.unwrap()[0].job.state.phase(),
        Phase::Queued
    );
}

pub(crate) async fn any_path_and_any_bytes_are_kept(queue: &Node<impl Store>) {
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let long = "k".repeat(1024);
    let mut objects: Vec<SmallObject> =
        ["a", "a/b", "../../x", "a//b", "žluť 🐑", "nul\0byte", "' OR 1=1 --", &long]
            .iter()
            .map(|path| object(path, &bytes))
            .collect();
    submit(queue, with_objects("job", &objects)).await;
    objects.sort();
    assert_eq!(queue.objects(&id("job")).await.unwrap(), objects);
    let claimed = claim_one(queue).await;
    assert_eq!(claimed.objects, objects);
    deliver(queue).await;
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
}
