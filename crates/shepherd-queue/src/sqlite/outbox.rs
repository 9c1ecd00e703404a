//! The store as the outbox of the consumer that writes files to storage.

use async_trait::async_trait;
use shepherd_job::JobId;

use super::SqliteStore;
use super::cache::Entry;
use super::reader::Reader;
use super::writer::Op;
use crate::{Lag, Outbox, Pending, PendingLimits, Position, Result, SmallObject, Unstored};

#[async_trait]
impl Outbox for SqliteStore {
    async fn objects(&self, job: &JobId) -> Result<Vec<SmallObject>> {
        if let Some(entry) = self.lock().cache.find(job) {
            return Ok(entry.objects.clone());
        }
        let id = job.clone();
        self.readers.run(move |reader| reader.objects(&id)).await
    }

    async fn unstored(&self) -> Result<Vec<Unstored>> {
        self.readers.run(Reader::unstored).await
    }

    async fn pending(&self, after: Option<Position>, limits: PendingLimits) -> Result<Vec<Pending>> {
        let jobs: Vec<(Position, u64)> = self.lock().pending.after(after).take(limits.jobs).collect();
        self.entries(&jobs, limits.bytes).await
    }

    async fn pending_of(&self, jobs: &[JobId]) -> Result<Vec<Pending>> {
        let mut seqs = Vec::with_capacity(jobs.len());
        let mut unknown = Vec::new();
        {
            let memory = self.lock();
            for job in jobs {
                match memory.cache.find(job) {
                    Some(entry) => seqs.push(entry.record.seq),
                    None => unknown.push(job.clone()),
                }
            }
        }
        if !unknown.is_empty() {
            let read = self.readers.run(move |reader| {
                unknown.iter().map(|job| Ok(reader.record(job)?.map(|record| record.seq))).collect()
            });
            let read: Vec<Option<u64>> = read.await?;
            seqs.extend(read.into_iter().flatten());
        }
        let jobs: Vec<(Position, u64)> = {
            let memory = self.lock();
            seqs.into_iter().filter_map(|seq| Some((memory.pending.position(seq)?, seq))).collect()
        };
        self.entries(&jobs, u64::MAX).await
    }

    async fn delivered(&self, jobs: Vec<Pending>) -> Result<()> {
        self.write(|reply| Op::Delivered(jobs, reply)).await
    }

    fn lag(&self) -> Lag {
        self.lock().pending.lag()
    }
}

impl SqliteStore {
    /// These jobs with their objects, as many as fit into so many bytes, but one at least. A job
    /// that was replaced by a rerun meanwhile is left out.
    async fn entries(&self, jobs: &[(Position, u64)], bytes: u64) -> Result<Vec<Pending>> {
        let mut missing = Vec::new();
        let mut entries: Vec<Option<Entry>> = {
            let memory = self.lock();
            let entries = jobs.iter().map(|&(_, seq)| {
                let entry = memory.cache.get(seq).cloned();
                if entry.is_none() {
                    missing.push(seq);
                }
                entry
            });
            entries.collect()
        };
        // Those that were not read because of their size end the answer.
        let mut unread = None;
        if !missing.is_empty() {
            let (mut read, looked_for, missing) = self
                .readers
                .run(move |reader| {
                    let (read, looked_for) = reader.entries_within(&missing, bytes)?;
                    Ok((read, looked_for, missing))
                })
                .await?;
            unread = missing.get(looked_for).copied();
            for (entry, (_, seq)) in entries.iter_mut().zip(jobs) {
                if entry.is_none() {
                    *entry = read.remove(seq);
                }
            }
        }
        let mut left = Some(bytes);
        let mut out = Vec::new();
        for (&(position, seq), entry) in jobs.iter().zip(entries) {
            if Some(seq) == unread {
                break;
            }
            let Some(Entry { record, objects }) = entry else { continue };
            let pending = Pending { position, job: record, objects };
            left = left.and_then(|left| left.checked_sub(pending.bytes()));
            if left.is_none() && !out.is_empty() {
                break;
            }
            out.push(pending);
        }
        Ok(out)
    }
}
