//! Small objects, and the jobs whose files lag behind.

use super::*;

pub(crate) async fn objects_come_with_the_claim(queue: &impl Queue) {
    let objects = [object("inputs/a", "1"), object("inputs/b", "")];
    submit(queue, with_objects("job", &[objects[1].clone(), objects[0].clone()])).await;
    assert_eq!(queue.objects(&id("job")).await.unwrap(), objects);
    let claimed = claim_one(queue).await;
    assert_eq!(claimed.objects, objects);
    assert_eq!(queue.objects(&id("job")).await.unwrap(), objects);
    apply(queue, change(&id("job"), give_back(claimed.attempt, None))).await.unwrap();
    assert_eq!(claim_one(queue).await.objects, objects);
}

pub(crate) async fn objects_of_a_change_are_kept(queue: &impl Queue) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    let attempt = claim_one(queue).await.attempt;
    let objects = vec![object("outputs/output", "out")];
    let done = Change { job: id("job"), event: complete(attempt), objects };
    apply(queue, done).await.unwrap();
    let all = [object("inputs/input", "in"), object("outputs/output", "out")];
    assert_eq!(queue.objects(&id("job")).await.unwrap(), all);
    assert_eq!(queue.behind(0, 9).await.unwrap()[0].objects, all);
}

pub(crate) async fn a_refused_change_keeps_nothing(queue: &impl Queue) {
    submit(queue, job("job")).await;
    let objects = vec![object("outputs/output", "out")];
    let stale = Change { job: id("job"), event: complete(Attempt { epoch: 0, number: 1 }), objects };
    assert!(apply(queue, stale).await.is_err());
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
}

pub(crate) async fn a_submitted_job_is_behind(queue: &impl Queue) {
    assert_eq!(queue.behind_count(), 0);
    let record = submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    assert_eq!(queue.behind_count(), 1);
    let behind = queue.behind(0, 9).await.unwrap().remove(0);
    assert_eq!((behind.job, behind.objects), (record, vec![object("inputs/input", "in")]));
    assert!(queue.behind(0, 0).await.unwrap().is_empty());
}

pub(crate) async fn unstored_objects_are_told_until_they_are_caught_up(queue: &impl Queue) {
    assert!(queue.unstored().await.unwrap().is_empty());
    let record = submit(queue, with_objects("job", &[object("inputs/a", "1"), object("inputs/b", "")])).await;
    submit(queue, job("none")).await;
    let path = |text| object(text, "").0;
    let mut told = queue.unstored().await.unwrap();
    told.sort();
    let unstored = |text| Unstored { job: id("job"), submitted_at: record.submitted_at, path: path(text) };
    assert_eq!(told, [unstored("inputs/a"), unstored("inputs/b")]);
    queue.caught_up(queue.behind(0, 9).await.unwrap()).await.unwrap();
    assert!(queue.unstored().await.unwrap().is_empty());
}

pub(crate) async fn behind_can_be_asked_by_job(queue: &impl Queue) {
    for name in ["ann", "bob", "cid"] {
        submit(queue, with_objects(name, &[object("inputs/input", name)])).await;
    }
    let names = |behind: &[Behind]| -> Vec<String> {
        behind.iter().map(|behind| behind.job.spec.id.to_string()).collect()
    };
    assert_eq!(names(&queue.behind(1, 9).await.unwrap()), ["bob", "cid"]);
    assert!(queue.behind(3, 9).await.unwrap().is_empty());
    let asked = [id("cid"), id("stranger"), id("ann")];
    let behind = queue.behind_of(&asked).await.unwrap();
    assert_eq!(names(&behind), ["cid", "ann"]);
    assert_eq!(behind[0].objects, [object("inputs/input", "cid")]);
    queue.caught_up(behind).await.unwrap();
    assert!(queue.behind_of(&asked).await.unwrap().is_empty());
    assert_eq!(names(&queue.behind(0, 9).await.unwrap()), ["bob"]);
}

pub(crate) async fn caught_up_drops_what_was_given(queue: &impl Queue) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    submit(queue, job("other")).await;
    let given = queue.behind(0, 1).await.unwrap();
    queue.caught_up(given.clone()).await.unwrap();
    assert_eq!(queue.behind_count(), 1);
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
    assert_eq!(queue.behind(0, 9).await.unwrap()[0].job.spec.id, id("other"));
    // Saying it again, or of a job that nobody knows, is harmless.
    queue.caught_up(given.clone()).await.unwrap();
    let stranger = JobRecord { spec: job("stranger").spec, ..(*given[0].job).clone() };
    queue.caught_up(vec![Behind { job: Arc::new(stranger), objects: Vec::new() }]).await.unwrap();
    assert_eq!(queue.behind_count(), 1);
    assert!(claim_one(queue).await.objects.is_empty());
}

