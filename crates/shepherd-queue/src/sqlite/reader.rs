//! Reads, on blocking threads, over a few connections of their own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};
use shepherd_job::{JobId, Phase, Timestamp};
use tokio::sync::Semaphore;

use super::cache::Entry;
use super::fault::Fault;
use super::index::GroupId;
use super::rows::{self, Decoder, record_columns};
use super::schema::{self, Files};
use crate::{JobRecord, ListQuery, Outcome, Prune, QueueError, Result, SmallObject, Unstored};

/// How many reads run at a time.
const READERS: usize = 4;

const LIST_ALL: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM job j LEFT JOIN live l ON l.seq = j.seq LEFT JOIN fin f ON f.seq = j.seq \
     WHERE j.seq < ?1 ORDER BY j.seq DESC"
);
const LIST_LIVE: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM live l CROSS JOIN job j ON j.seq = l.seq LEFT JOIN fin f ON f.seq = l.seq \
     WHERE l.seq < ?1 ORDER BY l.seq DESC"
);
macro_rules! list_finished {
    ($outcome:literal) => {
        concat!(
            "SELECT ",
            record_columns!(),
            " FROM fin f CROSS JOIN job j ON j.seq = f.seq LEFT JOIN live l ON l.seq = f.seq \
             WHERE f.outcome = ",
            $outcome,
            " AND f.seq < ?1 ORDER BY f.seq DESC"
        )
    };
}

macro_rules! finished {
    ($outcome:literal) => {
        (
            concat!("SELECT seq FROM fin WHERE outcome = ", $outcome, " ORDER BY seq DESC LIMIT 1 OFFSET ?1"),
            concat!(
                "SELECT seq FROM fin WHERE outcome = ",
                $outcome,
                " AND seq < ?1 AND finished_at < ?2 \
                 AND NOT EXISTS (SELECT 1 FROM write_back WHERE write_back.seq = fin.seq) \
                 ORDER BY seq LIMIT ?3"
            ),
        )
    };
}

/// A connection that reads.
#[derive(Debug)]
pub(super) struct Reader {
    conn: Connection,
    decoder: Decoder,
}

impl Reader {
    pub(super) fn record(&mut self, id: &JobId) -> std::result::Result<Option<JobRecord>, Fault> {
        self.decoder.by_id(&self.conn, id)
    }

    pub(super) fn objects(&mut self, id: &JobId) -> std::result::Result<Vec<SmallObject>, Fault> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
        match self.decoder.by_id(&tx, id)? {
            Some(record) => rows::objects(&tx, record.seq),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn unstored(&mut self) -> std::result::Result<Vec<Unstored>, Fault> {
        rows::unstored(&self.conn)
    }

    /// Those of these jobs that still exist, with their objects.
    pub(super) fn entries(&mut self, seqs: &[u64]) -> std::result::Result<HashMap<u64, Entry>, Fault> {
        self.entries_within(seqs, u64::MAX).map(|(entries, _)| entries)
    }

    /// The same of the first of these jobs, up to the one whose objects are beyond so many bytes
    /// together; with how many were looked for.
    pub(super) fn entries_within(
        &mut self,
        seqs: &[u64],
        mut bytes: u64,
    ) -> std::result::Result<(HashMap<u64, Entry>, usize), Fault> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let mut out = HashMap::with_capacity(seqs.len());
        for (looked_for, &seq) in seqs.iter().enumerate() {
            if let Some(record) = self.decoder.by_seq(&tx, seq)? {
                let (record, objects) = rows::with_objects(record, &tx)?;
                let size = objects.iter().map(|(_, data)| data.len() as u64).sum();
                out.insert(seq, Entry { record, objects });
                match bytes.checked_sub(size) {
                    Some(left) => bytes = left,
                    None => return Ok((out, looked_for + 1)),
                }
            }
        }
        Ok((out, seqs.len()))
    }

    /// The groups that have jobs.
    pub(super) fn groups(&mut self) -> std::result::Result<HashSet<GroupId>, Fault> {
        rows::groups_since(&self.conn, 0)
    }

