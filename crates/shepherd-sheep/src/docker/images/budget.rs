//! Removing images of ours that nobody used for longest, until the rest fits.
//!
//! An image's size is what the engine says; layers that images share are counted for
//! each of them. So the images of one base take less room than they are counted for,
//! and removing one may free less than its size.
//!
//! What is removed is the name, and the image with it when it has no other. Refused
//! are: what somebody holds ([`Usage`]), what a container is made from (the engine
//! says so), what carries any other name, and what the record does not name. What others
//! keep by a name of theirs is not counted either: no removal of ours would free it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ImageSummary;
use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions};

use super::name::familiar;
use super::record::{Pulled, Record};
use super::usage::Usage;
use super::{ANSWER, within};
use crate::docker::engine::{Link, Trouble};

/// Whose images, and how much they may take.
#[derive(Clone)]
pub(super) struct Budget {
    pub(super) bytes: Option<u64>,
    pub(super) link: Link,
    pub(super) record: Arc<Record>,
    pub(super) usage: Usage,
    /// One at a time counts what there is.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

/// What removing an image needs: what to remove, and what that frees.
#[derive(Debug, PartialEq, Eq)]
struct Removal {
    reference: String,
    bytes: u64,
}

/// How long the engine may take to remove an image: it has files to remove for that.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(120);

impl Budget {
    /// Removes what is too much. What goes wrong is logged: an image too many is no
    /// reason to keep a job waiting.
    pub(super) async fn enforce(&self) {
        let Some(bytes) = self.bytes else { return };
        let this = self.clone();
        // A removal that was begun goes on at the engine even when nobody waits for its
        // answer, and nobody may begin to hold the image meanwhile. So it is waited for
        // in a task, whoever is dropped; each of its steps has a time limit.
        let removal = tokio::spawn(async move { this.remove_down_to(bytes).await });
        match removal.await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => tracing::warn!(%trouble, "images beyond the budget could not be removed"),
            Err(error) => tracing::error!(%error, "removing images beyond the budget broke off"),
        }
    }

    async fn remove_down_to(&self, budget: u64) -> Result<(), Trouble> {
        let _turn = self.turn.lock().await;
        let docker = self.link.reached().await?;
        let there = within(ANSWER, docker.list_images(None::<ListImagesOptions>)).await?;
        let there: HashMap<&str, &ImageSummary> =
            there.iter().map(|image| (image.id.as_str(), image)).collect();

        let mut ours = self.record.oldest_first();
        ours.retain(|image| {
            let stays = there
                .get(image.id.as_str())
                .is_some_and(|summary| removal_of(image, &summary.repo_tags, summary.size).is_some());
            if !stays {
                self.record.forget(image);
            }
            stays
        });
        let mut taken = taken_by(&ours, &there);
        for image in &ours {
            if taken <= budget {
                break;
            }
            let _removing = self.usage.removing().await;
            if self.usage.is_kept(image) {
                continue;
            }
            // Looked at again: since the list was made its name may have moved on, to an image that is held.
            let now = match within(ANSWER, docker.inspect_image(&image.id)).await {
                Ok(now) => now,
                Err(trouble) if trouble.is_status(404) => {
                    self.record.forget(image);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            let (tags, size) = (now.repo_tags.unwrap_or_default(), now.size.unwrap_or_default());
            // Removing one that others keep, too, would free nothing.
            if is_others(&image.id, &tags, &ours) {
                continue;
            }
            let Some(removal) = removal_of(image, &tags, size) else { continue };
            let remove = docker.remove_image(&removal.reference, None::<RemoveImageOptions>, None);
            match within(REMOVE_TIMEOUT, remove).await {
                Ok(_) => {
                    tracing::info!(
                        image = image.name,
                        bytes = removal.bytes,
                        "removed an image to keep to the budget"
                    );
                    taken = taken.saturating_sub(removal.bytes);
                    self.record.forget(image);
                }
                Err(trouble) if trouble.is_status(404) => {
                    taken = taken.saturating_sub(removal.bytes);
                    self.record.forget(image);
                }
                // A container is made from it.
                Err(trouble) if trouble.is_status(409) => {
                    tracing::debug!(image = image.name, %trouble, "an image beyond the budget is in use");
                }
                Err(trouble) => return Err(trouble),
            }
        }
        if taken > budget {
            tracing::info!(bytes = taken, budget, "the images in use take more than the budget");
        }
        let record = Arc::clone(&self.record);
        let written = tokio::task::spawn_blocking(move || record.write()).await;
        written.map_err(|e| Trouble::Garbled(e.to_string()))
    }
}

/// How to remove `image`, which has these names and this size; `None` when its name has
/// moved on and others were given to it: then it is no longer ours.
fn removal_of(image: &Pulled, tags: &[String], size: i64) -> Option<Removal> {
    let name = familiar(&image.name);
    let tags: Vec<&String> = names(tags).collect();
    let bytes = u64::try_from(size).unwrap_or(0);
    match (tags.iter().any(|tag| *tag == name), tags.len()) {
        (true, 1) => Some(Removal { reference: image.name.clone(), bytes }),
        // Another name of ours keeps it: nothing is freed yet.
        (true, _) => Some(Removal { reference: image.name.clone(), bytes: 0 }),
        (false, 0) => Some(Removal { reference: image.id.clone(), bytes }),
        (false, _) => None,
    }
}

/// Whether an image has a name that is not one of ours: it is there whatever we do.
fn is_others(id: &str, tags: &[String], ours: &[Pulled]) -> bool {
    let is_ours = |tag: &str| ours.iter().any(|image| image.id == id && familiar(&image.name) == tag);
    names(tags).any(|tag| !is_ours(tag))
}

/// The engine lists an image without a name under one of its own.
fn names(tags: &[String]) -> impl Iterator<Item = &String> {
    tags.iter().filter(|tag| *tag != "<none>:<none>")
}

/// The sum of the sizes of what is there because of us alone, each image once.
fn taken_by(ours: &[Pulled], there: &HashMap<&str, &ImageSummary>) -> u64 {
    let sizes: HashMap<&str, u64> = ours
        .iter()
        .filter_map(|image| {
            let summary = there.get(image.id.as_str())?;
            let is_others = is_others(&image.id, &summary.repo_tags, ours);
            (!is_others).then(|| (image.id.as_str(), u64::try_from(summary.size).unwrap_or(0)))
        })
        .collect();
    sizes.values().sum()
}
