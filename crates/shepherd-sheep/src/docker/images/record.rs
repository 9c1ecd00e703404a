//! Which images this shepherd pulled, and when each was last used.
//!
//! `STATE_DIR/images.json`, read at the start and renamed into place at each change.
//! Only what is written there is ever removed. So a record that is lost, broken, or
//! of another engine means that nothing old is known; it is never synced. An image
//! whose pull the daemon did not live to write down is a stranger, too, and stays.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The file as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    /// The engine that the images are on.
    engine: String,
    images: Vec<Pulled>,
}

/// An image that was pulled under a name. The name may have moved to another since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pulled {
    pub(super) name: String,
    /// `sha256:...`
    pub(super) id: String,
    /// When it was last wanted, in milliseconds since 1970.
    pub(super) last_use: u64,
}

/// The record of one shepherd.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    engine: String,
    images: Mutex<Vec<Pulled>>,
    /// Held while the file is written: the last to be renamed is the newest.
    writing: Mutex<()>,
}

impl Record {
    /// Reads the record of the images on `engine`. Blocks for one small file.
    pub(super) fn read(path: PathBuf, engine: String) -> Self {
        let images = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<File>(&bytes) {
                Ok(file) if file.engine == engine => file.images,
                Ok(file) => {
                    tracing::info!(
                        was = file.engine,
                        now = engine,
                        "another engine: no image on it is known as ours"
                    );
                    Vec::new()
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the record of pulled images is none; those pulled before are left alone");
                    Vec::new()
                }
            },
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the record of pulled images; those pulled before are left alone");
                }
                Vec::new()
            }
        };
        Self { path, engine, images: Mutex::new(images), writing: Mutex::new(()) }
    }

    /// An image was pulled.
    pub(super) fn add(&self, name: &str, id: &str) {
        let mut images = self.lock();
        if !images.iter().any(|image| image.name == name && image.id == id) {
            images.push(Pulled { name: name.to_owned(), id: id.to_owned(), last_use: now() });
        }
    }

    /// An image was used. Nothing is written: see [`write`](Self::write).
    pub(super) fn touch(&self, name: &str, id: &str) {
        if let Some(image) = self.lock().iter_mut().find(|image| image.name == name && image.id == id) {
            image.last_use = now();
        }
    }

    /// An image is no longer ours to remove.
    pub(super) fn forget(&self, gone: &Pulled) {
        self.lock().retain(|image| image.name != gone.name || image.id != gone.id);
    }

    /// All of them, the one that was not used for longest first.
    pub(super) fn oldest_first(&self) -> Vec<Pulled> {
        let mut images = self.lock().clone();
        images.sort_by_key(|image| image.last_use);
        images
    }

    /// Writes the record; that it cannot is logged. Blocks.
    pub(super) fn write(&self) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = File { engine: self.engine.clone(), images: self.lock().clone() };
        let write = || {
            if let Some(directory) = self.path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let aside = self.path.with_extension("json.new");
            std::fs::write(&aside, serde_json::to_vec_pretty(&file)?)?;
            std::fs::rename(&aside, &self.path)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the record of pulled images");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pulled>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
