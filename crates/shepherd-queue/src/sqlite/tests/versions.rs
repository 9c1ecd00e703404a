//! Files that earlier versions wrote, opened by this one.
//!
//! `fixtures/version-N.sqlite` was written by the last code of schema version N, then vacuumed
//! into small pages. Each holds the same jobs: one in every state, with and without objects,
//! of several models, pins and priorities, and two claims that were open when it was closed.

use std::fs;
use std::path::PathBuf;

use super::open;
use crate::contract::{Node, at, claim_at, id, names, object, sheep};
use crate::{Claim, Counts, JobStore as _, Lag, ListQuery, Outbox as _, PendingLimits, SmallObject, Store};

/// A directory with the file of a version.
fn written_by(version: u32) -> tempfile::TempDir {
    let file = format!("src/sqlite/tests/fixtures/version-{version}.sqlite");
    let dir = tempfile::tempdir().unwrap();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::copy(file, dir.path().join(super::super::schema::FILE)).unwrap();
    dir
}

/// Every record of the fixtures, newest first.
const RECORDS: [&str; 15] = [
    "16 claimed n/ any 0 @3070 Queued { not_before: None, history: History { attempts: 1, crashes: 0 } }",
    "15 processing n/ dolly 5 @3060 Queued { not_before: None, history: History { attempts: 1, crashes: 0 } }",
    "14 other-model org/model/2.0-beta any 0 @3050 Queued { not_before: None, history: History { attempts: 0, crashes: 0 } }",
    "13 queued m/1 any 0 @3040 Queued { not_before: None, history: History { attempts: 0, crashes: 0 } }",
    "12 pinned m/1 shaun 0 @3030 Queued { not_before: None, history: History { attempts: 0, crashes: 0 } }",
    "11 urgent m/1 any 7 @3020 Queued { not_before: None, history: History { attempts: 0, crashes: 0 } }",
    "10 delayed m/1 any 20 @3010 Queued { not_before: Some(Timestamp(1000000)), history: History { attempts: 1, crashes: 1 } }",
    "9 rerun m/1 any 1 @3000 Queued { not_before: None, history: History { attempts: 1, crashes: 0 } }",
    "8 cancelled-running m/1 any 9 @2030 Cancelled { started_at: Some(Timestamp(2130)), finished_at: Timestamp(2230), history: History { attempts: 1, crashes: 0 } }",
    "7 cancelled-queued n/ any 0 @2020 Cancelled { started_at: None, finished_at: Timestamp(2220), history: History { attempts: 0, crashes: 0 } }",
    "6 failed-pending n/ dolly 0 @2010 Failed { started_at: Timestamp(2110), finished_at: Timestamp(2210), error: JobError { message: \"no\", exception_type: \"ValueError\", exception_traceback: \"line 1\\nline 2\" }, history: History { attempts: 1, crashes: 0 } }",
    "5 done-pending org/model/2.0-beta any 0 @2000 Done { started_at: Timestamp(2100), finished_at: Timestamp(2200), history: History { attempts: 1, crashes: 0 } }",
    "4 queued-delivered m/1 any -3 @1030 Queued { not_before: None, history: History { attempts: 0, crashes: 0 } }",
    "2 failed-delivered n/ any 0 @1010 Failed { started_at: Timestamp(1110), finished_at: Timestamp(20), error: JobError { message: \"no\", exception_type: \"ValueError\", exception_traceback: \"line 1\\n\\0line 2\" }, history: History { attempts: 1, crashes: 0 } }",
    "1 done-delivered m/1 any 0 @1000 Done { started_at: Timestamp(1100), finished_at: Timestamp(1200), history: History { attempts: 1, crashes: 0 } }",
];

