//! How far a pull has come, from what the engine says of its layers.
//!
//! The engine tells for each layer what it does with it, and while it downloads how
//! much it has of how much. A layer's size is not known before its download begins,
//! and three are loaded at a time: the total grows as they come.

use std::collections::{HashMap, HashSet};

use bollard::models::CreateImageInfo;

/// Maximum number of different remarks that are remembered; an engine makes a handful.
const REMARKS_MAX: usize = 64;

/// What is known of a pull. It outlives the attempts of the pull: what an attempt
/// loads for the second time is no progress.
#[derive(Debug, Default)]
pub(super) struct Progress {
    layers: HashMap<String, Layer>,
    remarks: HashSet<String>,
}

#[derive(Debug, Default)]
struct Layer {
    stage: Stage,
    loaded: u64,
    total: u64,
    unpacked: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It waits, or something is done with it that is not known here.
    #[default]
    Announced,
    Loading,
    Loaded,
    Unpacking,
    Done,
}

impl Progress {
    /// Takes in what the engine said. Whether the pull has come further than ever.
    pub(super) fn note(&mut self, event: &CreateImageInfo) -> bool {
        let status = event.status.as_deref().unwrap_or_default();
        let stage = match status {
            "Downloading" => Some(Stage::Loading),
            "Verifying Checksum" | "Download complete" => Some(Stage::Loaded),
            "Extracting" => Some(Stage::Unpacking),
            "Pull complete" | "Already exists" => Some(Stage::Done),
            "Pulling fs layer" => Some(Stage::Announced),
            _ => None,
        };
        let layer = match (&event.id, stage) {
            (Some(id), Some(_)) => id,
            // The tag stands where a layer's id does in `Pulling from NAME`. Waiting and
            // trying again are no progress, and the latter counts its seconds down.
            _ if status.starts_with("Waiting") || status.starts_with("Retrying") => return false,
            _ => {
                let remark = format!("{} {status}", event.id.as_deref().unwrap_or_default());
                return self.remarks.len() < REMARKS_MAX && self.remarks.insert(remark);
            }
        };
        let new = !self.layers.contains_key(layer);
        let layer = self.layers.entry(layer.clone()).or_default();
        let stage = stage.unwrap_or_default();
        let detail = event.progress_detail.as_ref();
        let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let current = number(detail.and_then(|detail| detail.current));
        let mut moved = new || stage > layer.stage;
        layer.stage = layer.stage.max(stage);
        match stage {
            Stage::Loading => {
                moved |= current > layer.loaded;
                layer.loaded = layer.loaded.max(current);
                // A registry need not say how large a layer is.
                layer.total = layer.total.max(number(detail.and_then(|detail| detail.total))).max(current);
            }
            Stage::Unpacking => {
                moved |= current > layer.unpacked;
                layer.unpacked = layer.unpacked.max(current);
            }
            Stage::Announced | Stage::Loaded | Stage::Done => {}
        }
        if layer.stage >= Stage::Loaded {
            layer.loaded = layer.total;
        }
        moved
    }

    /// Whether nothing more is wanted from the registry: what remains is the engine's.
    pub(super) fn is_loaded(&self) -> bool {
        !self.layers.is_empty() && self.layers.values().all(|layer| layer.stage >= Stage::Loaded)
    }

    /// What is going on, such as `pulling mnist:2, 40 of 120 MB`.
    pub(super) fn phrase(&self, model: &str) -> String {
        let (loaded, total) = self
            .layers
            .values()
            .fold((0, 0), |(loaded, total), layer| (loaded + layer.loaded, total + layer.total));
        if self.is_loaded() {
            return format!("unpacking {model}");
        }
        match total {
            0 => format!("pulling {model}"),
            1_000_000.. => {
                format!("pulling {model}, {} of {} MB", loaded / 1_000_000, total.div_ceil(1_000_000))
            }
            _ => format!("pulling {model}, {} of {} kB", loaded / 1_000, total.div_ceil(1_000)),
        }
    }
}

#[cfg(test)]
mod tests;
