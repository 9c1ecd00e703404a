//! Jobs whose data is in S3 servers that others wrote.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use serde_json::{Value, json};
use shepherd_tests::ids::SCRIPTED;
use shepherd_tests::s3::{ACCESS_KEY, Layout, Moto, S3Client, S3Server, SECRET_KEY, TlsFront};
use shepherd_tests::{Client, Harness, Script, eventually, eventually_async, python, start_body};

const JOBS: Layout = Layout::Prefix { bucket: "all-jobs", prefix: "team/a" };

/// A server with what a layout needs to be there.
async fn prepared(client: &S3Client, layout: Layout) {
    if let Layout::Prefix { bucket, .. } = layout {
        client.make_bucket(bucket).await;
    }
}

/// A job by the tutorial: inputs into storage, the job posted, outputs from storage.
async fn tutorial(client: &Client, s3: &S3Client, layout: Layout, job: &str) {
    if layout == Layout::BucketPerJob {
        s3.make_bucket(job).await;
    }
    let (bucket, key) = (layout.bucket(job), |name: &str| layout.key(job, name));
    let script =
        Script::Files(vec![("output".into(), "the first".into()), ("deep/er/two".into(), "2".into())]);
    s3.put(&bucket, &key("inputs/input"), script.text()).await;
    s3.put(&bucket, &key("inputs/more/beside"), "it").await;
    let reply = client.start_job(&json!({"job_id": job, "model": SCRIPTED.json()})).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"success": true})));
    let done = client.finished(job).await;
    assert_eq!(done["status"], "done", "{done}");
    // Whoever sees `done` sees every output.
    assert_eq!(s3.keys(&bucket, &key("outputs/")).await, [key("outputs/deep/er/two"), key("outputs/output")]);
    assert_eq!(s3.get(&bucket, &key("outputs/output")).await.unwrap(), b"the first");
    assert_eq!(client.result(job).await.text(), "the first");
    assert_eq!(client.get(&format!("/jobs/{job}/result/deep/er/two")).await.text(), "2");
    assert_eq!(client.get(&format!("/jobs/{job}/input/more/beside")).await.text(), "it");
    status_document(s3, layout, job, &done).await;
}

/// Waits until storage has the last word on a job.
async fn status_document(s3: &S3Client, layout: Layout, job: &str, expected: &Value) {
    let (bucket, key) = (layout.bucket(job), layout.key(job, "job_status.json"));
    let last = eventually_async("the status document", || async {
        let document = s3.get(&bucket, &key).await?;
        let document: Value = serde_json::from_slice(&document).unwrap();
        (document["finished_at"] != Value::Null).then_some(document)
    });
    assert_eq!(&last.await, expected);
}

