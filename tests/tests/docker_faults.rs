//! Docker sheep when the daemon, a container or the whole engine ends: nothing is lost, nothing is left, and
//! nothing foreign is touched.

use std::pin::pin;

use rustix::process::Signal;
use serde_json::{Value, json};
use shepherd_tests::docker::{Engine, Image, Recipe, Registry};
use shepherd_tests::ids::SHEEP;
use shepherd_tests::{Client, Harness, Model, Script, eventually, process};

fn say(text: &str) -> Script {
    Script::Say(text.to_owned())
}

async fn assert_works(client: &Client, job: &str, model: Model) {
    let status = client.run(job, model, &say(job)).await;
    assert_eq!(status["status"], "done", "{status}");
    assert_eq!(client.result(job).await.text(), job);
}

/// The one container of the harness that runs.
fn container(engine: &Engine, harness: &Harness) -> String {
    let running = engine.containers(&harness.path("state"), false);
    assert_eq!(running.len(), 1, "one runner: {running:?}");
    running[0].clone()
}

/// Begins a job that waits for its gate.
async fn begin(harness: &Harness, client: &Client, job: &str, model: Model) -> std::path::PathBuf {
    let gate = harness.shared(format!("gate-{job}"));
    client.submit(job, model, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun(job, 1).await;
    gate
}

#[tokio::test]
async fn a_killed_daemon_leaves_its_containers_to_the_next_one() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let model = Model::unique("survivor", "1");
    let image = Image::push(&engine, &registry, model, &Recipe::default());
    engine.docker(&["pull", "--quiet", image.reference()]);
    let foreign = engine.docker(&[
        "run",
        "--detach",
        "--network=none",
        "--label=shepherd.instance=another",
        "--label=shepherd.sheep=dolly",
        "--entrypoint=/bin/sleep",
        image.reference(),
        "1000",
    ]);
    let harness = Harness::on_engine(&engine, &registry, json!({}));
    for round in 0..3 {
        let daemon = harness.start().await;
        let client = daemon.client();
        let job = format!("cut-{round}");
        let gate = begin(&harness, &client, &job, model).await;
        for more in 0..5 {
            client.submit(&format!("more-{round}-{more}"), model, &say("x")).await.expect_status(200);
        }
        let old = container(&engine, &harness);
        daemon.kill().await;
        // Of a sheep that was configured once.
        let instance = std::fs::read_to_string(harness.path("state/instance")).unwrap();
        let label = format!("--label=shepherd.instance={}", instance.trim());
        let retired = engine.docker(&[
            "run",
            "--detach",
            "--network=none",
            &label,
            "--label=shepherd.sheep=retired",
            "--entrypoint=/bin/sleep",
            image.reference(),
            "1000",
        ]);
        let daemon = harness.start().await;
        assert!(engine.try_docker(&["inspect", &retired]).is_err(), "nobody else would ever end it");
        let left = engine.docker(&["ps", "--quiet", "--no-trunc", "--filter", &format!("id={old}")]);
        assert_eq!(left, "", "it ended before anything else began");
        harness.begun(&job, 2).await;
        harness.open_gate(&gate);
        let client = daemon.client();
        assert_eq!(client.finished(&job).await["status"], "done");
        for more in 0..5 {
            let id = format!("more-{round}-{more}");
            assert_eq!(client.finished(&id).await["status"], "done");
            assert_eq!(harness.journal().runs_of(&id).len(), 1, "{id} was only queued");
        }
        assert_eq!(daemon.stop().await.code, Some(0));
        assert_eq!(engine.containers(&harness.path("state"), false), [""; 0]);
    }
    assert_eq!(engine.docker(&["inspect", "--format", "{{.State.Running}}", &foreign]), "true");
    engine.docker(&["rm", "--force", &foreign]);
    for id in engine.containers(&harness.path("state"), true) {
        engine.docker(&["rm", "--force", &id]);
    }
}

/// Ends a container, or its runner, in one of several ways.
fn end(engine: &Engine, way: &str, id: &str) {
    match way {
        "kill" | "pause" => engine.docker(&[way, id]),
        "rm" => engine.docker(&["rm", "--force", id]),
        "stop" => engine.docker(&["stop", "--time", "1", id]),
        _ => {
            let pid = engine.docker(&["inspect", "--format", "{{.State.Pid}}", id]);
            let pid: i32 = pid.parse().expect("the engine tells the process id");
            // The init process is the engine's; the runner is its child.
            for runner in process::children(pid) {
                process::signal(runner, Signal::KILL);
            }
            String::new()
        }
    };
}

