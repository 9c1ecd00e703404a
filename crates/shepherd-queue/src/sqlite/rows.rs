//! Rows to records and back.
//!
//! What comes from the disk is checked like what comes from a peer: a file can be
//! damaged or edited, and must not make us panic.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Row};
use shepherd_job::{
    Attempt, History, JobError, JobId, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, SheepId, Timestamp,
};

use super::fault::Fault;
use super::index::{GroupId, GroupKey};
use crate::{JobRecord, SmallObject, Unstored};

/// The columns that [`Decoder::record`] reads, of tables `j`, `l` and `f`.
macro_rules! record_columns {
    () => {
        "j.seq, j.id, j.grp, j.priority, j.submitted_at, \
         l.state, l.attempts, l.crashes, l.not_before, l.epoch, l.sheep, l.started_at, \
         f.outcome, f.attempts, f.crashes, f.started_at, f.finished_at, \
         f.error, f.exception_type, f.exception_traceback"
    };
}
pub(super) use record_columns;

/// One job by its id.
const BY_ID: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM job j LEFT JOIN live l ON l.seq = j.seq LEFT JOIN fin f ON f.seq = j.seq WHERE j.id = ?1"
);
/// One job by its sequence number.
const BY_SEQ: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM job j LEFT JOIN live l ON l.seq = j.seq LEFT JOIN fin f ON f.seq = j.seq WHERE j.seq = ?1"
);
/// Every spooled object without its data, which lies on pages of its own where it is large.
const UNSTORED: &str =
    "SELECT o.seq, j.id, j.submitted_at, o.path FROM object o CROSS JOIN job j ON j.seq = o.seq";
const OBJECTS: &str = "SELECT path, data FROM object WHERE seq = ?1 ORDER BY path";

/// How many groups a decoder remembers.
const MAX_KNOWN_GROUPS: usize = 4096;

/// Reads records over one connection; remembers the groups it met, so that records
/// of one model share its name.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    groups: HashMap<GroupId, GroupKey>,
}

impl Decoder {
    pub(super) fn by_id(&mut self, conn: &Connection, id: &JobId) -> Result<Option<JobRecord>, Fault> {
        let mut statement = conn.prepare_cached(BY_ID)?;
        let mut rows = statement.query([id.as_str()])?;
        rows.next()?.map(|row| self.record(conn, row)).transpose()
    }

    pub(super) fn by_seq(&mut self, conn: &Connection, seq: u64) -> Result<Option<JobRecord>, Fault> {
        let mut statement = conn.prepare_cached(BY_SEQ)?;
        let mut rows = statement.query([seq.cast_signed()])?;
        rows.next()?.map(|row| self.record(conn, row)).transpose()
    }

    /// The record in a row of [`record_columns`].
    pub(super) fn record(&mut self, conn: &Connection, row: &Row<'_>) -> Result<JobRecord, Fault> {
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        let id = job_id(seq, row, 1)?;
        let (model, sheep) = self.group(conn, row.get(2)?)?;
        let spec = JobSpec { id, model, sheep, priority: row.get(3)? };
        let submitted_at = Timestamp::from_micros(row.get(4)?);
        let state = match (row.get::<_, Option<i64>>(5)?, row.get::<_, Option<i64>>(12)?) {
            (Some(live), None) => live_state(seq, live, row)?,
            (None, Some(outcome)) => final_state(seq, outcome, row)?,
            (None, None) => return Err(damaged(seq, "it has no state")),
            (Some(_), Some(_)) => return Err(damaged(seq, "it has two states")),
        };
        Ok(JobRecord { seq, spec, submitted_at, state })
    }

    fn group(&mut self, conn: &Connection, id: GroupId) -> Result<GroupKey, Fault> {
        if let Some(key) = self.groups.get(&id) {
            return Ok(key.clone());
        }
        let mut statement = conn.prepare_cached("SELECT model, version, sheep FROM grp WHERE id = ?1")?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else {
            return Err(Fault::Damaged(format!("group {id} is missing")));
        };
        let key = group_key(id, row, 0)?;
        if self.groups.len() >= MAX_KNOWN_GROUPS {
            self.groups.clear();
        }
        self.groups.insert(id, key.clone());
        Ok(key)
    }
}

