//! Much of everything: inputs, outputs, bytes.

use http::{Method, header};
use serde_json::json;
use shepherd_tests::ids::{RAW, SCRIPTED};
use shepherd_tests::{Harness, Script, big_byte, eventually};

/// More than a daemon may ever hold: far less than one of the bodies below, far more
/// than it needs.
const MEMORY: u64 = 100 << 20;

#[tokio::test]
async fn ten_thousand_inputs() {
    let harness = Harness::new();
    for i in 0..10_000 {
        harness.put("many-inputs", &format!("inputs/part-{i:05}"), i.to_string());
    }
    let daemon = harness.start().await;
    let client = daemon.client();
    let body = json!({"job_id": "many-inputs", "model": SCRIPTED.json()});
    assert_eq!(client.start_job(&body).await.status, 200);
    assert_eq!(client.finished("many-inputs").await["status"], "done");
    let listing = client.result("many-inputs").await.text();
    assert_eq!(listing.lines().count(), 10_000);
    assert_eq!(listing.lines().next(), Some("part-00000 1"));
    assert_eq!(listing.lines().last(), Some("part-09999 4"));
    // The inputs are the client's: a job takes nothing away.
    assert_eq!(std::fs::read_to_string(harness.object("many-inputs", "inputs/part-09999")).unwrap(), "9999");
}

#[tokio::test]
async fn nested_inputs_and_odd_names_reach_the_runner() {
    let harness = Harness::new();
    for name in ["a", "b/a", "b/c/d e", "č"] {
        harness.put("nested", &format!("inputs/{name}"), "12345");
    }
    let daemon = harness.start().await;
    let client = daemon.client();
    let body = json!({"job_id": "nested", "model": SCRIPTED.json()});
    assert_eq!(client.start_job(&body).await.status, 200);
    assert_eq!(client.finished("nested").await["status"], "done");
    assert_eq!(client.result("nested").await.text(), "a 5\nb/a 5\nb/c/d e 5\nč 5\n");
}

#[tokio::test]
async fn a_payload_of_200_mb_is_not_held_in_memory() {
    const SIZE: usize = 200_000_000;
    // Escaped, it is half as long again.
    let harness = Harness::new().with(json!({"limits": {"max_body_bytes": "400MB"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    // Escapes and more than one byte a character at every place of any buffer.
    let piece = r#"payload \"č\" \u0041\n"#;
    let text = "payload \"č\" A\n";
    let count = SIZE / text.len();
    let mut body = format!(r#"{{"job_id":"heavy","model":{},"payload":""#, SCRIPTED.json());
    body.reserve(count * piece.len() + 2);
    for _ in 0..count {
        body.push_str(piece);
    }
    body.push_str("\"}");
    let reply = client.start_job_raw(body, Some("application/json")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(client.finished("heavy").await["status"], "done");
    let result = client.result("heavy").await;
    assert_eq!(result.status, 200);
    assert!(
        result.body.len() == count * text.len()
            && result.body.chunks(text.len()).all(|c| c == text.as_bytes())
    );
    let peak = daemon.peak_memory();
    println!("peak memory {} MiB", peak >> 20);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn a_big_payload_that_breaks_off_leaves_nothing() {
    let harness = Harness::new().with(json!({"limits": {"max_body_bytes": "300MB"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let open = format!(
        r#"{{"job_id":"broken-off","model":{},"payload":"{}"#,
        SCRIPTED.json(),
        "x".repeat(20_000_000)
    );
    for end in ["", "\"", "\",", "\", \"nonsense\": 1}", "\", \"job_id\": \"other\"}", "\\q\"}"] {
        let reply = client.start_job_raw(format!("{open}{end}"), Some("application/json")).await;
        assert_eq!(reply.status, 400, "`{end}`: {reply:?}");
    }
    assert!(!harness.path("storage/broken-off").exists());
    assert_eq!(client.get("/jobs/broken-off/status").await.status, 400);
    assert_eq!(client.start_job_raw(format!("{open}\"}}"), Some("application/json")).await.status, 200);
    assert_eq!(client.finished("broken-off").await["status"], "done");
}

#[tokio::test]
async fn a_big_output_is_not_held_in_memory() {
    const SIZE: u64 = 300 << 20;
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.run("big-output", SCRIPTED, &Script::Big(SIZE)).await["status"], "done");
    let head = client.ask(Method::HEAD, "/jobs/big-output/result").await;
    assert_eq!(head.header(header::CONTENT_LENGTH), SIZE.to_string());
    let part = client.get_with("/jobs/big-output/result", header::RANGE, "bytes=314000000-314000099").await;
    let expected: Vec<u8> = (314_000_000..314_000_100).map(big_byte).collect();
    assert_eq!((part.status, &part.body[..]), (206, &expected[..]));
    let all = client.result("big-output").await;
    assert!(all.body.iter().zip(0..SIZE).all(|(byte, offset)| *byte == big_byte(offset)));
    assert_eq!(all.body.len() as u64, SIZE);
    let peak = daemon.peak_memory();
    println!("peak memory {} MiB", peak >> 20);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn many_and_nested_outputs() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.run("many-outputs", RAW, &Script::Many(3000)).await["status"], "done");
    for i in [0, 999, 1000, 2999] {
        let name = format!("out-{i:05}");
        assert_eq!(client.get(&format!("/jobs/many-outputs/result/{name}")).await.text(), name);
    }
    let names = ["output", "a/b/c/output", "a/b/other", "z"];
    let files = names.iter().map(|name| ((*name).to_owned(), format!("text of {name}"))).collect();
    assert_eq!(client.run("nested-outputs", SCRIPTED, &Script::Files(files)).await["status"], "done");
    for name in names {
        let path = harness.object("nested-outputs", &format!("outputs/{name}"));
        let text = eventually(name, || std::fs::read_to_string(&path).ok()).await;
        assert_eq!(text, format!("text of {name}"));
    }
}

#[tokio::test]
async fn a_burst_of_jobs_is_done_and_every_waiter_answered() {
    let harness = Harness::new().with_sheep("second", json!({}));
    let daemon = harness.start().await;
    let tasks: Vec<_> = (0..16)
        .map(|client_number| {
            let client = daemon.client();
            tokio::spawn(async move {
                for i in 0..25 {
                    let job = format!("burst-{client_number}-{i}");
                    let (good, model) = (i % 5 != 4, if i % 10 < 8 { SCRIPTED } else { RAW });
                    let script = if good { Script::Say(job.clone()) } else { Script::Fail(job.clone()) };
                    let status = client.run(&job, model, &script).await;
                    assert_eq!(status["status"], if good { "done" } else { "failed" }, "{status}");
                    let result = client.result(&job).await;
                    if good {
                        assert_eq!((result.status, result.text()), (200, job));
                    } else {
                        result.expect_message(500, &job);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(harness.journal().runs().len(), 400, "every job ran once");
}
