//! The embedded store: one SQLite file, one writer, and the ready queue in memory.
//!
//! ```text
//!  join, submit, apply, prune, delivered ──▶ channel ──▶ writer thread ──▶ log (one sync for all)
//!                                              │                └─▶ checkpoint thread ─▶ file
//!                                              ▼ after the sync
//!  claim, ready ◀────────────────────────▶ memory (ready queue, records at hand)
//!  get, list, objects, pending ◀── memory, else a reader's connection
//! ```
//!
//! - `schema` and `migrations`: the file, its lock, tables and versions.
//! - `writer` and `batch`: group commit.
//! - `outbox` and `pending`: what the writer of files to storage has not handled yet.
//! - `memory_index`, `index`, `cache`: what is known without the disk.
//! - `recover`: opening.
//!
//! One process has the file, so one node lives. Whichever node joins takes back every attempt,
//! and a lease ends only when another life joins.
//!
//! A claim is made in memory and written later, or never if its job finishes
//! first. A crash loses such a claim and nothing else: the job is still queued, and
//! the next life's epoch keeps the lost attempt's token from ever coming again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use shepherd_job::{JobId, Timestamp};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::rules::{self, Standing};
use crate::{
    Change, Changed, Claim, Claimed, Counts, Feed, Held, JobRecord, JobStore, Join, Lease, ListQuery, NewJob,
    Prune, QueueError, Ready, Renewed, Result, Submitted,
};

mod batch;
mod cache;
mod checkpoint;
mod effect;
mod fault;
mod index;
mod memory_index;
mod migrations;
mod outbox;
mod pending;
mod reader;
mod recover;
mod rows;
mod schema;
mod statements;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

use checkpoint::Checkpointer;
use memory_index::{Loaded, MemoryIndex, Renewing, Taken};
use reader::{Reader, Readers};
use schema::{Files, StateDir};
use writer::{Op, Reply, Writer};

/// How many calls may wait for the writer; further callers wait for a place.
const LINE: usize = 4096;

/// How many groups are removed by one commit.
const GROUP_BATCH: usize = 1024;

/// How much an embedded store may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// About how many bytes of records and small objects are kept in memory, beside
    /// those of jobs being processed. Default: 16 MiB.
    pub cache_bytes: usize,
    /// The log is moved into the file, beside the commits, whenever it grew by this
    /// many bytes. Default: 4 MiB.
    pub log_soft_bytes: u64,
    /// Commits wait for the log to be moved into the file when it is larger than
    /// this many bytes. It bounds the disk space and the time to open after a crash.
    /// Default: 64 MiB.
    pub log_hard_bytes: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, log_soft_bytes: 4 << 20, log_hard_bytes: 64 << 20 }
    }
}

/// The [store](crate::Store) in one SQLite file, `queue.sqlite` in a state directory.
///
/// Its methods must be called within a Tokio runtime. Dropping it writes what is
/// still unwritten and waits for the file to be closed.
#[derive(Debug)]
pub struct SqliteStore {
    memory: Arc<Mutex<MemoryIndex>>,
    readers: Arc<Readers>,
    changes: watch::Sender<u64>,
    /// Whether one of the store's threads has ended.
    ended: watch::Receiver<bool>,
    line: Arc<Semaphore>,
    /// Held by the one claim that reads records from the disk.
    turn: tokio::sync::Mutex<()>,
    /// `None` only while it is dropped.
    ops: Option<Sender<Op>>,
    writer: Option<JoinHandle<()>>,
    // Last: the directory is free again when all else is closed.
    dir: Arc<StateDir>,
}

