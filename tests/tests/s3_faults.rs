//! What goes wrong between the daemon and its S3 server: every job ends done or failed with a reason, none is
//! stuck, nothing is lost, and who sees `done` sees every output.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use shepherd_tests::ids::SCRIPTED;
use shepherd_tests::s3::{Fault, Layout, Proxy, S3Client, S3Server};
use shepherd_tests::{Client, Daemon, Harness, Random, Script, eventually_async, start_body};

const JOBS: Layout = Layout::Prefix { bucket: "all-jobs", prefix: "" };

/// A server, a proxy before it, and a harness whose daemon knows only the proxy.
struct Behind {
    server: S3Server,
    proxy: Proxy,
    harness: Harness,
    layout: Layout,
}

impl Behind {
    async fn new(layout: Layout) -> Self {
        let server = S3Server::start();
        if let Layout::Prefix { bucket, .. } = layout {
            server.client().make_bucket(bucket).await;
        }
        let proxy = Proxy::start(server.address()).await;
        let harness = Harness::on_s3(&proxy.url(), layout);
        Self { server, proxy, harness, layout }
    }

    /// A client that does not go through the proxy.
    fn s3(&self) -> S3Client {
        self.server.client()
    }

    /// Stores a job's script and starts the job.
    async fn start_stored(&self, client: &Client, job: &str, script: &Script) {
        if self.layout == Layout::BucketPerJob {
            self.s3().make_bucket(job).await;
        }
        self.s3().put(&self.layout.bucket(job), &self.layout.key(job, "inputs/input"), script.text()).await;
        self.start(client, &json!({"job_id": job, "model": SCRIPTED.json()})).await;
    }

    /// Submits until it is accepted: a storage that cannot be asked whether the id is taken refuses for now.
    async fn start(&self, client: &Client, body: &Value) {
        eventually_async("the submit to be accepted", || async {
            let reply = client.start_job(body).await;
            match reply.status {
                200 => Some(()),
                503 => {
                    assert!(!reply.message(503).is_empty());
                    None
                }
                _ => panic!("{reply:?}"),
            }
        })
        .await;
    }

    async fn output(&self, job: &str, name: &str) -> Option<Vec<u8>> {
        self.s3().get(&self.layout.bucket(job), &self.layout.key(job, &format!("outputs/{name}"))).await
    }

    /// Checks that a job is done, with all of what [`outputs`] gave it at once.
    async fn see_done(&self, client: &Client, job: &str) {
        let done = client.finished(job).await;
        assert_eq!(done["status"], "done", "{job}: {done}");
        for (name, text) in outputs(job) {
            let found = self.output(job, &name).await;
            assert_eq!(found.as_deref(), Some(text.as_bytes()), "{job} {name}");
        }
    }

    /// Waits until storage has the last word on a job.
    async fn see_document(&self, job: &str, status: &str) {
        let (bucket, key) = (self.layout.bucket(job), self.layout.key(job, "job_status.json"));
        eventually_async("the status document", || async {
            let document = self.s3().get(&bucket, &key).await?;
            let document: Value = serde_json::from_slice(&document).unwrap();
            (document["status"] == status).then_some(())
        })
        .await;
    }
}

/// Several outputs of a job, which tell whose they are.
fn outputs(job: &str) -> Vec<(String, String)> {
    (0..5).map(|i| (format!("part-{i}"), format!("{job} {i} ").repeat(200))).collect()
}

async fn ready(client: &Client, status: u16) -> String {
    eventually_async(&format!("/readyz to answer {status}"), || async {
        let reply = client.get("/readyz").await;
        (reply.status == status).then(|| reply.text())
    })
    .await
}

