//! What every backend must do, as a suite that each of them runs.
//!
//! ```
//! # #[cfg(feature = "contract")]
//! # #[tokio::main]
//! # async fn main() {
//! use shepherd_storage::LocalStorage;
//! use shepherd_storage::contract::{self, Backend, Keys};
//!
//! let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
//! let storage = LocalStorage::open(dir.path()).unwrap();
//! contract::run(&Backend { storage: &storage, scratch: scratch.path(), keys: Keys::All }).await;
//! # }
//! # #[cfg(not(feature = "contract"))]
//! # fn main() {}
//! ```
//!
//! A check panics where the contract is broken, after its name was printed. All
//! checks use jobs of their own, so that a shared server serves them all, and
//! remove them at their end.

// A broken contract is a panic, here as in any test.
#![allow(clippy::unwrap_used)]

mod keys;
mod moving;
mod objects;
pub(crate) mod strangers;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use shepherd_job::{JobId, JobIdRule, ObjectPath};

use crate::{Body, JobObjects, ObjectMeta, Put, RunnerDir, Storage, StorageError, Trust, body};

/// What is tested.
#[derive(Clone, Copy)]
pub struct Backend<'a> {
    /// The storage. It may hold other jobs.
    pub storage: &'a dyn Storage,
    /// An existing directory in which runners' directories are made. For a local
    /// storage, run the suite with one on its own file system and one on another.
    pub scratch: &'a Path,
    /// Which keys it takes.
    pub keys: Keys,
}

/// Which keys a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Every one.
    All,
    /// Those that are clean paths. Any other it either keeps as it is or refuses
    /// with [`StorageError::Invalid`]; never does it keep another one instead.
    MayRefuse,
}

type Check = for<'a> fn(Backend<'a>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A check of what is done in the directory of a runner that is trusted so far.
type RunnersCheck = for<'a> fn(Backend<'a>, Trust) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! checks {
    ($($module:ident::$check:ident),* $(,)?) => {
        &[$((stringify!($check), |backend| Box::pin($module::$check(backend)))),*]
    };
}

macro_rules! runners_checks {
    ($($module:ident::$check:ident),* $(,)?) => {
        &[$((stringify!($check), |backend, trust| Box::pin($module::$check(backend, trust)))),*]
    };
}

const CHECKS: &[(&str, Check)] = checks![
    objects::a_job_without_data_is_empty,
    objects::what_was_put_comes_back,
    objects::a_put_replaces,
    objects::a_body_that_breaks_off_leaves_nothing,
    objects::a_put_that_is_dropped_leaves_nothing,
    objects::puts_of_one_key_at_once_never_mix,
    objects::a_batch_stores_each_job_in_order,
    objects::what_is_there_already_is_not_stored_anew,
    objects::what_goes_with_others_is_stored_beside_them,
    objects::ranges_are_clipped_or_refused,
    objects::an_open_object_outlives_its_replacement,
    objects::remove_takes_one_job_and_all_of_it,
    objects::syncs_are_shared,
    objects::the_storage_answers,
    keys::clean_keys_are_kept,
    keys::hostile_keys_are_kept_or_refused,
    keys::a_key_may_lie_below_another,
    keys::listing_follows_the_bytes_of_keys,
    keys::pages_hold_every_object_once,
    moving::more_than_a_thousand_inputs,
    strangers::what_a_stranger_was_given_is_its_own,
    strangers::what_a_stranger_left_is_no_longer_its_own,
    strangers::what_a_stranger_is_given_is_open_to_the_group,
];

const RUNNERS_CHECKS: &[(&str, RunnersCheck)] = runners_checks![
    moving::staging_brings_inputs_only,
    moving::staging_stays_inside,
    moving::staging_replaces_what_stands_there,
    moving::folder_markers_become_directories,
    moving::publishing_takes_all_files,
    moving::publishing_replaces_all_outputs,
    moving::publishing_nothing_leaves_no_outputs,
    moving::what_is_no_regular_file_is_not_published,
    moving::inputs_may_become_outputs,
    strangers::links_in_place_of_the_directory_are_refused,
    strangers::nothing_outside_is_written_while_names_change,
    strangers::nothing_outside_is_read_while_names_change,
];

