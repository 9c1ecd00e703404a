//! The tables, as a list of migrations.
//!
//! Each migration brings a file from one version to the next, in a transaction of its own: a
//! process that dies between two of them leaves a file of the version that it reached. A
//! migration that was released is never changed. `tests/fixtures` has a file of every earlier
//! version.
//!
//! The tables are split by how often their rows change. `job` never does; `live`
//! holds the few columns that do and only for jobs that are not finished, so that
//! finished ones, however many, are never in the way; `fin` is only appended to.
//! `object` and `write_back` are empty most of the time. Operators read the view
//! `jobs`; claims show there a moment late, because they are written lazily.
//!
//! Each consumer of the outbox has a table of its own, because what it must know of a job is its
//! own: `write_back` keeps one row for a job however often the job changes. A consumer of every
//! finished job, such as webhooks, becomes another table that the same commits fill; its
//! migration touches no table that is here.

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;
use super::schema::FILE;

/// "SHPQ" as a number: marks a database as a job store.
const APPLICATION_ID: i32 = 0x5348_5051;

/// The SQL that leads to version 1, 2, and so on.
const MIGRATIONS: [&str; 2] = [VERSION_1, VERSION_2];

/// Brings the tables to the newest version.
///
/// # Errors
/// [`Fault::Damaged`] for a file of another program or of a newer version, which is left alone.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), Fault> {
    loop {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pragma = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (version, application) = (pragma("user_version")?, pragma("application_id")?);
        let empty: bool =
            tx.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
        if application != APPLICATION_ID && !empty {
            return Err(Fault::Damaged(format!("{FILE} is a database of some other program")));
        }
        let known = usize::try_from(version).ok().filter(|known| (*known == 0) == empty);
        let Some(known) = known else {
            return Err(Fault::Damaged(format!("{FILE} has no known schema (version {version})")));
        };
        let Some(sql) = MIGRATIONS.get(known) else {
            if known == MIGRATIONS.len() {
                return Ok(());
            }
            let newest = MIGRATIONS.len();
            return Err(Fault::Damaged(format!(
                "{FILE} was written by a newer shepherd (its schema is version {version}, this one knows {newest})"
            )));
        };
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version + 1)?;
        tx.commit()?;
    }
}

const VERSION_1: &str = "
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

/// The first consumer's table says since when each job is pending. Files of version 1 do not
/// know that; the time of the submit is the earliest that it can be.
const VERSION_2: &str = "
CREATE TABLE write_back (
    seq INTEGER PRIMARY KEY,
    position INTEGER NOT NULL,
    since INTEGER NOT NULL
) STRICT;
INSERT INTO write_back (seq, position, since)
    SELECT behind.seq, behind.since, job.submitted_at FROM behind JOIN job ON job.seq = behind.seq;
DROP TABLE behind;
";
