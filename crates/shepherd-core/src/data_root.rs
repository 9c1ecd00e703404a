//! Cleaning the data root: it holds working directories only, and those of an
//! earlier life are worth nothing.
//!
//! A configuration that names the wrong directory must not cost anybody his files:
//! only a directory that held nothing strange when a shepherd first used it is
//! emptied, which a marker file says. In any other, the sheep's own directories
//! are.
//!
//! Two shepherds would empty it under one another, so it is locked, by a file in it.
//!
//! Everything is removed by descriptor: strangers have worked in there. What may
//! not be removed, because it is other users', is set aside under a name of its own,
//! for a sheep to get it back, and keeps nobody from starting.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use shepherd_job::SheepId;
use shepherd_sheep::Sheep;
use shepherd_storage::remove_all;

use crate::StartError;
use crate::workdir::{OUTPUT_POOL, RECLAIMS};

/// What others than the owner and the group may do.
pub(crate) const OTHERS: u32 = 0o007;
const MARKER: &str = ".shepherd-data-root";
/// The file that is locked.
const LOCK: &str = ".shepherd-lock";
/// How long a lock that is taken is waited for. A runner that was being started when an earlier
/// daemon was killed holds that daemon's lock until it becomes another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is tried meanwhile: nothing tells when a lock becomes free.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How the names begin of what was set aside.
const ASIDE: &str = ".not-removable-";
/// Less room than this, in bytes, and the disk is full.
const MIN_FREE: u64 = 64 << 20;
/// The same for a small disk, as a part of it.
const MIN_FREE_SHARE: u64 = 50;
/// How many names are tried for something that is set aside.
const MAX_NAME_TRIES: u32 = 10_000;

/// A data root, locked until this value is dropped.
#[derive(Debug)]
pub(crate) struct DataRoot {
    path: PathBuf,
    /// Permissions that it does not get.
    mask: u32,
    lock: Mutex<Lock>,
}

impl DataRoot {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// [`StartError::InUse`] when another shepherd has it; [`StartError::Directory`] when it
    /// cannot be made or locked.
    pub(crate) fn lock(path: &Path, mask: u32) -> Result<Self, StartError> {
        let failed = |source: io::Error| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::WouldBlock => StartError::InUse { path },
                _ => StartError::Directory { path, source },
            }
        };
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = Lock::take(&path).map_err(failed)?;
        Ok(Self { path, mask, lock: Mutex::new(lock) })
    }

    /// Makes and locks the directory again where somebody removed or replaced it.
    ///
    /// # Errors
    /// When it cannot be made, or another shepherd has locked it by now.
    pub(crate) fn restore(&self) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_same(&lock.0, &self.path.join(LOCK)) {
            if !self.path.exists() {
                fs::create_dir_all(&self.path)?;
                let mode = fs::metadata(&self.path)?.permissions().mode() & 0o7777 & !self.mask;
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))?;
            }
            *lock = Lock::take(&self.path)?;
        }
        Ok(())
    }
}

/// A locked file.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    #[expect(clippy::disallowed_methods, reason = "at the start, or in a thread that may block")]
    fn take(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_RETRY),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it locked while a child that another thread has just
        // forked still holds a copy of the descriptor.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Whether `path` leads to this open file or directory, and not to another or to none.
