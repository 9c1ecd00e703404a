//! Moving pages from the log into the file, beside the commits.
//!
//! The thread here does the bulk while commits go on. It can never finish the log
//! off under nonstop load, because commits keep adding to it; so the writer does
//! the small rest itself when the log passes a hard size, and then begins the log
//! anew.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use super::Alive;
use super::fault::Fault;

/// The handle of the checkpoint thread.
pub(super) struct Checkpointer {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    pub(super) fn start(conn: Connection, alive: Alive) -> std::io::Result<Self> {
        // One waiting call is enough: it is served after those pages were written.
        let (wake, calls) = sync_channel(1);
        let thread = thread::Builder::new().name("queue-checkpoint".to_owned()).spawn(move || {
            let _alive = alive;
            run(&conn, &calls);
        })?;
        Ok(Self { wake, thread })
    }

    /// Asks for a checkpoint; never waits.
    pub(super) fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    pub(super) fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join();
    }
}

fn run(conn: &Connection, calls: &Receiver<()>) {
    while calls.recv().is_ok() {
        if let Err(error) = checkpoint(conn, "PASSIVE") {
            // The log keeps everything meanwhile; the next call tries again.
            tracing::warn!(%error, "the queue's log could not be moved into its file");
        }
    }
}

/// Runs a checkpoint of this mode. That it is blocked by others is no error.
pub(super) fn checkpoint(conn: &Connection, mode: &str) -> Result<(), Fault> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    conn.query_row(&sql, [], |_| Ok(())).map_err(Fault::from)
}
