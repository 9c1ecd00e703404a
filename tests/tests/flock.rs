//! Which sheep does what, with which model.

use serde_json::json;
use shepherd_tests::ids::{RAW, SCRIPTED, SHEEP};
use shepherd_tests::{Client, Harness, Manner, Model, Script, eventually};

async fn submit_to(client: &Client, sheep: &str, job: &str, model: Model, script: &Script) {
    let mut body = shepherd_tests::start_body(job, model, &script.text());
    body["sheep_id"] = json!(sheep);
    assert_eq!(client.start_job(&body).await.status, 200);
}

#[tokio::test]
async fn a_pinned_job_runs_on_its_sheep() {
    let harness = Harness::new().with_sheep("second", json!({})).with_sheep("third", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let sheep = ["second", "third", SHEEP, "third", "second", SHEEP, SHEEP, "third"];
    for (i, sheep) in sheep.iter().enumerate() {
        submit_to(&client, sheep, &format!("pinned-{i}"), SCRIPTED, &Script::Say(String::new())).await;
    }
    for (i, sheep) in sheep.iter().enumerate() {
        let job = format!("pinned-{i}");
        assert_eq!(client.finished(&job).await["status"], "done");
        assert_eq!(harness.journal().runs_of(&job)[0].sheep, *sheep);
    }
}

#[tokio::test]
async fn a_pinned_job_waits_for_its_sheep_and_holds_up_nobody() {
    let harness = Harness::new().with_sheep("second", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    submit_to(&client, "second", "blocker", SCRIPTED, &Script::Gate(gate.clone())).await;
    harness.begun("blocker", 1).await;
    submit_to(&client, "second", "patient", SCRIPTED, &Script::Say(String::new())).await;
    for i in 0..5 {
        let done = client.run(&format!("free-{i}"), SCRIPTED, &Script::Say(String::new())).await;
        assert_eq!(done["status"], "done");
        assert_eq!(harness.journal().runs_of(&format!("free-{i}"))[0].sheep, SHEEP);
    }
    assert!(harness.journal().runs_of("patient").is_empty());
    harness.open_gate(&gate);
    client.finished("patient").await;
    assert_eq!(harness.journal().runs_of("patient")[0].sheep, "second");
}

#[tokio::test]
async fn two_sheep_work_at_the_same_time() {
    let harness = Harness::new().with_sheep("second", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let gates = [harness.path("gate-0"), harness.path("gate-1")];
    for (i, gate) in gates.iter().enumerate() {
        client.submit(&format!("job-{i}"), SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    }
    // Both begin before either may end.
    harness.begun("job-0", 1).await;
    harness.begun("job-1", 1).await;
    for gate in &gates {
        harness.open_gate(gate);
    }
    assert_eq!(client.finished("job-0").await["status"], "done");
    assert_eq!(client.finished("job-1").await["status"], "done");
    let journal = harness.journal();
    assert_ne!(journal.runs_of("job-0")[0].sheep, journal.runs_of("job-1")[0].sheep);
}

#[tokio::test]
async fn a_sheep_changes_its_model() {
    let harness = Harness::new();
    let unversioned = Model { name: "unversioned", version: "" };
    harness.model(unversioned, Manner::Sdk);
    let daemon = harness.start().await;
    let client = daemon.client();
    for (i, model) in [SCRIPTED, RAW, unversioned, SCRIPTED].into_iter().enumerate() {
        assert_eq!(
            client.run(&format!("job-{i}"), model, &Script::Say(i.to_string())).await["status"],
            "done"
        );
        assert_eq!(client.result(&format!("job-{i}")).await.text(), i.to_string());
        assert_eq!(client.sheep(SHEEP).await["model"], model.json());
    }
    let configs: Vec<_> = harness.journal().starts().into_iter().map(|start| start.config).collect();
    let expected = [
        "scripted/latest/config.yaml",
        "raw/latest/config.yaml",
        "unversioned/config.yaml",
        "scripted/latest/config.yaml",
    ];
    assert_eq!(configs, expected);
    let alive = || {
        harness.journal().starts().iter().filter(|start| shepherd_tests::process::is_alive(start.pid)).count()
    };
    eventually("the earlier runners to end", || (alive() == 1).then_some(())).await;
}

#[tokio::test]
async fn alternating_models_do_not_restart_the_runner_each_time() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("opener", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("opener", 1).await;
    for i in 0..12 {
        let model = if i % 2 == 0 { SCRIPTED } else { RAW };
        client.submit(&format!("job-{i:02}"), model, &Script::Say(i.to_string())).await.expect_status(200);
    }
    harness.open_gate(&gate);
    for i in 0..12 {
        assert_eq!(client.finished(&format!("job-{i:02}")).await["status"], "done");
    }
    assert_eq!(harness.journal().starts().len(), 2, "one runner for each model");
    // Within a model, inputs that take long to come are overtaken, as they may on a busy machine.
    let mut order: Vec<_> = harness.journal().runs().into_iter().skip(1).map(|run| run.job).collect();
    order[..6].sort();
    order[6..].sort();
    let expected: Vec<_> =
        (0..12).step_by(2).chain((1..12).step_by(2)).map(|i| format!("job-{i:02}")).collect();
    assert_eq!(order, expected, "all jobs of one model, then all of the other");
}

#[tokio::test]
async fn a_sheep_that_has_the_model_is_preferred() {
    let harness = Harness::new().with_sheep("second", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    submit_to(&client, "second", "warm-up", RAW, &Script::Say(String::new())).await;
    client.finished("warm-up").await;
    for i in 0..5 {
        client.run(&format!("job-{i}"), RAW, &Script::Say(String::new())).await;
        assert_eq!(harness.journal().runs_of(&format!("job-{i}"))[0].sheep, "second");
    }
    assert_eq!(harness.journal().starts().len(), 1);
}

#[tokio::test]
async fn a_job_goes_to_the_sheep_whose_directory_has_its_model() {
    let harness = Harness::new();
    let other = Model { name: "other", version: "1" };
    let directory = harness.path("more-models").join(other.name).join(other.version);
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    std::fs::rename(harness.model_dir(RAW), &directory).unwrap();
    let models = harness.path("more-models");
    let harness = harness.with_sheep("second", json!({"working_directory": models}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for i in 0..6 {
        let (model, sheep) = if i % 2 == 0 { (SCRIPTED, SHEEP) } else { (other, "second") };
        let job = format!("job-{i}");
        let done = client.run(&job, model, &Script::Say(String::new())).await;
        assert_eq!(done["status"], "done", "{done}");
        assert_eq!(harness.journal().runs_of(&job)[0].sheep, sheep);
    }
}

#[tokio::test]
async fn a_runner_sees_only_its_gpus() {
    let harness = Harness::new()
        .with_sheep("gpus", json!({"devices": ["/dev/nvidia3", "/dev/nvidia0"]}))
        .with_sheep("env", json!({"env": {"WOOL": "white"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for (sheep, name, value) in [
        ("gpus", "CUDA_VISIBLE_DEVICES", "3,0"),
        (SHEEP, "CUDA_VISIBLE_DEVICES", ""),
        ("env", "WOOL", "white"),
    ] {
        let job = format!("env-of-{sheep}");
        submit_to(&client, sheep, &job, SCRIPTED, &Script::Env(name.into())).await;
        assert_eq!(client.finished(&job).await["status"], "done", "{name} is set");
        assert_eq!(client.result(&job).await.text(), value);
    }
}

#[tokio::test]
async fn what_a_runner_prints_is_appended_to_the_sheep_s_files() {
    let harness = Harness::new();
    std::fs::write(harness.path("runners.out"), "before\n").unwrap();
    for life in 1..=2 {
        let daemon = harness.start().await;
        daemon.client().run(&format!("life-{life}"), SCRIPTED, &Script::Say(String::new())).await;
        daemon.stop().await;
        let out = std::fs::read_to_string(harness.path("runners.out")).unwrap();
        assert!(out.starts_with("before\n"), "{out}");
        assert_eq!(out.matches("serving scripted/latest/config.yaml").count(), life, "{out}");
        let err = std::fs::read_to_string(harness.path("runners.err")).unwrap();
        assert_eq!(err.matches("this is the standard error").count(), life, "{err}");
    }
}

#[tokio::test]
async fn the_default_runner_runs_a_command_for_each_job() {
    let harness = Harness::new().with_sheep(SHEEP, json!({"runner_command": null}));
    let model = |name, runner: &str| {
        let model = Model { name, version: "latest" };
        let dir = harness.model_dir(model);
        std::fs::write(dir.join("config.yaml"), "greeting: hello\n").unwrap();
        std::fs::write(dir.join("runner.yaml"), runner).unwrap();
        model
    };
    let copy = model("copy", "runner:\n  command: [cp, \"{inputs}/input\", \"{outputs}/output\"]\n");
    let grumble = "runner:\n  command: [sh, -c, \"echo first words >&2; echo last words >&2; exit 3\"]\n";
    let grumble = model("grumble", grumble);
    let daemon = harness.start().await;
    let client = daemon.client();
    client.start_job(&shepherd_tests::start_body("copy-job", copy, "to be copied")).await;
    assert_eq!(client.finished("copy-job").await["status"], "done");
    assert_eq!(client.result("copy-job").await.text(), "to be copied");
    client.start_job(&shepherd_tests::start_body("grumble-job", grumble, "x")).await;
    let failed = client.finished("grumble-job").await;
    assert_eq!(failed["status"], "failed");
    let message = failed["error_details"]["message"].as_str().unwrap();
    assert!(message.contains("last words"), "{message}");
    client.start_job(&shepherd_tests::start_body("copy-again", copy, "again")).await;
    assert_eq!(client.finished("copy-again").await["status"], "done");
}

#[tokio::test]
async fn a_job_that_takes_long_does_not_keep_those_sent_with_it() {
    let harness = Harness::new().with_sheep("second", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    // Quick jobs, after which the next ones are sent together.
    for round in 0..40 {
        let model = if round % 2 == 0 { SCRIPTED } else { RAW };
        client.run(&format!("quick-{round}"), model, &Script::Say(String::new())).await;
    }
    let gates: Vec<_> = (0..2).map(|index| harness.path(format!("gate-{index}"))).collect();
    for (index, gate) in gates.iter().enumerate() {
        let script = Script::Gate(gate.clone());
        client.submit(&format!("slow-{index}"), SCRIPTED, &script).await.expect_status(200);
    }
    // Each has a sheep of its own, although one of the two has the other model.
    harness.begun("slow-0", 1).await;
    harness.begun("slow-1", 1).await;
    for gate in &gates {
        harness.open_gate(gate);
    }
    for index in 0..2 {
        let status = client.finished(&format!("slow-{index}")).await;
        assert_eq!(status["status"], "done", "{status}");
        assert_eq!(harness.journal().runs_of(&format!("slow-{index}")).len(), 1);
    }
}