/// Everything that a client does, in one layout of one server. `mark` makes names of its own.
async fn all_of_it(url: &str, layout: Layout, mark: &str) {
    let s3 = S3Client::new(url);
    prepared(&s3, layout).await;
    let harness = Harness::on_s3(url, layout);
    let daemon = harness.start().await;
    let client = daemon.client();
    tutorial(&client, &s3, layout, &format!("{mark}-tutorial")).await;

    // A payload makes the job's place.
    let job = format!("{mark}-payload");
    let payload = Script::Say("with a payload".into());
    client.submit(&job, SCRIPTED, &payload).await.expect_status(200);
    let done = client.finished(&job).await;
    let output = s3.get(&layout.bucket(&job), &layout.key(&job, "outputs/output")).await;
    assert_eq!(output.unwrap(), b"with a payload");
    status_document(&s3, layout, &job, &done).await;
    let input = s3.get(&layout.bucket(&job), &layout.key(&job, "inputs/input")).await;
    assert_eq!(String::from_utf8(input.unwrap()).unwrap(), payload.text());
    let again = client.start_job(&start_body(&job, SCRIPTED, "again")).await;
    again.expect_message(409, "A job with this ID was already submitted");

    // Data that is there already is somebody's.
    let job = format!("{mark}-taken");
    if layout == Layout::BucketPerJob {
        s3.make_bucket(&job).await;
    }
    s3.put(&layout.bucket(&job), &layout.key(&job, "inputs/input"), "somebody's").await;
    let taken = client.start_job(&start_body(&job, SCRIPTED, "mine")).await;
    taken.expect_message(409, "A job with this ID was already submitted");
    let none = format!("{mark}-nothing");
    let reply = client.start_job(&json!({"job_id": none, "model": SCRIPTED.json()})).await;
    reply.expect_message(400, &format!("Data for job `{none}` does not exist"));

    // A job that fails says why in storage, too, and may run again with outputs replaced.
    let job = format!("{mark}-again");
    client.submit(&job, SCRIPTED, &Script::Fail("no grass".into())).await.expect_status(200);
    let failed = client.finished(&job).await;
    assert_eq!(
        (&failed["status"], &failed["error_details"]["message"]),
        (&json!("failed"), &json!("no grass"))
    );
    status_document(&s3, layout, &job, &failed).await;
    for (text, files) in [("first", 3), ("second", 1)] {
        let outputs = (0..files).map(|i| (format!("out-{i}"), text.to_owned())).collect();
        s3.put(&layout.bucket(&job), &layout.key(&job, "inputs/input"), Script::Files(outputs).text()).await;
        assert_eq!(client.start_job(&json!({"job_id": job, "model": SCRIPTED.json()})).await.status, 200);
        assert_eq!(client.finished(&job).await["status"], "done");
        let keys = s3.keys(&layout.bucket(&job), &layout.key(&job, "outputs/")).await;
        assert_eq!(keys.len(), files, "{keys:?}");
        let first = s3.get(&layout.bucket(&job), &layout.key(&job, "outputs/out-0")).await;
        assert_eq!(first.unwrap(), text.as_bytes());
    }

    // Large ones go in parts.
    let job = format!("{mark}-large");
    client.submit(&job, SCRIPTED, &Script::Big(20 << 20)).await.expect_status(200);
    assert_eq!(client.finished(&job).await["status"], "done");
    assert_eq!(client.result(&job).await.body.len(), 20 << 20);

    // After a restart everything is where it was.
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let daemon = harness.start().await;
    assert_eq!(daemon.client().result(&format!("{mark}-payload")).await.text(), "with a payload");
}

#[tokio::test]
async fn a_bucket_a_job_in_s3s_fs() {
    let server = S3Server::start();
    all_of_it(&server.url(), Layout::BucketPerJob, "fsb").await;
}

#[tokio::test]
async fn a_prefix_a_job_in_s3s_fs() {
    let server = S3Server::start();
    all_of_it(&server.url(), JOBS, "fsp").await;
}

#[tokio::test]
async fn a_bucket_a_job_in_moto() {
    let Some(moto) = Moto::shared() else { return };
    all_of_it(&moto.url(), Layout::BucketPerJob, "mob").await;
}

#[tokio::test]
async fn a_prefix_a_job_in_moto() {
    let Some(moto) = Moto::shared() else { return };
    all_of_it(&moto.url(), JOBS, "mop").await;
}

/// What one job costs: the requests that the daemon sent for it until it ended, without those for status
/// documents, and how many those were. How often a job's status changes while its document is written is a
/// matter of time; everything else is not.
async fn requests_of(layout: Layout, job: &str, stored: bool) -> (Vec<String>, usize) {
    let server = S3Server::start();
    let s3 = server.client();
    prepared(&s3, layout).await;
    let harness = Harness::on_s3(&server.url(), layout);
    let gate = harness.path("gate");
    let script = Script::Gate(gate.clone());
    if stored {
        if layout == Layout::BucketPerJob {
            s3.make_bucket(job).await;
        }
        s3.put(&layout.bucket(job), &layout.key(job, "inputs/input"), script.text()).await;
    }
    let daemon = harness.start().await;
    let client = daemon.client();
    server.requests().take();
    if stored {
        assert_eq!(client.start_job(&json!({"job_id": job, "model": SCRIPTED.json()})).await.status, 200);
    } else {
        client.submit(job, SCRIPTED, &script).await.expect_status(200);
    }
    // It stays until a document says so, and with it everything that goes before.
    let path = server.root().join(layout.bucket(job)).join(layout.key(job, "job_status.json"));
    eventually("the job to be processed, by its document", || {
        std::fs::read_to_string(&path).ok()?.contains("processing").then_some(())
    })
    .await;
    harness.open_gate(&gate);
    assert_eq!(client.finished(job).await["status"], "done");
    assert_eq!(daemon.stop().await.code, Some(0));
    let all: Vec<String> = server.requests().about(job).iter().map(ToString::to_string).collect();
    let (documents, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|request| request.ends_with("job_status.json"));
    (others, documents.len())
}

