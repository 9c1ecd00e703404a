//! Clients that others wrote, against the endpoint that serves the storage's directory.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use std::path::Path;

use serde_json::json;
use shepherd_tests::ids::{self, SCRIPTED};
use shepherd_tests::s3::{ACCESS_KEY, Layout, Moto, S3Client, SECRET_KEY};
use shepherd_tests::{Harness, Model, Script, python, run_python, run_script};

/// So many that lists have pages.
const CROWD: usize = 5000;

/// Runs a client's script against a daemon with an endpoint.
async fn against_the_endpoint(script: &str) {
    let Some(python) = python() else { return };
    let harness = Harness::serving_s3();
    // Files that nobody put over S3 are objects all the same.
    let crowd = harness.object("crowd", "inputs");
    std::fs::create_dir_all(&crowd).unwrap();
    for i in 0..CROWD {
        std::fs::write(crowd.join(format!("in-{i:04}")), "").unwrap();
    }
    let daemon = harness.start().await;
    let s3 = daemon.s3_url().await;
    let api = format!("http://{}", daemon.client().address());
    let size = CROWD.to_string();
    let variables = [
        ("S3_URL", s3.as_str()),
        ("API_URL", &api),
        ("ACCESS_KEY", ACCESS_KEY),
        ("SECRET_KEY", SECRET_KEY),
        ("CROWD", "crowd"),
        ("CROWD_SIZE", &size),
    ];
    println!("{}", run_script(&python, script, &variables).await);
    println!("peak memory: {} MB", daemon.peak_memory() >> 20);
    let log = daemon.log().text();
    assert!(!log.contains(SECRET_KEY), "{log}");
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    nothing_escaped(&harness);
}

/// No key made a file outside the directory of its job.
fn nothing_escaped(harness: &Harness) {
    for dir in ["", "data", "data/dolly", "state", "storage"] {
        assert!(!harness.path(dir).join("escaped").exists(), "something escaped into {dir}");
    }
}

#[tokio::test]
async fn boto3_does_the_tutorial_and_more() {
    against_the_endpoint("flow_boto3.py").await;
}

#[tokio::test]
async fn minios_client_does_the_tutorial_and_more() {
    against_the_endpoint("flow_minio.py").await;
}

#[tokio::test]
async fn the_aws_command_line_does_the_tutorial_and_more() {
    against_the_endpoint("flow_awscli.py").await;
}

#[tokio::test]
async fn hard_keys_pass_through_the_endpoint() {
    against_the_endpoint("keys.py").await;
}

#[tokio::test]
async fn hard_keys_pass_through_a_server_that_keeps_any() {
    let (Some(python), Some(moto)) = (python(), Moto::shared()) else { return };
    let harness = Harness::on_s3(&moto.url(), Layout::BucketPerJob);
    let daemon = harness.start().await;
    let api = format!("http://{}", daemon.client().address());
    let variables = [
        ("S3_URL", moto.url()),
        ("API_URL", api),
        ("ACCESS_KEY", ACCESS_KEY.into()),
        ("SECRET_KEY", SECRET_KEY.into()),
    ];
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    println!("{}", run_script(&python, "keys.py", &variables).await);
    nothing_escaped(&harness);
}

/// The README's walk, against whatever storage a harness has.
async fn walk(python: &Path, harness: Harness, s3_url: Option<String>) {
    // The README's model, run by the runner that is there by default.
    let harness = harness.with_sheep(ids::SHEEP, json!({"runner_command": null}));
    let model = harness.model_dir(Model { name: "upper", version: "1" });
    std::fs::write(model.join("config.yaml"), "").unwrap();
    let runner = r#"runner: {command: ["sh", "-c", "tr a-z A-Z < \"$1/input\" > \"$2/output\"", "upper", "{inputs}", "{outputs}"]}"#;
    std::fs::write(model.join("runner.yaml"), runner).unwrap();
    let daemon = harness.start().await;
    let s3 = match s3_url {
        Some(url) => url,
        None => daemon.s3_url().await,
    };
    let api = format!("http://{}", daemon.client().address());
    let variables = [
        ("S3_URL", s3.as_str()),
        ("API_URL", &api),
        ("MINIO_ACCESS_KEY", ACCESS_KEY),
        ("MINIO_SECRET_KEY", SECRET_KEY),
    ];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/clients/minio_walk.py");
    let printed = run_python(python, &script, &["walked-job", "counting sheep"], &variables).await;
    assert_eq!(printed, "outputs/output\nCOUNTING SHEEP\n", "{s3}");
}

#[tokio::test]
async fn the_walk_of_the_readme_works_with_the_endpoint_and_with_a_server() {
    let (Some(python), Some(moto)) = (python(), Moto::shared()) else { return };
    walk(&python, Harness::serving_s3(), None).await;
    // Not s3s-fs, which takes the empty delimiter of this client for one.
    walk(&python, Harness::on_s3(&moto.url(), Layout::BucketPerJob), Some(moto.url())).await;
}

#[tokio::test]
async fn what_the_queue_still_has_is_there_over_s3_at_once() {
    const JOBS: usize = 150;
    let harness = Harness::serving_s3();
    let daemon = harness.start().await;
    let (client, s3) = (daemon.client(), S3Client::new(daemon.s3_url().await));
    // So many at once that small outputs ride in the queue's commits and become files later.
    let jobs: Vec<String> = (0..JOBS).map(|i| format!("quick-{i:03}")).collect();
    let mut submits = tokio::task::JoinSet::new();
    for job in jobs.clone() {
        let client = client.clone();
        submits.spawn(async move {
            client.submit(&job, SCRIPTED, &Script::Say(job.clone())).await.expect_status(200);
        });
    }
    submits.join_all().await;
    for job in &jobs {
        assert_eq!(client.finished(job).await["status"], "done");
        let output = s3.get(job, "outputs/output").await;
        assert_eq!(output.as_deref(), Some(job.as_bytes()), "{job}");
        assert_eq!(s3.keys(job, "").await, ["inputs/input", "job_status.json", "outputs/output"]);
        assert_eq!(s3.get_json(job, "job_status.json").await["status"], "done", "{job}");
    }
    // And what is put there is the job's at once.
    s3.make_bucket("put-there").await;
    s3.put("put-there", "inputs/input", "copied").await;
    let reply = client.start_job(&json!({"job_id": "put-there", "model": SCRIPTED.json()})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(client.finished("put-there").await["status"], "done");
    assert_eq!(s3.get("put-there", "outputs/output").await.unwrap(), b"copied");
    // A finished job's data is its client's to remove.
    s3.remove_bucket("quick-000").await;
    assert!(!harness.path("storage/quick-000").exists());
    assert_eq!(client.result("quick-000").await.status, 404);
}

#[tokio::test]
async fn an_endpoint_that_cannot_listen_is_told_before_anything_runs() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let harness = Harness::serving_s3().with(json!({"storage": {"serve_s3": {"listen": listen}}}));
    let ended = harness.run(harness.command()).await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("storage.serve_s3: cannot listen at 127.0.0.1"), "{}", ended.log);
    assert!(!ended.log.contains("Shepherd API is available"), "{}", ended.log);

    let open = Harness::serving_s3().with(json!({"storage": {"serve_s3": {"listen": "0.0.0.0:0"}}}));
    let daemon = open.start().await;
    daemon.await_line("The S3 endpoint is open to everybody who can reach").await;
}
