//! The one thread that writes.
//!
//! It takes every call that waits, puts them all in one transaction, and answers
//! when that is on the disk: so the price of a sync is shared by all who arrived
//! while the last one ran. The order is: persist, apply in memory, answer, hint.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shepherd_job::JobId;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::SqliteOptions;
use super::batch::{Batch, News, Next, lock};
use super::checkpoint::{Checkpointer, checkpoint};
use super::fault::Fault;
use super::index::GroupId;
use super::memory_index::MemoryIndex;
use super::rows::Decoder;
use super::schema::{self, Files, StateDir};
use super::statements::Statements;
use crate::{Change, Changed, Join, Lease, NewJob, Outcome, Pending, QueueError, Result, Submitted};

/// How long a claim stays unwritten when nothing happens to its job. Most jobs of
/// a fast model are finished by then, and their claims are never written.
const CLAIM_DELAY: Duration = Duration::from_millis(100);
/// A batch takes no more calls after this many jobs, so that memory and the time
/// to commit stay bounded.
const BATCH_JOBS: usize = 4096;
/// How long a log that is to begin anew waits for readers of the old one.
const RESTART_WAIT: Duration = Duration::from_millis(50);

/// How long to wait before a store that could not be opened is tried again.
const REOPEN_WAIT: Duration = Duration::from_millis(100);

/// A call that waits, with its place in the line.
pub(super) enum Op {
    Join(Join, Reply<Lease>),
    Submit(Vec<NewJob>, Reply<Vec<Submitted>>),
    Change(Vec<Change>, Reply<Vec<Changed>>),
    Delivered(Vec<Pending>, Reply<()>),
    Prune(Outcome, Vec<u64>, Reply<Vec<JobId>>),
    /// These groups had no job up to the one of this number.
    DropGroups(Vec<GroupId>, u64, Reply<()>),
    /// There are claims to write now.
    Claims,
}

/// Where an answer goes. Nobody may be waiting any more.
pub(super) struct Reply<T> {
    pub(super) to: oneshot::Sender<Result<T>>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    fn send(self, answer: Result<T>) {
        let _ = self.to.send(answer);
    }
}

enum Answer {
    Joined(Lease),
    Submitted(Vec<Submitted>),
    Changed(Vec<Changed>),
    Delivered,
    Pruned(Vec<JobId>),
    GroupsDropped,
    None,
}

impl Op {
    fn jobs(&self) -> usize {
        match self {
            Self::Join(..) => 1,
            Self::Submit(jobs, _) => jobs.len(),
            Self::Change(changes, _) => changes.len(),
            Self::Delivered(jobs, _) => jobs.len(),
            Self::Prune(_, seqs, _) => seqs.len(),
            Self::DropGroups(groups, _, _) => groups.len(),
            Self::Claims => 0,
        }
    }

    fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Join(_, reply), Answer::Joined(lease)) => reply.send(Ok(lease)),
            (Self::Submit(_, reply), Answer::Submitted(out)) => reply.send(Ok(out)),
            (Self::Change(_, reply), Answer::Changed(out)) => reply.send(Ok(out)),
            (Self::Delivered(_, reply), Answer::Delivered) => reply.send(Ok(())),
            (Self::Prune(_, _, reply), Answer::Pruned(jobs)) => reply.send(Ok(jobs)),
            (Self::DropGroups(_, _, reply), Answer::GroupsDropped) => reply.send(Ok(())),
            // An answer of another kind cannot be; the caller sees its reply dropped.
            (
                Self::Join(..)
                | Self::Submit(..)
                | Self::Change(..)
                | Self::Delivered(..)
                | Self::Prune(..)
                | Self::DropGroups(..)
                | Self::Claims,
                Answer::Joined(_)
                | Answer::Submitted(_)
                | Answer::Changed(_)
                | Answer::Delivered
                | Answer::Pruned(_)
                | Answer::GroupsDropped
                | Answer::None,
            ) => {}
        }
    }

    fn refuse(self, error: QueueError) {
        match self {
            Self::Join(_, reply) => reply.send(Err(error)),
            Self::Submit(_, reply) => reply.send(Err(error)),
            Self::Change(_, reply) => reply.send(Err(error)),
            Self::Delivered(_, reply) => reply.send(Err(error)),
            Self::Prune(_, _, reply) => reply.send(Err(error)),
            Self::DropGroups(_, _, reply) => reply.send(Err(error)),
            Self::Claims => {}
        }
    }
}

/// The writer and what it shares.
pub(super) struct Writer {
    pub(super) dir: Arc<StateDir>,
    pub(super) files: Arc<Files>,
    pub(super) options: SqliteOptions,
    pub(super) memory: Arc<Mutex<MemoryIndex>>,
    pub(super) ops: Receiver<Op>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) next: Next,
    pub(super) checkpointer: Checkpointer,
}

