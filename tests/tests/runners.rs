//! Runners that misbehave. Whatever one does, its job comes to an end that tells
//! why, and the next job of the same sheep is done.

use serde_json::{Value, json};
use shepherd_protocol::{Event, FromRunner, Ready, RunnerSocket, Token};
use shepherd_tests::ids::{RAW, SCRIPTED, SHEEP};
use shepherd_tests::{
    Client, Harness, Manner, Model, PATIENCE, Script, eventually, eventually_async, process,
};

const DIED: &str = "Sheep container died without notice";

fn message(status: &Value) -> &str {
    status["error_details"]["message"].as_str().unwrap_or_default()
}

async fn assert_next_is_done(client: &Client, model: Model) {
    let next = client.run("the-next-one", model, &Script::Say("next".into())).await;
    assert_eq!(next["status"], "done", "{next}");
    assert_eq!(client.result("the-next-one").await.text(), "next");
}

/// A harness whose sheep has these keys, and which runs a crashed job `retries` times more.
fn harness(sheep: Value, retries: u32) -> Harness {
    Harness::new().with_sheep(SHEEP, sheep).with(json!({"limits": {"crash_retries": retries}}))
}

#[tokio::test]
async fn a_runner_that_never_listens_is_given_up() {
    let deaf = Model { name: "deaf", version: "latest" };
    let harness = harness(json!({"start_timeout": "1s", "stop_grace": "200ms"}), 0);
    harness.model(deaf, Manner::Deaf);
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("deaf-job", deaf, &Script::Nothing).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(!message(&failed).is_empty());
    assert_next_is_done(&client, SCRIPTED).await;
    let first = harness.journal().starts()[0].pid;
    eventually("the end of the deaf runner", || (!process::is_alive(first)).then_some(())).await;
}

#[tokio::test]
async fn a_runner_that_babbles_is_given_up() {
    let babbler = Model { name: "babbler", version: "latest" };
    let harness = harness(json!({"start_timeout": "1s", "stop_grace": "200ms"}), 0);
    harness.model(babbler, Manner::Babble);
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("babbler-job", babbler, &Script::Nothing).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_next_is_done(&client, SCRIPTED).await;
}

#[tokio::test]
async fn a_runner_that_dies_fails_its_job_with_what_happened_and_the_words_that_clients_know() {
    for model in [SCRIPTED, RAW] {
        // One that ends in good order with a job that it has just got may have been asked to end: once.
        for (code, runs) in [(0, 2), (1, 1)] {
            let harness = harness(json!({}), 0);
            let daemon = harness.start().await;
            let client = daemon.client();
            let failed = client.run("fatal", model, &Script::Exit(code)).await;
            assert_eq!(failed["status"], "failed");
            assert_eq!(message(&failed), format!("the runner exited with code {code} ({DIED})"));
            assert_eq!(harness.journal().runs_of("fatal").len(), runs);
            assert_next_is_done(&client, model).await;
        }
    }
}

#[tokio::test]
async fn an_edited_model_gets_a_new_runner_before_its_next_job() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for (edited, job, starts) in
        [(false, "first", 1), (false, "second", 1), (true, "third", 2), (false, "fourth", 2)]
    {
        if edited {
            let config = harness.model_dir(SCRIPTED).join("config.yaml");
            std::fs::File::open(config).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        let status = client.run(job, SCRIPTED, &Script::Say(job.to_owned())).await;
        assert_eq!(status["status"], "done", "{status}");
        assert_eq!(harness.journal().starts().len(), starts, "{job}");
    }
}

