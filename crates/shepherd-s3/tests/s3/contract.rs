//! What every storage must do, through our own client of S3 and the endpoint. It is
//! the client that refuses keys; the endpoint takes all (`keys`).

use shepherd_storage::contract::{self, Backend, Keys};
use shepherd_storage::{S3Credentials, S3Layout, S3Options, S3Storage};

use crate::server::{ACCESS_KEY, SECRET_KEY, Server, names};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds() {
    let server = Server::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server.address);
    let keys = || S3Credentials {
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        session_token: None,
    };
    let storage = S3Storage::open(&S3Options::new(&url, keys(), S3Layout::BucketPerJob)).unwrap();
    contract::run(&Backend { storage: &storage, scratch: scratch.path(), keys: Keys::MayRefuse }).await;
    assert_eq!(names(&server.dir), [".shepherd"], "all jobs were removed");

    server.bucket().await;
    let layout = S3Layout::Prefix { bucket: "a-job".to_owned(), prefix: "some where/+".to_owned() };
    let storage = S3Storage::open(&S3Options::new(&url, keys(), layout)).unwrap();
    contract::run(&Backend { storage: &storage, scratch: scratch.path(), keys: Keys::MayRefuse }).await;
    assert!(names(&server.dir.join("a-job")).is_empty(), "all jobs were removed");
    server.becomes_tidy().await;
}
