//! Who is submitting which job just now.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use shepherd_job::JobId;

/// Ids that submits are about just now.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<JobId, Hold>>);

/// Who holds an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// So many submits that bring little or nothing: the queue decides between them.
    Shared(usize),
    /// One whose large payload is on its way to storage.
    Alone,
}

impl Holds {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One hold of an id, until it is dropped.
pub(super) struct Reserved {
    holds: Arc<Holds>,
    id: JobId,
}

impl Reserved {
    pub(super) fn alone(holds: &Arc<Holds>, id: &JobId) -> Option<Self> {
        match holds.lock().entry(id.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(Hold::Alone),
        };
        Some(Self { holds: Arc::clone(holds), id: id.clone() })
    }

    pub(super) fn share(holds: &Arc<Holds>, id: &JobId) -> Option<Self> {
        match holds.lock().entry(id.clone()) {
            Entry::Occupied(mut held) => match held.get_mut() {
                Hold::Shared(count) => *count += 1,
                Hold::Alone => return None,
            },
            Entry::Vacant(free) => {
                free.insert(Hold::Shared(1));
            }
        }
        Some(Self { holds: Arc::clone(holds), id: id.clone() })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.holds.lock().entry(self.id.clone()) {
            match held.get_mut() {
                Hold::Shared(count) if *count > 1 => *count -= 1,
                Hold::Shared(_) | Hold::Alone => {
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
        let holds = Arc::new(Holds::default());
        let id = JobId::parse("job", JobIdRule::Bucket).unwrap();
        let shared = [Reserved::share(&holds, &id).unwrap(), Reserved::share(&holds, &id).unwrap()];
        assert!(Reserved::alone(&holds, &id).is_none());
        let [first, second] = shared;
        drop(first);
        assert!(Reserved::alone(&holds, &id).is_none());
        drop(second);
        let alone = Reserved::alone(&holds, &id).unwrap();
        assert!(Reserved::alone(&holds, &id).is_none() && Reserved::share(&holds, &id).is_none());
        drop(alone);
        assert!(holds.lock().is_empty());
    }
}
