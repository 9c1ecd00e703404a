use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::XattrFlags;
use shepherd_job::{JobId, JobIdRule, ObjectPath};
use shepherd_storage::Trust;

use super::{OutputPool, Outputs, WorkDirs};

mod strangers;

/// Does something in a thread that permissions hold for, also where it is root's.
pub(crate) fn without_privileges<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            let over = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER;
            sets.effective.remove(over);
            set_capabilities(None, sets).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

fn open(path: &std::path::Path) -> std::io::Result<WorkDirs> {
    let home = path.join("home");
    WorkDirs::open(&home, Arc::new(OutputPool::open(path)?), Trust::Trusted)
}

fn job(name: &str) -> JobId {
    JobId::parse(name, JobIdRule::Bucket).unwrap()
}

fn input(data: &'static str) -> Vec<(ObjectPath, Bytes)> {
    vec![(ObjectPath::parse("inputs/input").unwrap(), Bytes::from(data))]
}

fn small(outputs: Outputs) -> Vec<(String, Vec<u8>)> {
    let Outputs::Small(objects) = outputs else { panic!("not small") };
    let mut objects: Vec<_> = objects.into_iter().map(|(p, d)| (p.to_string(), d.to_vec())).collect();
    objects.sort();
    objects
}

#[test]
fn a_job_finds_its_inputs_and_an_empty_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    dirs.prepare(&job("job-1"), &input("hello")).unwrap();
    assert_eq!(fs::read(dir.path().join("home/job-1/inputs/input")).unwrap(), b"hello");
    assert_eq!(fs::read_dir(dir.path().join("home/job-1/outputs")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_made_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    let home = dir.path().join("home");
    // By this access control list, nobody may enter a directory that is made here.
    let closed: Vec<u8> =
        [2, 1, u32::MAX, 4, u32::MAX, 0x20, u32::MAX].iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(&home, c"system.posix_acl_default", &closed, XattrFlags::empty()).unwrap();
    without_privileges(|| dirs.prepare(&job("job-1"), &input("hello"))).unwrap_err();
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn outputs_that_cannot_be_taken_away_are_taken_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    dirs.prepare(&job("job-1"), &input("x")).unwrap();
    let outputs = dir.path().join("home/job-1/outputs");
    fs::write(outputs.join("result"), "r").unwrap();
    fs::set_permissions(&outputs, fs::Permissions::from_mode(0o500)).unwrap();
    without_privileges(|| {
        let collected = small(dirs.collect(&job("job-1"), 100).unwrap());
        assert_eq!(collected, [("outputs/result".to_owned(), b"r".to_vec())]);
        dirs.release(&job("job-1"));
    });
    assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 0);
    assert!(!dirs.has_trash());
}

#[test]
fn small_outputs_are_taken_and_the_directory_serves_the_next_job() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    dirs.prepare(&job("job-1"), &input("hello")).unwrap();
    fs::write(dir.path().join("home/job-1/outputs/output"), "bye").unwrap();
    fs::write(dir.path().join("home/job-1/outputs/log"), "").unwrap();
    let taken = small(dirs.collect(&job("job-1"), 100).unwrap());
    assert_eq!(taken, [("outputs/log".into(), vec![]), ("outputs/output".into(), b"bye".to_vec())]);
    dirs.release(&job("job-1"));
    assert!(!dir.path().join("home/job-1").exists());
    dirs.prepare(&job("job-2"), &[]).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 2, "one waits, with its input");
    assert_eq!(fs::read_dir(dir.path().join("home/job-2/inputs")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("home/job-2/outputs")).unwrap().count(), 0);
}

#[test]
fn what_a_job_leaves_behind_never_reaches_another() {
    for leftover in ["inputs/sub", "outputs/sub", "elsewhere"] {
        let dir = tempfile::tempdir().unwrap();
        let dirs = open(dir.path()).unwrap();
        dirs.prepare(&job("job-1"), &input("hello")).unwrap();
        fs::create_dir(dir.path().join("home/job-1").join(leftover)).unwrap();
        dirs.release(&job("job-1"));
        assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 0, "{leftover}");
    }
}

