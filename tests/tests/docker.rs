//! Docker sheep: images from a registry, containers on a real engine.

use serde_json::{Value, json};
use shepherd_tests::docker::{Engine, Image, Recipe, Registry};
use shepherd_tests::ids::SHEEP;
use shepherd_tests::{Client, Daemon, Harness, Model, Script, Step, eventually, eventually_async, free_port};

fn message(status: &Value) -> String {
    status["error_details"]["message"].as_str().unwrap_or_default().to_owned()
}

fn say(text: &str) -> Script {
    Script::Say(text.to_owned())
}

async fn assert_works(client: &Client, job: &str, model: Model) {
    let status = client.run(job, model, &say(job)).await;
    assert_eq!(status["status"], "done", "{status}");
    assert_eq!(client.result(job).await.text(), job);
}

/// Ends the daemon, and holds that none of its containers runs, or, where they go by themselves, is there.
async fn assert_nothing_left(engine: &Engine, harness: &Harness, daemon: Daemon) {
    assert_eq!(daemon.stop().await.code, Some(0));
    assert_eq!(engine.containers(&harness.path("state"), false), [""; 0]);
    for id in engine.containers(&harness.path("state"), true) {
        engine.docker(&["rm", &id]);
    }
}

/// The engine that tests share, and an open registry.
macro_rules! parts {
    ($registry:expr) => {{
        let (Some(engine), Some(registry)) = (Engine::shared(), $registry) else { return };
        (engine, registry)
    }};
}

#[tokio::test]
async fn an_image_is_pulled_with_a_login_and_its_jobs_run_without_a_network() {
    let (engine, registry) = parts!(Registry::with_login());
    let model = Model::unique("plain", "1");
    let image = Image::push(&engine, &registry, model, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({"autoremove_containers": true}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for round in 0..3 {
        assert_works(&client, &format!("job-{round}"), image.model()).await;
    }
    let sheep = client.sheep(SHEEP).await;
    assert_eq!(
        (&sheep["type"], &sheep["running"], &sheep["activity"]),
        (&json!("docker"), &json!(true), &Value::Null)
    );
    let containers = engine.containers(&harness.path("state"), false);
    assert_eq!(containers.len(), 1, "one runner stays warm");
    let inspect = |format: &str| engine.docker(&["inspect", "--format", format, &containers[0]]);
    assert_eq!(inspect("{{.HostConfig.NetworkMode}}"), "none");
    assert_eq!(
        inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.Init}}"),
        "true [ALL] true"
    );
    assert!(inspect("{{.HostConfig.SecurityOpt}}").contains("no-new-privileges"));
    assert_eq!(inspect("{{.HostConfig.PortBindings}}"), "map[]");
    assert_nothing_left(&engine, &harness, daemon).await;
    assert_eq!(
        engine.containers(&harness.path("state"), true),
        [""; 0],
        "they are removed where that is asked"
    );
}

