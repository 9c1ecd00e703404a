//! Files of other users, and directories that others are at work in.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::CWD;
use shepherd_job::{JobId, JobIdRule};

use super::{Fixture, names, skipped, without_privileges};
use crate::contract::strangers::Swapper;
use crate::contract::{self, Backend, Keys};
use crate::{Replaces, RunnerDir, Storage, StorageError, Trust, remove_all};

/// Somebody who is nobody here.
const STRANGER: u32 = 54_321;

fn job() -> JobId {
    JobId::parse("a-job", JobIdRule::Bucket).unwrap()
}

fn strangers(path: &Path) -> RunnerDir {
    RunnerDir::at(path, Trust::Untrusted).unwrap()
}

/// Gives a file away, with a mode.
fn give(path: &Path, mode: u32) -> bool {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chown(path, Some(STRANGER), Some(STRANGER)).is_ok()
}

fn remove(path: &Path) -> std::io::Result<()> {
    remove_all(fs::File::open(path.parent().unwrap()).unwrap(), path.file_name().unwrap())
}

#[tokio::test]
async fn outputs_of_other_users_become_ours() {
    let f = Fixture::new();
    let from = f.scratch.join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    for path in ["output", "sub/output"] {
        fs::write(from.join(path), "x").unwrap();
        if !give(&from.join(path), 0o600) {
            return skipped("files cannot be given away");
        }
    }
    assert!(give(&from.join("sub"), 0o700));
    f.storage.publish(&job(), &strangers(&from), Replaces::Nothing).await.unwrap();
    let mine = f.dir.metadata().unwrap().uid();
    for path in ["outputs", "outputs/output", "outputs/sub", "outputs/sub/output"] {
        let stored = f.dir.join("a-job").join(path).metadata().unwrap();
        assert_eq!(stored.uid(), mine, "{path}");
        assert_eq!(stored.mode() & 0o600, 0o600, "{path}");
    }
    assert!(names(&from).is_empty());
}