#[tokio::test]
async fn a_job_costs_as_few_requests_as_its_layout_allows() {
    let payload = [
        // Whether the id is taken.
        "GET one-job?list-type=2&max-keys=1&prefix=",
        "PUT one-job",
        "PUT one-job/inputs/input",
        "PUT one-job/outputs/output",
    ];
    let stored = [
        "GET one-job?list-type=2&max-keys=1&prefix=",
        "GET one-job?list-type=2&encoding-type=url&prefix=inputs%2F",
        "GET one-job/inputs/input",
        "PUT one-job/outputs/output",
    ];
    let payload_in_prefix = [
        "GET all-jobs?list-type=2&max-keys=1&prefix=team%2Fa%2Fone-job%2F",
        "PUT all-jobs/team/a/one-job/inputs/input",
        "PUT all-jobs/team/a/one-job/outputs/output",
    ];
    let stored_in_prefix = [
        "GET all-jobs?list-type=2&max-keys=1&prefix=team%2Fa%2Fone-job%2F",
        "GET all-jobs?list-type=2&encoding-type=url&prefix=team%2Fa%2Fone-job%2Finputs%2F",
        "GET all-jobs/team/a/one-job/inputs/input",
        "PUT all-jobs/team/a/one-job/outputs/output",
    ];
    for (layout, is_stored, expected) in [
        (Layout::BucketPerJob, false, &payload[..]),
        (Layout::BucketPerJob, true, &stored),
        (JOBS, false, &payload_in_prefix),
        (JOBS, true, &stored_in_prefix),
    ] {
        let (requests, documents) = requests_of(layout, "one-job", is_stored).await;
        assert_eq!(requests, expected, "{layout:?}");
        // Processing and done; queued too, when starting the runner takes its time, and one of them twice.
        assert!((2..=4).contains(&documents), "{documents} status documents");
    }
}

#[tokio::test]
async fn many_inputs_come_at_once_and_by_two_lists() {
    const MANY: usize = 2000;
    let server = S3Server::start();
    // The server's buckets are directories: this is what clients would have put.
    let inputs = server.root().join("many-inputs/inputs");
    std::fs::create_dir_all(&inputs).unwrap();
    for i in 0..MANY {
        std::fs::write(inputs.join(format!("in-{i:04}")), i.to_string()).unwrap();
    }
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob);
    let daemon = harness.start().await;
    let client = daemon.client();
    let reply = client.start_job(&json!({"job_id": "many-inputs", "model": SCRIPTED.json()})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(client.finished("many-inputs").await["status"], "done");
    // Without `inputs/input` the runner lists what it found.
    let listed = client.result("many-inputs").await.text();
    let expected: String = (0..MANY).map(|i| format!("in-{i:04} {}\n", i.to_string().len())).collect();
    assert_eq!(listed, expected);
    let requests = server.requests().about("many-inputs");
    let of = |method: &str, key: &str| {
        requests.iter().filter(|request| request.method == method && request.key.starts_with(key)).count()
    };
    assert_eq!(of("GET", "inputs/"), MANY);
    let lists = requests.iter().filter(|request| request.query.contains("prefix=inputs")).count();
    assert_eq!(lists, 2, "a list has a thousand keys");
    assert!(server.requests().most_at_once() > 4, "one input came after the other");
}