/// Groups that have a job accepted after job `seq`; all that have one, after 0.
pub(super) fn groups_since(conn: &Connection, seq: u64) -> Result<HashSet<GroupId>, Fault> {
    let mut statement = conn.prepare_cached("SELECT DISTINCT grp FROM job WHERE seq > ?1")?;
    let rows = statement.query_map([seq.cast_signed()], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A group's key from three columns: model, version and sheep.
pub(super) fn group_key(id: GroupId, row: &Row<'_>, first: usize) -> Result<GroupKey, Fault> {
    let bad =
        |what: &str, rule: &dyn std::fmt::Display| Fault::Damaged(format!("group {id}: its {what} {rule}"));
    let model: String = row.get(first)?;
    let version: String = row.get(first + 1)?;
    let sheep: Option<String> = row.get(first + 2)?;
    let model = ModelRef::parse(&model, &version).map_err(|e| bad("model", &e))?;
    let sheep = sheep.map(|s| SheepId::parse(&s)).transpose().map_err(|e| bad("sheep", &e))?;
    Ok((model, sheep))
}

/// A job's spooled objects, by path.
pub(super) fn objects(conn: &Connection, seq: u64) -> Result<Vec<SmallObject>, Fault> {
    let mut statement = conn.prepare_cached(OBJECTS)?;
    let mut rows = statement.query([seq.cast_signed()])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let path = object_path(seq, row, 0)?;
        let data = row.get_ref(1)?.as_blob().map_err(|_| damaged(seq, "an object holds no bytes"))?;
        out.push((path, Bytes::copy_from_slice(data)));
    }
    Ok(out)
}

/// Every spooled object, without its data.
pub(super) fn unstored(conn: &Connection) -> Result<Vec<Unstored>, Fault> {
    let mut statement = conn.prepare_cached(UNSTORED)?;
    let mut rows = statement.query([])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        let submitted_at = Timestamp::from_micros(row.get(2)?);
        out.push(Unstored { job: job_id(seq, row, 1)?, submitted_at, path: object_path(seq, row, 3)? });
    }
    Ok(out)
}

fn job_id(seq: u64, row: &Row<'_>, column: usize) -> Result<JobId, Fault> {
    let id = row.get_ref(column)?.as_str().map_err(|_| damaged(seq, "its id is no text"))?;
    JobId::parse(id, JobIdRule::Prefix).map_err(|e| damaged(seq, &format!("its id {e}")))
}

fn object_path(seq: u64, row: &Row<'_>, column: usize) -> Result<ObjectPath, Fault> {
    let path = row.get_ref(column)?.as_str().map_err(|_| damaged(seq, "an object's path is no text"))?;
    ObjectPath::parse(path).map_err(|e| damaged(seq, &format!("an object's path {e}")))
}

/// A record with its objects, read together.
pub(super) fn with_objects(
    record: JobRecord,
    conn: &Connection,
) -> Result<(Arc<JobRecord>, Vec<SmallObject>), Fault> {
    let objects = objects(conn, record.seq)?;
    Ok((Arc::new(record), objects))
}

/// The state of a row of `live`, in the places of [`record_columns`].
fn live_state(seq: u64, state: i64, row: &Row<'_>) -> Result<JobState, Fault> {
    let history = History { attempts: row.get(6)?, crashes: row.get(7)? };
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|t| t.map(Timestamp::from_micros));
    match state {
        0 => Ok(JobState::Queued { not_before: time(8)?, history }),
        1 => {
            let epoch: Option<i64> = row.get(9)?;
            let sheep: Option<String> = row.get(10)?;
            let (Some(epoch), Some(sheep), Some(started_at)) = (epoch, sheep, time(11)?) else {
                return Err(damaged(seq, "its attempt is incomplete"));
            };
            let attempt = Attempt { epoch: epoch.cast_unsigned(), number: history.attempts };
            let sheep = SheepId::parse(&sheep).map_err(|e| damaged(seq, &format!("its sheep {e}")))?;
            Ok(JobState::Processing { attempt, sheep, started_at, history })
        }
        other => Err(damaged(seq, &format!("state {other} is unknown"))),
    }
}

fn final_state(seq: u64, outcome: i64, row: &Row<'_>) -> Result<JobState, Fault> {
    let history = History { attempts: row.get(13)?, crashes: row.get(14)? };
    let started_at = row.get::<_, Option<i64>>(15)?.map(Timestamp::from_micros);
    let finished_at = Timestamp::from_micros(row.get(16)?);
    let started = || started_at.ok_or_else(|| damaged(seq, "it finished without a start"));
    match outcome {
        0 => Ok(JobState::Done { started_at: started()?, finished_at, history }),
        1 => {
            let text = |at: usize| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
            let error =
                JobError { message: text(17)?, exception_type: text(18)?, exception_traceback: text(19)? };
            Ok(JobState::Failed { started_at: started()?, finished_at, error, history })
        }
        2 => Ok(JobState::Cancelled { started_at, finished_at, history }),
        other => Err(damaged(seq, &format!("outcome {other} is unknown"))),
    }
}

fn damaged(seq: u64, what: &str) -> Fault {
    Fault::Damaged(format!("job {seq}: {what}"))
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::{migrations, schema};
    use super::*;

    #[test]
    fn statements_are_prepared_once_whatever_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = schema::writer(dir.path()).unwrap();
        migrations::migrate(&mut conn).unwrap();
        for sql in [BY_ID, BY_SEQ, OBJECTS] {
            let mut statement = conn.prepare(sql).unwrap();
            for value in 0..5 {
                assert!(!statement.exists([value]).unwrap());
            }
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
        }
    }
}
