//! What happens when a store is opened: the ready queue is rebuilt, and what was being
//! processed is read.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use shepherd_job::{History, Timestamp};

use super::batch::Next;
use super::cache::{Cache, Entry};
use super::fault::Fault;
use super::index::{GroupId, Groups, Place, ReadyIndex, Waiting};
use super::memory_index::{MemoryIndex, Tally};
use super::pending::{PendingSet, Since};
use super::rows::{self, Decoder, group_key, record_columns};
use super::statements::TALLIES;

const PROCESSING: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM live l CROSS JOIN job j ON j.seq = l.seq LEFT JOIN fin f ON f.seq = l.seq WHERE l.state = 1"
);

/// Loads what the process keeps in memory. It changes nothing: what was being processed when
/// the store was closed is so until a node joins.
pub(super) fn load(conn: &mut Connection, cache_bytes: usize) -> Result<(MemoryIndex, Next), Fault> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let (groups, group) = load_groups(&tx)?;
    let index = load_index(&tx, groups)?;
    let mut cache = Cache::new(cache_bytes);
    load_processing(&tx, &mut cache)?;
    let pending = load_pending(&tx)?;
    let position = highest(&tx, "SELECT max(position) FROM write_back")? + 1;
    let mut tally = Tally::default();
    for (count, key) in tally.iter_mut().zip(TALLIES) {
        *count = meta(&tx, key)?;
    }
    let old_seq = highest(&tx, "SELECT max(seq) FROM job")?;
    let next = Next { seq: old_seq + 1, position, group, epoch: meta(&tx, "epoch")? + 1 };
    Ok((MemoryIndex::new(old_seq, index, cache, pending, tally), next))
}

fn load_processing(tx: &Transaction<'_>, cache: &mut Cache) -> Result<(), Fault> {
    let mut decoder = Decoder::default();
    let mut statement = tx.prepare(PROCESSING)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (record, objects) = rows::with_objects(decoder.record(tx, row)?, tx)?;
        cache.insert(Entry { record, objects });
    }
    Ok(())
}

fn load_groups(tx: &Transaction<'_>) -> Result<(Groups, GroupId), Fault> {
    let mut statement = tx.prepare("SELECT id, model, version, sheep FROM grp")?;
    let mut rows = statement.query([])?;
    let mut groups = Groups::default();
    let mut next = 1;
    while let Some(row) = rows.next()? {
        let id: GroupId = row.get(0)?;
        groups.insert(id, group_key(id, row, 1)?);
        next = next.max(id.saturating_add(1));
    }
    Ok((groups, next))
}

fn load_index(tx: &Transaction<'_>, groups: Groups) -> Result<ReadyIndex, Fault> {
    let mut statement = tx
        .prepare("SELECT seq, grp, priority, submitted_at, attempts, crashes, not_before, state FROM live")?;
    let mut rows = statement.query([])?;
    let mut ready: HashMap<GroupId, Vec<(Place, Timestamp)>> = HashMap::new();
    let mut used: HashMap<u64, History> = HashMap::new();
    let mut delayed: Vec<Waiting> = Vec::new();
    // Neighbours are mostly of one group: its list is kept at hand.
    let mut group: GroupId = 0;
    let mut list: Vec<(Place, Timestamp)> = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(7)? != 0 {
            continue;
        }
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        let of: GroupId = row.get(1)?;
        let place = Place::new(row.get(2)?, seq);
        let submitted_at = Timestamp::from_micros(row.get(3)?);
        let history = History { attempts: row.get(4)?, crashes: row.get(5)? };
        if let Some(at) = row.get::<_, Option<i64>>(6)? {
            let not_before = Some(Timestamp::from_micros(at));
            delayed.push(Waiting { group: of, place, submitted_at, not_before, history });
            continue;
        }
        if history != History::default() {
            used.insert(seq, history);
        }
        if of != group {
            let next = ready.remove(&of).unwrap_or_default();
            ready.insert(group, std::mem::replace(&mut list, next));
            group = of;
        }
        list.push((place, submitted_at));
    }
    ready.insert(group, list);
    ready.retain(|_, jobs| !jobs.is_empty());
    if let Some(lost) = ready.keys().find(|id| !groups.has(**id)) {
        return Err(Fault::Damaged(format!("group {lost} is missing")));
    }
    let mut index = ReadyIndex::load(groups, ready);
    for (seq, history) in used {
        index.set_history(seq, history);
    }
    for job in delayed {
        index.insert(job);
    }
    Ok(index)
}

fn load_pending(tx: &Transaction<'_>) -> Result<PendingSet, Fault> {
    let mut statement = tx.prepare(
        "SELECT seq, position, since, live.seq IS NULL FROM write_back LEFT JOIN live USING (seq)",
    )?;
    let mut rows = statement.query([])?;
    let mut pending = PendingSet::default();
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        let at = Timestamp::from_micros(row.get(2)?);
        pending.insert(seq, Since { position: row.get::<_, i64>(1)?.cast_unsigned(), at });
        if row.get(3)? {
            pending.note_finished(seq);
        }
    }
    // It reads the lengths and not the bytes.
    let bytes = tx.query_row("SELECT coalesce(sum(length(data)), 0) FROM object", [], |row| row.get(0))?;
    pending.add_bytes(bytes);
    Ok(pending)
}

fn meta(tx: &Transaction<'_>, key: &str) -> Result<u64, Fault> {
    natural(key, tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))?)
}

fn highest(tx: &Transaction<'_>, sql: &str) -> Result<u64, Fault> {
    natural(sql, tx.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))
}

fn natural(what: &str, value: i64) -> Result<u64, Fault> {
    u64::try_from(value).map_err(|_| Fault::Damaged(format!("{what} is negative")))
}