#[tokio::test]
async fn a_service_behind_tls_is_trusted_by_its_authority() {
    let Some(python) = python() else { return };
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob);
    let authority = harness.path("authority.pem");
    let front = TlsFront::start(&python, server.address(), &authority);
    let harness = harness.with(json!({"storage": {"url": front.url()}}));
    let daemon = harness.start().await;
    let refused = daemon.client().get("/readyz").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("certificate"), "{}", refused.text());
    daemon.kill().await;

    let harness = harness.with(json!({"storage": {"ca_file": authority}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.get("/readyz").await.status, 200);
    assert_eq!(client.run("over-tls", SCRIPTED, &Script::Big(10 << 20)).await["status"], "done");
    assert_eq!(client.result("over-tls").await.body.len(), 10 << 20);
}

#[tokio::test]
async fn keys_from_the_environment_are_kept_from_runners() {
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob);
    let variables =
        [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("ELSE", "seen")];
    let from_aws = harness.with(json!({"storage": {"access_key": null, "secret_key": null}}));
    let mut command = from_aws.command();
    command.envs(variables);
    let daemon = from_aws.start_command(command).await;
    let client = daemon.client();
    assert_eq!(client.get("/readyz").await.status, 200);
    let seen = |name: &str| Script::Env(name.to_owned());
    let is_withheld = |status: &Value, name: &str| {
        let message = status["error_details"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(&format!("{name} is not set")), "{status}");
    };
    assert_eq!(client.run("env-else", SCRIPTED, &seen("ELSE")).await["status"], "done");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let job = format!("env-{}", name.len());
        let status = client.run(&job, SCRIPTED, &seen(name)).await;
        is_withheld(&status, name);
    }
    daemon.kill().await;

    let named = from_aws.with(json!({"storage": {"access_key": "$MY_KEY", "secret_key": "$MY_SECRET"}}));
    let mut command = named.command();
    command.envs([("MY_KEY", ACCESS_KEY), ("MY_SECRET", SECRET_KEY), variables[0]]);
    let daemon = named.start_command(command).await;
    let status = daemon.client().run("env-named", SCRIPTED, &seen("MY_SECRET")).await;
    is_withheld(&status, "MY_SECRET");
    // What the daemon does not use is not its to hide.
    let status = daemon.client().run("env-unused", SCRIPTED, &seen("AWS_ACCESS_KEY_ID")).await;
    assert_eq!(status["status"], "done", "{status}");
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_in_the_way_of_storage() {
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob);
    let mut command = harness.command();
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"] {
        // Nobody listens there.
        command.env(name, "http://127.0.0.1:1");
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    let daemon = harness.start_command(command).await;
    let done = daemon.client().run("direct", SCRIPTED, &Script::Say("x".into())).await;
    assert_eq!(done["status"], "done", "{done}");
}

#[tokio::test]
async fn the_bucket_is_there_when_a_payload_is_accepted() {
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob);
    let daemon = harness.start().await;
    for number in 0..20 {
        let job = format!("bucket-{number}");
        daemon.client().submit(&job, SCRIPTED, &Script::Say("x".into())).await.expect_status(200);
        assert!(server.root().join(&job).is_dir(), "{job}");
    }
}

/// Among short jobs that follow one another without a pause.
#[tokio::test]
async fn status_documents_follow_each_change_under_load() {
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob).with_sheep("other", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let document = |job: &str, status: &'static str| {
        let path = server.root().join(job).join("job_status.json");
        let said = format!("\"status\":\"{status}\"");
        eventually(status, move || std::fs::read_to_string(&path).ok()?.contains(&said).then_some(()))
    };
    let load = async {
        for number in 0.. {
            client.run(&format!("short-{number}"), SCRIPTED, &Script::Say("x".into())).await;
        }
    };
    let watched = async {
        let gates = ["first", "second"].map(|name| harness.path(name));
        for (job, gate) in ["long-1", "long-2"].into_iter().zip(&gates) {
            client.submit(job, SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
            document(job, "processing").await;
            harness.open_gate(gate);
            document(job, "done").await;
        }
    };
    tokio::select! {
        () = watched => {}
        () = load => unreachable!("the load goes on"),
    }
}