/// Runs every check.
///
/// # Panics
/// Where the backend breaks the contract.
pub async fn run(backend: &Backend<'_>) {
    for (name, check) in CHECKS {
        println!("contract: {name}");
        check(*backend).await;
    }
    for (name, check) in RUNNERS_CHECKS {
        for trust in [Trust::Trusted, Trust::Untrusted] {
            println!("contract: {name} ({trust:?})");
            check(*backend, trust).await;
        }
    }
}

/// A job id that no other check uses.
fn job(name: &str) -> JobId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    JobId::parse(&format!("{name}-{now}-{number}"), JobIdRule::Bucket).expect("a legal id")
}

fn key(text: &str) -> ObjectPath {
    ObjectPath::parse(text).expect("a legal key")
}

/// A body in pieces of at most `piece` bytes.
fn pieces(bytes: &[u8], piece: usize) -> Body {
    let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces).boxed()
}

/// Bytes that differ from place to place.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

impl Backend<'_> {
    async fn put(&self, job: &JobId, path: &str, bytes: impl Into<Bytes>) -> ObjectMeta {
        self.storage
            .put(job, &key(path), body(bytes))
            .await
            .unwrap_or_else(|error| panic!("put {path:?}: {error}"))
    }

    /// Stores small objects of a job in place of older ones.
    async fn put_small(&self, job: &JobId, objects: impl IntoIterator<Item = (ObjectPath, Bytes)>) {
        let objects = JobObjects::new(job.clone(), &Put::Replace, objects);
        self.storage.put_small(vec![objects]).await.remove(0).unwrap();
    }

    async fn read(&self, job: &JobId, path: &str) -> Vec<u8> {
        let object = self.storage.get(job, &key(path), None).await;
        let object = object.unwrap_or_else(|error| panic!("get {path:?}: {error}"));
        assert_eq!(object.range, 0..object.meta.size);
        let pieces: Vec<_> = object.body.try_collect().await.expect("a readable body");
        pieces.concat()
    }

    async fn is_missing(&self, job: &JobId, path: &str) -> bool {
        let got = self.storage.get(job, &key(path), None).await.map(drop);
        let head = self.storage.head(job, &key(path)).await.map(drop);
        match (got, head) {
            (Err(StorageError::NotFound), Err(StorageError::NotFound)) => true,
            (Ok(()), Ok(())) => false,
            (got, head) => panic!("{path:?}: get says {got:?} and head says {head:?}"),
        }
    }

    async fn list(&self, job: &JobId, prefix: &str) -> Vec<String> {
        let found = self.storage.list(job, prefix, None, 10_000).await.expect("a listing");
        found.iter().map(|meta| meta.path.to_string()).collect()
    }

    async fn remove(&self, job: &JobId) {
        self.storage.remove(job).await.expect("the job can be removed");
    }

    /// A new empty directory for a runner.
    fn runner_dir(&self) -> PathBuf {
        let dir = self.scratch.join(job("runner").as_str());
        std::fs::create_dir(&dir).expect("a directory in scratch");
        dir
    }
}

/// The directory at `path`, for the storage.
fn at(path: &Path, trust: Trust) -> RunnerDir {
    RunnerDir::at(path, trust).expect("a directory for runners")
}

/// Writes `bytes` below `dir`, with the directories it needs.
fn write(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    let parent = path.parent().expect("a path below a directory");
    std::fs::create_dir_all(parent).expect("directories for a runner");
    std::fs::write(path, bytes).expect("a runner's file");
}

/// Every file below `dir` by its path, with its bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).expect("a readable directory") {
            let entry = entry.expect("a readable directory");
            if entry.file_type().expect("a file type").is_dir() {
                todo.push(entry.path());
            } else {
                let path = entry.path();
                let name = path.strip_prefix(dir).expect("a path below the directory");
                let bytes = std::fs::read(&path).expect("a readable file");
                files.push((name.to_str().expect("a name in UTF-8").to_owned(), bytes));
            }
        }
    }
    files.sort();
    files
}

/// Whether a runner's directory was emptied or taken.
fn is_empty_or_gone(dir: &Path) -> bool {
    !dir.exists() || std::fs::read_dir(dir).expect("a readable directory").next().is_none()
}
