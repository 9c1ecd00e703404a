//! Durability by the batch.
//!
//! A sync is one `syncfs`, however much changed: on ext4 that is cheaper than to
//! sync even one new file and the directories that name it, each of which costs a
//! flush of the disk (1.4 against 6.4 ms for one file on a busy disk; on an idle
//! one 0.3 ms, and 2.3 ms for 64 files). The price is that it waits for what other programs wrote to the
//! same file system, too. Callers that arrive while one runs wait for the next,
//! which serves all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::{Errno, Result};

use super::disk::Disk;

/// Whether anything changed since the last sync began, and how many syncs have failed.
#[derive(Default)]
pub(super) struct Changes {
    noted: AtomicBool,
    failed: AtomicU64,
}

impl Changes {
    /// Notes a change that was made.
    pub(super) fn note(&self) {
        self.noted.store(true, Ordering::SeqCst);
    }

    /// How many syncs have failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

impl Disk {
    /// Makes durable what was noted before.
    ///
    /// The kernel reports a lost write once to each open descriptor: by the root's,
    /// which is as old as the storage, every sync learns of all since the last
    /// (before Linux 5.8 of none: there only the log of the kernel tells).
    pub(super) fn flush(&self) -> Result<()> {
        if !self.changes.noted.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        rustix::fs::syncfs(&self.root).inspect_err(|_| {
            self.changes.failed.fetch_add(1, Ordering::SeqCst);
            self.changes.note();
        })
    }
}

/// Lets calls that arrive together share one run of a flush that began after each
/// of them.
#[derive(Clone, Default)]
pub(super) struct Group {
    begun: Arc<AtomicU64>,
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// Held by the flush that runs, even when the caller who started it is gone.
#[derive(Default)]
struct Turn {
    done: u64,
    failed: Option<(u64, Errno)>,
}

impl Group {
    /// Returns once a run of `flush` that began after this call has ended, with
    /// its outcome. Of all callers' flushes one runs, so they must be the same.
    pub(super) async fn run(&self, flush: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        if turn.done < wanted {
            let begun = Arc::clone(&self.begun);
            let run = move || {
                let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                if let Err(errno) = flush() {
                    turn.failed = Some((number, errno));
                }
                turn.done = number;
                turn
            };
            turn = match tokio::task::spawn_blocking(run).await {
                Ok(turn) => turn,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime shuts down.
                Err(_) => return Err(Errno::CANCELED),
            };
        }
        turn.outcome(wanted)
    }

    /// The same from a blocking thread, on which the flush is done.
    pub(super) fn run_here(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let mut turn = self.turn.blocking_lock();
        if turn.done < wanted {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            if let Err(errno) = flush() {
                turn.failed = Some((number, errno));
            }
            turn.done = number;
        }
        turn.outcome(wanted)
    }
}

impl Turn {
    fn outcome(&self, wanted: u64) -> Result<()> {
        match self.failed {
            // A failure after the wanted run counts too: this caller may be one
            // that was slow to ask for the wanted one's outcome.
            Some((number, errno)) if number >= wanted => Err(errno),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// A flush that says when it began and ends when told how.
    struct Gate {
        begun: tokio::sync::mpsc::UnboundedSender<()>,
        end: Arc<Mutex<mpsc::Receiver<Result<()>>>>,
    }

    impl Gate {
        fn new() -> (Self, tokio::sync::mpsc::UnboundedReceiver<()>, mpsc::Sender<Result<()>>) {
            let (begun, begins) = tokio::sync::mpsc::unbounded_channel();
            let (ends, end) = mpsc::channel();
            (Self { begun, end: Arc::new(Mutex::new(end)) }, begins, ends)
        }

        fn flush(&self) -> impl FnOnce() -> Result<()> + Send + 'static {
            let (begun, end) = (self.begun.clone(), Arc::clone(&self.end));
            move || {
                begun.send(()).unwrap();
                end.lock().unwrap().recv().unwrap()
            }
        }
    }

    #[tokio::test]
    async fn calls_during_a_flush_share_the_next_one() {
        let (gate, mut begins, ends) = Gate::new();
        let group = Arc::new(Group::default());
        let call = || {
            let (group, flush) = (Arc::clone(&group), gate.flush());
            async move { group.run(flush).await }
        };
        let first = tokio::spawn(call());
        begins.recv().await.unwrap();
        let mut later: Vec<_> = (0..10).map(|_| Box::pin(call())).collect();
        for call in &mut later {
            assert!(futures::poll!(call).is_pending());
        }
        ends.send(Ok(())).unwrap();
        first.await.unwrap().unwrap();
        ends.send(Ok(())).unwrap();
        for outcome in futures::future::join_all(later).await {
            outcome.unwrap();
        }
        begins.recv().await.unwrap();
        assert!(begins.try_recv().is_err(), "ten calls were served by one flush");
    }

    #[tokio::test]
    async fn a_failure_reaches_all_it_concerns_and_nobody_after() {
        let (gate, mut begins, ends) = Gate::new();
        let group = Arc::new(Group::default());
        let first = tokio::spawn({
            let (group, flush) = (Arc::clone(&group), gate.flush());
            async move { group.run(flush).await }
        });
        begins.recv().await.unwrap();
        let mut second = Box::pin(group.run(gate.flush()));
        let mut third = Box::pin(group.run(gate.flush()));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        ends.send(Ok(())).unwrap();
        ends.send(Err(Errno::IO)).unwrap();
        first.await.unwrap().unwrap();
        let (second, third) = tokio::join!(second, third);
        assert_eq!((second, third), (Err(Errno::IO), Err(Errno::IO)));
        ends.send(Ok(())).unwrap();
        group.run(gate.flush()).await.unwrap();
    }

    #[tokio::test]
    async fn a_flush_goes_on_when_its_caller_is_gone_and_the_next_call_waits_for_it() {
        let (gate, mut begins, ends) = Gate::new();
        let group = Group::default();
        {
            let mut gone = Box::pin(group.run(gate.flush()));
            assert!(futures::poll!(&mut gone).is_pending());
            begins.recv().await.unwrap();
        }
        let mut next = Box::pin(group.run(gate.flush()));
        assert!(futures::poll!(&mut next).is_pending());
        assert!(begins.try_recv().is_err(), "two flushes never run at once");
        ends.send(Ok(())).unwrap();
        ends.send(Ok(())).unwrap();
        next.await.unwrap();
        begins.recv().await.unwrap();
    }
}