#[tokio::test]
async fn a_program_does_not_stay_its_owners_as_an_output() {
    let f = Fixture::new();
    let from = f.scratch.join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    for (path, mode) in [("setuid", 0o4755), ("sub/setgid", 0o2754), ("plain", 0o751)] {
        fs::write(from.join(path), "x").unwrap();
        fs::set_permissions(from.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let ours = RunnerDir::at(&from, Trust::Trusted).unwrap();
    f.storage.publish(&job(), &ours, Replaces::Nothing).await.unwrap();
    for (path, mode) in [("setuid", 0o755), ("sub/setgid", 0o754), ("plain", 0o751)] {
        let stored = f.dir.join("a-job/outputs").join(path).metadata().unwrap();
        assert_eq!(stored.mode() & 0o7777, mode, "{path}");
    }
}

#[tokio::test]
async fn a_hard_link_to_another_users_file_is_no_output() {
    let f = Fixture::new();
    let from = f.scratch.join("from");
    fs::create_dir_all(&from).unwrap();
    let (mine, theirs) = (f.scratch.join("mine"), f.scratch.join("theirs"));
    fs::write(&mine, "mine").unwrap();
    fs::write(&theirs, "secret").unwrap();
    if !give(&theirs, 0o644) {
        return skipped("files cannot be given away");
    }
    fs::hard_link(&theirs, from.join("output")).unwrap();
    let ours = RunnerDir::at(&from, Trust::Trusted).unwrap();
    match f.storage.publish(&job(), &ours, Replaces::Nothing).await {
        Err(StorageError::Invalid(message)) => {
            assert_eq!(message, "the output \"output\" is a hard link to a file of another user");
        }
        outcome => panic!("{outcome:?}"),
    }
    fs::remove_file(from.join("output")).unwrap();
    fs::hard_link(&mine, from.join("output")).unwrap();
    f.storage.publish(&job(), &ours, Replaces::Nothing).await.unwrap();
    assert_eq!(fs::read(f.dir.join("a-job/outputs/output")).unwrap(), b"mine");
}

#[tokio::test]
async fn outputs_that_other_users_keep_to_themselves_are_refused() {
    let f = Fixture::new();
    for (name, mode) in [("file", 0o600), ("dir", 0o700)] {
        let from = f.scratch.join(name);
        fs::create_dir_all(from.join("dir")).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        if !give(&from.join(name), mode) {
            return skipped("files cannot be given away");
        }
        let published = without_privileges(|| f.storage.disk.publish(&job(), &strangers(&from)));
        match published {
            Err(StorageError::Invalid(message)) => assert!(message.contains("may not be read"), "{message}"),
            outcome => panic!("{name}: {outcome:?}"),
        }
    }
    assert!(!f.storage.contains(&job()).await.unwrap());
    assert_eq!(f.temporaries(), 0);
}

#[test]
fn what_other_users_keep_is_left_and_all_else_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir_all(top.join("theirs/below")).unwrap();
    fs::create_dir_all(top.join("closed/below")).unwrap();
    fs::write(top.join("theirs/below/file"), "").unwrap();
    fs::write(top.join("theirs-too"), "").unwrap();
    for n in 0..100 {
        fs::write(top.join(format!("closed/below/{n}")), "").unwrap();
    }
    for path in ["closed/below", "closed"] {
        fs::set_permissions(top.join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if !give(&top.join("theirs"), 0o755) {
        return skipped("files cannot be given away");
    }
    assert!(give(&top.join("theirs-too"), 0o600));
    let removed = without_privileges(|| remove(&top));
    assert_eq!(removed.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(names(&top), ["theirs"]);
    assert!(top.join("theirs/below/file").exists());
    remove(&top).unwrap();
    assert!(!top.exists());
}

#[test]
fn names_and_kinds_do_not_matter_to_a_removal() {
    let dir = tempfile::tempdir().unwrap();
    let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "canary").unwrap();
    let deep = top.join(OsStr::from_bytes(b"bad\xff\n")).join("x".repeat(255)).join(".shepherd-1");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(OsStr::from_bytes(b"\x80")), "").unwrap();
    symlink(&outside, deep.join("link")).unwrap();
    symlink(&outside, top.join(".shepherd-2")).unwrap();
    rustix::fs::mkfifoat(CWD, deep.join("pipe"), rustix::fs::Mode::empty()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap());
    remove(&top).unwrap();
    symlink(&outside, dir.path().join("link")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for name in ["link", "file"] {
        remove(&dir.path().join(name)).unwrap();
    }
    assert_eq!(remove(&top).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(names(dir.path()), ["outside"]);
    assert_eq!(names(&outside), ["canary"]);
}

#[test]
fn a_removal_ends_while_others_make_files() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    let stop = AtomicBool::new(false);
    for _ in 0..3 {
        fs::create_dir_all(top.join("a/b")).unwrap();
        stop.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let (top, stop) = (&top, &stop);
            scope.spawn(move || {
                for n in 0..2_000 {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let _ = fs::create_dir_all(top.join(format!("a/b/{n}")));
                    let _ = fs::write(top.join(format!("a/b/{n}/file")), "");
                    let _ = fs::write(top.join(format!("{n}")), "");
                }
            });
            // It may not win against one who never stops, but comes to an end.
            let _ = remove(top);
            stop.store(true, Ordering::SeqCst);
        });
        if top.exists() {
            remove(&top).unwrap();
        }
        assert!(!top.exists());
    }
}

#[test]
fn a_removal_stays_inside_while_names_change() {
    let dir = tempfile::tempdir().unwrap();
    let (outer, outside) = (dir.path().join("outer"), dir.path().join("outside"));
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("sub/canary"), "canary").unwrap();
    for path in ["sub", ""] {
        fs::set_permissions(outside.join(path), fs::Permissions::from_mode(0o555)).unwrap();
    }
    fs::create_dir(&outer).unwrap();
    let swapper = Swapper::start(&outer, &outside, &[("top", ""), ("top/sub", "sub")]);
    for round in 1..=300 {
        let top = outer.join(round.to_string()).join("top");
        fs::create_dir_all(top.join("sub/sub")).unwrap();
        fs::write(top.join("sub/sub/file"), "").unwrap();
        fs::set_permissions(top.join("sub/sub"), fs::Permissions::from_mode(0o000)).unwrap();
        swapper.show(round);
        let _ = remove(&top);
        for path in ["sub", ""] {
            assert_eq!(outside.join(path).metadata().unwrap().mode() & 0o777, 0o555, "{round}");
        }
        assert_eq!(fs::read(outside.join("sub/canary")).unwrap(), b"canary", "{round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_reached_however_often_names_change() {
    let f = Fixture::new();
    let backend = Backend { storage: &f.storage, scratch: &f.scratch, keys: Keys::All };
    for trust in [Trust::Trusted, Trust::Untrusted] {
        contract::strangers::stage_while_names_change(backend, trust, 300).await;
        contract::strangers::publish_while_names_change(backend, trust, 300).await;
    }
    assert_eq!(f.temporaries(), 0);
}