#[tokio::test]
async fn a_container_that_ends_behind_our_back_costs_its_job_alone() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let model = Model::unique("victim", "1");
    let _image = Image::push(&engine, &registry, model, &Recipe::default());
    let keys = json!({"heartbeat_timeout": "2s", "autoremove_containers": true});
    let harness = Harness::on_engine(&engine, &registry, keys);
    let daemon = harness.start().await;
    let client = daemon.client();
    for way in ["kill", "rm", "stop", "inside", "pause"] {
        let job = format!("by-{way}");
        begin(&harness, &client, &job, model).await;
        let mut finished = pin!(client.finished(&job));
        let mut attempt = 1;
        // A container that ends as soon as it has a job may have been idle: the job is tried once more.
        let status = loop {
            end(&engine, way, &container(&engine, &harness));
            attempt += 1;
            tokio::select! {
                status = &mut finished => break status,
                () = harness.begun(&job, attempt) => {}
            }
        };
        assert_eq!(status["status"], "failed", "{way}: {status}");
        let expected = if way == "pause" { "did not answer" } else { "Sheep container died without notice" };
        let text = status["error_details"]["message"].as_str().unwrap();
        assert!(text.contains(expected), "{way}: {status}");
        if way == "inside" {
            assert!(status["error_details"].to_string().contains("SIGKILL"), "{status}");
        }
        assert_works(&client, &format!("after-{way}"), model).await;
    }
    assert_eq!(daemon.stop().await.code, Some(0));
    assert_eq!(engine.containers(&harness.path("state"), true), [""; 0]);
}

/// A harness on an engine that has the image of `model` and cannot pull.
fn on_own<'a>(engine: &'a Engine, model: Model, keys: Value) -> Option<(Harness, Image<'a>, Registry)> {
    let registry = Registry::open()?;
    let image = Image::make(engine, registry.authority(), model, &Recipe::default());
    let harness = Harness::on_engine(engine, &registry, keys);
    let harness = harness.with(json!({"sheep": {SHEEP: {"pull": "never"}}}));
    Some((harness, image, registry))
}

#[tokio::test]
async fn an_engine_that_stops_or_is_killed_costs_no_job() {
    let Some(mut engine) = Engine::own() else { return };
    let model = Model::unique("engine", "1");
    let (harness, reference) = {
        let Some((harness, image, _registry)) = on_own(&engine, model, json!({})) else { return };
        let reference = image.reference().to_owned();
        // The engine goes away in this test, and with it at the end the image.
        std::mem::forget(image);
        (harness, reference)
    };
    let sleep = ["--entrypoint=/bin/sleep", &reference, "1000"];
    let foreign = engine.docker(&[&["create", "--network=none"][..], &sleep].concat());
    let daemon = harness.start().await;
    let client = daemon.client();
    for way in ["stop", "kill"] {
        let job = format!("across-{way}");
        let gate = begin(&harness, &client, &job, model).await;
        client.submit(&format!("behind-{way}"), model, &say("behind")).await.expect_status(200);
        match way {
            "stop" => engine.stop(),
            _ => engine.kill(),
        }
        engine.start();
        harness.open_gate(&gate);
        let status = client.finished(&job).await;
        assert_eq!(status["status"], "done", "{way}: {status}");
        assert_eq!(client.finished(&format!("behind-{way}")).await["status"], "done");
        assert_works(&client, &format!("after-{way}"), model).await;
    }
    assert_eq!(daemon.stop().await.code, Some(0));
    assert_eq!(engine.containers(&harness.path("state"), false), [""; 0]);
    assert_eq!(engine.docker(&["inspect", "--format", "{{.State.Status}}", &foreign]), "created");
}

#[tokio::test]
async fn an_engine_that_is_away_at_the_start_is_waited_for() {
    let Some(mut engine) = Engine::own() else { return };
    let model = Model::unique("late", "1");
    let harness = {
        let Some((harness, image, _registry)) = on_own(&engine, model, json!({})) else { return };
        std::mem::forget(image);
        harness
    };
    engine.stop();
    let daemon = harness.start().await;
    let client = daemon.client();
    client.submit("patient", model, &say("at last")).await.expect_status(200);
    let problem = shepherd_tests::eventually_async("the sheep to say what is wrong", async || {
        client.sheep(SHEEP).await["problem"].as_str().map(str::to_owned)
    })
    .await;
    assert!(problem.contains(engine.host()), "{problem}");
    engine.start();
    assert_eq!(client.finished("patient").await["status"], "done");
    assert_eq!(daemon.stop().await.code, Some(0));
}

#[tokio::test]
async fn gpu_devices_ask_for_the_runtime_that_brings_them_in() {
    let Some(engine) = Engine::own() else { return };
    let model = Model::unique("gpus", "1");
    let keys = json!({"devices": ["/dev/nvidia0", "/dev/nvidia3"]});
    let Some((harness, _image, _registry)) = on_own(&engine, model, keys) else { return };
    let daemon = harness.start().await;
    let client = daemon.client();
    let status = client.run("sees", model, &Script::Env("NVIDIA_VISIBLE_DEVICES".to_owned())).await;
    assert_eq!(status["status"], "done", "{status}");
    assert_eq!(client.result("sees").await.text(), "0,3");
    eventually("the runtime to be asked", || {
        engine.asked_nvidia().contains(&"NVIDIA_VISIBLE_DEVICES=0,3".to_owned()).then_some(())
    })
    .await;
    assert_eq!(daemon.stop().await.code, Some(0));
}
