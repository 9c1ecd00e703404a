//! Telling a job that it is in vain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Why a job is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Its client or the shepherd does not want it any more.
    Cancelled,
    /// The shepherd is gone, and nobody takes the answer.
    Disconnected,
    /// The runner is told to exit, and will within this time, whether the job has
    /// ended or not.
    Shutdown {
        /// From now.
        within: Duration,
    },
}

type Hook = Box<dyn FnOnce(Stop) + Send>;

/// Says it once: to whoever asks, and to whoever wanted to be told.
#[derive(Default)]
pub(crate) struct StopFlag {
    set: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stop: Option<Stop>,
    hook: Option<Hook>,
    /// Futures that wait for it, each under its number.
    wakers: Vec<(u64, Waker)>,
    /// The number of the next one.
    next: u64,
}

impl StopFlag {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> Option<Stop> {
        // Most jobs are never told, and are asked at their end.
        if self.set.load(Ordering::Acquire) { self.lock().stop } else { None }
    }

    /// The first reason is the one that counts.
    pub(crate) fn set(&self, stop: Stop) {
        let mut inner = self.lock();
        if inner.stop.is_some() {
            return;
        }
        inner.stop = Some(stop);
        self.set.store(true, Ordering::Release);
        let (hook, wakers) = (inner.hook.take(), std::mem::take(&mut inner.wakers));
        drop(inner);
        for (_, waker) in wakers {
            waker.wake();
        }
        if let Some(hook) = hook {
            hook(stop);
        }
    }

    pub(crate) fn hook(&self, hook: Hook) {
        let mut inner = self.lock();
        match inner.stop {
            None => inner.hook = Some(hook),
            Some(stop) => {
                drop(inner);
                hook(stop);
            }
        }
    }

    /// Nobody is to be called any more.
    pub(crate) fn forget_hook(&self) {
        let hook = self.lock().hook.take();
        // What it holds is dropped without the lock.
        drop(hook);
    }
}

/// One future's place among those that are told. Gives it up when it is dropped.
pub(crate) struct Told<'a> {
    flag: &'a StopFlag,
    number: Option<u64>,
}

impl<'a> Told<'a> {
    pub(crate) const fn of(flag: &'a StopFlag) -> Self {
        Self { flag, number: None }
    }

    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<Stop> {
        let mut inner = self.flag.lock();
        if let Some(stop) = inner.stop {
            return Poll::Ready(stop);
        }
        let number = *self.number.get_or_insert_with(|| {
            inner.next += 1;
            inner.next
        });
        match inner.wakers.iter_mut().find(|(other, _)| *other == number) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => inner.wakers.push((number, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.flag.lock().wakers.retain(|(other, _)| *other != number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[test]
    fn a_hook_is_called_once_whenever_it_comes() {
        for early in [true, false] {
            let (flag, seen) = (StopFlag::default(), Arc::new(Mutex::new(Vec::new())));
            let into = Arc::clone(&seen);
            let hook: Hook = Box::new(move |stop| into.lock().unwrap().push(stop));
            if early {
                flag.hook(hook);
                flag.set(Stop::Cancelled);
            } else {
                flag.set(Stop::Cancelled);
                flag.hook(hook);
            }
            flag.set(Stop::Disconnected);
            assert_eq!(*seen.lock().unwrap(), [Stop::Cancelled]);
            assert!(flag.is_set() && flag.get() == Some(Stop::Cancelled));
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_future_that_waits_is_woken_once_and_one_that_was_dropped_is_not() {
        let (flag, count) = (StopFlag::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let [mut first, mut second, mut dropped] = [(); 3].map(|()| Told::of(&flag));
        for _ in 0..2 {
            for told in [&mut first, &mut second, &mut dropped] {
                assert_eq!(told.poll(&context), Poll::Pending);
            }
        }
        drop(dropped);
        assert_eq!(flag.lock().wakers.len(), 2);
        flag.set(Stop::Disconnected);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(first.poll(&context), Poll::Ready(Stop::Disconnected));
        assert_eq!(Told::of(&flag).poll(&context), Poll::Ready(Stop::Disconnected));
    }
}
