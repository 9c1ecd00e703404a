//! Which images are in use, so that none of them is removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{Pulled, Record};

/// The images that somebody holds.
#[derive(Clone)]
pub(super) struct Usage {
    record: Arc<Record>,
    holds: Arc<Mutex<Holds>>,
    /// One at a time begins to hold an image or removes one: whoever holds one sees
    /// it there or gone, never about to go.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Holds {
    next: u64,
    all: HashMap<u64, Held>,
}

struct Held {
    name: String,
    which: Which,
}

/// Which of the images that have or had the name.
enum Which {
    /// Any of them.
    Unknown,
    /// The one that a pull under way brings.
    Pulled,
    /// This one: others that had the name before may go.
    Is(String),
}

/// An image that stays while this lives. Dropping it counts as a use.
pub(super) struct Hold {
    usage: Usage,
    key: u64,
}

impl Usage {
    pub(super) fn new(record: Arc<Record>) -> Self {
        Self { record, holds: Arc::default(), turn: Arc::default() }
    }

    /// Keeps every image of this name from now on.
    pub(super) async fn hold(&self, name: &str) -> Hold {
        let _turn = self.turn.lock().await;
        let mut holds = self.lock();
        let key = holds.next;
        holds.next += 1;
        holds.all.insert(key, Held { name: name.to_owned(), which: Which::Unknown });
        drop(holds);
        Hold { usage: self.clone(), key }
    }

    /// The right to remove images that are not [`kept`](Self::is_kept).
    pub(super) async fn removing(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    pub(super) fn is_kept(&self, image: &Pulled) -> bool {
        self.lock().all.values().any(|held| match &held.which {
            Which::Is(id) => *id == image.id,
            Which::Unknown | Which::Pulled => held.name == image.name,
        })
    }

    /// A pull of `name` brought this image.
    pub(super) fn arrived(&self, name: &str, id: &str) {
        for held in self.lock().all.values_mut() {
            if matches!(held.which, Which::Pulled) && held.name == name {
                held.which = Which::Is(id.to_owned());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// What is held is what a pull brings.
    pub(super) fn await_pull(&self) {
        self.set(Which::Pulled);
    }

    /// What is held turned out to be this one.
    pub(super) fn settle(&self, id: &str) {
        if let Some(name) = self.set(Which::Is(id.to_owned())) {
            self.usage.record.touch(&name, id);
        }
    }

    fn set(&self, which: Which) -> Option<String> {
        let mut holds = self.usage.lock();
        let held = holds.all.get_mut(&self.key)?;
        held.which = which;
        Some(held.name.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = self.usage.lock().all.remove(&self.key);
        if let Some(Held { name, which: Which::Is(id) }) = held {
            self.usage.record.touch(&name, &id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn pulled(name: &str, id: &str) -> Pulled {
        Pulled { name: name.to_owned(), id: id.to_owned(), last_use: 0 }
    }

    fn usage() -> Usage {
        Usage::new(Arc::new(Record::read(PathBuf::from("/nowhere/images.json"), String::new())))
    }

    #[tokio::test]
    async fn an_image_is_kept_while_anybody_holds_it() {
        let usage = usage();
        let image = pulled("r/a:1", "sha256:1");
        let first = usage.hold("r/a:1").await;
        let second = usage.hold("r/a:1").await;
        assert!(usage.is_kept(&image) && !usage.is_kept(&pulled("r/a:2", "sha256:2")));
        drop(first);
        assert!(usage.is_kept(&image));
        drop(second);
        assert!(!usage.is_kept(&image));
    }

    #[tokio::test]
    async fn once_it_is_known_which_one_it_is_others_of_the_name_may_go() {
        let usage = usage();
        let hold = usage.hold("r/a:1").await;
        assert!(usage.is_kept(&pulled("r/a:1", "sha256:old")));
        hold.settle("sha256:new");
        assert!(!usage.is_kept(&pulled("r/a:1", "sha256:old")));
        assert!(usage.is_kept(&pulled("r/a:1", "sha256:new")));
        assert!(usage.is_kept(&pulled("r/another-name:1", "sha256:new")));
    }

    #[tokio::test]
    async fn what_a_pull_brings_settles_those_that_wait_for_it() {
        let usage = usage();
        let (old, new) = (pulled("r/a:1", "sha256:old"), pulled("r/a:1", "sha256:new"));
        let waiting = usage.hold("r/a:1").await;
        waiting.await_pull();
        assert!(usage.is_kept(&old));
        usage.arrived("r/a:1", "sha256:new");
        assert!(usage.is_kept(&new) && !usage.is_kept(&old));
        // Another may be about to find the old one.
        let _looking = usage.hold("r/a:1").await;
        usage.arrived("r/a:1", "sha256:new");
        assert!(usage.is_kept(&old));
    }

    #[tokio::test]
    async fn nobody_begins_to_hold_an_image_that_is_being_removed() {
        let usage = usage();
        let removing = usage.removing().await;
        let mut holding = Box::pin(usage.hold("r/a:1"));
        assert!(futures::poll!(&mut holding).is_pending());
        drop(removing);
        holding.await;
    }
}
