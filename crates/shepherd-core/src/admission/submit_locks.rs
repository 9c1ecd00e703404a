//! Who is submitting which job just now.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use shepherd_job::JobId;

/// Ids that submits are about just now.
#[derive(Debug, Default)]
pub(super) struct SubmitLocks(Mutex<HashMap<JobId, Holders>>);

/// Who holds an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holders {
    /// A number of submits without a large payload: the store decides between them.
    Shared(usize),
    /// One whose large payload is on its way to storage.
    Alone,
}

impl SubmitLocks {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Holders>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One hold of an id, until it is dropped.
pub(super) struct SubmitLock {
    locks: Arc<SubmitLocks>,
    id: JobId,
}

impl SubmitLock {
    pub(super) fn alone(locks: &Arc<SubmitLocks>, id: &JobId) -> Option<Self> {
        match locks.lock().entry(id.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(Holders::Alone),
        };
        Some(Self { locks: Arc::clone(locks), id: id.clone() })
    }

    pub(super) fn share(locks: &Arc<SubmitLocks>, id: &JobId) -> Option<Self> {
        match locks.lock().entry(id.clone()) {
            Entry::Occupied(mut held) => match held.get_mut() {
                Holders::Shared(count) => *count += 1,
                Holders::Alone => return None,
            },
            Entry::Vacant(free) => {
                free.insert(Holders::Shared(1));
            }
        }
        Some(Self { locks: Arc::clone(locks), id: id.clone() })
    }
}

impl Drop for SubmitLock {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.locks.lock().entry(self.id.clone()) {
            match held.get_mut() {
                Holders::Shared(count) if *count > 1 => *count -= 1,
                Holders::Shared(_) | Holders::Alone => {
                    held.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shepherd_job::JobIdRule;

    use super::*;

    #[test]
    fn many_share_an_id_or_one_has_it_alone() {
        let locks = Arc::new(SubmitLocks::default());
        let id = JobId::parse("job", JobIdRule::Bucket).unwrap();
        let shared = [SubmitLock::share(&locks, &id).unwrap(), SubmitLock::share(&locks, &id).unwrap()];
        assert!(SubmitLock::alone(&locks, &id).is_none());
        let [first, second] = shared;
        drop(first);
        assert!(SubmitLock::alone(&locks, &id).is_none());
        drop(second);
        let alone = SubmitLock::alone(&locks, &id).unwrap();
        assert!(SubmitLock::alone(&locks, &id).is_none() && SubmitLock::share(&locks, &id).is_none());
        drop(alone);
        assert!(locks.lock().is_empty());
    }
}
