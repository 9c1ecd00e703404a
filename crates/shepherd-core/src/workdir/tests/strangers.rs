//! Runners that are strangers, and what they may try.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, RenameFlags, mkfifoat, renameat_with};
use tempfile::TempDir;

use super::*;

/// Somebody who is nobody here.
const STRANGER: u32 = 54_321;

struct Fold {
    dir: TempDir,
    dirs: WorkDirs,
}

impl Fold {
    fn new() -> Self {
        Self::with(Trust::Untrusted)
    }

    fn with(trust: Trust) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let output_pool = Arc::new(OutputPool::open(dir.path()).unwrap());
        let dirs = WorkDirs::open(&dir.path().join("home"), output_pool, trust).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "canary").unwrap();
        Self { dir, dirs }
    }

    /// What the runner has before it.
    fn home(&self, path: &str) -> PathBuf {
        self.dir.path().join("home").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Everything that the runner sees, sorted.
    fn sight(&self) -> Vec<String> {
        names(&self.home(""))
    }

    /// What is kept out of its sight.
    fn behind(&self) -> Vec<String> {
        names(&self.dir.path().join(".attic/.home"))
    }

    fn is_untouched(&self) {
        assert_eq!(names(&self.outside()), ["canary"]);
        assert_eq!(fs::read(self.outside().join("canary")).unwrap(), b"canary");
        assert_eq!(self.outside().metadata().unwrap().mode() & 0o7000, 0);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn directories_are_open_to_our_group_and_to_nobody_else() {
    let fold = Fold::new();
    fold.dirs.prepare(&job("job-1"), &input("hello")).unwrap();
    let group = rustix::process::getegid().as_raw();
    for (path, mode) in [
        ("", 0o2770),
        ("job-1", 0o2770),
        ("job-1/inputs", 0o2770),
        ("job-1/outputs", 0o2770),
        ("job-1/inputs/input", 0o660),
    ] {
        let stat = fold.home(path).metadata().unwrap();
        assert_eq!(stat.mode() & 0o7777, mode, "{path:?}");
        assert_eq!(stat.gid(), group, "{path:?}");
    }
    assert_eq!(fs::read(fold.home("job-1/inputs/input")).unwrap(), b"hello");
    assert_eq!(fold.dir.path().join(".attic/.home").metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_runner_sees_the_jobs_it_is_to_work_on_and_nothing_else() {
    let fold = Fold::new();
    for round in 0..3 {
        for name in ["job-1", "job-2"] {
            fold.dirs.prepare(&job(name), &input("secret")).unwrap();
            fs::write(fold.home(name).join("outputs/output"), "bye").unwrap();
        }
        assert_eq!(fold.sight(), ["job-1", "job-2"]);
        let taken = small(fold.dirs.collect(&job("job-1"), 100).unwrap());
        assert_eq!(taken, [("outputs/output".into(), b"bye".to_vec())]);
        assert_eq!(fold.sight(), ["job-2"], "what is being collected is out of its sight");
        fold.dirs.release(&job("job-1"));
        fold.dirs.discard(&job("job-2"));
        assert!(fold.sight().is_empty(), "round {round}");
        assert_eq!(fold.behind().len(), 1, "one stands ready: {:?}", fold.behind());
        let ready = fold.dir.path().join(".attic/.home").join(&fold.behind()[0]);
        assert!(names(&ready.join("inputs")).is_empty() && names(&ready.join("outputs")).is_empty());
    }
    assert_eq!(names(&fold.dir.path().join(".attic")), [".home"], "no file of its is kept");
}

#[test]
fn directories_of_one_models_runners_are_not_used_for_another() {
    let fold = Fold::new();
    let inode = |name: &str| fold.home(name).metadata().unwrap().ino();
    fold.dirs.prepare(&job("job-1"), &[]).unwrap();
    fold.dirs.prepare(&job("slow"), &[]).unwrap();
    let (first, slow) = (inode("job-1"), inode("slow"));
    let kept = fs::File::open(fold.home("job-1/outputs")).unwrap();
    // Its number is not given out again while it is open.
    let _slow = fs::File::open(fold.home("slow")).unwrap();
    fold.dirs.release(&job("job-1"));
    fold.dirs.prepare(&job("job-2"), &[]).unwrap();
    assert_eq!(inode("job-2"), first, "the same runner may have it again");
    fold.dirs.release(&job("job-2"));

    fold.dirs.change_model();
    fold.dirs.release(&job("slow"));
    assert!(fold.dirs.has_trash());
    fold.dirs.prepare(&job("job-3"), &[]).unwrap();
    fold.dirs.prepare(&job("job-4"), &[]).unwrap();
    for name in ["job-3", "job-4"] {
        assert!(inode(name) != first && inode(name) != slow);
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    // It may still write there, where nobody looks.
    let _ = rustix::fs::openat(&kept, "planted", flags, Mode::RWXU);
    assert!(names(&fold.home("job-3/outputs")).is_empty());
    fold.dirs.empty_trash();
    assert!(!fold.dirs.has_trash());
    assert!(fold.behind().is_empty(), "{:?}", fold.behind());
}

#[test]
fn the_next_model_finds_nothing_of_the_one_before() {
    let fold = Fold::new();
    for name in ["publishing", "forgotten"] {
        fold.dirs.prepare(&job(name), &input("secret")).unwrap();
        fs::write(fold.home(name).join("outputs/output"), name).unwrap();
    }
    let _outputs = fold.dirs.outputs(&job("publishing")).unwrap();
    // What it makes in the place of a job that it no longer has is not the job's.
    fs::create_dir_all(fold.home("publishing/outputs")).unwrap();
    fs::write(fold.home("publishing/outputs/output"), "forged").unwrap();
    fs::create_dir_all(fold.home("hoard/deep")).unwrap();
    fs::write(fold.home("hoard/deep/secret"), "secret").unwrap();
    fs::write(fold.home("").join(OsStr::from_bytes(b"bad\xff")), "").unwrap();
    symlink(fold.outside(), fold.home("link")).unwrap();
    mkfifoat(CWD, fold.home(".runner-1.sock"), Mode::RWXU).unwrap();
    fold.dirs.change_model();
    fold.dirs.prepare(&job("next"), &input("x")).unwrap();
    fold.dirs.clear().unwrap();
    assert_eq!(fold.sight(), ["next"]);
    assert_eq!(fs::read(fold.home("next/inputs/input")).unwrap(), b"x");

    for name in ["publishing", "forgotten"] {
        let taken = small(fold.dirs.collect(&job(name), 100).unwrap());
        assert_eq!(taken, [("outputs/output".into(), name.as_bytes().to_vec())]);
        fold.dirs.release(&job(name));
    }
    fold.dirs.empty_trash();
    assert!(fold.behind().is_empty(), "{:?}", fold.behind());
    fold.is_untouched();
}

#[test]
fn what_stands_in_a_jobs_place_is_cleared_away() {
    let fold = Fold::new();
    let outside = fold.outside();
    let make: [fn(&Path, &Path); 4] = [
        |place, _| fs::create_dir_all(place.join("inputs/deep")).unwrap(),
        |place, _| fs::write(place, "").unwrap(),
        |place, outside| symlink(outside, place).unwrap(),
        |place, _| mkfifoat(CWD, place, Mode::RWXU).unwrap(),
    ];
    for make in make {
        make(&fold.home("job-1"), &outside);
        fold.dirs.prepare(&job("job-1"), &input("hello")).unwrap();
        assert_eq!(names(&fold.home("job-1")), ["inputs", "outputs"]);
        assert_eq!(fs::read(fold.home("job-1/inputs/input")).unwrap(), b"hello");
        fold.dirs.release(&job("job-1"));
    }
    fold.dirs.empty_trash();
    assert_eq!(fold.behind().len(), 1);
    fold.is_untouched();
}

type Spoil = fn(&Path, &Path);

/// What may become of a directory.
const SPOILS: [(&str, Spoil); 7] = [
    ("gone", |_, _| {}),
    ("link", |path, outside| symlink(outside, path).unwrap()),
    ("link to itself", |path, _| symlink(path, path).unwrap()),
    ("file", |path, _| fs::write(path, "x").unwrap()),
    ("pipe", |path, _| mkfifoat(CWD, path, Mode::RWXU).unwrap()),
    ("closed", |path, _| {
        fs::create_dir_all(path.join("deep/er")).unwrap();
        fs::write(path.join("deep/er/file"), "").unwrap();
        fs::set_permissions(path.join("deep"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }),
    ("strange names", |path, _| {
        fs::create_dir(path).unwrap();
        fs::write(path.join(OsStr::from_bytes(b"bad\xff")), "").unwrap();
        fs::create_dir(path.join(".trash-0")).unwrap();
    }),
];

#[test]
fn whatever_becomes_of_a_directory_nothing_else_is_touched() {
    for trust in [Trust::Trusted, Trust::Untrusted] {
        for (name, spoil) in SPOILS {
            for spoilt in ["job-1", "job-1/outputs", "job-1/inputs"] {
                let end: [fn(&WorkDirs); 3] = [
                    |dirs| dirs.release(&job("job-1")),
                    |dirs| dirs.discard(&job("job-1")),
                    |dirs| {
                        // An error or files that the storage will look at; never anything taken.
                        if let Ok(Outputs::Small(taken)) = dirs.collect(&job("job-1"), 100) {
                            assert!(taken.is_empty());
                        }
                        dirs.release(&job("job-1"));
                    },
                ];
                for end in end {
                    let fold = Fold::with(trust);
                    fold.dirs.prepare(&job("job-1"), &input("hello")).unwrap();
                    fs::remove_dir_all(fold.home(spoilt)).unwrap();
                    spoil(&fold.home(spoilt), &fold.outside());
                    without_privileges(|| end(&fold.dirs));
                    let what = format!("{trust:?}: {spoilt} {name}");
                    assert!(!fold.home("job-1").exists(), "{what}");
                    assert!(!fold.dirs.has_trash(), "{what}");
                    fold.is_untouched();
                    fold.dirs.prepare(&job("job-1"), &input("again")).unwrap();
                    assert_eq!(fs::read(fold.home("job-1/inputs/input")).unwrap(), b"again", "{what}");
                    assert!(names(&fold.home("job-1/outputs")).is_empty(), "{what}");
                }
            }
        }
    }
}

#[test]
fn inputs_of_others_do_not_become_outputs_and_stay_what_they_are() {
    let fold = Fold::new();
    fold.dirs.prepare(&job("job-1"), &[]).unwrap();
    fold.dirs.prepare(&job("job-2"), &input("hello")).unwrap();
    fs::hard_link(fold.home("job-2/inputs/input"), fold.home("job-1/outputs/output")).unwrap();
    let taken = small(fold.dirs.collect(&job("job-1"), 100).unwrap());
    assert_eq!(taken, [("outputs/output".into(), b"hello".to_vec())]);
    fold.dirs.release(&job("job-1"));
    fold.dirs.prepare(&job("job-3"), &input("other")).unwrap();
    assert_eq!(fs::read(fold.home("job-2/inputs/input")).unwrap(), b"hello");
    assert_eq!(fs::read(fold.home("job-3/inputs/input")).unwrap(), b"other");
}

#[test]
fn a_file_that_a_runner_holds_open_is_not_given_to_the_next_job() {
    let fold = Fold::new();
    fold.dirs.prepare(&job("job-1"), &input("hello")).unwrap();
    let kept = fold.home("job-1/inputs/input").metadata().unwrap().ino();
    let _open = fs::File::open(fold.home("job-1/inputs/input")).unwrap();
    fold.dirs.release(&job("job-1"));
    fold.dirs.prepare(&job("job-2"), &input("other")).unwrap();
    assert_ne!(fold.home("job-2/inputs/input").metadata().unwrap().ino(), kept);
}

#[test]
fn what_belongs_to_others_waits_for_the_runners_end() {
    let fold = Fold::new();
    fold.dirs.prepare(&job("job-1"), &input("secret")).unwrap();
    fs::create_dir_all(fold.home("job-1/outputs/theirs/below")).unwrap();
    if chown(fold.home("job-1/outputs/theirs"), Some(STRANGER), None).is_err() {
        println!("skipped: files cannot be given away");
        return;
    }
    without_privileges(|| fold.dirs.release(&job("job-1")));
    assert!(fold.dirs.has_trash());
    assert!(fold.sight().is_empty());
    // Another directory in the place of the job's, which may not be moved elsewhere.
    fold.dirs.prepare(&job("job-2"), &[]).unwrap();
    fs::remove_dir_all(fold.home("job-2")).unwrap();
    fs::create_dir_all(fold.home("job-2/below")).unwrap();
    fs::set_permissions(fold.home("job-2"), fs::Permissions::from_mode(0o755)).unwrap();
    chown(fold.home("job-2"), Some(STRANGER), None).unwrap();
    without_privileges(|| {
        assert!(fold.dirs.outputs(&job("job-2")).is_err());
        fold.dirs.discard(&job("job-2"));
        fold.dirs.clear().unwrap();
        fold.dirs.empty_trash();
    });
    assert!(fold.dirs.has_trash());
    assert!(!fold.home("job-2").exists());
    fold.dirs.prepare(&job("job-2"), &[]).unwrap();
    fold.dirs.release(&job("job-2"));
    // Once it may, it does.
    fold.dirs.empty_trash();
    assert!(!fold.dirs.has_trash());
    assert!(fold.sight().is_empty(), "{:?}", fold.sight());
    assert_eq!(fold.behind().len(), 1);
}

#[test]
fn names_that_change_all_the_time_lead_nowhere() {
    for trust in [Trust::Trusted, Trust::Untrusted] {
        let fold = Fold::with(trust);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (fold, stop) = (&fold, &stop);
            scope.spawn(move || {
                for turn in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    for name in ["job-1/outputs", "job-1/inputs", "job-1"] {
                        let link = fold.dir.path().join(format!("link-{turn}-{}", name.len()));
                        let _ = symlink(fold.outside(), &link);
                        let _ = renameat_with(CWD, &link, CWD, fold.home(name), RenameFlags::EXCHANGE);
                        let _ = renameat_with(CWD, &link, CWD, fold.home(name), RenameFlags::EXCHANGE);
                    }
                }
            });
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for round in 0..200 {
                    if fold.dirs.prepare(&job("job-1"), &input("hello")).is_err() {
                        fold.dirs.discard(&job("job-1"));
                        continue;
                    }
                    let _ = fs::write(fold.home("job-1/outputs/canary"), "output");
                    match round % 4 {
                        0 => {
                            if let Ok(Outputs::Small(taken)) = fold.dirs.collect(&job("job-1"), 100) {
                                assert!(taken.iter().all(|(_, data)| data != "canary"));
                            }
                            fold.dirs.release(&job("job-1"));
                        }
                        1 => fold.dirs.discard(&job("job-1")),
                        2 => fold.dirs.release(&job("job-1")),
                        _ => {
                            fold.dirs.change_model();
                            let _ = fold.dirs.clear();
                            fold.dirs.discard(&job("job-1"));
                            fold.dirs.empty_trash();
                        }
                    }
                    // The runner itself may write through the link; here that is the test.
                    let _ = fs::write(fold.outside().join("canary"), "canary");
                    fold.is_untouched();
                }
            }));
            stop.store(true, Ordering::SeqCst);
            if let Err(panic) = tried {
                std::panic::resume_unwind(panic);
            }
        });
        fold.is_untouched();
    }
}

#[test]
fn a_runner_that_makes_files_all_the_time_is_left_behind() {
    let fold = Fold::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (fold, stop) = (&fold, &stop);
        for round in 0..3 {
            let name = format!("job-{round}");
            fold.dirs.prepare(&job(&name), &[]).unwrap();
            let outputs = fs::File::open(fold.home(&name).join("outputs")).unwrap();
            scope.spawn(move || {
                for n in 0..2_000 {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let _ = rustix::fs::mkdirat(&outputs, format!("{n}"), Mode::RWXU);
                    let _ = rustix::fs::mkdirat(&outputs, format!("{n}/below"), Mode::RWXU);
                }
            });
            fold.dirs.release(&job(&name));
            assert!(fold.sight().is_empty());
        }
        stop.store(true, Ordering::SeqCst);
    });
    fold.dirs.empty_trash();
    assert!(!fold.dirs.has_trash());
}