    /// Jobs that may be removed, by number.
    pub(super) fn prunable(&mut self, prune: &Prune) -> std::result::Result<Vec<u64>, Fault> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
        // Written out, so that the index of outcomes is used.
        let (newest, older) = match prune.outcome {
            Outcome::Done => finished!("0"),
            Outcome::Failed => finished!("1"),
            Outcome::Cancelled => finished!("2"),
        };
        let sql = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let below = match prune.keep_newest.checked_sub(1) {
            None => i64::MAX,
            Some(before) => {
                let mut statement = tx.prepare_cached(newest)?;
                let mut rows = statement.query([sql(before)])?;
                let Some(row) = rows.next()? else { return Ok(Vec::new()) };
                row.get(0)?
            }
        };
        // A time that is the largest there is leaves out nothing that could be.
        let before = prune.finished_before.map_or(i64::MAX, Timestamp::as_micros);
        let mut statement = tx.prepare_cached(older)?;
        let rows =
            statement.query_map((below, before, sql(prune.limit as u64)), |row| row.get::<_, i64>(0))?;
        Ok(rows.map(|seq| seq.map(i64::cast_unsigned)).collect::<rusqlite::Result<_>>()?)
    }

    /// A listing. `processing` holds every job that was being processed just
    /// before, which the disk may not know yet.
    pub(super) fn list(
        &mut self,
        query: &ListQuery,
        processing: &HashMap<u64, Arc<JobRecord>>,
    ) -> std::result::Result<Vec<Arc<JobRecord>>, Fault> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let wants = |phase: Phase| query.phases.is_empty() || query.phases.contains(&phase);
        let every = [Phase::Queued, Phase::Processing, Phase::Done, Phase::Failed, Phase::Cancelled]
            .into_iter()
            .all(wants);
        let sources: &[(&str, bool)] = &[
            (LIST_ALL, every),
            (LIST_LIVE, !every && wants(Phase::Queued)),
            (list_finished!("0"), !every && wants(Phase::Done)),
            (list_finished!("1"), !every && wants(Phase::Failed)),
            (list_finished!("2"), !every && wants(Phase::Cancelled)),
        ];
        let before = query.before.map_or(i64::MAX, |seq| i64::try_from(seq).unwrap_or(i64::MAX));
        let mut out: HashMap<u64, Arc<JobRecord>> = HashMap::new();
        if wants(Phase::Processing) && !wants(Phase::Queued) {
            let older = processing.iter().filter(|(seq, _)| seq.cast_signed() < before);
            out.extend(older.map(|(seq, record)| (*seq, Arc::clone(record))));
        }
        for (sql, _) in sources.iter().filter(|(_, wanted)| *wanted) {
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query([before])?;
            let mut left = query.limit;
            while left > 0
                && let Some(row) = rows.next()?
            {
                let mut record = self.decoder.record(&tx, row)?;
                if !record.state.is_finished()
                    && let Some(claimed) = processing.get(&record.seq)
                {
                    record = (**claimed).clone();
                }
                if wants(record.state.phase()) {
                    out.insert(record.seq, Arc::new(record));
                    left -= 1;
                }
            }
        }
        let mut out: Vec<_> = out.into_values().collect();
        out.sort_unstable_by_key(|record| std::cmp::Reverse(record.seq));
        out.truncate(query.limit);
        Ok(out)
    }
}

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    dir: PathBuf,
    files: Arc<Files>,
    idle: Mutex<Vec<Reader>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(dir: PathBuf, files: Arc<Files>) -> Self {
        Self { dir, files, idle: Mutex::default(), permits: Semaphore::new(READERS) }
    }

    /// Runs a read on a blocking thread.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Reader) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let closed = |_| QueueError::Unavailable("the store is closed".to_owned());
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let this = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let mut reader = this.take()?;
            let out = read(&mut reader);
            // A connection that failed is dropped: the next read opens another.
            if out.is_ok() {
                this.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            }
            out.map_err(|fault| fault.outward(&this.dir))
        });
        task.await.unwrap_or_else(|e| Err(QueueError::Unavailable(format!("a read broke off: {e}"))))
    }

    /// Sees that the store's files are where they were opened.
    pub(super) async fn check(&self) -> Result<()> {
        let (files, dir) = (Arc::clone(&self.files), self.dir.clone());
        let task = tokio::task::spawn_blocking(move || files.check().map_err(|fault| fault.outward(&dir)));
        task.await.unwrap_or_else(|e| Err(QueueError::Unavailable(format!("a check broke off: {e}"))))
    }

    /// Closes the connections that are idle.
    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn take(&self) -> Result<Reader> {
        if let Some(reader) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(reader);
        }
        let opened = self.files.check().and_then(|()| schema::reader(&self.dir));
        let conn = opened.map_err(|fault| fault.outward(&self.dir))?;
        Ok(Reader { conn, decoder: Decoder::default() })
    }
}
