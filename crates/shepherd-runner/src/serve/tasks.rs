//! The future in which the jobs of an asynchronous runner are in work.
//!
//! It is one task of whatever runtime polls it, and polls only those jobs that were
//! woken, each by a waker of its slot.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::outcome::last_messages;
use super::service::Service;
use crate::panic::caught;
use crate::{AsyncRunner, Job, RunError};

/// How many jobs are polled before the runtime gets its turn.
const BUDGET: usize = 128;

/// Ends when the runner is to end and no job is in work. When it is dropped, the jobs
/// in work are, too, and nobody answers for them.
pub(super) struct Tasks<'a, R> {
    runner: &'a R,
    service: &'a Service,
    slots: Vec<Slot<'a>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
}

struct Slot<'a> {
    waker: Arc<SlotWaker>,
    task: Option<Task<'a>>,
}

struct Task<'a> {
    job: Job,
    future: Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>>,
}

/// The slots whose jobs are to be polled.
#[derive(Default)]
struct Woken {
    state: Mutex<WokenState>,
}

#[derive(Default)]
struct WokenState {
    slots: VecDeque<usize>,
    /// The task that polls them, while it waits.
    waker: Option<Waker>,
}

struct SlotWaker {
    number: usize,
    /// It is among the woken ones.
    is_woken: AtomicBool,
    woken: Arc<Woken>,
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, WokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next slot; if there is none, `waker` is called when there is.
    fn next(&self, waker: &Waker) -> Option<usize> {
        let mut state = self.lock();
        let next = state.slots.pop_front();
        if next.is_none() {
            state.waker = Some(waker.clone());
        }
        next
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.woken.lock();
        state.slots.push_back(self.number);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<'a, R: AsyncRunner> Tasks<'a, R> {
    pub(super) fn new(runner: &'a R, service: &'a Service, slots: u32) -> Self {
        let woken = Arc::new(Woken::default());
        let slot = |number| {
            let (is_woken, woken) = (AtomicBool::new(false), Arc::clone(&woken));
            Slot { waker: Arc::new(SlotWaker { number, is_woken, woken }), task: None }
        };
        let count = slots as usize;
        Self { runner, service, slots: (0..count).map(slot).collect(), free: (0..count).collect(), woken }
    }

    /// Begins what can be begun.
    fn begin(&mut self, waker: &Waker) {
        while let Some(number) = self.free.last().copied()
            && let Some(job) = self.service.work.poll_next(waker)
        {
            self.free.pop();
            let (runner, own) = (self.runner, job.clone());
            let slot = &mut self.slots[number];
            self.service.output().begin(std::slice::from_ref(&job));
            // The method itself may panic, and not only the future that it returns.
            let future = Box::pin(async move { runner.process(&own).await });
            slot.task = Some(Task { job, future });
            Arc::clone(&slot.waker).wake();
        }
    }

    /// Polls the job in a slot, and answers for it if it is over.
    fn poll_slot(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        // Before the job is polled: what wakes it from here on is news.
        slot.waker.is_woken.store(false, Ordering::Release);
        // A waker may be called after its job's end.
        let Some(task) = &mut slot.task else { return };
        let waker = Waker::from(Arc::clone(&slot.waker));
        let mut context = Context::from_waker(&waker);
        let outcome = match caught(|| task.future.as_mut().poll(&mut context)) {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(panic) => Err(panic),
        };
        let Some(Task { job, future }) = slot.task.take() else { return };
        // What it holds may panic, too, when it goes; that is too late to matter.
        let _ = caught(|| drop(future));
        self.service.output().end();
        self.free.push(number);
        let messages = last_messages(&job, outcome);
        self.service.work.end(&job);
        // Whatever else is in this task must not wait while the shepherd does not read.
        self.service.answers.post(job.connection(), messages);
    }
}

impl<R: AsyncRunner> Future for Tasks<'_, R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..BUDGET {
            this.begin(context.waker());
            match this.woken.next(context.waker()) {
                Some(number) => this.poll_slot(number),
                None if this.free.len() == this.slots.len() && this.service.work.is_ending() => {
                    return Poll::Ready(());
                }
                None => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
