//! The contract, and what only a store with a disk can be asked.

use std::path::Path;

use super::{SqliteOptions, SqliteStore};
use crate::{JobStore as _, QueueError, contract};

mod crash;
mod disk;
mod model;
mod reopen;
mod stress;
mod versions;

pub(super) fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, SqliteOptions::default()).unwrap()
}

/// A store in a directory that goes with it.
pub(super) struct Fresh {
    queue: Option<SqliteStore>,
    dir: tempfile::TempDir,
}

impl Fresh {
    pub(super) fn new(options: SqliteOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = Some(SqliteStore::open(dir.path(), options).unwrap());
        Self { queue, dir }
    }

    /// Closes the store and opens it again.
    pub(super) fn reopen(&mut self, options: SqliteOptions) {
        self.queue = None;
        self.queue = Some(SqliteStore::open(self.dir.path(), options).unwrap());
    }
}

impl std::ops::Deref for Fresh {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        self.queue.as_ref().unwrap()
    }
}

/// Options under which nothing is at hand and the log begins anew all the time.
pub(super) fn tiny() -> SqliteOptions {
    SqliteOptions { cache_bytes: 0, log_soft_bytes: 1, log_hard_bytes: 16 << 10 }
}

mod cached {
    use super::{Fresh, SqliteOptions, contract};

    contract::suite!(*Fresh::new(SqliteOptions::default()));
}

mod uncached {
    use super::{Fresh, contract, tiny};

    contract::suite!(*Fresh::new(tiny()));
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let name = dir.path().display().to_string();
    let second = SqliteStore::open(dir.path(), SqliteOptions::default());
    assert_eq!(second.err(), Some(QueueError::InUse(name)));
    drop(first);
    open(dir.path());
}

#[test]
fn the_log_of_writes_is_synced_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let conn = super::schema::writer(dir.path()).unwrap();
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2);
    assert_eq!(pragma("wal_autocheckpoint"), 0);
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn the_end_of_a_thread_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), queue.failed()).await;
    assert!(early.is_err(), "the threads run");
    // The writer ends, as it does when it panics.
    queue.ops = None;
    queue.failed().await;
    let refused = queue.submit(vec![contract::job("late")]).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
}
