//! What runners that are strangers may try.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, renameat_with};

use super::{Backend, at, files, is_empty_or_gone, job, key, write};
use crate::{Replaces, StorageError, Trust};

pub(super) async fn what_a_stranger_was_given_is_its_own(b: Backend<'_>) {
    let job = job("given");
    b.put(&job, "inputs/input", "stored").await;
    b.put(&job, "inputs/deep/input", "stored").await;
    let to = b.runner_dir();
    b.storage.stage(&job, &at(&to, Trust::Untrusted)).await.unwrap();
    for path in ["input", "deep/input"] {
        let mut file = fs::OpenOptions::new().write(true).open(to.join(path)).unwrap();
        file.write_all(b"broken").unwrap();
        file.set_len(3).unwrap();
        assert_eq!(b.read(&job, &format!("inputs/{path}")).await, b"stored");
    }
    b.remove(&job).await;
}

pub(super) async fn what_a_stranger_left_is_no_longer_its_own(b: Backend<'_>) {
    let job = job("left");
    let (from, kept) = (b.runner_dir(), b.runner_dir());
    let mut open = Vec::new();
    for path in ["output", "deep/output"] {
        write(&from, path, b"stored");
        open.push(fs::OpenOptions::new().write(true).open(from.join(path)).unwrap());
        fs::hard_link(from.join(path), kept.join(path.replace('/', "-"))).unwrap();
        fs::set_permissions(from.join(path), fs::Permissions::from_mode(0o466)).unwrap();
    }
    let dir = fs::File::open(from.join("deep")).unwrap();
    b.storage.publish(&job, &at(&from, Trust::Untrusted), Replaces::Nothing).await.unwrap();
    assert!(is_empty_or_gone(&from));
    for mut file in open {
        file.rewind().unwrap();
        file.write_all(b"broken").unwrap();
    }
    for name in ["output", "deep-output"] {
        // Its mode is the file's own, and holds for all but root.
        let _ = fs::write(kept.join(name), "broken");
    }
    let planted = rustix::fs::openat(&dir, "planted", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU);
    assert!(planted.is_err(), "the stranger's directory is gone");
    assert_eq!(b.list(&job, "").await, ["outputs/deep/output", "outputs/output"]);
    assert_eq!(b.read(&job, "outputs/output").await, b"stored");
    assert_eq!(b.read(&job, "outputs/deep/output").await, b"stored");
    b.remove(&job).await;
}

pub(super) async fn what_a_stranger_is_given_is_open_to_the_group(b: Backend<'_>) {
    let job = job("modes");
    b.put(&job, "inputs/input", "x").await;
    b.put(&job, "inputs/deep/er/input", "x").await;
    let to = b.runner_dir();
    b.storage.stage(&job, &at(&to, Trust::Untrusted)).await.unwrap();
    let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
    for (path, wanted) in [("input", 0o660), ("deep", 0o2770), ("deep/er", 0o2770), ("deep/er/input", 0o660)]
    {
        assert_eq!(mode(path), wanted, "{path}");
    }
    b.remove(&job).await;
}

pub(super) async fn links_in_place_of_the_directory_are_refused(b: Backend<'_>, trust: Trust) {
    let job = job("linked");
    b.put(&job, "inputs/input", "x").await;
    let (outer, outside) = (b.runner_dir(), b.runner_dir());
    write(&outside, "secret", b"secret");
    symlink(&outside, outer.join("link")).unwrap();
    write(&outer, "file", b"x");
    rustix::fs::mkfifoat(CWD, outer.join("pipe"), Mode::RWXU).unwrap();
    for name in ["link", "file", "pipe"] {
        let dir = at(&outer.join(name), trust);
        let staged = b.storage.stage(&job, &dir).await;
        assert!(staged.is_err(), "{name}: {staged:?}");
        let published = b.storage.publish(&job, &dir, Replaces::Nothing).await;
        assert!(matches!(published, Err(StorageError::Invalid(_))), "{name}: {published:?}");
    }
    assert_eq!(files(&outside), [("secret".to_owned(), b"secret".to_vec())]);
    assert_eq!(b.list(&job, "").await, ["inputs/input"]);
    b.remove(&job).await;
}

/// Number of rounds in a directory whose names change all the time, where each
/// time may take many requests.
const ROUNDS: usize = 16;