/// The jobs whose files storage lacks, in order, with their objects.
fn expected_pending() -> Vec<(&'static str, Vec<SmallObject>)> {
    let input = || object("inputs/input", "payload");
    vec![
        (
            "done-pending",
            vec![input(), object("outputs/extra/žluť", [0, 255]), object("outputs/output", "result")],
        ),
        ("failed-pending", vec![object("logs/log.txt", "printed")]),
        ("cancelled-queued", vec![]),
        ("cancelled-running", vec![]),
        ("rerun", vec![object("inputs/more", "more")]),
        ("delayed", vec![input()]),
        ("urgent", vec![]),
        ("pinned", vec![input()]),
        ("queued", vec![object("inputs/input", vec![b'x'; 3000])]),
        ("other-model", vec![]),
        ("processing", vec![input()]),
        ("claimed", vec![]),
    ]
}

async fn records(queue: &Node<impl Store>) -> Vec<String> {
    let records = queue.list(ListQuery { limit: 99, ..ListQuery::default() }).await.unwrap();
    let line = |record: &crate::JobRecord| {
        let spec = &record.spec;
        let (model, version) = (spec.model.name(), spec.model.version());
        let pin = spec.sheep.as_ref().map_or("any", |pin| pin.as_str());
        let at = record.submitted_at.as_micros();
        format!(
            "{} {} {model}/{version} {pin} {} @{at} {:?}",
            record.seq, spec.id, spec.priority, record.state
        )
    };
    records.iter().map(|record| line(record)).collect()
}

#[tokio::test]
async fn a_file_of_every_earlier_version_keeps_all_that_it_holds() {
    for version in [1] {
        let dir = written_by(version);
        let queue = open(dir.path()).await;
        assert_eq!(records(&queue).await, RECORDS);
        assert_eq!(
            queue.counts().await.unwrap(),
            Counts { queued: 9, processing: 0, done: 2, failed: 2, cancelled: 2 }
        );
        let pending = queue.pending(None, PendingLimits::jobs(99)).await.unwrap();
        let pending: Vec<_> = pending.iter().map(|b| (b.job.spec.id.as_str(), b.objects.clone())).collect();
        assert_eq!(pending, expected_pending());
        // Of a job that was pending in version 1 only the time of its submit is known.
        let (bytes, since) = (7 + 2 + 6 + 7 + 4 + 7 + 7 + 3000 + 7, Some(at(2000)));
        assert_eq!(queue.lag(), Lag { jobs: 12, bytes, since, finished: 4 });
        drop(queue);
        // What was migrated is kept at the next opening.
        let queue = open(dir.path()).await;
        assert_eq!(records(&queue).await, RECORDS);
        let ready = queue.ready(at(5000)).await.unwrap();
        assert_eq!(ready.groups.iter().map(|group| group.ready).collect::<Vec<_>>(), [4, 1, 1, 1, 1]);
        assert_eq!(ready.next_due, Some(at(1_000_000)));
        // All of it can be worked on, in order.
        let claimed = claim_at(&queue, 9, 1_000_000).await;
        assert_eq!(names(&claimed), ["delayed", "urgent", "rerun", "queued", "queued-delivered"]);
        assert!(claimed.iter().all(|c| c.attempt.epoch > 1));
        let n = shepherd_job::ModelRef::parse("n", "").unwrap();
        let claimed = queue.claim(Claim::new(n, sheep("dolly"), 9, at(5000))).await.unwrap();
        assert_eq!(names(&claimed), ["processing", "claimed"]);
        assert_eq!(queue.objects(&id("processing")).await.unwrap(), [object("inputs/input", "payload")]);
    }
}

#[tokio::test]
async fn a_migrated_file_has_the_tables_of_a_new_one() {
    let tables = |path: &std::path::Path| -> Vec<String> {
        let conn = rusqlite::Connection::open(path.join(super::super::schema::FILE)).unwrap();
        let sql =
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY type, name";
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let new = tempfile::tempdir().unwrap();
    drop(open(new.path()).await);
    for version in [1] {
        let old = written_by(version);
        drop(open(old.path()).await);
        assert_eq!(tables(old.path()), tables(new.path()));
    }
}