impl SqliteStore {
    /// Opens the store in `state_dir`, which is created where it is missing, and
    /// locks it until this value is dropped. Jobs that the last life was processing
    /// stay so until a node joins. It blocks while it reads: about a second for a million
    /// queued jobs.
    ///
    /// # Errors
    /// [`QueueError::InUse`] when another process, or this one, has it open;
    /// [`QueueError::Unusable`] when the file is damaged, of another program, or
    /// written by a newer version; [`QueueError::Full`] and
    /// [`QueueError::Unavailable`] as everywhere.
    pub fn open(state_dir: &Path, options: SqliteOptions) -> Result<Self> {
        let dir = Arc::new(StateDir::lock(state_dir)?);
        let outward = |fault: fault::Fault| fault.outward(state_dir);
        schema::check_length(state_dir).map_err(outward)?;
        schema::check_log(&dir)?;
        let mut conn = schema::writer(state_dir).map_err(outward)?;
        migrations::migrate(&mut conn).map_err(outward)?;
        let (memory, next) = recover::load(&mut conn, options.cache_bytes).map_err(outward)?;
        tracing::debug!(queued = memory.index.queued(), "opened the job store");

        let unstarted = |e: std::io::Error| QueueError::Unavailable(format!("cannot start a thread: {e}"));
        let checkpointer = schema::checkpointer(state_dir).map_err(outward)?;
        dir.note_opened()?;
        // The first commit has made the log.
        let files = Files::of(state_dir).map_err(|error| {
            QueueError::Unavailable(format!("cannot look at the files in {}: {error}", state_dir.display()))
        })?;
        let files = Arc::new(files);
        let alive = Alive(watch::Sender::new(false));
        let ended = alive.0.subscribe();
        let checkpointer = Checkpointer::start(checkpointer, alive.clone()).map_err(unstarted)?;
        let memory = Arc::new(Mutex::new(memory));
        let changes = watch::Sender::new(0);
        let (ops, calls) = channel();
        let writer = Writer {
            dir: Arc::clone(&dir),
            files: Arc::clone(&files),
            options,
            memory: Arc::clone(&memory),
            ops: calls,
            changes: changes.clone(),
            next,
            checkpointer,
        };
        let writer = thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || {
                let _alive = alive;
                writer.run(conn);
            })
            .map_err(unstarted)?;
        let readers = Arc::new(Readers::new(state_dir.to_owned(), files));
        let line = Arc::new(Semaphore::new(LINE));
        let turn = tokio::sync::Mutex::default();
        let (ops, writer) = (Some(ops), Some(writer));
        Ok(Self { memory, readers, changes, ended, line, turn, ops, writer, dir })
    }

    /// Whether `state_dir` has a store's file.
    pub fn exists(state_dir: &Path) -> bool {
        state_dir.join(schema::FILE).exists()
    }

    /// Whether a store was opened in `state_dir` before, be its file still there or not.
    pub fn existed(state_dir: &Path) -> bool {
        schema::was_opened(state_dir)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryIndex> {
        batch::lock(&self.memory)
    }

    /// Has the writer do something and waits until it is durable.
    async fn write<T>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Result<T> {
        let stopped = || QueueError::Unavailable("the store's writer has stopped".to_owned());
        let place = Arc::clone(&self.line).acquire_owned().await.map_err(|_| stopped())?;
        let (to, answer) = oneshot::channel();
        self.send(op(Reply { to, _place: place }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Removes the groups without jobs, when there may be many: clients make up names of models,
    /// and each is a group until its last record is removed. A look at all jobs is the price of
    /// submits that need not count them.
    async fn sweep_groups(&self) -> Result<()> {
        let upto = {
            let memory = self.lock();
            if !memory.index.groups.want_sweep() {
                return Ok(());
            }
            memory.last_seq()
        };
        let used = self.readers.run(Reader::groups).await?;
        let unused = self.lock().index.groups.unused(&used);
        for groups in unused.chunks(GROUP_BATCH) {
            self.write(|reply| Op::DropGroups(groups.to_vec(), upto, reply)).await?;
        }
        Ok(())
    }

    fn send(&self, op: Op) -> Result<()> {
        let sent = self.ops.as_ref().is_some_and(|ops| ops.send(op).is_ok());
        if sent { Ok(()) } else { Err(QueueError::Unavailable("the store's writer has stopped".to_owned())) }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.dir.note_closing();
        // The last connection to close moves the log into the file, which those that
        // only read cannot.
        self.readers.close();
        self.ops = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Held by each of the store's threads. Whoever waits learns when one of them ends, by a
/// panic too.
#[derive(Clone)]
struct Alive(watch::Sender<bool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Ends a load when it is over or its caller has gone.
struct Loading<'a>(&'a SqliteStore);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.lock().end_load();
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn join(&self, join: Join) -> Result<Lease> {
        self.write(|reply| Op::Join(join, reply)).await
    }

    async fn renew(&self, lease: &Lease, held: Vec<Held>, at: Timestamp) -> Result<Renewed> {
        let Renewing { unknown, over } = self.lock().renew(lease, &held, at)?;
        let mut renewed = Renewed { unknown, ..Renewed::default() };
        for held in over {
            let record = self.get(&held.job).await?;
            match rules::standing(&held, record.as_deref()) {
                Standing::Current => {}
                Standing::Cancelled => renewed.cancelled.push(held),
                Standing::Lost => renewed.lost.push(held),
            }
        }
        Ok(renewed)
    }

    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        self.write(|reply| Op::Submit(jobs, reply)).await
    }

    async fn claim(&self, lease: &Lease, claim: Claim) -> Result<Vec<Claimed>> {
        let mut loaded = Loaded::default();
        let mut _loading = None;
        let mut turn = None;
        loop {
            let (taken, first) = {
                let mut memory = self.lock();
                let idle = memory.oldest_unwritten().is_none();
                (memory.claim(lease, &claim, &mut loaded), idle)
            };
            // No await from here to the return: a claim that nobody receives would
            // be held by nobody.
            match taken {
                Taken::Jobs(jobs) => {
                    if first && !jobs.is_empty() {
                        // A writer that has stopped is no reason to withhold the jobs.
                        let _ = self.send(Op::Claims);
                    }
                    return Ok(jobs);
                }
                Taken::Fenced => return Err(QueueError::Fenced),
                Taken::Joining => {
                    return Err(QueueError::Unavailable("a node is joining the job store".to_owned()));
                }
                Taken::Missing(missing) => {
                    _loading = Some(Loading(self));
                    // Callers that miss together miss the same records: one reads
                    // ahead for all, and the others look again.
                    if turn.is_none() {
                        turn = Some(self.turn.lock().await);
                        continue;
                    }
                    let asked = missing.asked.clone();
                    loaded = missing;
                    loaded.entries = self.readers.run(move |reader| reader.entries(&asked)).await?;
                }
            }
        }
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>> {
        self.write(|reply| Op::Change(changes, reply)).await
    }

    async fn ready(&self, now: Timestamp) -> Result<Ready> {
        Ok(self.lock().index.view(now))
    }

    async fn get(&self, job: &JobId) -> Result<Option<Arc<JobRecord>>> {
        let cached = || self.lock().cache.find(job).map(|entry| Arc::clone(&entry.record));
        if let Some(record) = cached() {
            return Ok(Some(record));
        }
        let id = job.clone();
        let read = self.readers.run(move |reader| reader.record(&id)).await?;
        // Claimed since then, it is at hand now and newer than what the disk said.
        Ok(cached().or_else(|| read.map(Arc::new)))
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>> {
        let processing: HashMap<u64, Arc<JobRecord>> = {
            let memory = self.lock();
            memory.cache.processing().map(|entry| (entry.record.seq, Arc::clone(&entry.record))).collect()
        };
        self.readers.run(move |reader| reader.list(&query, &processing)).await
    }

    async fn counts(&self) -> Result<Counts> {
        Ok(self.lock().counts())
    }

    async fn prune(&self, prune: Prune) -> Result<Vec<JobId>> {
        // However many records there are: it is not the writer who looks through them.
        let seqs = self.readers.run(move |reader| reader.prunable(&prune)).await?;
        let pruned = self.write(|reply| Op::Prune(prune.outcome, seqs, reply)).await?;
        // The records are gone; the groups are looked for at the next call.
        if let Err(error) = self.sweep_groups().await {
            tracing::warn!(%error, "models without jobs stay in the job store for now");
        }
        Ok(pruned)
    }

    fn feed(&self) -> Feed {
        self.lock().feed.subscribe()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn check(&self) -> Result<()> {
        self.readers.check().await
    }

    async fn failed(&self) {
        // That the senders are gone says the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}
