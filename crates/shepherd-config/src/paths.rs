//! Where directories may lie.
//!
//! `data_root` is emptied at every start. So it must be nobody's home and no
//! system directory, and nothing that is to be kept may lie inside it, with one
//! exception: `state_dir` (by default `<data_root>/state`), which cleaning leaves
//! alone, and whatever lies below that. Comparisons follow symbolic links as far
//! as the paths exist.

use std::path::{Component, Path, PathBuf};

use shepherd_job::SheepId;

use crate::problem::Place;
use crate::read::Context;

/// `path` from `cwd`, without `.` and `..`.
pub(crate) fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in cwd.join(path).components() {
        match component {
            Component::ParentDir => {
                // The parent of a symbolic link is that of its target.
                absolute = absolute.canonicalize().unwrap_or(absolute);
                absolute.pop();
            }
            Component::Normal(name) => absolute.push(name),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    absolute
}

/// An absolute path with the links in the part of it that exists resolved.
pub(crate) fn real(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(found) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if !rest.as_os_str().is_empty() => found.join(rest),
                Ok(_) | Err(_) => found,
            };
        }
    }
    path.to_owned()
}

/// A path, and the key to blame for it.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) path: PathBuf,
}

/// Every directory and file that matters to the cleaning of `data_root`.
pub(crate) struct Layout<'a> {
    pub(crate) data_root: &'a Located,
    pub(crate) state_dir: &'a Located,
    /// The directory of local storage.
    pub(crate) storage: Option<&'a Located>,
    /// Each sheep, with the place of its key.
    pub(crate) sheep: &'a [(SheepId, Place)],
    /// What must still be there after cleaning.
    pub(crate) kept: &'a [Located],
    pub(crate) config_file: &'a Path,
    pub(crate) home: Option<&'a Path>,
}

impl Layout<'_> {
    /// Reports every directory that lies where it must not.
    pub(crate) fn check(&self, cx: &Context) {
        let root = real(&self.data_root.path);
        let state = real(&self.state_dir.path);
        let at = |located: &Located, message: String| cx.report(&located.place, &located.key, message);

        if let Some(reason) = self.precious(&root, &cx.cwd) {
            let expected = "expected a directory that holds nothing else";
            at(self.data_root, format!("{reason} and would be emptied at every start, {expected}"));
            return;
        }
        if state == Path::new("/") {
            at(self.state_dir, "is the root of the file system, expected a directory of its own".into());
        } else if root == state {
            at(
                self.state_dir,
                "is the `data_root` itself, expected a directory below it or elsewhere".into(),
            );
        } else if root.starts_with(&state) {
            let message = "lies inside `state_dir`, which is never emptied, expected a directory elsewhere";
            at(self.data_root, message.into());
        }
        for (id, place) in self.sheep {
            if state.starts_with(root.join(id.as_str())) {
                let message = "has the directory that holds `state_dir`, expected another id or `state_dir`";
                cx.report(place, &crate::yaml::key_path("sheep", id.as_str()), message);
            }
        }
        let cleaned = |path: &Path| path.starts_with(&root) && !path.starts_with(&state);
        for kept in self.kept {
            if cleaned(&real(&kept.path)) {
                let message =
                    "lies inside `data_root`, which is emptied at every start, expected a place outside";
                at(kept, message.into());
            }
        }
        if cleaned(&real(&absolute(&cx.cwd, self.config_file))) {
            let message =
                "holds this configuration and is emptied at every start, expected another directory";
            at(self.data_root, message.into());
        }
        if let Some(storage) = self.storage
            && let Some(message) = misplaced(&real(&storage.path), &root, &state)
        {
            at(storage, message.into());
        }
    }

    /// Why a directory must never be emptied.
    fn precious(&self, root: &Path, cwd: &Path) -> Option<&'static str> {
        if root == Path::new("/") {
            Some("is the root of the file system")
        } else if self.home.is_some_and(|home| real(home).starts_with(root)) || is_a_home(root) {
            Some("is a home directory or holds one")
        } else if is_of_system(root) {
            Some("is a directory of the system")
        } else if real(cwd).starts_with(root) {
            Some("is the current directory or holds it")
        } else {
            None
        }
    }
}

/// What is wrong with the place of local storage.
fn misplaced(storage: &Path, root: &Path, state: &Path) -> Option<&'static str> {
    if storage == Path::new("/") {
        Some("is the root of the file system, expected a directory of its own")
    } else if storage == root {
        Some("is the `data_root` itself, which is emptied at every start, expected a directory of its own")
    } else if root.starts_with(storage) {
        Some("holds the `data_root`, expected a directory of its own")
    } else if storage == state {
        Some("is the `state_dir` itself, expected a directory below it or elsewhere")
    } else if state.starts_with(storage) {
        Some("holds the `state_dir`, expected a directory of its own")
    } else if storage.starts_with(root) && !storage.starts_with(state) {
        Some(
            "lies inside `data_root`, which is emptied at every start, \
             expected a directory below `state_dir` or elsewhere",
        )
    } else {
        None
    }
}

/// The directories of users, on Linux and macOS.
fn is_a_home(path: &Path) -> bool {
    path == Path::new("/root")
        || [Path::new("/home"), Path::new("/Users")]
            .into_iter()
            .any(|homes| path == homes || path.parent() == Some(homes))
}

/// The directories of the file system hierarchy standard and their like: some
/// with all that is below them, others themselves, as `/srv/shepherd` is fine.
fn is_of_system(path: &Path) -> bool {
    let whole = ["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys"];
    let with_children = ["/usr", "/var"];
    let alone = [
        "/dev",
        "/dev/shm",
        "/media",
        "/mnt",
        "/opt",
        "/private",
        "/private/tmp",
        "/private/var",
        "/run",
        "/srv",
        "/tmp",
        "/var/lib",
    ];
    whole.iter().any(|dir| path.starts_with(dir))
        || with_children.iter().any(|dir| path == Path::new(dir) || path.parent() == Some(Path::new(dir)))
        || alone.iter().any(|dir| path == Path::new(dir))
}