/// A thread that swaps directories for links to another place, as fast as it can.
pub(crate) struct Swapper {
    round: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    /// In `outer/N`, of the round N, swaps each of `names` with a link to what is
    /// named beside it, below `outside`.
    pub(crate) fn start(
        outer: &Path,
        outside: &Path,
        names: &'static [(&'static str, &'static str)],
    ) -> Self {
        let round = Arc::new(AtomicUsize::new(0));
        let (outer, outside, shown) =
            (fs::File::open(outer).unwrap(), outside.to_owned(), Arc::clone(&round));
        let thread = std::thread::spawn(move || {
            for turn in 0_u64.. {
                let round = shown.load(Ordering::SeqCst);
                if round == usize::MAX {
                    return;
                }
                for (number, (path, target)) in names.iter().enumerate() {
                    let link = format!("link-{turn}-{number}");
                    // Whatever stands in the way, the next turn comes.
                    let _ = swap(&outer, &format!("{round}/{path}"), &link, &outside.join(target));
                    // Where the link was taken away, something else has its name now.
                    let _ = rustix::fs::unlinkat(&outer, &link, AtFlags::empty());
                }
            }
        });
        Self { round, thread: Some(thread) }
    }

    pub(crate) fn show(&self, round: usize) {
        self.round.store(round, Ordering::SeqCst);
    }
}

/// Puts a link to `target` in the place of `path`, and takes it back.
fn swap(outer: &fs::File, path: &str, link: &str, target: &Path) -> rustix::io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    // Its own links do not lead the swapper out.
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat2(outer, parent, flags, Mode::empty(), inside)?;
    rustix::fs::symlinkat(target, outer, link)?;
    renameat_with(outer, link, &parent, name, RenameFlags::EXCHANGE)?;
    renameat_with(outer, link, &parent, name, RenameFlags::EXCHANGE)
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.show(usize::MAX);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where `outer/N` is made for the rounds, and what must never be reached.
fn arena(b: &Backend<'_>) -> (PathBuf, PathBuf) {
    let (outer, outside) = (b.runner_dir(), b.runner_dir());
    write(&outside, "canary", b"canary");
    write(&outside, "sub/canary", b"canary");
    (outer, outside)
}

fn is_untouched(outside: &Path) {
    let canaries = [("canary", b"canary"), ("sub/canary", b"canary")];
    let canaries = canaries.map(|(path, bytes)| (path.to_owned(), bytes.to_vec()));
    assert_eq!(files(outside), canaries, "what is outside was touched");
}

pub(super) async fn nothing_outside_is_written_while_names_change(b: Backend<'_>, trust: Trust) {
    stage_while_names_change(b, trust, ROUNDS).await;
}

pub(crate) async fn stage_while_names_change(b: Backend<'_>, trust: Trust, rounds: usize) {
    let job = job("swap-in");
    b.put(&job, "inputs/dir/canary", "input").await;
    b.put(&job, "inputs/dir/sub/canary", "input").await;
    b.put(&job, "inputs/dir/new/x", "input").await;
    let (outer, outside) = arena(&b);
    let swapper = Swapper::start(
        &outer,
        &outside,
        &[("to/dir", ""), ("to/dir/sub", "sub"), ("to", ""), ("to/dir/canary", "canary")],
    );
    for round in 1..=rounds {
        let to = outer.join(round.to_string()).join("to");
        fs::create_dir_all(to.join("dir/sub")).unwrap();
        let to = at(&to, trust);
        swapper.show(round);
        // It may fail, for the directory is not always one.
        let _ = b.storage.stage(&job, &to).await;
        is_untouched(&outside);
    }
    drop(swapper);
    is_untouched(&outside);
    b.remove(&job).await;
}

pub(super) async fn nothing_outside_is_read_while_names_change(b: Backend<'_>, trust: Trust) {
    publish_while_names_change(b, trust, ROUNDS).await;
}

pub(crate) async fn publish_while_names_change(b: Backend<'_>, trust: Trust, rounds: usize) {
    let job = job("swap-out");
    let (outer, outside) = arena(&b);
    let swapper = Swapper::start(
        &outer,
        &outside,
        &[("from/output", "canary"), ("from/dir", ""), ("from/dir/sub", "sub"), ("from", "")],
    );
    for round in 1..=rounds {
        let from = outer.join(round.to_string()).join("from");
        write(&from, "output", b"output");
        write(&from, "dir/canary", b"output");
        write(&from, "dir/sub/canary", b"output");
        let from = at(&from, trust);
        swapper.show(round);
        match b.storage.publish(&job, &from, Replaces::Earlier).await {
            Ok(_) | Err(StorageError::Invalid(_) | StorageError::NotFound) => {}
            Err(error) => panic!("{error}"),
        }
        is_untouched(&outside);
        for path in b.list(&job, "").await {
            match b.storage.get(&job, &key(&path), None).await {
                Ok(object) => {
                    let pieces: Vec<_> = object.body.try_collect().await.unwrap();
                    assert_eq!(pieces.concat(), b"output", "{path}");
                }
                // What one of ours keeps open it still changes.
                Err(StorageError::NotFound) if trust == Trust::Trusted => {}
                Err(error) => panic!("{path}: {error}"),
            }
        }
    }
    drop(swapper);
    is_untouched(&outside);
    b.remove(&job).await;
}
