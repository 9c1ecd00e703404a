//! What a launch is busy with, for whoever asks the sheep.

use std::sync::{Arc, Mutex, PoisonError};

/// A phrase that a launch changes and anybody may read.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<Mutex<Option<String>>>);

impl Activity {
    /// What is going on now; `None` for nothing worth telling.
    pub(super) fn set(&self, phrase: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phrase;
    }

    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
