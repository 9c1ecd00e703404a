//! Telling a job that it is in vain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
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
}

impl StopFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> Option<Stop> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).stop
    }

    /// The first reason is the one that counts.
    pub(crate) fn set(&self, stop: Stop) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.stop.is_some() {
            return;
        }
        inner.stop = Some(stop);
        self.set.store(true, Ordering::Relaxed);
        let hook = inner.hook.take();
        drop(inner);
        if let Some(hook) = hook {
            hook(stop);
        }
    }

    pub(crate) fn hook(&self, hook: Hook) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.stop {
            None => inner.hook = Some(hook),
            Some(stop) => {
                drop(inner);
                hook(stop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
}
