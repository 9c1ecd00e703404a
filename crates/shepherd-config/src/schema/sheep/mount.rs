//! `mounts`: directories and files of the machine in a sheep's container.
//!
//! Each is `SOURCE:TARGET`, with `:ro` or `:rw` after it, or a mapping of `source`,
//! `target` and `read_only`, which a path with a colon needs. The runner may only read
//! it unless told otherwise. A relative source starts at the current directory, as
//! other paths do; a target is absolute. Nothing is mounted over what the container
//! needs or the sheep's own directory, and what a source lays open is warned of.

use std::path::{Component, Path, PathBuf};

use shepherd_job::SheepId;

use super::Flock;
use crate::paths::{Located, real};
use crate::problem::Place;
use crate::read::{Context, Value};

const SHAPE: &str = "SOURCE:TARGET, perhaps with :ro or :rw, or a mapping of `source` and `target`";

/// A directory or file of the machine in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its absolute path on the machine.
    pub source: PathBuf,
    /// Its absolute path in the container.
    pub target: PathBuf,
    /// Whether the runner may only read it.
    pub read_only: bool,
}

/// A mount, the sheep that has it, and what to blame for it.
pub(super) struct Mounted {
    pub(super) sheep: SheepId,
    pub(super) mount: Mount,
    pub(super) key: String,
    pub(super) place: Place,
}

/// The list of one sheep.
pub(super) fn read(
    value: &Value<'_>,
    sheep: &SheepId,
    flock: &mut Flock,
    kept: &mut Vec<Located>,
) -> Option<Vec<Mount>> {
    let found = value.list(|item| {
        let mount = if item.is_map() { from_map(item) } else { from_text(item) }?;
        let (key, place) = (item.key.clone(), item.place().clone());
        Some(Mounted { sheep: sheep.clone(), mount, key, place })
    })?;
    let mut mounts: Vec<Mount> = Vec::new();
    for Mounted { mount, key, place, .. } in &found {
        if mounts.iter().any(|other| other.target == mount.target) {
            value.fail(format!("mounts `{}` twice, expected each target once", mount.target.display()));
        }
        mounts.push(mount.clone());
        kept.push(Located { key: key.clone(), place: place.clone(), path: mount.source.clone() });
    }
    flock.mounts.extend(found);
    Some(mounts)
}

fn from_text(item: &Value<'_>) -> Option<Mount> {
    let text = item.text_as(SHAPE)?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "ro"] => (source, target, true),
        [source, target, "rw"] => (source, target, false),
        _ => ("", "", true),
    };
    if source.is_empty() || target.is_empty() {
        item.wrong(SHAPE);
        return None;
    }
    let (source, target) = (item.path_in(source), target_in(item, target));
    Some(Mount { source: source?, target: target?, read_only })
}

fn from_map(item: &Value<'_>) -> Option<Mount> {
    let section = item.section()?;
    let source = section.require("source", "a path of this machine").and_then(|value| value.path());
    let target = section
        .require("target", "an absolute path in the container")
        .and_then(|value| target_in(&value, value.text()?));
    let read_only = section.value_or("read_only", true, Value::boolean);
    section.finish(&[]);
    Some(Mount { source: source?, target: target?, read_only: read_only? })
}

/// An absolute path without `..`, in its plain form.
fn target_in(value: &Value<'_>, text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || climbs || text.contains('\0') {
        value.wrong("a target that is an absolute path in the container, without `..`");
        return None;
    }
    let path: PathBuf = path.components().collect();
    if path == Path::new("/") || ["/proc", "/sys"].iter().any(|taken| path.starts_with(taken)) {
        value.wrong("a target that is neither the root nor in /proc or /sys of the container");
        return None;
    }
    Some(path)
}

/// What mounts must not hide, and what it is dangerous to show.
pub(super) struct Surroundings<'a> {
    pub(super) data_root: Option<&'a Path>,
    pub(super) state_dir: Option<&'a Path>,
    /// Socket files of the engine.
    pub(super) sockets: &'a [PathBuf],
}

impl Surroundings<'_> {
    pub(super) fn check(&self, cx: &Context, mounted: &Mounted) {
        let Mounted { sheep, mount: Mount { source, target, .. }, key, place } = mounted;
        if let Some(own) = self.data_root.map(|root| root.join(sheep.as_str()))
            && (own.starts_with(target) || target.starts_with(&own))
        {
            let message = format!(
                "has the target `{}`, where the sheep's own directory `{}` is, expected another target",
                target.display(),
                own.display()
            );
            cx.report(place, key, message);
        }
        let source = real(source);
        let shows = |path: &Path| real(path).starts_with(&source);
        if self.sockets.iter().any(|socket| shows(socket)) {
            let message = "shows the runner the socket of a container engine: who can write to that is root \
                           on this machine";
            cx.warn(place, key, message);
        }
        if self.data_root.is_some_and(shows)
            || self.state_dir.is_some_and(|state| shows(state) || source.starts_with(real(state)))
        {
            cx.warn(place, key, "shows the runner the shepherd's own files, and other jobs' with them");
        }
    }
}
