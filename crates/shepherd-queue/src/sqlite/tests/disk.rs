//! Disks that are full, and files that are not what they should be.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use shepherd_job::Phase;

use super::super::schema::{FILE, StateDir};
use super::{SqliteOptions, SqliteStore, open};
use crate::contract::{
    apply, at, change, claim, complete, deliver, finished, id, job, object, submit, with_objects,
};
use crate::{Claim, JobStore as _, ListQuery, Outbox as _, PendingLimits, QueueError, Submitted};

fn try_open(dir: &Path) -> crate::Result<SqliteStore> {
    SqliteStore::open(dir, SqliteOptions::default())
}

/// What the error says that opening gives.
fn unusable(dir: &Path) -> String {
    match try_open(dir) {
        Err(QueueError::Unusable(message)) => message,
        other => panic!("not unusable: {other:?}"),
    }
}

/// A small file system of its own, or `None` (printed) where that is not permitted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let out =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        if out.as_ref().is_ok_and(|out| out.status.success()) {
            return Some(Self(dir));
        }
        assert!(std::env::var_os("SHEPHERD_TEST_NO_SKIP").is_none(), "cannot mount a tmpfs: {out:?}");
        println!("skipped: cannot mount a tmpfs here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_submits_and_keeps_what_is_queued() {
    let Some(disk) = SmallDisk::mount("6m") else { return };
    let dir = disk.0.path();
    let spare = dir.join("spare");
    // More than the rest: the log and the file hold everything twice for a while.
    fs::write(&spare, vec![1; 3400 << 10]).unwrap();
    let queue = open(dir).await;
    let mut accepted = 0;
    let error = loop {
        let name = format!("job-{accepted:04}");
        match queue.submit(vec![with_objects(&name, &[object("inputs/input", vec![7; 8000])])]).await {
            Ok(out) => assert!(matches!(out[..], [Submitted::Accepted(_)])),
            Err(error) => break error,
        }
        accepted += 1;
    };
    assert_eq!(error, QueueError::Full);
    assert!(accepted > 20);
    assert_eq!(queue.counts().await.unwrap().queued, accepted);
    assert_eq!(queue.get(&id(&format!("job-{accepted:04}"))).await.unwrap(), None);

    // What is queued can be taken, and nothing of it is lost when it cannot be finished.
    let claimed = claim(&queue, 1).await.remove(0);
    let done = change(&claimed.job.spec.id, complete(claimed.attempt));
    match queue.apply(vec![done.clone()]).await {
        Ok(out) => assert!(out[0].is_ok()),
        Err(error) => {
            assert_eq!(error, QueueError::Full);
            let record = queue.get(&claimed.job.spec.id).await.unwrap();
            assert_eq!(record, Some(claimed.job));
        }
    }

    fs::remove_file(&spare).unwrap();
    let _ = queue.apply(vec![done]).await.unwrap();
    submit(&queue, job("roomy")).await;
    deliver(&queue).await;
    assert_eq!(queue.lag().jobs, 0);
    drop(queue);
    let queue = open(dir).await;
    assert_eq!((queue.counts().await.unwrap().queued, queue.counts().await.unwrap().done), (accepted, 1));
    assert_eq!(claim(&queue, usize::MAX).await.len(), usize::try_from(accepted).unwrap());
}

#[test]
fn a_full_disk_cannot_be_opened_on() {
    let Some(disk) = SmallDisk::mount("64k") else { return };
    fs::write(disk.0.path().join("filler"), vec![1; 60 << 10]).unwrap();
    assert_eq!(try_open(disk.0.path()).err(), Some(QueueError::Full));
}

#[test]
fn a_directory_that_cannot_be_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = try_open(&dir.path().join("file/state")).err();
    assert!(matches!(error, Some(QueueError::Unavailable(message)) if message.contains("file/state")));
}

#[test]
fn a_file_that_is_no_database_is_unusable() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), "sheep ".repeat(1000)).unwrap();
    assert!(unusable(dir.path()).contains("not a database"));
}

#[test]
fn a_database_of_another_program_is_unusable() {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join(FILE)).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(unusable(dir.path()).contains("some other program"));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    let conn = Connection::open(dir.path().join(FILE)).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let message = unusable(dir.path());
    assert!(message.contains("newer") && message.contains("99"), "{message}");
    assert!(unusable(dir.path()).contains("99"));
}

/// A closed store with some jobs in each phase.
async fn grown(dir: &Path) {
    let queue = open(dir).await;
    for n in 0..50 {
        finished(&queue, with_objects(&format!("done-{n}"), &[object("inputs/input", vec![1; 500])])).await;
    }
    let jobs = (0..200).map(|n| with_objects(&format!("job-{n}"), &[object("inputs/input", vec![2; 500])]));
    queue.submit(jobs.collect()).await.unwrap();
    claim(&queue, 10).await;
}

