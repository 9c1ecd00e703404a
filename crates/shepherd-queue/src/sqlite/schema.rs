//! The file: its lock, its connections, its tables and their versions.
//!
//! The tables are split by how often their rows change. `job` never does; `live`
//! holds the few columns that do and only for jobs that are not finished, so that
//! finished ones, however many, are never in the way; `fin` is only appended to.
//! `object` and `behind` are empty most of the time. Operators read the view
//! `jobs`; claims show there a moment late, because they are written lazily.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::fault::Fault;
use super::wal::{self, Rest};
use crate::{QueueError, Result};

/// The store's file in the state directory.
pub(super) const FILE: &str = "queue.sqlite";
const LOCK: &str = "queue.lock";
/// How long a lock that is taken is waited for. A runner that was being started when an earlier
/// daemon was killed holds that daemon's lock until it becomes another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is tried meanwhile: nothing tells when a lock becomes free.
const LOCK_RETRY: Duration = Duration::from_millis(20);
const LOG_SUFFIX: &str = "-wal";
/// "SHPQ": says that a database is ours.
const APPLICATION_ID: i32 = 0x5348_5051;
/// How long to wait for others: operators use tools of their own, whose locks are
/// short.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// The version of the newest migration.
const VERSION: i32 = 1;

const MIGRATION_1: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('epoch', 0), ('done', 0), ('failed', 0), ('cancelled', 0);

-- A model and a pin: what jobs are claimed by.
CREATE TABLE grp (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    sheep TEXT
) STRICT;

CREATE TABLE job (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    grp INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL
) STRICT;

-- Jobs that are not finished. It repeats what rebuilding the ready queue needs,
-- so that opening scans this table alone. state: 0 queued, 1 processing.
CREATE TABLE live (
    seq INTEGER PRIMARY KEY,
    grp INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    not_before INTEGER,
    epoch INTEGER,
    sheep TEXT,
    started_at INTEGER
) STRICT;
CREATE INDEX live_processing ON live (seq) WHERE state = 1;

-- Finished jobs. outcome: 0 done, 1 failed, 2 cancelled.
CREATE TABLE fin (
    seq INTEGER PRIMARY KEY,
    outcome INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER NOT NULL,
    error TEXT,
    exception_type TEXT,
    exception_traceback TEXT
) STRICT;
CREATE INDEX fin_unusual ON fin (outcome, seq) WHERE outcome <> 0;

-- Small objects that are not in storage yet.
CREATE TABLE object (
    seq INTEGER NOT NULL,
    path TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (seq, path)
) STRICT, WITHOUT ROWID;

-- Jobs whose files in storage lag, in the order of `since`.
CREATE TABLE behind (
    seq INTEGER PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT;

CREATE VIEW jobs AS
SELECT job.seq, job.id, grp.model, grp.version, grp.sheep AS pinned_to, job.priority,
    CASE
        WHEN fin.outcome = 0 THEN 'done'
        WHEN fin.outcome = 1 THEN 'failed'
        WHEN fin.outcome = 2 THEN 'cancelled'
        WHEN live.state = 1 THEN 'processing'
        ELSE 'queued'
    END AS state,
    live.sheep,
    coalesce(live.attempts, fin.attempts) AS attempts,
    coalesce(live.crashes, fin.crashes) AS crashes,
    strftime('%Y-%m-%dT%H:%M:%f', job.submitted_at / 1e6, 'unixepoch') AS submitted_at,
    strftime('%Y-%m-%dT%H:%M:%f', live.not_before / 1e6, 'unixepoch') AS not_before,
    strftime('%Y-%m-%dT%H:%M:%f', coalesce(live.started_at, fin.started_at) / 1e6, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%f', fin.finished_at / 1e6, 'unixepoch') AS finished_at,
    fin.error
FROM job
JOIN grp ON grp.id = job.grp
LEFT JOIN live ON live.seq = job.seq
LEFT JOIN fin ON fin.seq = job.seq;
";

/// The directory of a store, locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Creates the directory where it is missing, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        let failed = |what: &str, error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::StorageFull {
                return QueueError::Full;
            }
            QueueError::Unavailable(format!("cannot {what} {}: {error}", path.display()))
        };
        fs::create_dir_all(path).map_err(|e| failed("create the directory", e))?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(|e| failed("create a lock file in", e))?;
        let begun = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path: path.to_owned(), lock }),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_RETRY),
                Err(Errno::WOULDBLOCK) => return Err(QueueError::InUse(path.display().to_string())),
                Err(error) => return Err(failed("lock", error.into())),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the sign that [`was_opened`] looks for.
    pub(super) fn note_opened(&self) -> Result<()> {
        let noted = self.lock.metadata().and_then(|meta| match meta.len() {
            0 => self.lock.write_all_at(b"The queue is in queue.sqlite.\n", 0),
            _ => Ok(()),
        });
        noted.map_err(|error| {
            QueueError::Unavailable(format!("cannot write {}: {error}", self.path.join(LOCK).display()))
        })
    }
}

/// Whether a store was opened in the directory before.
pub(super) fn was_opened(dir: &Path) -> bool {
    // A lock file that is empty is of a first opening that failed.
    fs::metadata(dir.join(LOCK)).is_ok_and(|meta| meta.len() > 0)
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Closing alone would leave it locked while a child that another thread has
        // just forked still holds a copy of the descriptor.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// The store's files as this process has them open. The database itself goes on writing to
/// files that somebody removed or replaced, and all of it is lost when they are closed.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// Device and inode of each.
    ids: [(u64, u64); 2],
}