#[tokio::test]
async fn what_a_container_prints_is_the_log_of_the_job_that_it_works_on() {
    let (engine, registry) = parts!(Registry::open());
    let image = Image::push(&engine, &registry, Model::unique("chatty", "1"), &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({"autoremove_containers": true}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let log = async |job: &str| client.get(&format!("/jobs/{job}/logs")).await.text();
    // An engine on a busy machine may be slow to tell: these jobs end once it has told all that came before.
    for job in ["job-1", "job-2", "job-3"] {
        let text = format!("žluťoučký {job}\nand its end\n");
        let gate = harness.shared(job);
        let script = Script::Steps(vec![Step::Print(text.clone()), Step::Gate(gate.clone())]);
        client.submit(job, image.model(), &script).await.expect_status(200);
        eventually_async("the log", || async { log(job).await.ends_with(&text).then_some(()) }).await;
        harness.open_gate(&gate);
        assert_eq!(client.finished(job).await["status"], "done");
        let whole = log(job).await;
        let before = whole.strip_suffix(&text).expect("it ends with what it printed");
        // Of the first, that may be the end of its model's loading.
        assert!(before.is_empty() || job == "job-1", "{whole}");
    }
    // What is printed right before an answer is nearly always its job's; whose it is, it is there once.
    let text = "its last words\n";
    client.run("hasty", image.model(), &Script::Steps(vec![Step::Print(text.to_owned())])).await;
    let gate = harness.shared("last");
    let script = Script::Steps(vec![Step::Print("last\n".to_owned()), Step::Gate(gate.clone())]);
    client.submit("last", image.model(), &script).await.expect_status(200);
    eventually_async("the log", || async { log("last").await.ends_with("last\n").then_some(()) }).await;
    harness.open_gate(&gate);
    client.finished("last").await;
    assert_eq!(log("hasty").await + &log("last").await, format!("{text}last\n"));
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn what_a_registry_refuses_is_said_to_the_job_and_the_next_one_works() {
    let (engine, registry) = parts!(Registry::with_login());
    let model = Model::unique("wanted", "1");
    let _image = Image::push(&engine, &registry, model, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let unknown = Model::unique("nobody", "1");
    let tagless = Model { name: model.name, version: "2" };
    for (job, model, expected) in
        [("unknown-image", unknown, unknown.name), ("unknown-tag", tagless, &format!("{}:2", model.name))]
    {
        let status = client.run(job, model, &Script::Nothing).await;
        assert_eq!(status["status"], "failed");
        let text = message(&status);
        assert!(
            text.starts_with("Failed to start sheep for this job (") && text.contains(expected),
            "{text}"
        );
        assert!(text.contains(registry.authority()), "{text}");
    }
    assert_works(&client, "good", model).await;
    assert_nothing_left(&engine, &harness, daemon).await;

    let wrong = Harness::on_engine(&engine, &registry, json!({"pull": "always"}))
        .with(json!({"registry": {"password": "not-that-one"}}));
    let other = Model::unique("locked", "1");
    let _other = Image::push(&engine, &registry, other, &Recipe::default());
    let daemon = wrong.start().await;
    let text = message(&daemon.client().run("locked-out", other, &Script::Nothing).await);
    assert!(text.to_lowercase().contains("log") && text.contains(registry.authority()), "{text}");
    assert!(!text.contains("not-that-one") && !daemon.log().text().contains("not-that-one"));
    assert_nothing_left(&engine, &wrong, daemon).await;
}

#[tokio::test]
async fn a_registry_that_is_away_fails_jobs_after_its_patience_and_serves_the_next() {
    let (engine, mut registry) = parts!(Registry::open());
    let model = Model::unique("away", "1");
    let image = Image::push(&engine, &registry, model, &Recipe::default());
    let harness =
        Harness::on_engine(&engine, &registry, json!({})).with(json!({"registry": {"patience": "1s"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    registry.stop();
    let text = message(&client.run("too-early", model, &Script::Nothing).await);
    assert!(text.contains(registry.authority()), "{text}");
    registry.start();
    assert_works(&client, "in-time", model).await;
    // What is here can be used when the registry is away.
    registry.stop();
    let other = Model::unique("other", "1");
    let _other = Image::make(&engine, registry.authority(), other, &Recipe::default());
    assert_works(&client, "from-here", other).await;
    assert_works(&client, "and-back", image.model()).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn runners_are_reached_over_tcp_also_those_that_know_only_their_port() {
    let (engine, registry) = parts!(Registry::open());
    let (new, old) = (Model::unique("new", "1"), Model::unique("old", "1"));
    let _new = Image::push(&engine, &registry, new, &Recipe::default());
    let _old = Image::push(&engine, &registry, old, &Recipe::legacy());
    let port = free_port();
    let harness = Harness::on_engine(&engine, &registry, json!({"transport": null, "port": port}));
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_works(&client, "new-job", new).await;
    let containers = engine.containers(&harness.path("state"), false);
    let bindings = engine.docker(&["port", &containers[0]]);
    assert_eq!(bindings, format!("9999/tcp -> 127.0.0.1:{port}"), "on the loopback interface only");
    assert_works(&client, "old-job", old).await;
    assert_works(&client, "new-again", new).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_foreign_container_on_the_sheep_s_port_is_left_alone() {
    let (engine, registry) = parts!(Registry::open());
    let model = Model::unique("tenant", "1");
    let image = Image::push(&engine, &registry, model, &Recipe::shell("sleep 1000"));
    let port = free_port();
    engine.docker(&["pull", "--quiet", image.reference()]);
    let publish = format!("127.0.0.1:{port}:9999");
    let foreign = engine.docker(&["run", "--detach", "--rm", "--publish", &publish, image.reference()]);
    let wanted = Model::unique("landlord", "1");
    let _wanted = Image::push(&engine, &registry, wanted, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({"transport": "tcp", "port": port}));
    let daemon = harness.start().await;
    let client = daemon.client();
    client.submit("waiting", wanted, &say("at last")).await.expect_status(200);
    let problem = shepherd_tests::eventually_async("the sheep to say what is wrong", async || {
        client.sheep(SHEEP).await["problem"].as_str().map(str::to_owned)
    })
    .await;
    assert!(problem.contains(&port.to_string()), "{problem}");
    assert_eq!(engine.docker(&["inspect", "--format", "{{.State.Running}}", &foreign]), "true");
    engine.docker(&["rm", "--force", &foreign]);
    assert_eq!(client.finished("waiting").await["status"], "done");
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn models_are_swapped_and_two_sheep_may_run_one_image() {
    let (engine, registry) = parts!(Registry::open());
    let models = [Model::unique("one", "1"), Model::unique("two", "")];
    let _images = models.map(|model| {
        let recipe = Recipe { content: model.name.into(), ..Recipe::default() };
        Image::push(&engine, &registry, model, &recipe)
    });
    let harness = Harness::on_engine(&engine, &registry, json!({})).with_docker_sheep("second", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for round in 0..4 {
        assert_works(&client, &format!("swap-{round}"), models[round % 2]).await;
    }
    // Both at once: each of the two jobs waits for the other to have begun.
    let gates = [harness.shared("gate-0"), harness.shared("gate-1")];
    for (index, gate) in gates.iter().enumerate() {
        let script = Script::Gate(gate.clone());
        client.submit(&format!("both-{index}"), models[0], &script).await.expect_status(200);
    }
    harness.begun("both-0", 1).await;
    harness.begun("both-1", 1).await;
    assert_eq!(engine.containers(&harness.path("state"), false).len(), 2);
    for gate in &gates {
        harness.open_gate(gate);
    }
    for index in 0..2 {
        assert_eq!(client.finished(&format!("both-{index}")).await["status"], "done");
    }
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn limits_hold_and_are_told() {
    let (engine, registry) = parts!(Registry::open());
    let model = Model::unique("limited", "1");
    // Jobs of a shell: a runner that runs what its input says would be one more program; this asks before it serves.
    let probe = "id -u > $SHEPHERD_PROBE/uid; ip link > $SHEPHERD_PROBE/links; \
         cat /proc/self/status > $SHEPHERD_PROBE/status; \
         (touch /written && echo yes || echo no) > $SHEPHERD_PROBE/written 2>/dev/null; \
         touch /tmp/written && echo yes > $SHEPHERD_PROBE/tmp; exec /bin/scripted_runner \"$@\"";
    let _image =
        Image::push(&engine, &registry, model, &Recipe { user: Some("sheep"), ..Recipe::shell(probe) });
    let harness = Harness::on_engine(&engine, &registry, json!({}));
    let probed = harness.shared("");
    let harness = harness.with_docker_sheep(SHEEP, json!({"env": {"SHEPHERD_PROBE": probed}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_works(&client, "as-sheep", model).await;
    let read = |name: &str| std::fs::read_to_string(harness.shared(name)).unwrap().trim().to_owned();
    assert_eq!(read("uid"), "1234");
    assert_eq!((read("written"), read("tmp")), ("no".to_owned(), "yes".to_owned()));
    let links = read("links");
    assert!(links.contains("lo:") && !links.contains("eth0"), "{links}");
    let status = read("status");
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    // What another user wrote is collected, and removed.
    let files = (0..40).map(|n| (format!("deep/{n}"), n.to_string())).collect();
    assert_eq!(client.run("others-files", model, &Script::Files(files)).await["status"], "done");
    assert_eq!(client.get("/jobs/others-files/result/deep/7").await.text(), "7");
    eventually("the job's directory to go", || {
        (!harness.path("data").join(SHEEP).join("others-files").exists()).then_some(())
    })
    .await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_runner_past_its_memory_says_so() {
    let (engine, registry) = parts!(Registry::open());
    let model = Model::unique("greedy", "1");
    let greedy = "head -c 200m /dev/zero | tail > /dev/null; exit 9";
    let good = Model::unique("modest", "1");
    let _greedy = Image::push(&engine, &registry, model, &Recipe::shell(&format!("exec sh -c '{greedy}'")));
    let _good = Image::push(&engine, &registry, good, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({"memory": "32MiB", "pids": 64}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let status = client.run("hungry", model, &Script::Nothing).await;
    assert_eq!(status["status"], "failed");
    let text = status["error_details"].to_string();
    assert!(text.contains("memory"), "{text}");
    assert_works(&client, "next", good).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_gpu_that_nobody_can_give_fails_the_job_with_a_clear_error() {
    let (engine, registry) = parts!(Registry::open());
    let model = Model::unique("gpu", "1");
    let _image = Image::push(&engine, &registry, model, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({"gpus": "all"}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("needs-gpu", model, &Script::Nothing).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(message(&failed).contains("GPU"), "{failed}");
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn an_image_that_the_engine_cannot_run_fails_its_jobs_and_no_others() {
    let (engine, registry) = parts!(Registry::open());
    let good = Model::unique("good", "1");
    let _good = Image::push(&engine, &registry, good, &Recipe::default());
    let bad = Model::unique("bad", "1");
    let _bad = Image::push(&engine, &registry, bad, &Recipe { volume: Some("/"), ..Recipe::default() });
    let harness = Harness::on_engine(&engine, &registry, json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    client.submit("bad-1", bad, &Script::Nothing).await.expect_status(200);
    for job in ["good-1", "good-2"] {
        client.submit(job, good, &Script::Say("fine".to_owned())).await.expect_status(200);
    }
    let failed = client.finished("bad-1").await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(message(&failed).contains("the engine cannot run the image"), "{failed}");
    for job in ["good-1", "good-2"] {
        assert_eq!(client.finished(job).await["status"], "done");
    }
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn an_output_that_leads_out_of_its_directory_is_refused() {
    let (engine, registry) = parts!(Registry::open());
    let model = Model::unique("sly", "1");
    let _image = Image::push(&engine, &registry, model, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let secret = harness.path("secret");
    std::fs::write(&secret, "nobody's business").unwrap();
    let status = client.run("sly-job", model, &Script::Link(secret.clone())).await;
    assert_eq!(status["status"], "failed", "{status}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "nobody's business");
    assert_works(&client, "honest", model).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}