#[tokio::test]
async fn a_truncated_file_is_unusable() {
    let dir = tempfile::tempdir().unwrap();
    grown(dir.path()).await;
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    for length in [1, 99, 100, 512, 4095, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &whole[..length]).unwrap();
        unusable(dir.path());
    }
}

#[tokio::test]
async fn flipped_bytes_are_errors_and_not_panics() {
    let dir = tempfile::tempdir().unwrap();
    grown(dir.path()).await;
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from(state >> 20).unwrap() % bytes.len();
            bytes[place] ^= u8::try_from(state & 0xFF).unwrap() | 1;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &bytes).unwrap();
        let queue = match try_open(dir.path()) {
            Ok(queue) => queue,
            Err(QueueError::Unusable(_)) => continue,
            Err(other) => panic!("{other}"),
        };
        // Whatever comes is an answer or an error; a panic of the writer would show
        // as an unavailable store.
        let fine = |error: Option<QueueError>| {
            assert!(
                !matches!(&error, Some(QueueError::Unavailable(m)) if m.contains("stopped") || m.contains("broke"))
            );
        };
        fine(queue.list(ListQuery { limit: 1000, ..ListQuery::default() }).await.err());
        fine(queue.pending(None, PendingLimits::jobs(1000)).await.err());
        let node = crate::contract::try_join(&queue, "ann", 0).await;
        fine(node.as_ref().err().cloned());
        let Ok(lease) = node else { continue };
        let ready = queue.ready(at(100)).await.unwrap();
        for group in ready.groups {
            let sheep = group.sheep.unwrap_or_else(|| crate::contract::sheep("dolly"));
            let claimed = queue.claim(&lease, Claim::new(group.model, sheep, 50, at(100))).await;
            fine(claimed.as_ref().err().cloned());
            for c in claimed.unwrap_or_default() {
                fine(queue.apply(vec![change(&c.job.spec.id, complete(c.attempt))]).await.err());
            }
        }
        fine(queue.submit(vec![job("new")]).await.err());
    }
}

#[tokio::test]
async fn an_empty_file_is_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), "").unwrap();
    let queue = open(dir.path()).await;
    submit(&queue, job("job")).await;
    let claimed = claim(&queue, 1).await.remove(0);
    let done = apply(&queue, change(&id("job"), complete(claimed.attempt))).await.unwrap();
    assert_eq!(done.state.phase(), Phase::Done);
}

#[tokio::test]
async fn files_that_were_removed_or_replaced_take_no_more_writes() {
    for name in [FILE, "queue.sqlite-wal"] {
        for replaced in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let queue = open(dir.path()).await;
            submit(&queue, job("before")).await;
            queue.check().await.unwrap();
            let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
            fs::rename(&path, &aside).unwrap();
            if replaced {
                fs::copy(&aside, &path).unwrap();
            }
            for refused in [queue.check().await, queue.submit(vec![job("after")]).await.map(drop)] {
                let Err(QueueError::Unavailable(message)) = refused else { panic!("{refused:?}") };
                let what = if replaced { "was replaced" } else { "was removed" };
                assert!(message.contains(name) && message.contains(what), "{message}");
            }
            // What is known is still told, and all is well once the file is back.
            assert!(queue.get(&id("before")).await.unwrap().is_some());
            fs::rename(&aside, &path).unwrap();
            queue.check().await.unwrap();
            submit(&queue, job("after")).await;
            drop(queue);
            let queue = open(dir.path()).await;
            assert_eq!(queue.counts().await.unwrap().queued, 2);
        }
    }
}

#[tokio::test]
async fn a_store_that_was_there_is_told_from_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!SqliteStore::exists(dir.path()) && !SqliteStore::existed(dir.path()));
    drop(open(dir.path()).await);
    assert!(SqliteStore::exists(dir.path()) && SqliteStore::existed(dir.path()));
    fs::remove_file(dir.path().join(FILE)).unwrap();
    assert!(!SqliteStore::exists(dir.path()) && SqliteStore::existed(dir.path()));
}

#[tokio::test]
async fn a_log_that_is_gone_is_told_when_the_store_was_not_closed() {
    let lost = |dir: &Path| StateDir::lock(dir).unwrap().has_lost_log();
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    submit(&queue, job("accepted")).await;
    // As a kill leaves it.
    let killed = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
    }
    assert!(!lost(killed.path()), "the log is there");
    fs::remove_file(killed.path().join(format!("{FILE}-wal"))).unwrap();
    assert!(lost(killed.path()));
    drop(open(killed.path()).await);
    assert!(!lost(killed.path()), "it was closed since");
    drop(queue);
    assert!(!dir.path().join(format!("{FILE}-wal")).exists());
    assert!(!lost(dir.path()), "a store that is closed has no log");
}
