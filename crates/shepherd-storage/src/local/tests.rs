//! The contract, and what only a local directory can be asked.

mod faults;
mod hand;
mod property;
mod strangers;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::disk::Disk;
use super::resolve::Resolve;
use super::{LocalStorage, Staging};
use crate::contract::{self, Backend, Keys};
use crate::{RunnerDir, Trust};

/// A storage in a directory of its own, with a directory for runners beside it.
struct Fixture {
    storage: LocalStorage,
    dir: PathBuf,
    scratch: PathBuf,
    outer: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|dir| LocalStorage::open(dir).unwrap())
    }

    fn with(open: impl FnOnce(&Path) -> LocalStorage) -> Self {
        let outer = TempDir::new().unwrap();
        let (dir, scratch) = (outer.path().join("storage"), outer.path().join("scratch"));
        std::fs::create_dir(&scratch).unwrap();
        Self { storage: open(&dir), dir, scratch, outer }
    }

    async fn pass(&self, scratch: &Path) {
        contract::run(&Backend { storage: &self.storage, scratch, keys: Keys::All }).await;
        assert_eq!(self.entries(), [".shepherd"], "all jobs were removed and nothing else was made");
        assert_eq!(self.temporaries(), 0, "no temporary is left");
        let mut outer: Vec<_> = names(self.outer.path());
        outer.sort();
        assert_eq!(outer, ["scratch", "storage"], "nothing is outside");
    }

    fn entries(&self) -> Vec<String> {
        names(&self.dir)
    }

    /// How many files and directories are being written or removed.
    fn temporaries(&self) -> usize {
        let processes = names(&self.dir.join(".shepherd/tmp"));
        processes.iter().map(|name| names(&self.dir.join(".shepherd/tmp").join(name)).len()).sum()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The directory of a runner of ours.
fn ours(path: &Path) -> RunnerDir {
    RunnerDir::at(path, Trust::Trusted).unwrap()
}

/// Does something in a thread that permissions hold for, also where it is root's.
fn without_privileges<T: Send>(work: impl FnOnce() -> T + Send) -> T {
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

/// Says that a test was skipped, which continuous integration forbids.
fn skipped(why: &str) {
    assert!(std::env::var_os("SHEPHERD_TEST_NO_SKIP").is_none(), "this test may not be skipped: {why}");
    println!("skipped: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    let fixture = Fixture::new();
    fixture.pass(&fixture.scratch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_where_the_kernel_cannot_resolve() {
    let fixture = Fixture::with(|dir| LocalStorage::over(Disk::open(dir, Some(Resolve::Walk)).unwrap()));
    fixture.pass(&fixture.scratch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_between_file_systems() {
    use std::os::unix::fs::MetadataExt as _;

    let fixture = Fixture::new();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return skipped("there is no /dev/shm");
    };
    if other.path().metadata().unwrap().dev() == fixture.dir.metadata().unwrap().dev() {
        return skipped("/dev/shm is no file system of its own");
    }
    fixture.pass(other.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_with_links() {
    let fixture = Fixture::with(|dir| LocalStorage::with(dir, Staging::Share).unwrap());
    fixture.pass(&fixture.scratch).await;
}