pub(crate) fn is_same(open: impl AsFd, path: &Path) -> bool {
    match (rustix::fs::fstat(open), rustix::fs::stat(path)) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

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
    let dir = fs::File::open(&data_root)?;
    let marker = data_root.join(MARKER);
    let mut strangers = Vec::new();
    if !marker.exists() {
        let ours = flock.map(SheepId::as_str).chain([OUTPUT_POOL]);
        let homes: Vec<PathBuf> = ours.map(|name| data_root.join(name)).collect();
        for name in names(&dir)? {
            let path = data_root.join(&name);
            if homes.contains(&path) {
                remove(&dir, &path, &name)?;
            } else if name != LOCK && !state_dir.starts_with(&path) {
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
    empty(&dir.into(), &data_root, &state_dir, &[marker, data_root.join(LOCK)])
}

/// Takes the permissions in `mask` from the data root. Those of [`OTHERS`] must go where
/// runners are strangers: what a stranger owns in it is his to open, and to give rights that
/// his fence takes from him and not from those who run it, such as another user's. A data
/// root that holds other files is left as it is.
///
/// # Errors
/// When it is not there.
pub(crate) fn close(data_root: &Path, mask: u32) -> io::Result<()> {
    let mode = fs::metadata(data_root)?.permissions().mode();
    if mode & mask == 0 {
        return Ok(());
    }
    let closed = fs::Permissions::from_mode(mode & 0o7777 & !mask);
    let why = match data_root.join(MARKER).exists().then(|| fs::set_permissions(data_root, closed)) {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => error.to_string(),
        None => "it holds other files than the shepherd's".to_owned(),
    };
    tracing::warn!(
        data_root = %data_root.display(), why,
        "the data root stays open to other users of this machine, who may see what jobs work on and run what \
         containers leave there"
    );
    Ok(())
}

/// Removes what was set aside, as far as the sheep get it back.
///
/// # Errors
/// When the data root cannot be read, or what may be removed not be removed.
pub(crate) async fn reclaim(data_root: &Path, sheep: impl Iterator<Item = &dyn Sheep>) -> io::Result<()> {
    let dir = fs::File::open(data_root)?;
    for sheep in sheep.filter(|sheep| sheep.is_isolated()) {
        for _ in 0..RECLAIMS {
            let mut aside = names(&dir)?;
            aside.retain(|name| name.as_bytes().starts_with(ASIDE.as_bytes()));
            if aside.is_empty() || !sheep.reclaim(data_root, &aside).await {
                break;
            }
            aside.iter().try_for_each(|name| remove(&dir, &data_root.join(name), name))?;
        }
    }
    Ok(())
}

/// Why jobs should not be worked on in this directory now, if its file system has next
/// to no room left: what runners cannot write there, their jobs would fail for.
pub(crate) fn shortage(dir: impl AsFd) -> Option<String> {
    // One that cannot be asked fails where it is used.
    let all = rustix::fs::fstatvfs(dir).ok()?;
    let size = all.f_blocks.saturating_mul(all.f_frsize);
    let free = all.f_bavail.saturating_mul(all.f_frsize);
    if free < MIN_FREE.min(size / MIN_FREE_SHARE) {
        return Some(format!("the disk of `data_root` is full: {free} bytes are free"));
    }
    let has_inodes = all.f_files == 0 || all.f_favail > 0;
    (!has_inodes).then(|| "the disk of `data_root` is full: no inodes are free".to_owned())
}

/// Empties the directory of a sheep that has no runner, if there is one.
///
/// # Errors
/// When it cannot be read or emptied.
pub(crate) fn empty_home(path: &Path) -> io::Result<()> {
    match rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => names(&dir)?.iter().try_for_each(|name| remove(&dir, &path.join(name), name)),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty(dir: &OwnedFd, path: &Path, keep: &Path, ours: &[PathBuf]) -> io::Result<()> {
    for name in names(dir)? {
        let path = path.join(&name);
        if path == keep || ours.contains(&path) {
            continue;
        }
        if keep.starts_with(&path) {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(dir, &name, flags, Mode::empty())?;
            empty(&below, &path, keep, ours)?;
        } else {
            remove(dir, &path, &name)?;
        }
    }
    Ok(())
}

fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes `name`, or sets it aside.
fn remove(dir: impl AsFd, path: &Path, name: &OsStr) -> io::Result<()> {
    let error = match remove_all(&dir, name) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => return outcome,
    };
    tracing::warn!(path = %path.display(), %error, "files of other users in the data root cannot be removed");
    if name.as_bytes().starts_with(ASIDE.as_bytes()) {
        return Ok(());
    }
    for number in 0..MAX_NAME_TRIES {
        let aside = format!("{ASIDE}{number}");
        match rustix::fs::renameat_with(&dir, name, &dir, &aside, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workdir::tests::without_privileges;

    #[test]
    fn a_data_root_is_one_shepherds_even_when_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("data"), dir.path().join("state"));
        fs::create_dir(&state).unwrap();
        let first = DataRoot::lock(&root, OTHERS).unwrap();
        clean(&root, &state, std::iter::empty()).unwrap();
        let error = DataRoot::lock(&root, OTHERS).unwrap_err();
        assert!(error.to_string().contains("another shepherd uses the data root"), "{error}");
        fs::remove_dir_all(&root).unwrap();
        first.restore().unwrap();
        assert!(matches!(DataRoot::lock(&root, OTHERS), Err(StartError::InUse { .. })));
        fs::remove_dir_all(&root).unwrap();
        let second = DataRoot::lock(&root, OTHERS).unwrap();
        assert_eq!(first.restore().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(second);
        first.restore().unwrap();
        drop(first);
        DataRoot::lock(&root, OTHERS).unwrap();
    }

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
    fn a_data_root_is_closed_to_others_unless_it_holds_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("data"), dir.path().join("state"));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir(&root).unwrap();
        let mode = |root: &Path| fs::metadata(root).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o2755)).unwrap();
        clean(&root, &state, std::iter::empty()).unwrap();
        close(&root, OTHERS).unwrap();
        assert_eq!(mode(&root), 0o2750);
        close(&root, 0o077).unwrap();
        assert_eq!(mode(&root), 0o2700);
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("photos")).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o1777)).unwrap();
        clean(&home, &state, std::iter::empty()).unwrap();
        close(&home, 0o077).unwrap();
        assert_eq!(mode(&home), 0o1777);
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
    fn what_runners_closed_or_nested_is_no_obstacle() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("data"), dir.path().join("state"));
        fs::create_dir_all(&state).unwrap();
        clean(&root, &state, std::iter::empty()).unwrap();
        let mut deep = root.join("sheep");
        for _ in 0..50 {
            deep.push("x".repeat(60));
        }
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(root.join("cache/deep")).unwrap();
        fs::write(root.join("cache/deep/file"), "").unwrap();
        for path in ["cache/deep", "cache"] {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        without_privileges(|| clean(&root, &state, std::iter::empty())).unwrap();
        assert_eq!(names(fs::File::open(&root).unwrap()).unwrap(), [MARKER]);
    }

    #[test]
    fn what_may_not_be_removed_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("data"), dir.path().join("state"));
        fs::create_dir_all(&state).unwrap();
        clean(&root, &state, std::iter::empty()).unwrap();
        for round in 1..=2 {
            fs::create_dir_all(root.join("dolly/job/theirs/below")).unwrap();
            if std::os::unix::fs::chown(root.join("dolly/job/theirs"), Some(54_321), None).is_err() {
                println!("skipped: files cannot be given away");
                return;
            }
            without_privileges(|| clean(&root, &state, std::iter::empty())).unwrap();
            assert!(!root.join("dolly").exists(), "the sheep finds an empty place");
            let left = names(fs::File::open(&root).unwrap()).unwrap();
            assert_eq!(left.len(), 1 + round, "{left:?}");
        }
        clean(&root, &state, std::iter::empty()).unwrap();
        assert_eq!(names(fs::File::open(&root).unwrap()).unwrap(), [MARKER]);
    }
}
