//! Listings and hints.

use super::*;

async fn listed(
    queue: &Node<impl Store>,
    phases: &[Phase],
    before: Option<u64>,
    limit: usize,
) -> Vec<String> {
    let query = ListQuery { phases: phases.to_vec(), before, limit };
    let records = queue.list(query).await.unwrap();
    records.iter().map(|record| record.spec.id.to_string()).collect()
}

/// One job in each phase, oldest first: done, failed, cancelled, processing, queued.
async fn one_of_each(queue: &Node<impl Store>) {
    finished(queue, job("done")).await;
    submit(queue, job("failed")).await;
    let attempt = claim_one(queue).await.attempt;
    apply(queue, change(&id("failed"), fail(attempt))).await.unwrap();
    submit(queue, job("cancelled")).await;
    apply(queue, change(&id("cancelled"), Event::Cancel { at: at(20) })).await.unwrap();
    submit(queue, job("processing")).await;
    claim_one(queue).await;
    submit(queue, job("queued")).await;
}

pub(crate) async fn a_listing_is_newest_first(queue: &Node<impl Store>) {
    one_of_each(queue).await;
    let all = ["queued", "processing", "cancelled", "failed", "done"];
    assert_eq!(listed(queue, &[], None, 9).await, all);
    assert_eq!(listed(queue, &[], None, 2).await, all[..2]);
    for record in queue.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap() {
        assert_eq!(queue.get(&record.spec.id).await.unwrap(), Some(record));
    }
}

pub(crate) async fn a_listing_goes_on_from_a_key(queue: &Node<impl Store>) {
    for n in 0..5 {
        submit(queue, job(&format!("job-{n}"))).await;
    }
    let mut before = None;
    let mut seen = Vec::new();
    loop {
        let page = queue.list(ListQuery { phases: Vec::new(), before, limit: 2 }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        seen.extend(page.iter().map(|record| record.spec.id.to_string()));
    }
    assert_eq!(seen, ["job-4", "job-3", "job-2", "job-1", "job-0"]);
    assert!(listed(queue, &[], Some(0), 9).await.is_empty());
    assert_eq!(listed(queue, &[], Some(u64::MAX), 9).await.len(), 5);
}

pub(crate) async fn a_listing_filters_phases(queue: &Node<impl Store>) {
    one_of_each(queue).await;
    let phases = [
        (Phase::Queued, "queued"),
        (Phase::Processing, "processing"),
        (Phase::Cancelled, "cancelled"),
        (Phase::Failed, "failed"),
        (Phase::Done, "done"),
    ];
    for (phase, name) in phases {
        assert_eq!(listed(queue, &[phase], None, 9).await, [name]);
    }
    let middle = [Phase::Processing, Phase::Cancelled, Phase::Failed];
    assert_eq!(listed(queue, &middle, None, 9).await, ["processing", "cancelled", "failed"]);
    assert_eq!(listed(queue, &middle, None, 1).await, ["processing"]);
    assert_eq!(listed(queue, &[Phase::Queued, Phase::Processing], None, 9).await, ["queued", "processing"]);
    let seq = queue.get(&id("processing")).await.unwrap().unwrap().seq;
    assert_eq!(listed(queue, &middle, Some(seq), 9).await, ["cancelled", "failed"]);
}

pub(crate) async fn a_listing_knows_claims(queue: &Node<impl Store>) {
    queue.submit(vec![job("job-1"), job("job-2")]).await.unwrap();
    let claimed = claim_one(queue).await;
    assert_eq!(listed(queue, &[Phase::Queued], None, 9).await, ["job-2"]);
    assert_eq!(listed(queue, &[Phase::Processing], None, 9).await, ["job-1"]);
    let all = queue.list(ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap();
    assert_eq!(all[1], claimed.job);
}

pub(crate) async fn changes_tells_of_ready_jobs(queue: &Node<impl Store>) {
    let mut changes = queue.changes();
    changes.mark_unchanged();
    submit(queue, job("job")).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let attempt = claim_one(queue).await.attempt;
    apply(queue, change(&id("job"), give_back(attempt, None))).await.unwrap();
    assert!(changes.has_changed().unwrap());
}