fn count(daemon: &Daemon, words: &str) -> usize {
    daemon.log().text().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn a_server_that_goes_away_while_jobs_finish_is_waited_for() {
    let behind = Behind::new(Layout::BucketPerJob).await;
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    ready(&client, 200).await;
    let gate = behind.harness.path("gate");
    behind.start(&client, &start_body("running", SCRIPTED, &Script::Gate(gate.clone()).text())).await;
    behind.harness.begun("running", 1).await;
    let script = |job: &str| Script::Files(outputs(job));
    behind.start(&client, &start_body("payload", SCRIPTED, &script("payload").text())).await;
    for job in ["stored-1", "stored-2", "stored-3"] {
        behind.start_stored(&client, job, &script(job)).await;
    }

    behind.proxy.away().await;
    behind.harness.open_gate(&gate);
    let reason = ready(&client, 503).await;
    assert!(reason.contains(&behind.proxy.url()) || reason.contains("storage"), "{reason}");
    assert_eq!(client.get("/status").await.status, 200);
    assert_eq!(client.get("/healthz").await.status, 200);
    let refused = client.start_job(&start_body("refused", SCRIPTED, "x")).await;
    assert!(!refused.message(503).is_empty());
    // All tries of a request are through: the job waits, and others with it.
    daemon.await_line("cannot publish a job's outputs").await;
    assert_eq!(client.get("/status").await.status, 200);
    for job in ["running", "payload", "stored-1", "stored-2", "stored-3"] {
        let status = client.status(job).await;
        assert!(status["status"] != "done" && status["status"] != "failed", "{job}: {status}");
    }

    behind.proxy.back().await;
    assert_eq!(client.finished("running").await["status"], "done");
    assert_eq!(behind.output("running", "output").await.unwrap(), b"through");
    for job in ["payload", "stored-1", "stored-2", "stored-3"] {
        behind.see_done(&client, job).await;
    }
    ready(&client, 200).await;
    for job in ["running", "payload", "stored-1", "stored-2", "stored-3"] {
        behind.see_document(job, "done").await;
        assert_eq!(behind.harness.journal().runs_of(job).len(), 1, "{job} ran again");
    }
    behind.start(&client, &start_body("refused", SCRIPTED, &script("refused").text())).await;
    behind.see_done(&client, "refused").await;
    assert_eq!(count(&daemon, "ERROR the storage is unavailable"), 1, "{}", daemon.log().text());
    assert_eq!(count(&daemon, "INFO the storage is available again"), 1, "{}", daemon.log().text());
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_keeps_nobody_from_starting() {
    let behind = Behind::new(JOBS).await;
    let daemon = behind.harness.start().await;
    let script = Script::Files(outputs("before"));
    behind.start(&daemon.client(), &start_body("before", SCRIPTED, &script.text())).await;
    behind.see_done(&daemon.client(), "before").await;
    let gate = behind.harness.path("gate");
    behind
        .start(&daemon.client(), &start_body("between", SCRIPTED, &Script::Gate(gate.clone()).text()))
        .await;
    daemon.kill().await;

    behind.proxy.away().await;
    behind.harness.open_gate(&gate);
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    ready(&client, 503).await;
    assert_eq!(client.get("/status").await.status, 200);
    assert_eq!(client.status("before").await["status"], "done");
    assert!(!client.result("before").await.message(503).is_empty());
    behind.proxy.back().await;
    ready(&client, 200).await;
    assert_eq!(client.finished("between").await["status"], "done");
    assert_eq!(client.get("/jobs/before/result/part-0").await.status, 200);
}

#[tokio::test]
async fn keys_that_are_refused_are_told() {
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob)
        .with(json!({"storage": {"secret_key": "not-the-one"}}));
    let daemon = harness.start().await;
    let reason = ready(&daemon.client(), 503).await;
    assert!(reason.contains("denied") || reason.contains("SignatureDoesNotMatch"), "{reason}");
    let refused = daemon.client().start_job(&start_body("a-job", SCRIPTED, "x")).await;
    assert!(!refused.message(503).is_empty());
    assert!(!daemon.log().text().contains("not-the-one"));
}

#[tokio::test]
async fn each_fault_passes_without_a_trace() {
    for (mark, layout) in [("bucket", Layout::BucketPerJob), ("prefix", JOBS)] {
        let behind = Behind::new(layout).await;
        let daemon = behind.harness.start().await;
        let client = daemon.client();
        for (number, fault) in [
            Fault::Delay(Duration::from_millis(200)),
            Fault::Answer(500),
            Fault::Answer(503),
            Fault::CutRequest(0),
            Fault::CutRequest(500),
            Fault::CutAnswer(0),
            Fault::CutAnswer(100),
            Fault::LoseAnswer,
        ]
        .into_iter()
        .enumerate()
        {
            let [stored, payload] = ["stored", "payload"].map(|kind| format!("{mark}-{number}-{kind}"));
            // The first try of everything that is asked about these jobs.
            let injected = behind.proxy.inject(fault, u64::MAX, {
                let (ours, seen) = (format!("{mark}-{number}-"), Mutex::new(HashSet::new()));
                move |head| {
                    let asked = format!("{} {}", head.method, head.target);
                    head.target.contains(&ours) && seen.lock().unwrap().insert(asked)
                }
            });
            let script = Script::Files(outputs(&payload));
            behind.start(&client, &start_body(&payload, SCRIPTED, &script.text())).await;
            behind.start_stored(&client, &stored, &Script::Files(outputs(&stored))).await;
            behind.see_done(&client, &payload).await;
            behind.see_done(&client, &stored).await;
            for job in [&stored, &payload] {
                behind.see_document(job, "done").await;
                assert_eq!(behind.harness.journal().runs_of(job).len(), 1, "{fault:?}: {job} ran again");
            }
            assert!(injected.hits() >= 16, "{fault:?} hit {}", injected.hits());
        }
    }
}

#[tokio::test]
async fn a_large_output_survives_resets_in_its_parts() {
    const SIZE: u64 = 24 << 20;
    let behind = Behind::new(Layout::BucketPerJob).await;
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    let is_part = |head: &shepherd_tests::s3::Head| head.target.contains("partNumber");
    let cuts = behind.proxy.inject(Fault::CutRequest(3 << 20), 2, is_part);
    let lost = behind.proxy.inject(Fault::LoseAnswer, 2, is_part);
    let busy = behind.proxy.inject(Fault::Answer(503), 2, is_part);
    behind.start(&client, &start_body("large", SCRIPTED, &Script::Big(SIZE).text())).await;
    assert_eq!(client.finished("large").await["status"], "done");
    assert_eq!([cuts.hits(), lost.hits(), busy.hits()], [2, 2, 2]);
    let output = behind.output("large", "output").await.unwrap();
    assert_eq!(output.len() as u64, SIZE);
    assert!(output.iter().zip(0..).all(|(byte, at)| *byte == shepherd_tests::big_byte(at)));

    // And back in again, as an input; the copy is the proof.
    behind.s3().make_bucket("copy").await;
    behind.s3().put("copy", "inputs/input", &output).await;
    let cuts = behind.proxy.inject(Fault::CutAnswer(5 << 20), 2, |head| {
        head.method == "GET" && head.target.ends_with("/inputs/input")
    });
    behind.start(&client, &json!({"job_id": "copy", "model": SCRIPTED.json()})).await;
    assert_eq!(client.finished("copy").await["status"], "done");
    assert_eq!(cuts.hits(), 2);
    assert!(behind.output("copy", "output").await.unwrap() == output);
    let uploads = behind.proxy.requests().all();
    let begun = uploads.iter().filter(|request| request.query.contains("uploads")).count();
    assert!(begun >= 2, "it was to go in parts");
    assert!(daemon.peak_memory() < 200 << 20, "{} bytes", daemon.peak_memory());
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_and_asked_again() {
    let behind = Behind::new(Layout::BucketPerJob).await;
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    let hole = behind.proxy.inject(Fault::Hole, 1, |head| head.target.contains("/outputs/"));
    let script = Script::Files(outputs("patient"));
    behind.start(&client, &start_body("patient", SCRIPTED, &script.text())).await;
    hole.hit(1).await;
    assert_eq!(client.get("/status").await.status, 200);
    behind.see_done(&client, "patient").await;
}

#[tokio::test]
async fn buckets_deleted_while_their_jobs_are_queued_wedge_nobody() {
    let behind = Behind::new(Layout::BucketPerJob).await;
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    let gate = behind.harness.path("gate");
    behind.start(&client, &start_body("opener", SCRIPTED, &Script::Gate(gate.clone()).text())).await;
    behind.harness.begun("opener", 1).await;
    let jobs: Vec<String> = (0..6).map(|i| format!("robbed-{i}")).collect();
    for job in &jobs {
        behind.start_stored(&client, job, &Script::Files(outputs(job))).await;
    }
    for job in &jobs {
        behind.s3().remove_bucket(job).await;
    }
    behind.start(&client, &start_body("after", SCRIPTED, &Script::Files(outputs("after")).text())).await;
    behind.harness.open_gate(&gate);
    for job in &jobs {
        // Whatever was staged before is not asked about; that it comes to an end with a reason is.
        let status = client.finished(job).await;
        if status["status"] != "done" {
            let message = status["error_details"]["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty(), "{status}");
        }
    }
    behind.see_done(&client, "after").await;
}

/// Faults of every kind at random, under load.
#[tokio::test]
async fn a_storm_loses_nothing() {
    const STORM: usize = 60;
    let mut random = Random::new();
    let behind = Behind::new(JOBS).await;
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    for (fault, every) in [
        (Fault::Delay(Duration::from_millis(100)), 12),
        (Fault::Answer(500), 12),
        (Fault::Answer(503), 12),
        (Fault::CutRequest(700), 16),
        (Fault::CutAnswer(300), 16),
        (Fault::LoseAnswer, 16),
    ] {
        let chance = Mutex::new(random.split());
        behind.proxy.inject(fault, u64::MAX, move |_| chance.lock().unwrap().below(every) == 0).hits();
    }
    let jobs: Vec<String> = (0..STORM).map(|i| format!("storm-{i:02}")).collect();
    for (i, job) in jobs.iter().enumerate() {
        let script = Script::Files(outputs(job));
        if i % 2 == 0 {
            behind.start(&client, &start_body(job, SCRIPTED, &script.text())).await;
        } else {
            behind.start_stored(&client, job, &script).await;
        }
    }
    for job in &jobs {
        behind.see_done(&client, job).await;
        assert_eq!(behind.harness.journal().runs_of(job).len(), 1, "{job} ran again");
    }
    behind.proxy.clear();
    for job in &jobs {
        behind.see_document(job, "done").await;
    }
    ready(&client, 200).await;
}

/// The old input rides in the queue while the storage does not take it; its client mends it as soon as it
/// hears that the job has ended.
#[tokio::test]
async fn a_corrected_input_is_never_replaced_by_the_old_one() {
    for is_restarted in [false, true] {
        let behind = Behind::new(Layout::BucketPerJob).await;
        let mut daemon = behind.harness.start().await;
        let refused = behind.proxy.inject(Fault::Answer(503), u64::MAX, |head| {
            head.method == "PUT" && head.target.contains("/inputs/")
        });
        let client = daemon.client();
        let gate = behind.harness.path("gate");
        let bad = Script::Fail("bad input".to_owned());
        behind.start(&client, &start_body("failed", SCRIPTED, &bad.text())).await;
        assert_eq!(client.finished("failed").await["status"], "failed");
        behind.start(&client, &start_body("cancelled", SCRIPTED, &Script::Gate(gate).text())).await;
        let cancelled = client.ask(http::Method::POST, "/jobs/cancelled/cancel").await;
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        refused.hit(1).await;
        for job in ["failed", "cancelled"] {
            behind.s3().put(job, "inputs/input", Script::Files(outputs(job)).text()).await;
        }
        if is_restarted {
            daemon.kill().await;
            refused.lift();
            daemon = behind.harness.start().await;
        }
        refused.lift();
        let client = daemon.client();
        for job in ["failed", "cancelled"] {
            behind.see_document(job, "failed").await;
            let kept = behind.s3().get(job, "inputs/input").await.unwrap();
            assert_eq!(kept, Script::Files(outputs(job)).text().as_bytes(), "{job}");
            behind.start(&client, &json!({"job_id": job, "model": SCRIPTED.json()})).await;
            behind.see_done(&client, job).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_hangs_is_told_to_who_asks_for_files() {
    let behind = Behind::new(Layout::BucketPerJob).await;
    let daemon = behind.harness.start().await;
    let client = daemon.client();
    behind.start(&client, &start_body("before", SCRIPTED, &Script::Files(outputs("before")).text())).await;
    behind.see_done(&client, "before").await;
    let asks =
        ["/jobs/before/result/part-0", "/jobs/before/input", "/jobs/unknown/status", "/jobs/unknown/result"];
    let see_refused = async || {
        for ask in asks {
            assert!(!client.get(ask).await.message(503).is_empty(), "{ask}");
        }
        assert!(!client.start_job(&start_body("refused", SCRIPTED, "x")).await.message(503).is_empty());
        assert_eq!(client.status("before").await["status"], "done");
    };
    let hole = behind.proxy.inject(Fault::Hole, u64::MAX, |head| {
        head.target.contains("/before/")
            || head.target.contains("/unknown")
            || head.target.contains("/refused")
    });
    see_refused().await;
    hole.lift();
    behind.proxy.away().await;
    see_refused().await;
}
