//! Disks that are full, read-only or broken. They need file systems of their own,
//! which only root may mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures::StreamExt as _;
use shepherd_job::{JobId, JobIdRule, ObjectPath};
use tempfile::TempDir;

use super::{ours, skipped};
use crate::local::LocalStorage;
use crate::{Body, JobObjects, Put, Replaces, Storage, StorageError, body};

/// A file system that is unmounted at the end.
struct Mount {
    at: PathBuf,
    _outer: TempDir,
}

impl Mount {
    fn tmpfs(options: &str) -> Option<Self> {
        let mount = Self::point();
        let args = ["-t", "tmpfs", "-o", options, "none"];
        run("mount", &args, Some(&mount.at)).then_some(mount)
    }

    fn point() -> Self {
        let outer = TempDir::new().unwrap();
        let at = outer.path().join("mounted");
        fs::create_dir(&at).unwrap();
        Self { at, _outer: outer }
    }

    fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", &format!("remount,{options}")], Some(&self.at)));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l"], Some(&self.at));
    }
}

fn run(program: &str, args: &[&str], path: Option<&Path>) -> bool {
    Command::new(program).args(args).args(path).output().is_ok_and(|output| output.status.success())
}

fn job() -> JobId {
    JobId::parse("a-job", JobIdRule::Bucket).unwrap()
}

fn key(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

fn zeros(mib: usize) -> Body {
    let piece = Bytes::from(vec![0; 1 << 20]);
    futures::stream::iter(std::iter::repeat_n(piece, mib).map(Ok)).boxed()
}

fn small(job: &JobId, path: &str, bytes: Bytes) -> JobObjects {
    JobObjects::new(job.clone(), &Put::Replace, [(key(path), bytes)])
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_keeps_what_it_had() {
    let Some(mount) = Mount::tmpfs("size=1m") else {
        return skipped("mounting a small file system is not permitted");
    };
    let dir = mount.at.join("storage");
    let storage = LocalStorage::open(&dir).unwrap();
    storage.put(&job(), &key("inputs/input"), body("kept")).await.unwrap();
    for mib in [1, 8] {
        for path in ["inputs/input", "inputs/new", "outputs//x"] {
            let full = storage.put(&job(), &key(path), zeros(mib)).await;
            assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
        }
    }
    let other = JobId::parse("other", JobIdRule::Bucket).unwrap();
    let large = Bytes::from(vec![0; 2 << 20]);
    let outcomes = storage
        .put_small(vec![
            small(&job(), "inputs/small", Bytes::from_static(b"x")),
            small(&other, "inputs/input", large),
            small(&job(), "inputs/small-2", Bytes::from_static(b"x")),
        ])
        .await;
    assert!(matches!(outcomes[..], [Ok(()), Err(StorageError::Full), Ok(())]), "{outcomes:?}");
    assert!(!storage.contains(&other).await.unwrap(), "a refused job leaves nothing");
    // From another file system an output is copied.
    let from = TempDir::new_in("/tmp").unwrap();
    let from = from.path().join("outputs");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("output"), vec![1; (1 << 20) - (4 << 10)]).unwrap();
    let full = storage.publish(&job(), &ours(&from), Replaces::Earlier).await;
    assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
    // No room will ever be enough for this one.
    fs::write(from.join("output"), vec![1; 2 << 20]).unwrap();
    let too_large = storage.publish(&job(), &ours(&from), Replaces::Earlier).await;
    let Err(StorageError::Invalid(said)) = too_large else { panic!("{too_large:?}") };
    assert_eq!(said, "the outputs take 2097152 bytes, the storage's whole file system has 1048576");
    assert!(from.join("output").exists());
    let listed = storage.list(&job(), "", None, 9).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|meta| meta.path.as_str()).collect();
    assert_eq!(listed, ["inputs/input", "inputs/small", "inputs/small-2"]);
    assert_eq!(fs::read(dir.join("a-job/inputs/input")).unwrap(), b"kept");
    storage.check().await.unwrap();
}

