//! The S3 backend against real servers, and against what happens on the way there.

// What a helper cannot do fails the test.
#![allow(clippy::unwrap_used)]

#[path = "s3_storage/faults.rs"]
mod faults;
#[path = "s3_storage/requests.rs"]
mod requests;
#[path = "s3_storage/server.rs"]
mod server;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use server::{ACCESS_KEY, SECRET_KEY, Server};
use shepherd_job::{JobId, JobIdRule, ObjectPath};
use shepherd_storage::contract::{self, Backend, Keys};
use shepherd_storage::{
    RunnerDir, S3Credentials, S3Layout, S3Options, S3Storage, Storage, StorageError, Trust, body,
};
use shepherd_tests::s3::Moto;

fn job(name: &str) -> JobId {
    JobId::parse(name, JobIdRule::Bucket).unwrap()
}

fn key(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

fn credentials() -> S3Credentials {
    S3Credentials {
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        session_token: None,
    }
}

fn bucket_per_job(url: &str) -> S3Options {
    S3Options::new(url, credentials(), S3Layout::BucketPerJob)
}

fn in_prefix(url: &str, bucket: &str, prefix: &str) -> S3Options {
    let layout = S3Layout::Prefix { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    S3Options::new(url, credentials(), layout)
}

/// A runner's directory.
fn dir(path: &std::path::Path) -> RunnerDir {
    RunnerDir::at(path, Trust::Trusted).unwrap()
}

fn open(options: &S3Options) -> S3Storage {
    S3Storage::open(options).unwrap()
}

/// Makes a bucket, by putting something into it.
async fn make_bucket(options: &S3Options, bucket: &str) {
    let mut options = options.clone();
    options.layout = S3Layout::BucketPerJob;
    open(&options).put(&job(bucket), &key("elsewhere"), body("x")).await.unwrap();
}

async fn read(storage: &dyn Storage, job: &JobId, path: &str) -> Bytes {
    let object = storage.get(job, &key(path), None).await.unwrap();
    object.body.try_collect::<Vec<_>>().await.unwrap().concat().into()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn write(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Both layouts do what every storage must do.
async fn keeps_the_contract(options: &S3Options) {
    let scratch = tempfile::tempdir().unwrap();
    let storage = open(&S3Options { layout: S3Layout::BucketPerJob, ..options.clone() });
    contract::run(&Backend { storage: &storage, scratch: scratch.path(), keys: Keys::MayRefuse }).await;
    let bucket = format!("shepherd-contract-{}", std::process::id());
    make_bucket(options, &bucket).await;
    let layout = S3Layout::Prefix { bucket: bucket.clone(), prefix: "some where/+".to_owned() };
    let prefixed = open(&S3Options { layout, ..options.clone() });
    contract::run(&Backend { storage: &prefixed, scratch: scratch.path(), keys: Keys::MayRefuse }).await;
    storage.remove(&job(&bucket)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_s3s_fs() {
    let server = Server::start().await;
    keeps_the_contract(&bucket_per_job(&server.url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_moto() {
    let Some(moto) = Moto::shared() else { return };
    keeps_the_contract(&bucket_per_job(&moto.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_a_server_of_choice() {
    let variable = |name| std::env::var(name).ok();
    // No machine has to have one.
    let Some(url) = variable("SHEPHERD_TEST_S3_URL") else {
        return println!("SHEPHERD_TEST_S3_URL names no server");
    };
    let mut options = bucket_per_job(&url);
    options.credentials.access_key = variable("SHEPHERD_TEST_S3_ACCESS_KEY").unwrap();
    options.credentials.secret_key = variable("SHEPHERD_TEST_S3_SECRET_KEY").unwrap();
    if let Some(region) = variable("SHEPHERD_TEST_S3_REGION") {
        options.region = region;
    }
    keeps_the_contract(&options).await;
}

/// Keys that a URL, or a form, or XML, could make something else of.
async fn keys_come_back(storage: &dyn Storage, more: &[&str]) {
    let job = job("keys-come-back");
    let mut keys = vec![
        "inputs/a b",
        "inputs/a+b",
        "inputs/a%2Fb",
        "inputs/a%20b",
        "inputs/žluťoučký kůň",
        "inputs/.hidden",
        "inputs/...",
        "inputs/x=1&y=2?z#f",
        "inputs/ begins and ends with spaces ",
        "inputs/~tilde*(x)'!",
    ];
    keys.extend(more);
    for path in &keys {
        storage.put(&job, &key(path), body((*path).to_owned())).await.unwrap();
    }
    for path in &keys {
        assert_eq!(read(storage, &job, path).await, path.as_bytes());
        assert_eq!(storage.head(&job, &key(path)).await.unwrap().size, path.len() as u64);
    }
    keys.sort_unstable();
    let listed = storage.list(&job, "inputs/", None, 100).await.unwrap();
    assert_eq!(listed.iter().map(|meta| meta.path.as_str()).collect::<Vec<_>>(), keys);
    for path in ["../other/x", "inputs/../../other/x", "inputs/./x", "inputs/.."] {
        let refused = storage.put(&job, &key(path), body("x")).await;
        assert!(matches!(&refused, Err(StorageError::Invalid(said)) if said.contains(path)), "{refused:?}");
        assert!(matches!(storage.head(&job, &key(path)).await, Err(StorageError::NotFound)));
    }
    storage.remove(&job).await.unwrap();
}

#[tokio::test]
async fn every_key_that_urls_can_hold_comes_back() {
    let server = Server::start().await;
    // It says that it encodes keys in listings, and does not.
    keys_come_back(&open(&bucket_per_job(&server.url)), &[]).await;
    if let Some(moto) = Moto::shared() {
        let long = format!("inputs/{}", vec!["d".repeat(198); 5].join("/"));
        assert_eq!(long.len(), 1_001);
        let more = ["inputs/a", "inputs/a/b", "inputs/a/b/c", "inputs/trailing/", &long];
        keys_come_back(&open(&bucket_per_job(&moto.url())), &more).await;
    }
}

#[tokio::test]
async fn a_job_in_a_prefix_is_apart_from_jobs_with_longer_names() {
    let server = Server::start().await;
    let options = in_prefix(&server.url, "shared", "/jobs/");
    make_bucket(&options, "shared").await;
    let storage = open(&options);
    storage.check().await.unwrap();
    storage.put(&job("job-1"), &key("inputs/input"), body("x")).await.unwrap();
    assert!(!storage.contains(&job("job")).await.unwrap());
    assert!(storage.contains(&job("job-1")).await.unwrap());
    storage.remove(&job("job")).await.unwrap();
    assert_eq!(read(&storage, &job("job-1"), "inputs/input").await, "x");
    let raw = open(&S3Options { layout: S3Layout::BucketPerJob, ..options });
    assert_eq!(read(&raw, &job("shared"), "jobs/job-1/inputs/input").await, "x");
}

#[tokio::test]
async fn a_shared_bucket_that_is_missing_is_no_missing_job() {
    let server = Server::start().await;
    let storage = open(&in_prefix(&server.url, "nowhere", ""));
    for outcome in [storage.check().await, storage.contains(&job("abc")).await.map(drop)] {
        let Err(StorageError::Unavailable(said)) = outcome else { panic!("{outcome:?}") };
        assert!(said.contains("\"nowhere\" does not exist"), "{said}");
    }
}

#[tokio::test]
async fn wrong_keys_are_denied_and_never_shown() {
    let server = Server::start().await;
    let mut options = bucket_per_job(&server.url);
    let good = open(&options);
    good.put(&job("denied"), &key("x"), body("x")).await.unwrap();
    good.check().await.unwrap();
    options.credentials.secret_key = "WRONG-SECRET".to_owned();
    let storage = open(&options);
    let outcomes = [
        storage.check().await,
        storage.contains(&job("denied")).await.map(drop),
        storage.get(&job("denied"), &key("x"), None).await.map(drop),
        storage.put(&job("denied"), &key("x"), body("y")).await.map(drop),
        storage.list(&job("denied"), "", None, 1).await.map(drop),
        storage.remove(&job("denied")).await,
    ];
    for outcome in outcomes {
        let Err(StorageError::Denied(said)) = outcome else { panic!("{outcome:?}") };
        assert!(said.contains("SignatureDoesNotMatch") && !said.contains("WRONG-SECRET"), "{said}");
    }
    assert!(!format!("{options:?}").contains("WRONG-SECRET"));
    assert_eq!(read(&good, &job("denied"), "x").await, "x");
}

#[tokio::test]
async fn a_store_that_is_away_can_be_opened_and_is_unavailable() {
    let mut options = bucket_per_job("http://127.0.0.1:1");
    options.limits.ask = Duration::from_millis(300);
    options.limits.retry = Duration::from_millis(300);
    let storage = open(&options);
    let outcomes = [
        storage.check().await,
        storage.contains(&job("away")).await.map(drop),
        storage.put(&job("away"), &key("x"), body("x")).await.map(drop),
        storage.get(&job("away"), &key("x"), None).await.map(drop),
        storage.head(&job("away"), &key("x")).await.map(drop),
    ];
    for outcome in outcomes {
        let Err(StorageError::Unavailable(said)) = outcome else { panic!("{outcome:?}") };
        assert!(said.to_lowercase().contains("connection refused"), "{said}");
    }
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let no_pem = dir.path().join("ca.pem");
    std::fs::write(&no_pem, "nothing").unwrap();
    let with_ca = |file: &Path| {
        let mut options = bucket_per_job("https://127.0.0.1:1");
        options.ca_file = Some(file.to_owned());
        options
    };
    for options in [
        bucket_per_job("nonsense"),
        bucket_per_job("http://user:secret@host"),
        in_prefix("http://host", "no/bucket", ""),
        in_prefix("http://host", "bucket", "a/../b"),
        with_ca(&no_pem),
        with_ca(&dir.path().join("none.pem")),
    ] {
        let refused = S3Storage::open(&options).err().unwrap();
        assert!(matches!(&refused, StorageError::Invalid(said) if !said.contains("secret")), "{refused}");
    }
}