pub(crate) async fn a_change_meanwhile_stays_behind(queue: &impl Queue) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    let attempt = claim_one(queue).await.attempt;
    let given = queue.behind(0, 9).await.unwrap();
    assert!(!queue.any_finished_behind());
    let objects = vec![object("outputs/output", "out")];
    apply(queue, Change { job: id("job"), event: complete(attempt), objects }).await.unwrap();
    queue.caught_up(given).await.unwrap();
    let still = queue.behind(0, 9).await.unwrap().remove(0);
    assert_eq!(still.job.state.phase(), Phase::Done);
    assert!(queue.any_finished_behind());
    assert_eq!(still.objects, [object("outputs/output", "out")]);
    queue.caught_up(vec![still]).await.unwrap();
    assert_eq!(queue.behind_count(), 0);
    assert!(!queue.any_finished_behind());
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
}

pub(crate) async fn a_claim_does_not_put_a_job_behind(queue: &impl Queue) {
    submit(queue, job("job")).await;
    let given = queue.behind(0, 9).await.unwrap();
    claim_one(queue).await;
    assert_eq!(queue.behind(0, 9).await.unwrap()[0].job.state.phase(), Phase::Processing);
    queue.caught_up(given).await.unwrap();
    assert_eq!(queue.behind_count(), 0);
}

pub(crate) async fn a_give_back_puts_a_job_behind(queue: &impl Queue) {
    submit(queue, job("job")).await;
    let given = queue.behind(0, 9).await.unwrap();
    let first = claim_one(queue).await;
    catch_up(queue).await;
    apply(queue, change(&id("job"), give_back(first.attempt, None))).await.unwrap();
    assert_eq!(queue.behind_count(), 1);
    // What was given before the attempt says nothing of the state after it.
    queue.caught_up(given).await.unwrap();
    assert_eq!(queue.behind_count(), 1);
    catch_up(queue).await;
    assert_eq!(queue.behind_count(), 0);
}

pub(crate) async fn behind_is_in_the_order_since_when(queue: &impl Queue) {
    queue.submit(vec![job("job-1"), job("job-2"), job("job-3")]).await.unwrap();
    let order = async || {
        let behind = queue.behind(0, 9).await.unwrap();
        behind.iter().map(|b| b.job.spec.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order().await, ["job-1", "job-2", "job-3"]);
    let first = queue.behind(0, 1).await.unwrap();
    queue.caught_up(first).await.unwrap();
    let cancel = |name: &str| change(&id(name), Event::Cancel { at: at(5) });
    queue.apply(vec![cancel("job-3"), cancel("job-1")]).await.unwrap();
    assert_eq!(order().await, ["job-2", "job-3", "job-1"]);
}

pub(crate) async fn a_rerun_keeps_inputs_and_drops_outputs(queue: &impl Queue) {
    submit(queue, with_objects("job", &[object("inputs/input", "in")])).await;
    let attempt = claim_one(queue).await.attempt;
    let objects = vec![object("outputs/output", "out"), object("extra", "x")];
    apply(queue, Change { job: id("job"), event: complete(attempt), objects }).await.unwrap();
    submit(queue, rerun(with_objects("job", &[object("inputs/more", "2")]))).await;
    let left = [object("extra", "x"), object("inputs/input", "in"), object("inputs/more", "2")];
    assert_eq!(queue.objects(&id("job")).await.unwrap(), left);
    assert_eq!(queue.behind_count(), 1);
    assert_eq!(claim_one(queue).await.objects, left);
}

pub(crate) async fn an_input_of_a_rerun_replaces_the_older(queue: &impl Queue) {
    finished(queue, with_objects("job", &[object("inputs/input", "old")])).await;
    let given = queue.behind(0, 9).await.unwrap();
    submit(queue, rerun(with_objects("job", &[object("inputs/input", "new")]))).await;
    queue.caught_up(given).await.unwrap();
    assert_eq!(queue.behind_count(), 1);
    assert_eq!(claim_one(queue).await.objects, [object("inputs/input", "new")]);
}

pub(crate) async fn catching_up_with_an_older_run_settles_nothing(queue: &impl Queue) {
    let objects = [object("inputs/input", "in"), object("inputs/other", "in")];
    finished(queue, with_objects("job", &objects)).await;
    let given = queue.behind(0, 9).await.unwrap();
    submit(queue, rerun(with_objects("job", &[object("inputs/new", "in")]))).await;
    queue.caught_up(given).await.unwrap();
    // Those that storage has by now are dropped; the new one is not.
    assert_eq!(queue.objects(&id("job")).await.unwrap(), [object("inputs/new", "in")]);
    assert_eq!(queue.behind(0, 9).await.unwrap()[0].job.state.phase(), Phase::Queued);
}

pub(crate) async fn any_path_and_any_bytes_are_kept(queue: &impl Queue) {
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
    catch_up(queue).await;
    assert!(queue.objects(&id("job")).await.unwrap().is_empty());
}
