//! Cleaning the data root: it holds working directories only, and those of an
//! earlier life are worth nothing.
//!
//! A configuration that names the wrong directory must not cost anybody his files:
//! only a directory that held nothing strange when a shepherd first used it is
//! emptied, which a marker file says. In any other, the sheep's own directories
//! are.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use shepherd_job::SheepId;

use crate::workdir::ATTIC;

const MARKER: &str = ".shepherd-data-root";

/// Makes `data_root`, or empties it but for `state_dir`.
///
/// # Errors
/// When it cannot be made, read or emptied.
pub(crate) fn clean<'a>(
    data_root: &Path,
    state_dir: &Path,
    flock: impl Iterator<Item = &'a SheepId>,
) -> io::Result<()> {
    fs::create_dir_all(data_root)?;
    let data_root = data_root.canonicalize()?;
    let state_dir = state_dir.canonicalize()?;
    let marker = data_root.join(MARKER);
    let mut strangers = Vec::new();
    if !marker.exists() {
        let ours = flock.map(SheepId::as_str).chain([ATTIC]);
        let homes: Vec<PathBuf> = ours.map(|name| data_root.join(name)).collect();
        for entry in fs::read_dir(&data_root)? {
            let path = entry?.path();
            if homes.contains(&path) {
                remove(&path)?;
            } else if !state_dir.starts_with(&path) {
                strangers.push(path);
            }
        }
    }
    if let Some(stranger) = strangers.first() {
        tracing::warn!(
            data_root = %data_root.display(), stranger = %stranger.display(),
            "the data root holds files that are not the shepherd's; only the sheep's directories in it are cleaned"
        );
        return Ok(());
    }
    fs::write(&marker, "The shepherd empties this directory at every start.\n")?;
    empty(&data_root, &state_dir, &marker)
}

fn empty(dir: &Path, keep: &Path, marker: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path == keep || path == marker {
            continue;
        }
        if keep.starts_with(&path) { empty(&path, keep, marker)? } else { remove(&path)? }
    }
    Ok(())
}

/// Removes a file, or a directory with all that is in it, also where a runner has
/// made directories read-only.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match try_remove(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            try_remove(path)
        }
        outcome => outcome,
    }
}

fn try_remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn open_up(dir: &Path) -> io::Result<()> {
    if fs::symlink_metadata(dir)?.is_dir() {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(dir)? {
            open_up(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_life_is_swept_away_and_the_state_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let state = root.join("deep/state");
        fs::create_dir_all(&state).unwrap();
        clean(&root, &state, std::iter::empty()).unwrap();
        fs::write(state.join("queue"), "kept").unwrap();
        fs::create_dir_all(root.join("sheep/job-1/inputs")).unwrap();
        fs::write(root.join("deep/stray"), "").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        clean(&root, &state, std::iter::empty()).unwrap();
        assert_eq!(fs::read(state.join("queue")).unwrap(), b"kept");
        assert!(!root.join("sheep").exists() && !root.join("deep/stray").exists());
        assert!(root.join("link").symlink_metadata().is_err() && Path::new("/etc").exists());
    }

    #[test]
    fn strange_files_are_left_alone_and_the_sheeps_own_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("home"), dir.path().join("state"));
        fs::create_dir_all(root.join("photos")).unwrap();
        fs::create_dir_all(root.join("dolly/job-1")).unwrap();
        fs::create_dir_all(&state).unwrap();
        let dolly = SheepId::parse("dolly").unwrap();
        clean(&root, &state, [&dolly].into_iter()).unwrap();
        assert!(root.join("photos").exists() && !root.join(MARKER).exists());
        assert!(!root.join("dolly").exists());
    }

    #[test]
    fn read_only_directories_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("cache");
        fs::create_dir_all(top.join("deep")).unwrap();
        fs::write(top.join("deep/file"), "").unwrap();
        for path in [top.join("deep"), top.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        }
        open_up(&top).unwrap();
        assert_eq!(fs::metadata(top.join("deep")).unwrap().permissions().mode() & 0o777, 0o700);
        remove(&top).unwrap();
        assert!(!top.exists());
    }
}
