//! The writer's statements, prepared once for a connection, each with one meaning.

use rusqlite::{Connection, Statement};
use shepherd_job::{JobId, JobState, Timestamp};

use super::index::{GroupId, GroupKey};
use super::memory_index::outcome;
use super::pending::Since;
use crate::rules::OUTPUTS;
use crate::{JobRecord, SmallObject};

/// See the module's documentation. All but `begin`, `commit` and `rollback` are
/// used inside a transaction.
pub(super) struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    insert_group: Statement<'c>,
    delete_group: Statement<'c>,
    insert_job: Statement<'c>,
    delete_job: Statement<'c>,
    insert_live: Statement<'c>,
    requeue_live: Statement<'c>,
    claim_live: Statement<'c>,
    delete_live: Statement<'c>,
    insert_fin: Statement<'c>,
    delete_fin: Statement<'c>,
    insert_object: Statement<'c>,
    object_bytes: Statement<'c>,
    replace_object: Statement<'c>,
    delete_object: Statement<'c>,
    delete_objects: Statement<'c>,
    output_bytes: Statement<'c>,
    delete_outputs: Statement<'c>,
    move_objects: Statement<'c>,
    insert_pending: Statement<'c>,
    delete_pending: Statement<'c>,
    count: Statement<'c>,
    set_epoch: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(conn: &'c Connection) -> rusqlite::Result<Self> {
        let p = |sql| conn.prepare(sql);
        Ok(Self {
            begin: p("BEGIN IMMEDIATE")?,
            commit: p("COMMIT")?,
            rollback: p("ROLLBACK")?,
            insert_group: p("INSERT INTO grp (id, model, version, sheep) VALUES (?1, ?2, ?3, ?4)")?,
            delete_group: p("DELETE FROM grp WHERE id = ?1")?,
            insert_job: p(
                "INSERT INTO job (seq, id, grp, priority, submitted_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                           ON CONFLICT (id) DO NOTHING",
            )?,
            delete_job: p("DELETE FROM job WHERE seq = ?1")?,
            insert_live: p("INSERT INTO live (seq, grp, priority, submitted_at, state, attempts, crashes) \
                            VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)")?,
            requeue_live: p("UPDATE live SET state = 0, attempts = ?2, crashes = ?3, not_before = ?4, \
                             epoch = NULL, sheep = NULL, started_at = NULL WHERE seq = ?1")?,
            claim_live: p(
                "UPDATE live SET state = 1, attempts = ?2, epoch = ?3, sheep = ?4, started_at = ?5 \
                           WHERE seq = ?1",
            )?,
            delete_live: p("DELETE FROM live WHERE seq = ?1")?,
            insert_fin: p("INSERT INTO fin (seq, outcome, attempts, crashes, started_at, finished_at, \
                           error, exception_type, exception_traceback) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?,
            delete_fin: p("DELETE FROM fin WHERE seq = ?1")?,
            insert_object: p("INSERT INTO object (seq, path, data) VALUES (?1, ?2, ?3) \
                              ON CONFLICT (seq, path) DO NOTHING")?,
            object_bytes: p("SELECT length(data) FROM object WHERE seq = ?1 AND path = ?2")?,
            replace_object: p("UPDATE object SET data = ?3 WHERE seq = ?1 AND path = ?2")?,
            delete_object: p("DELETE FROM object WHERE seq = ?1 AND path = ?2 AND data = ?3")?,
            delete_objects: p("DELETE FROM object WHERE seq = ?1")?,
            output_bytes: p("SELECT coalesce(sum(length(data)), 0) FROM object \
                 WHERE seq = ?1 AND substr(path, 1, length(?2)) = ?2")?,
            delete_outputs: p("DELETE FROM object WHERE seq = ?1 AND substr(path, 1, length(?2)) = ?2")?,
            move_objects: p("UPDATE object SET seq = ?2 WHERE seq = ?1")?,
            insert_pending: p(
                "INSERT INTO write_back (seq, position, since) VALUES (?1, ?2, ?3) ON CONFLICT (seq) DO NOTHING",
            )?,
            delete_pending: p("DELETE FROM write_back WHERE seq = ?1")?,
            count: p("UPDATE meta SET value = value + ?2 WHERE key = ?1")?,
            set_epoch: p("UPDATE meta SET value = ?1 WHERE key = 'epoch'")?,
        })
    }

    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.begin.raw_execute().map(drop)
    }

    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        self.commit.raw_execute().map(drop)
    }

    pub(super) fn rollback(&mut self) -> rusqlite::Result<()> {
        self.rollback.raw_execute().map(drop)
    }

    pub(super) fn insert_group(&mut self, id: GroupId, (model, sheep): &GroupKey) -> rusqlite::Result<()> {
        let sheep = sheep.as_ref().map(AsRef::<str>::as_ref);
        self.insert_group.execute((id, model.name(), model.version(), sheep)).map(drop)
    }

    pub(super) fn delete_group(&mut self, id: GroupId) -> rusqlite::Result<()> {
        self.delete_group.execute([id]).map(drop)
    }

    /// Whether the id was new.
    pub(super) fn insert_job(
        &mut self,
        seq: u64,
        id: &JobId,
        group: GroupId,
        priority: i32,
        submitted_at: Timestamp,
    ) -> rusqlite::Result<bool> {
        let row = (seq.cast_signed(), id.as_str(), group, priority, submitted_at.as_micros());
        Ok(self.insert_job.execute(row)? == 1)
    }

    /// Writes the state of a job that was just inserted.
    pub(super) fn insert_live(&mut self, record: &JobRecord, group: GroupId) -> rusqlite::Result<()> {
        let history = match &record.state {
            JobState::Queued { history, .. } | JobState::Processing { history, .. } => history,
            JobState::Done { history, .. }
            | JobState::Failed { history, .. }
            | JobState::Cancelled { history, .. } => history,
        };
        let row = (
            record.seq.cast_signed(),
            group,
            record.spec.priority,
            record.submitted_at.as_micros(),
            history.attempts,
            history.crashes,
        );
        self.insert_live.execute(row).map(drop)
    }

    /// Writes the new state of a job that was not finished.
    pub(super) fn write_state(&mut self, record: &JobRecord) -> rusqlite::Result<()> {
        let seq = record.seq.cast_signed();
        let (history, started_at, finished_at, error) = match &record.state {
            JobState::Queued { not_before, history } => {
                let not_before = not_before.map(Timestamp::as_micros);
                return self
                    .requeue_live
                    .execute((seq, history.attempts, history.crashes, not_before))
                    .map(drop);
            }
            JobState::Processing { attempt, sheep, started_at, .. } => {
                let epoch = attempt.epoch.cast_signed();
                let row = (seq, attempt.number, epoch, sheep.as_str(), started_at.as_micros());
                return self.claim_live.execute(row).map(drop);
            }
            JobState::Done { started_at, finished_at, history } => {
                (history, Some(started_at), finished_at, None)
            }
            JobState::Failed { started_at, finished_at, error, history } => {
                (history, Some(started_at), finished_at, Some(error))
            }
            JobState::Cancelled { started_at, finished_at, history } => {
                (history, started_at.as_ref(), finished_at, None)
            }
        };
        self.delete_live.execute([seq])?;
        let row = (
            seq,
            outcome(record.state.phase()),
            history.attempts,
            history.crashes,
            started_at.map(|t| t.as_micros()),
            finished_at.as_micros(),
            error.map(|e| e.message.as_str()),
            error.map(|e| e.exception_type.as_str()),
            error.map(|e| e.exception_traceback.as_str()),
        );
        self.insert_fin.execute(row).map(drop)
    }

    /// Removes a finished run and hands its inputs to the run that replaces it. Gives how many
    /// bytes of objects are gone.
    pub(super) fn replace_run(&mut self, old: u64, new: u64, has_objects: bool) -> rusqlite::Result<i64> {
        let old = old.cast_signed();
        self.delete_job.execute([old])?;
        self.delete_fin.execute([old])?;
        self.delete_pending.execute([old])?;
        if !has_objects {
            return Ok(0);
        }
        let bytes = self.output_bytes.query_row((old, OUTPUTS), |row| row.get(0))?;
        self.delete_outputs.execute((old, OUTPUTS))?;
        self.move_objects.execute((old, new.cast_signed()))?;
        Ok(bytes)
    }

    /// Removes a finished job; says whether it was there.
    pub(super) fn delete_finished(&mut self, seq: u64) -> rusqlite::Result<bool> {
        self.delete_fin.execute([seq.cast_signed()])?;
        Ok(self.delete_job.execute([seq.cast_signed()])? == 1)
    }

    /// Puts objects in the places of older ones of the same paths. Gives by how many bytes there
    /// are more.
    pub(super) fn put_objects(&mut self, seq: u64, objects: &[SmallObject]) -> rusqlite::Result<i64> {
        let seq = seq.cast_signed();
        let mut bytes = 0;
        for (path, data) in objects {
            let path = path.as_str();
            if self.insert_object.execute((seq, path, &data[..]))? == 0 {
                bytes -= self.object_bytes.query_row((seq, path), |row| row.get::<_, i64>(0))?;
                self.replace_object.execute((seq, path, &data[..]))?;
            }
            bytes += length(data);
        }
        Ok(bytes)
    }

    /// Deletes exactly these objects; not one that has other bytes by now. Gives how many bytes
    /// are gone.
    pub(super) fn delete_these(&mut self, seq: u64, objects: &[SmallObject]) -> rusqlite::Result<i64> {
        let mut bytes = 0;
        for (path, data) in objects {
            if self.delete_object.execute((seq.cast_signed(), path.as_str(), &data[..]))? == 1 {
                bytes += length(data);
            }
        }
        Ok(bytes)
    }

    /// Deletes all objects of a job, which are these. Gives how many bytes are gone.
    pub(super) fn delete_all(&mut self, seq: u64, objects: &[SmallObject]) -> rusqlite::Result<i64> {
        self.delete_objects.execute([seq.cast_signed()])?;
        Ok(objects.iter().map(|(_, data)| length(data)).sum())
    }

    pub(super) fn insert_pending(&mut self, seq: u64, since: Since) -> rusqlite::Result<()> {
        let row = (seq.cast_signed(), since.position.cast_signed(), since.at.as_micros());
        self.insert_pending.execute(row).map(drop)
    }

    pub(super) fn delete_pending(&mut self, seq: u64) -> rusqlite::Result<()> {
        self.delete_pending.execute([seq.cast_signed()]).map(drop)
    }

    pub(super) fn set_epoch(&mut self, epoch: u64) -> rusqlite::Result<()> {
        self.set_epoch.execute([epoch.cast_signed()]).map(drop)
    }

    /// Adds to the number of finished jobs of an outcome.
    pub(super) fn count(&mut self, outcome: usize, by: i64) -> rusqlite::Result<()> {
        self.count.execute((TALLIES[outcome], by)).map(drop)
    }
}

/// Objects are far smaller than numbers go.
fn length(data: &[u8]) -> i64 {
    i64::try_from(data.len()).unwrap_or(i64::MAX)
}

/// The keys in `meta` of [`Tally`](super::memory_index::Tally), in its order.
pub(super) const TALLIES: [&str; 3] = ["done", "failed", "cancelled"];
