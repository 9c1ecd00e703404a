//! What is not in the directory yet.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use shepherd_job::{JobId, JobIdRule, Timestamp};
use shepherd_s3::Flusher;

use crate::server::{Server, elements};

/// A queue that holds an object of `a-job` until it is asked for, or is away.
#[derive(Default)]
struct Queue {
    dir: Mutex<Option<PathBuf>>,
    away: Mutex<bool>,
}

#[async_trait]
impl Flusher for Queue {
    async fn flush(&self, bucket: &JobId) -> Result<(), String> {
        if *self.away.lock().unwrap() {
            return Err("the queue is away".to_owned());
        }
        if bucket.as_str() == "a-job"
            && let Some(dir) = self.dir.lock().unwrap().take()
        {
            std::fs::create_dir_all(dir.join("a-job/outputs")).unwrap();
            std::fs::write(dir.join("a-job/outputs/output"), "late").unwrap();
        }
        Ok(())
    }

    async fn unflushed(&self) -> Result<Vec<(JobId, Timestamp)>, String> {
        let lags = self.dir.lock().unwrap().is_some();
        let id = |text| (JobId::parse(text, JobIdRule::Prefix).unwrap(), Timestamp::from_micros(1_000_000));
        Ok(if lags { vec![id("a-job"), id("Not_A_Bucket")] } else { Vec::new() })
    }
}

#[tokio::test]
async fn a_bucket_is_caught_up_with_before_it_is_looked_at_or_changed() {
    let targets = [
        ("GET", "/a-job/outputs/output", 200),
        ("HEAD", "/a-job/outputs/output", 200),
        ("GET", "/a-job?list-type=2", 200),
        ("HEAD", "/a-job", 200),
        ("PUT", "/a-job", 200),
        ("DELETE", "/a-job", 409),
        ("PUT", "/a-job/inputs/x", 200),
        ("DELETE", "/a-job/outputs/output", 204),
        ("POST", "/a-job/x?uploads", 200),
    ];
    for (method, target, status) in targets {
        let queue = Arc::new(Queue::default());
        let server = Server::with(queue.clone()).await;
        *queue.dir.lock().unwrap() = Some(server.dir.clone());
        let answer = server.client().request(method, target).send().await;
        assert_eq!(answer.status, status, "{method} {target} {}", answer.text());
        assert!(queue.dir.lock().unwrap().is_none());
    }
}

#[tokio::test]
async fn buckets_that_are_no_directories_yet_are_listed() {
    let queue = Arc::new(Queue::default());
    let server = Server::with(queue.clone()).await;
    *queue.dir.lock().unwrap() = Some(server.dir.clone());
    let client = server.client();
    client.put("/b-job", b"").await.is(200);
    let listed = client.get("/").await.is(200);
    assert_eq!(elements(&listed, "Name"), ["a-job", "b-job"]);
    assert_eq!(elements(&listed, "CreationDate")[0], "1970-01-01T00:00:01.000Z");
    assert!(queue.dir.lock().unwrap().is_some(), "nothing is written for it");
    client.head("/a-job").await.is(200);
    assert_eq!(elements(&client.get("/").await.is(200), "Name"), ["a-job", "b-job"], "each is told once");
}

#[tokio::test]
async fn a_queue_that_is_away_is_a_service_that_is_unavailable() {
    let queue = Arc::new(Queue::default());
    let server = Server::with(queue.clone()).await;
    let client = server.bucket().await;
    *queue.away.lock().unwrap() = true;
    client.get("/a-job/x").await.fails(503, "ServiceUnavailable");
    client.put("/a-job/x", b"1").await.fails(503, "ServiceUnavailable");
}