#[tokio::test]
async fn a_log_file_s_directory_is_made_and_a_log_file_that_cannot_be_opened_fails_jobs() {
    let harness = Harness::new();
    let (good, bad) = (harness.path("logs/of/good"), harness.path("file/bad"));
    std::fs::write(harness.path("file"), "").unwrap();
    let harness = harness
        .with_sheep("good", json!({"stderr_file": good}))
        .with_sheep("bad", json!({"stderr_file": bad}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for sheep in ["good", "bad"] {
        let mut body = shepherd_tests::start_body(sheep, SCRIPTED, "x");
        body["sheep_id"] = json!(sheep);
        assert_eq!(client.start_job(&body).await.status, 200);
    }
    assert_eq!(client.finished("good").await["status"], "done");
    assert!(good.is_file());
    let failed = client.finished("bad").await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(message(&failed).contains("cannot open the `stderr_file` of sheep `bad`"), "{failed}");
}

#[tokio::test]
async fn a_death_costs_only_the_job_that_ran() {
    let harness = harness(json!({}), 0);
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("opener", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("opener", 1).await;
    client.submit("fatal", SCRIPTED, &Script::Exit(1)).await.expect_status(200);
    for i in 0..20 {
        client.submit(&format!("other-{i}"), SCRIPTED, &Script::Say(i.to_string())).await.expect_status(200);
    }
    harness.open_gate(&gate);
    assert_eq!(client.finished("fatal").await["status"], "failed");
    for i in 0..20 {
        assert_eq!(client.finished(&format!("other-{i}")).await["status"], "done");
        assert_eq!(client.result(&format!("other-{i}")).await.text(), i.to_string());
        assert_eq!(harness.journal().runs_of(&format!("other-{i}")).len(), 1);
    }
}

#[tokio::test]
async fn a_crash_may_be_tried_again() {
    let harness = harness(json!({}), 2);
    let daemon = harness.start().await;
    let client = daemon.client();
    let marker = harness.path("marker");
    let survived = client.run("second-chance", SCRIPTED, &Script::ExitOnce { marker }).await;
    assert_eq!(survived["status"], "done", "{survived}");
    assert_eq!(client.result("second-chance").await.text(), "survived");
    let runs = harness.journal().runs_of("second-chance");
    assert_eq!(runs.len(), 2);
    assert_ne!(runs[0].attempt, runs[1].attempt);
}

#[tokio::test]
async fn a_poison_job_does_not_kill_its_sheep_for_ever() {
    let harness = harness(json!({}), 2);
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("poison", SCRIPTED, &Script::Exit(9)).await;
    assert_eq!(failed["status"], "failed");
    assert!(message(&failed).contains(DIED), "{failed}");
    assert_eq!(harness.journal().runs_of("poison").len(), 3);
    assert_next_is_done(&client, SCRIPTED).await;
}

#[tokio::test]
async fn an_output_that_points_elsewhere_is_not_read() {
    let harness = harness(json!({}), 0);
    let daemon = harness.start().await;
    let client = daemon.client();
    std::fs::write(harness.path("secret"), "secret").unwrap();
    let failed = client.run("link", SCRIPTED, &Script::Link(harness.path("secret"))).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(!client.result("link").await.text().contains("\"secret\""));
    assert!(!harness.object("link", "outputs/output").exists());
    assert_next_is_done(&client, SCRIPTED).await;
}

#[tokio::test]
async fn a_job_of_a_model_that_no_sheep_has_is_refused_and_leaves_nothing_behind() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for (job, model, path) in [
        ("missing", Model { name: "nothing", version: "here" }, "nothing/here/config.yaml"),
        ("no-version", Model { name: "nothing", version: "" }, "nothing/config.yaml"),
    ] {
        let reply = client.start_job(&shepherd_tests::start_body(job, model, "x")).await;
        reply.expect_message(
            400,
            &format!(
                "No sheep can run the model `{}:{}` for this job: sheep `dolly` has no file `{path}`",
                model.name, model.version
            ),
        );
        assert!(!harness.object(job, "inputs/input").exists());
    }
    // It is looked for again at each submit.
    let late = Model { name: "nothing", version: "here" };
    let directory = harness.path("models/nothing");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::rename(
        harness.path("models").join(SCRIPTED.name).join(SCRIPTED.version),
        directory.join("here"),
    )
    .unwrap();
    let done = client.run("found", late, &Script::Nothing).await;
    assert_eq!(done["status"], "done", "{done}");
}

#[tokio::test]
async fn a_runner_command_that_cannot_be_run_is_its_sheep_s_problem() {
    let harness = Harness::new().with_sheep("lame", json!({"runner_command": ["/nonexistent/runner"]}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let mut body = shepherd_tests::start_body("lame-job", SCRIPTED, "x");
    body["sheep_id"] = json!("lame");
    assert_eq!(client.start_job(&body).await.status, 200);
    // The job is not to blame and waits for an operator, who is told.
    eventually_async("the sheep to tell its problem", || async {
        let sheep = client.sheep("lame").await;
        sheep["problem"].as_str().is_some_and(|problem| problem.contains("/nonexistent/runner")).then_some(())
    })
    .await;
    assert_next_is_done(&client, SCRIPTED).await;
    let waiting = client.status("lame-job").await;
    assert!(waiting["finished_at"].is_null(), "{waiting}");
}

#[tokio::test]
async fn a_runner_s_port_in_use_harms_no_other_sheep_and_passes() {
    let port = shepherd_tests::free_port();
    let taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let harness = Harness::new().with_sheep(
        "tcp",
        json!({"transport": "tcp", "port": port, "start_timeout": "1s", "stop_grace": "200ms"}),
    );
    let daemon = harness.start().await;
    let client = daemon.client();
    let mut body = shepherd_tests::start_body("crowded-out", SCRIPTED, "x");
    body["sheep_id"] = json!("tcp");
    assert_eq!(client.start_job(&body).await.status, 200);
    let mut other = shepherd_tests::start_body("elsewhere", SCRIPTED, "x");
    other["sheep_id"] = json!(SHEEP);
    assert_eq!(client.start_job(&other).await.status, 200);
    assert_eq!(client.finished("elsewhere").await["status"], "done");
    eventually_async("the sheep to tell its problem", || async {
        let sheep = client.sheep("tcp").await;
        sheep["problem"].as_str().is_some_and(|problem| problem.contains(&port.to_string())).then_some(())
    })
    .await;
    assert!(client.status("crowded-out").await["finished_at"].is_null());
    drop(taken);
    assert_eq!(client.finished("crowded-out").await["status"], "done");
    assert_eq!(harness.journal().runs_of("crowded-out")[0].sheep, "tcp");
}

#[tokio::test]
async fn runners_over_tcp_work_and_die_as_over_ipc() {
    let port = shepherd_tests::free_port();
    let harness = harness(json!({"transport": "tcp", "port": port}), 1);
    let daemon = harness.start().await;
    let client = daemon.client();
    for model in [SCRIPTED, RAW] {
        let marker = harness.path(format!("marker-{}", model.name));
        let status = client.run(&format!("tcp-{}", model.name), model, &Script::ExitOnce { marker }).await;
        assert_eq!(status["status"], "done", "{status}");
    }
    assert_next_is_done(&client, RAW).await;
}

#[tokio::test]
async fn a_stranger_at_a_runners_port_gets_no_job_and_is_told_of() {
    let port = shepherd_tests::free_port();
    let url = format!("tcp://127.0.0.1:{port}");
    // As one that takes its time to load its model, and listens then.
    let harness = Harness::new();
    let started = harness.path("started");
    let script = format!("touch {}; exec sleep 1000", started.display());
    let slow = json!({"transport": "tcp", "port": port, "runner_command": ["/bin/sh", "-c", script]});
    let harness = harness.with_sheep(SHEEP, slow);
    let daemon = harness.start().await;
    let client = daemon.client();
    client.submit("secret", SCRIPTED, &Script::Say("a secret".into())).await.expect_status(200);
    for (token, problem) in [(None, "that is not the runner's"), (Some("a guess"), "does not know the token")]
    {
        // Before that, the port would be found taken.
        eventually("the runner to start", || started.exists().then_some(())).await;
        let bind = || RunnerSocket::bind_with(&url, token.map(Token::new)).ok();
        let (_, sender, mut receiver) = eventually("the port to be free", bind).await.split();
        let closing = sender.clone();
        let stranger = std::thread::spawn(move || {
            loop {
                match receiver.recv(PATIENCE) {
                    Ok(Event::Connected) => {
                        let _ = sender.send(&[FromRunner::Ready(Ready::new("stranger"))]);
                    }
                    Ok(Event::Message(message)) => panic!("it is given {message:?}"),
                    Ok(Event::Garbage(_) | Event::Disconnected) => {}
                    Err(_) => return,
                }
            }
        });
        eventually_async("the sheep to tell its problem", || async {
            let sheep = client.sheep(SHEEP).await;
            sheep["problem"].as_str().is_some_and(|told| told.contains(problem)).then_some(())
        })
        .await;
        std::fs::remove_file(&started).unwrap();
        closing.close();
        tokio::task::spawn_blocking(move || stranger.join().unwrap()).await.unwrap();
    }
}
