//! The contract, and what only a store with a disk can be asked.

use std::path::Path;

use super::{SqliteOptions, SqliteStore};
use crate::contract::Node;
use crate::{JobStore as _, QueueError, contract};

mod crash;
mod disk;
mod groups;
mod model;
mod reopen;
mod stress;
mod versions;

pub(super) async fn open(dir: &Path) -> Node<SqliteStore> {
    Node::join(SqliteStore::open(dir, SqliteOptions::default()).unwrap()).await
}

/// A store in a directory that goes with it, as its node uses it.
pub(super) struct Fresh {
    node: Option<Node<SqliteStore>>,
    dir: tempfile::TempDir,
}

impl Fresh {
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) async fn new(options: SqliteOptions) -> Self {
        let mut this = Self { node: None, dir: tempfile::tempdir().unwrap() };
        this.reopen(options).await;
        this
    }

    /// Closes the store, opens it again and has the node join.
    pub(super) async fn reopen(&mut self, options: SqliteOptions) {
        self.node = None;
        self.node = Some(Node::join(SqliteStore::open(self.dir.path(), options).unwrap()).await);
    }
}

impl Fresh {
    /// Has the node join once more, with the store open.
    pub(super) async fn rejoin(&mut self) {
        if let Some(node) = &mut self.node {
            node.lease = crate::contract::join(&**node, "ann", 0).await;
        }
    }
}

impl std::ops::Deref for Fresh {
    type Target = Node<SqliteStore>;

    fn deref(&self) -> &Node<SqliteStore> {
        self.node.as_ref().unwrap()
    }
}

/// Options under which nothing is at hand and the log begins anew all the time.
pub(super) fn tiny() -> SqliteOptions {
    SqliteOptions { cache_bytes: 0, log_soft_bytes: 1, log_hard_bytes: 16 << 10 }
}

mod cached {
    use super::{Fresh, SqliteOptions, contract};

    contract::suite!(*Fresh::new(SqliteOptions::default()).await);
}

mod uncached {
    use super::{Fresh, contract, tiny};

    contract::suite!(*Fresh::new(tiny()).await);
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).await;
    let name = dir.path().display().to_string();
    let second = SqliteStore::open(dir.path(), SqliteOptions::default());
    assert_eq!(second.err(), Some(QueueError::InUse(name)));
    drop(first);
    open(dir.path()).await;
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
async fn the_feed_ends_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).await;
    let mut feed = queue.feed();
    drop(queue);
    assert_eq!(feed.next().await, None);
}

#[tokio::test]
async fn the_end_of_a_thread_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path()).await.into_store();
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), queue.failed()).await;
    assert!(early.is_err(), "the threads run");
    // The writer ends, as it does when it panics.
    queue.ops = None;
    queue.failed().await;
    let refused = queue.submit(vec![contract::job("late")]).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
}
