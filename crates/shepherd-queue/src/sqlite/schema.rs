//! The file: its lock and its connections. `migrations` has its tables.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
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
/// What the lock file says of a store that was opened once.
const OPENED: &str = "The queue is in queue.sqlite.\n";
/// And of one that is in use, or was not closed.
const IN_USE: &str = "It is in use, or was not closed.\n";
/// How long to wait for others: operators use tools of their own, whose locks are
/// short.
pub(super) const BUSY: Duration = Duration::from_secs(5);
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

    /// Leaves the sign that [`was_opened`] looks for, and one that the store is in use. Its log
    /// exists then.
    pub(super) fn note_opened(&self) -> Result<()> {
        let noted = self.lock.write_all_at([OPENED, IN_USE].concat().as_bytes(), 0);
        noted.map_err(|error| {
            QueueError::Unavailable(format!("cannot write {}: {error}", self.path.join(LOCK).display()))
        })
    }

    /// Takes the sign back that the store is in use, durably and before its log is removed.
    pub(super) fn note_closing(&self) {
        let noted = self.lock.set_len(OPENED.len() as u64).and_then(|()| self.lock.sync_data());
        if let Err(error) = noted {
            tracing::warn!(%error, "the store looks as if it was not closed");
        }
    }

    /// Whether the log is gone of a store that was not closed.
    pub(super) fn has_lost_log(&self) -> bool {
        let was_in_use = self.lock.metadata().is_ok_and(|meta| meta.len() > OPENED.len() as u64);
        let has = |name: &str| fs::metadata(self.path.join(name)).is_ok_and(|meta| meta.is_file());
        let [database, log] = Files::names();
        was_in_use && has(&database) && !has(&log)
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

/// Reports a log that is gone, and one whose end the database will leave out.
///
/// # Errors
/// When the log cannot be read.
pub(super) fn check_log(dir: &StateDir) -> Result<()> {
    let path = dir.path().join(format!("{FILE}{LOG_SUFFIX}"));
    let shown = path.display();
    if dir.has_lost_log() {
        tracing::error!(
            "{shown} is missing, though the store was not closed: unless a program such as sqlite3 has opened \
             the store since, the last changes are lost, and with them jobs that were accepted, or what became \
             of them"
        );
    }
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
