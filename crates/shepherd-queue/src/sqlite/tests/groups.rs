//! Groups, of which clients can make up any number: each goes with its last job.

use super::super::schema::FILE;
use super::{Fresh, SqliteOptions, tiny};
use crate::contract::{Node, deliver, finished, job, model, rerun, submit};
use crate::{JobStore as _, NewJob, Outcome, Prune, SqliteStore, Store, Submitted};

const DONE: Prune =
    Prune { outcome: Outcome::Done, finished_before: None, keep_newest: 0, limit: usize::MAX };

/// A job of a model of its own.
fn of_model(name: &str, of: &str) -> NewJob {
    let mut job = job(name);
    job.spec.model = model(of);
    job
}

/// How many groups are in memory and in the file.
fn groups(fresh: &Fresh) -> (usize, usize) {
    let store: &SqliteStore = fresh;
    let conn = rusqlite::Connection::open(fresh.dir().join(FILE)).unwrap();
    let rows: u32 = conn.query_row("SELECT count(*) FROM grp", [], |row| row.get(0)).unwrap();
    (store.lock().index.groups.len(), rows as usize)
}

async fn finish(queue: &Node<impl Store>, of: &str) {
    let claim = crate::Claim::new(model(of), crate::contract::sheep("dolly"), 9, crate::contract::at(10));
    for claimed in queue.claim(claim).await.unwrap() {
        let done = crate::contract::change(&claimed.job.spec.id, crate::contract::complete(claimed.attempt));
        crate::contract::apply(queue, done).await.unwrap();
    }
}

#[tokio::test]
async fn groups_without_records_are_removed() {
    for options in [SqliteOptions::default(), tiny()] {
        let mut queue = Fresh::new(options.clone()).await;
        let jobs = (0..300).map(|n| of_model(&format!("job-{n}"), &format!("model-{n}")));
        queue.submit(jobs.collect()).await.unwrap();
        assert_eq!(groups(&queue), (300, 300));
        for n in 0..290 {
            finish(&queue, &format!("model-{n}")).await;
        }
        deliver(&queue).await;
        assert_eq!(queue.prune(Prune { limit: 5, ..DONE }).await.unwrap().len(), 5);
        assert_eq!(groups(&queue), (295, 295));
        // Until twice as many as have records, and some more, they are not worth a look.
        assert_eq!(queue.prune(DONE).await.unwrap().len(), 285);
        assert_eq!(groups(&queue), (295, 295));
        queue.reopen(options).await;
        submit(&queue, of_model("again", "model-5")).await;
        assert_eq!(queue.prune(DONE).await.unwrap().len(), 0);
        assert_eq!(groups(&queue), (11, 11), "those with a record stay");
        // A name that comes again is a group again, and those that stayed are known.
        for (name, of, jobs) in [("last", "model-1", 1), ("more", "model-299", 2), ("other", "model-5", 2)] {
            submit(&queue, of_model(name, of)).await;
            finish(&queue, of).await;
            let counts = queue.counts().await.unwrap();
            assert!(counts.done >= jobs, "{counts:?}");
        }
        assert_eq!(queue.counts().await.unwrap().done, 5);
    }
}

#[tokio::test]
async fn a_refused_submit_leaves_no_group() {
    let queue = Fresh::new(SqliteOptions::default()).await;
    submit(&queue, of_model("job", "model")).await;
    let jobs = vec![
        of_model("job", "made-up"),
        rerun(of_model("job", "other")),
        of_model("new", "both"),
        of_model("job", "both"),
    ];
    let out = queue.submit(jobs).await.unwrap();
    assert!(matches!(
        out[..],
        [Submitted::Conflict, Submitted::Live(_), Submitted::Accepted(_), Submitted::Conflict]
    ));
    assert_eq!(groups(&queue), (2, 2));
}

#[tokio::test]
async fn a_rerun_of_another_model_leaves_no_group() {
    let queue = Fresh::new(SqliteOptions::default()).await;
    finished(&queue, job("job")).await;
    let jobs = (0..300).map(|n| of_model(&format!("job-{n}"), &format!("model-{n}")));
    queue.submit(jobs.collect()).await.unwrap();
    for n in 0..300 {
        finish(&queue, &format!("model-{n}")).await;
    }
    let again = (0..300).map(|n| rerun(of_model(&format!("job-{n}"), "m")));
    queue.submit(again.collect()).await.unwrap();
    assert_eq!(queue.prune(DONE).await.unwrap().len(), 0);
    assert_eq!(groups(&queue), (1, 1));
}