#[test]
fn outputs_that_are_many_large_or_no_plain_files_stay_for_the_storage() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    type Make = fn(&std::path::Path);
    let make: [(&str, Make); 4] = [
        ("large", |out| fs::write(out.join("x"), vec![0; 101]).unwrap()),
        ("many", |out| (0..17).for_each(|i| fs::write(out.join(i.to_string()), "").unwrap())),
        ("nested", |out| fs::create_dir(out.join("sub")).unwrap()),
        ("link", |out| std::os::unix::fs::symlink("/etc/passwd", out.join("x")).unwrap()),
    ];
    for (name, make) in make {
        dirs.prepare(&job(name), &[]).unwrap();
        make(&dir.path().join("home").join(name).join("outputs"));
        assert!(matches!(dirs.collect(&job(name), 100).unwrap(), Outputs::Files), "{name}");
        dirs.discard(&job(name));
        assert!(!dir.path().join("home").join(name).exists());
    }
}

#[test]
fn an_outputs_that_became_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    let dirs = open(dir.path()).unwrap();
    dirs.prepare(&job("job-1"), &[]).unwrap();
    fs::remove_dir(dir.path().join("home/job-1/outputs")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("home/job-1/outputs")).unwrap();
    assert!(dirs.collect(&job("job-1"), 100).is_err());
    dirs.release(&job("job-1"));
    assert!(elsewhere.path().join("secret").exists());
    assert!(!dir.path().join("home/job-1").exists());
}

#[test]
fn an_input_that_would_leave_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    for bad in ["inputs/../x", "inputs/", "outputs/x", "inputs/.."] {
        let objects = [(ObjectPath::parse(bad).unwrap(), Bytes::new())];
        assert!(dirs.prepare(&job("job-1"), &objects).is_err(), "{bad}");
        assert!(!dir.path().join("home/job-1").exists());
    }
}

#[test]
fn an_input_is_written_over_for_the_next_job() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    for (name, data) in [("job-1", "a long input"), ("job-2", "short"), ("job-3", "and a longer one again")] {
        dirs.prepare(&job(name), &input(data)).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("home").join(name).join("inputs/input")).unwrap(),
            data
        );
        dirs.release(&job(name));
        assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 1);
    }
}

#[test]
fn an_input_that_storage_has_too_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = open(dir.path()).unwrap();
    let stored = dir.path().join("stored");
    fs::write(&stored, "precious").unwrap();
    dirs.prepare(&job("job-1"), &[]).unwrap();
    fs::hard_link(&stored, dir.path().join("home/job-1/inputs/input")).unwrap();
    dirs.release(&job("job-1"));
    dirs.prepare(&job("job-2"), &input("other")).unwrap();
    assert_eq!(fs::read(&stored).unwrap(), b"precious");
    assert_eq!(fs::read(dir.path().join("home/job-2/inputs/input")).unwrap(), b"other");
}

#[test]
fn outputs_that_were_read_wait_in_the_attic() {
    let dir = tempfile::tempdir().unwrap();
    let output_pool = Arc::new(OutputPool::open(dir.path()).unwrap());
    let dirs = WorkDirs::open(&dir.path().join("home"), Arc::clone(&output_pool), Trust::Trusted).unwrap();
    dirs.prepare(&job("job-1"), &[]).unwrap();
    fs::write(dir.path().join("home/job-1/outputs/output"), "bye").unwrap();
    small(dirs.collect(&job("job-1"), 100).unwrap());
    let path = |text| output_pool.path_of(&job("job-1"), &ObjectPath::parse(text).unwrap());
    assert_eq!(fs::read(path("outputs/output").unwrap()).unwrap(), b"bye");
    for no_file_of_ours in
        ["outputs/a/b", "outputs/..", "inputs/input", &format!("outputs/{}", "x".repeat(250))]
    {
        assert_eq!(path(no_file_of_ours), None);
    }
}
