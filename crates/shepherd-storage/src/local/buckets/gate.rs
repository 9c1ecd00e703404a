//! Durability for callers on blocking threads.
//!
//! A change made over S3 is on disk before its call returns. To wait for that on the
//! thread that made the change spares two changes of threads a call, which on a busy
//! machine take longer than the sync. Those who come while a sync runs wait for the
//! next, which one of them does for all.
//!
//! Waiting keeps a thread, and the sync itself may need one, when somebody else
//! began it. So only [`MAX_WAITING_THREADS`] wait here; more wait without a thread.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::{Errno, Result};

/// How many threads wait at most: far fewer than tokio has (512).
const MAX_WAITING_THREADS: usize = 64;

#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    running: bool,
    begun: u64,
    done: u64,
    failed: Option<(u64, Errno)>,
}

impl Gate {
    /// Returns once a `flush` that began after this call has ended, with its outcome;
    /// at once, with nothing, when too many wait.
    pub(super) fn pass(&self, flush: impl FnOnce() -> Result<()>) -> Option<Result<()>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.inside == MAX_WAITING_THREADS {
            return None;
        }
        state.inside += 1;
        let wanted = state.begun + 1;
        while state.running && state.done < wanted {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.done < wanted {
            state.running = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            // It is one system call and cannot panic, which would leave others waiting.
            let outcome = flush();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            state.done = number;
            if let Err(errno) = outcome {
                state.failed = Some((number, errno));
            }
            self.changed.notify_all();
        }
        state.inside -= 1;
        // As in the group: a later failure counts for who was slow to ask, too.
        Some(match state.failed {
            Some((number, errno)) if number >= wanted => Err(errno),
            Some(_) | None => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn those_who_come_during_a_flush_share_the_next() {
        let gate = Arc::new(Gate::default());
        let flushes = Arc::new(AtomicUsize::new(0));
        let (begun, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let first = std::thread::spawn({
            let (gate, flushes) = (Arc::clone(&gate), Arc::clone(&flushes));
            move || {
                gate.pass(|| {
                    flushes.fetch_add(1, Ordering::SeqCst);
                    begun.send(()).unwrap();
                    ends.recv().unwrap();
                    Ok(())
                })
            }
        });
        begins.recv().unwrap();
        let later: Vec<_> = (1..MAX_WAITING_THREADS)
            .map(|_| {
                let (gate, flushes) = (Arc::clone(&gate), Arc::clone(&flushes));
                std::thread::spawn(move || {
                    gate.pass(|| {
                        flushes.fetch_add(1, Ordering::SeqCst);
                        Err(Errno::IO)
                    })
                })
            })
            .collect();
        while gate.state.lock().unwrap().inside < MAX_WAITING_THREADS {
            std::thread::yield_now();
        }
        assert_eq!(gate.pass(|| Ok(())), None, "no more threads may wait");
        end.send(()).unwrap();
        // It may be slow to ask, and then hears of the later failure.
        assert!(first.join().unwrap().is_some());
        for later in later {
            assert_eq!(later.join().unwrap(), Some(Err(Errno::IO)));
        }
        assert_eq!(flushes.load(Ordering::SeqCst), 2);
        assert_eq!(gate.pass(|| Ok(())), Some(Ok(())));
    }
}