impl Files {
    /// The files that are in the directory now: the database and its log.
    ///
    /// # Errors
    /// When one is not there.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let [database, log] = Self::names().map(|name| Self::id(&dir.join(name)));
        Ok(Self { dir: dir.to_owned(), ids: [database?, log?] })
    }

    /// Sees that they are still in their places.
    ///
    /// # Errors
    /// [`Fault::Moved`].
    pub(super) fn check(&self) -> std::result::Result<(), Fault> {
        for (name, id) in Self::names().into_iter().zip(self.ids) {
            let path = self.dir.join(name);
            let what = match Self::id(&path) {
                Ok(found) if found == id => continue,
                Ok(_) => "was replaced",
                Err(error) if error.kind() == io::ErrorKind::NotFound => "was removed or renamed",
                Err(error) => {
                    return Err(Fault::Moved(format!("cannot look at {}: {error}", path.display())));
                }
            };
            return Err(Fault::Moved(format!(
                "{} {what} while it was in use; put the file back in its place",
                path.display()
            )));
        }
        Ok(())
    }

    fn names() -> [String; 2] {
        [FILE.to_owned(), format!("{FILE}{LOG_SUFFIX}")]
    }

    fn id(path: &Path) -> io::Result<(u64, u64)> {
        let meta = fs::symlink_metadata(path)?;
        Ok((meta.dev(), meta.ino()))
    }
}

/// Refuses a file that does not end with a page, which the database itself would
/// take for whole or, when next to nothing is left, for new.
///
/// # Errors
/// [`Fault::Damaged`], unless a log lies beside it: then the last life died while it
/// wrote the file, and the log has the rest.
pub(super) fn check_length(dir: &Path) -> std::result::Result<(), Fault> {
    let length =
        |suffix: &str| fs::metadata(dir.join(format!("{FILE}{suffix}"))).map_or(0, |meta| meta.len());
    if length("") == 0 || length(LOG_SUFFIX) > 0 || length("-journal") > 0 {
        return Ok(());
    }
    let mut header = [0; 18];
    let read = File::open(dir.join(FILE)).and_then(|mut file| file.read_exact(&mut header));
    // The page size, big-endian at offset 16; 1 stands for 65,536.
    // <https://www.sqlite.org/fileformat.html#the_database_header>
    let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        size => size,
    };
    // A file that is no database at all is told so by the database.
    if read.is_err() || (header.starts_with(b"SQLite format 3") && (page == 0 || length("") % page != 0)) {
        return Err(Fault::Damaged(format!("{FILE} is cut off")));
    }
    Ok(())
}

/// Reports a log whose end the database will leave out.
///
/// # Errors
/// When the log cannot be read.
pub(super) fn check_log(dir: &Path) -> Result<()> {
    let path = dir.join(format!("{FILE}{LOG_SUFFIX}"));
    let shown = path.display();
    let rest = wal::unverified(&path);
    let rest = rest.map_err(|error| QueueError::Unavailable(format!("cannot read {shown}: {error}")))?;
    match rest {
        None => {}
        Some(Rest { at, commits: 0 }) => tracing::warn!(
            "the end of {shown} does not verify from byte {at} on and is left out, as after a power failure: \
             nobody was told that what it holds is durable"
        ),
        Some(Rest { at, commits }) => tracing::error!(
            "{shown} is damaged at byte {at}: the {commits} commits behind it are lost, and with them jobs \
             that were accepted, or what became of them. Check the disk"
        ),
    }
    Ok(())
}

/// The one connection that writes.
pub(super) fn writer(dir: &Path) -> std::result::Result<Connection, Fault> {
    let conn = Connection::open_with_flags(
        dir.join(FILE),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    tune(&conn)?;
    // Checkpoints have a thread of their own; inside commits they make the slowest
    // commits three times slower.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -16384;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(conn)
}

/// A connection that only moves pages from the log into the file.
pub(super) fn checkpointer(dir: &Path) -> std::result::Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(dir.join(FILE), flags)?;
    tune(&conn)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;")?;
    Ok(conn)
}

/// A connection that only reads.
pub(super) fn reader(dir: &Path) -> std::result::Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(dir.join(FILE), flags)?;
    tune(&conn)?;
    Ok(conn)
}

fn tune(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    // Plans never depend on bound values. Otherwise partial indexes have a statement
    // prepared anew for every value, which takes longer than running it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch("PRAGMA temp_store = MEMORY;")
}

/// Brings the tables to the version that this code knows.
pub(super) fn migrate(conn: &mut Connection) -> std::result::Result<(), Fault> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let empty: bool =
        tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    if application != APPLICATION_ID && !empty {
        return Err(Fault::Damaged(format!("{FILE} is a database of some other program")));
    }
    match version {
        VERSION => return Ok(()),
        0 if empty => {
            tx.execute_batch(MIGRATION_1)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        newer if newer > VERSION => {
            return Err(Fault::Damaged(format!(
                "{FILE} was written by a newer shepherd (its schema is version {newer}, this one knows {VERSION})"
            )));
        }
        odd => return Err(Fault::Damaged(format!("{FILE} has no known schema (version {odd})"))),
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(())
}