/// A connection with its prepared statements.
struct Session<'c> {
    conn: &'c Connection,
    statements: Statements<'c>,
    decoder: Decoder,
    log: Log,
}

/// How far the write-ahead log has grown.
struct Log {
    pages: Arc<AtomicU32>,
    page_bytes: u64,
    /// Its size when the last checkpoint was asked for.
    asked_at: u64,
}

enum Wait {
    Ops(Vec<Op>),
    Closed,
}

enum End {
    /// All is written; nobody can call any more.
    Closed,
    /// The connection is of no use any more.
    Broken,
}

impl Writer {
    /// Serves until every sender of calls is gone.
    pub(super) fn run(mut self, conn: Connection) {
        let mut conn = Some(conn);
        loop {
            let reopen = || self.files.check().and_then(|()| schema::writer(self.dir.path()));
            let opened = conn.take().map_or_else(reopen, Ok);
            let end = match opened {
                Ok(mut opened) => self.serve(&mut opened),
                Err(fault) => Err(fault),
            };
            match end {
                Ok(End::Closed) => break,
                Ok(End::Broken) => {}
                Err(fault) => {
                    // Whoever calls learns of it, and the next call tries again.
                    let error = fault.outward(self.dir.path());
                    tracing::error!(%error, "the job store cannot be written");
                    std::thread::sleep(REOPEN_WAIT);
                    match self.wait() {
                        Wait::Closed => break,
                        Wait::Ops(ops) => ops.into_iter().for_each(|op| op.refuse(error.clone())),
                    }
                }
            }
        }
        self.checkpointer.stop();
    }