#[tokio::test]
async fn a_disk_without_room_for_a_name_leaves_nothing_behind() {
    let Some(mount) = Mount::tmpfs("size=1m,nr_inodes=8") else {
        return skipped("mounting a small file system is not permitted");
    };
    // The root, .shepherd, tmp and the process's own: four names are left, one for
    // the temporary file and three for a path of four directories.
    let storage = LocalStorage::open(&mount.at).unwrap();
    let full = storage.put(&job(), &key("a/b/c/d/e"), body("x")).await;
    assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
    assert!(!storage.contains(&job()).await.unwrap());
    storage.put(&job(), &key("a/b"), body("x")).await.unwrap();
    storage.remove(&job()).await.unwrap();
    for n in 0..3 {
        fs::write(mount.at.join(n.to_string()), "").unwrap();
    }
    storage.check().await.unwrap();
    fs::write(mount.at.join("last"), "").unwrap();
    assert!(matches!(storage.check().await, Err(StorageError::Full)));
}

#[tokio::test]
async fn a_read_only_disk_still_gives_what_it_has() {
    let Some(mount) = Mount::tmpfs("size=1m") else {
        return skipped("mounting a small file system is not permitted");
    };
    let dir = mount.at.join("storage");
    let storage = LocalStorage::open(&dir).unwrap();
    storage.put(&job(), &key("inputs/input"), body("kept")).await.unwrap();
    mount.remount("ro");
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("output"), "x").unwrap();
    let denied = [
        storage.put(&job(), &key("inputs/input"), body("x")).await.map(drop),
        storage.put_small(vec![small(&job(), "a", Bytes::new())]).await.remove(0),
        storage.publish(&job(), &ours(from.path()), Replaces::Earlier).await.map(drop),
        storage.remove(&job()).await,
        storage.check().await,
        LocalStorage::open(&dir).map(drop),
    ];
    for outcome in denied {
        assert!(matches!(outcome, Err(StorageError::Denied(_))), "{outcome:?}");
    }
    assert_eq!(storage.head(&job(), &key("inputs/input")).await.unwrap().size, 4);
    assert_eq!(storage.stage(&job(), &ours(from.path())).await.unwrap().objects, 1);
    mount.remount("rw");
    storage.check().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_denied() {
    use std::os::unix::fs::PermissionsExt as _;

    let outer = TempDir::new().unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(outer.path().join("probe"), "").is_ok() {
        // Root may write everywhere; the read-only disk above stands for this.
        return;
    }
    let denied = LocalStorage::open(&outer.path().join("storage")).map(drop);
    assert!(matches!(denied, Err(StorageError::Denied(_))), "{denied:?}");
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_refused() {
    let outer = TempDir::new().unwrap();
    let file = outer.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(LocalStorage::open(&file).is_err());
    assert!(LocalStorage::open(&file.join("below")).is_err());
}

/// An ext4 whose own disk has no room for what it promised: writes succeed into
/// memory and fail later, which only a sync can tell.
#[tokio::test]
async fn a_disk_that_loses_writes_makes_the_sync_fail() {
    let why = "making and mounting a file system on a full disk is not permitted";
    let Some(small) = Mount::tmpfs("size=12m") else { return skipped(why) };
    let image = small.at.join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let disk = Mount::point();
    if !run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal"], Some(&image))
        || !run("mount", &["-o", "loop,errors=continue", &image.to_string_lossy()], Some(&disk.at))
    {
        return skipped(why);
    }
    let storage = LocalStorage::open(&disk.at.join("storage")).unwrap();
    storage.put(&job(), &key("inputs/input"), body("small")).await.unwrap();
    storage.sync().await.unwrap();
    for n in 0..2 {
        storage.put(&job(), &key(&format!("inputs/{n}")), zeros(20)).await.unwrap();
    }
    let synced = storage.sync().await;
    assert!(synced.is_err(), "the disk has 12 MiB and was given 40");
    storage.remove(&job()).await.unwrap();
}