    fn serve(&mut self, conn: &mut Connection) -> std::result::Result<End, Fault> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&pages);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let page_bytes: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let log = Log { pages, page_bytes: page_bytes.cast_unsigned(), asked_at: 0 };
        let conn: &Connection = conn;
        let statements = Statements::prepare(conn)?;
        let mut session = Session { conn, statements, decoder: Decoder::default(), log };
        loop {
            let (ops, end) = match self.wait() {
                Wait::Ops(ops) => (ops, None),
                Wait::Closed => (Vec::new(), Some(End::Closed)),
            };
            let until = if end.is_some() { None } else { Instant::now().checked_sub(CLAIM_DELAY) };
            if let Err(fault) = self.commit(&mut session, ops, until) {
                tracing::error!(%fault, "the job store's connection is replaced");
                return Ok(end.unwrap_or(End::Broken));
            }
            if let Some(end) = end {
                return Ok(end);
            }
            self.tend_log(&mut session);
        }
    }

    /// Waits for calls, or for the time to write claims, and takes all there are.
    fn wait(&self) -> Wait {
        let oldest = lock(&self.memory).oldest_unwritten();
        let first = match oldest {
            None => self.ops.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.ops.recv_timeout((at + CLAIM_DELAY).saturating_duration_since(Instant::now())),
        };
        let mut ops = Vec::new();
        let mut jobs = 0;
        match first {
            Err(RecvTimeoutError::Disconnected) => return Wait::Closed,
            Err(RecvTimeoutError::Timeout) => return Wait::Ops(ops),
            Ok(op) => {
                jobs += op.jobs();
                ops.push(op);
            }
        }
        while jobs < BATCH_JOBS {
            match self.ops.try_recv() {
                Ok(op) => {
                    jobs += op.jobs();
                    ops.push(op);
                }
                // A closed channel is seen again at the next wait.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Wait::Ops(ops)
    }

    /// Commits and answers. A batch that fails is run again call by call, so that
    /// the trouble of one is not everybody's: with a full disk, small changes may
    /// still fit where a large submit does not.
    ///
    /// # Errors
    /// The connection is of no use any more; the calls were answered.
    fn commit(
        &mut self,
        session: &mut Session<'_>,
        ops: Vec<Op>,
        until: Option<Instant>,
    ) -> std::result::Result<(), Fault> {
        let claims =
            lock(&self.memory).oldest_unwritten().is_some_and(|at| until.is_none_or(|until| at <= until));
        if !claims && ops.iter().all(|op| op.jobs() == 0) {
            ops.into_iter().for_each(Op::answer_empty);
            return Ok(());
        }
        let fault = match self.transact(session, &ops, until) {
            Ok(answers) => {
                ops.into_iter().zip(answers).for_each(|(op, answer)| op.answer(answer));
                return Ok(());
            }
            Err(Failed::Usable(fault)) => fault,
            Err(Failed::Broken(fault)) => {
                let error = fault.outward(self.dir.path());
                ops.into_iter().for_each(|op| op.refuse(error.clone()));
                return Err(fault);
            }
        };
        let error = fault.outward(self.dir.path());
        tracing::warn!(%error, calls = ops.len(), "a commit of the job store failed");
        if error == QueueError::Full {
            // Room in the log is room for small changes.
            let _ = checkpoint(session.conn, "RESTART");
        }
        if ops.len() == 1 {
            ops.into_iter().for_each(|op| op.refuse(error.clone()));
            return Ok(());
        }
        let mut ops = ops.into_iter();
        while let Some(op) = ops.next() {
            match self.transact(session, std::slice::from_ref(&op), until) {
                Ok(mut answers) => op.answer(answers.pop().unwrap_or(Answer::None)),
                Err(Failed::Usable(fault)) => op.refuse(fault.outward(self.dir.path())),
                Err(Failed::Broken(fault)) => {
                    let error = fault.outward(self.dir.path());
                    std::iter::once(op).chain(ops).for_each(|op| op.refuse(error.clone()));
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    fn transact(
        &mut self,
        session: &mut Session<'_>,
        ops: &[Op],
        until: Option<Instant>,
    ) -> std::result::Result<Vec<Answer>, Failed> {
        let Session { conn, statements, decoder, .. } = session;
        let mut batch = Batch::new(conn, statements, decoder, &self.memory, self.next);
        match fill(&mut batch, &self.files, ops, until) {
            Ok((answers, next, news)) => {
                self.next = next;
                if news == News::Ready {
                    self.changes.send_modify(|n| *n = n.wrapping_add(1));
                }
                Ok(answers)
            }
            Err(fault) => match batch.abandon() {
                Ok(()) => Err(Failed::Usable(fault)),
                Err(error) => Err(Failed::Broken(error.into())),
            },
        }
    }

    fn tend_log(&self, session: &mut Session<'_>) {
        let Session { conn, log, .. } = session;
        let bytes = u64::from(log.pages.load(Ordering::Relaxed)) * log.page_bytes;
        // The log began anew.
        if bytes < log.asked_at {
            log.asked_at = 0;
        }
        if bytes > self.options.log_hard_bytes {
            let restarted = conn
                .busy_timeout(RESTART_WAIT)
                .map_err(Fault::from)
                .and_then(|()| checkpoint(conn, "RESTART"))
                .and_then(|()| Ok(conn.busy_timeout(schema::BUSY)?));
            if let Err(error) = restarted {
                tracing::warn!(%error, "the queue's log is large and could not begin anew");
            }
        } else if bytes - log.asked_at > self.options.log_soft_bytes {
            log.asked_at = bytes;
            self.checkpointer.wake();
        }
    }
}

enum Failed {
    /// Nothing was changed; the connection is as good as before.
    Usable(Fault),
    /// What happens on the disk is unknown until the file is opened again.
    Broken(Fault),
}

fn fill(
    batch: &mut Batch<'_, '_>,
    files: &Files,
    ops: &[Op],
    until: Option<Instant>,
) -> std::result::Result<(Vec<Answer>, Next, News), Fault> {
    batch.begin()?;
    let mut answers = Vec::with_capacity(ops.len());
    for op in ops {
        answers.push(match op {
            Op::Join(join, _) => Answer::Joined(batch.join(join)?),
            Op::Submit(jobs, _) => Answer::Submitted(batch.submit(jobs)?),
            Op::Change(changes, _) => Answer::Changed(batch.change(changes)?),
            Op::Delivered(jobs, _) => {
                batch.delivered(jobs)?;
                Answer::Delivered
            }
            Op::Prune(outcome, seqs, _) => Answer::Pruned(batch.prune(*outcome, seqs)?),
            Op::DropGroups(groups, upto, _) => {
                batch.drop_groups(groups, *upto)?;
                Answer::GroupsDropped
            }
            Op::Claims => Answer::None,
        });
    }
    batch.write_claims(until)?;
    files.check()?;
    let (next, news) = batch.commit()?;
    Ok((answers, next, news))
}

impl Op {
    /// Answers a call about no jobs.
    fn answer_empty(self) {
        match self {
            Self::Submit(_, reply) => reply.send(Ok(Vec::new())),
            Self::Change(_, reply) => reply.send(Ok(Vec::new())),
            Self::Delivered(_, reply) => reply.send(Ok(())),
            Self::Prune(_, _, reply) => reply.send(Ok(Vec::new())),
            Self::DropGroups(_, _, reply) => reply.send(Ok(())),
            // The first is never empty.
            Self::Join(..) | Self::Claims => {}
        }
    }
}
