//! Registries that stall, runners that fork and plant links, engines that are killed while runners live:
//! nothing is lost, no container is left, and nobody else's is touched.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use shepherd_tests::docker::{Engine, Image, Recipe, Registry};
use shepherd_tests::ids::SHEEP;
use shepherd_tests::s3::{Fault, Proxy};
use shepherd_tests::{Client, Daemon, Harness, Manner, Model, Script, eventually, eventually_async};

const DIED: &str = "Sheep container died without notice";

fn message(status: &Value) -> &str {
    status["error_details"]["message"].as_str().unwrap_or_default()
}

async fn assert_works(client: &Client, job: &str, model: Model) {
    let status = client.run(job, model, &Script::Say(job.to_owned())).await;
    assert_eq!(status["status"], "done", "{status}");
    assert_eq!(client.result(job).await.text(), job);
}

async fn assert_done(client: &Client, job: &str, said: &str) {
    let status = client.finished(job).await;
    assert_eq!(status["status"], "done", "{status}");
    assert_eq!(client.result(job).await.text(), said);
}

/// Ends the daemon: no container of its is left.
async fn assert_nothing_left(engine: &Engine, harness: &Harness, daemon: Daemon) {
    assert_eq!(daemon.stop().await.code, Some(0));
    assert_eq!(engine.containers(&harness.path("state"), true), [""; 0]);
}

/// The keys of a sheep whose containers go once they have ended, and whose images are the engine's.
fn keys(more: &Value) -> Value {
    let mut all = json!({"autoremove_containers": true, "pull": "never"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// A model in the engine alone.
fn local<'e>(engine: &'e Engine, registry: &Registry, recipe: &Recipe) -> Image<'e> {
    Image::make(engine, registry.authority(), Model::unique("trouble", "1"), recipe)
}

/// An engine of the test's own, a model in it, and a harness on both.
fn own() -> Option<(Engine, Model, Harness)> {
    let (engine, registry) = (Engine::own()?, Registry::open()?);
    let image = local(&engine, &registry, &Recipe::default());
    let model = image.model();
    // It goes with its engine.
    std::mem::forget(image);
    let harness = Harness::on_engine(&engine, &registry, keys(&json!({})));
    Some((engine, model, harness))
}

/// Submits a job that waits for its gate, and waits until a runner has begun it; the gate.
async fn begin(client: &Client, harness: &Harness, job: &str, model: Model) -> PathBuf {
    let gate = harness.shared(format!("gate-of-{job}"));
    client.submit(job, model, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun(job, 1).await;
    gate
}

/// Waits until the sheep says what it waits for.
async fn waits(client: &Client) -> String {
    eventually_async("the sheep to say what it waits for", async || {
        client.sheep(SHEEP).await["problem"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_registry_that_stalls_fails_the_job_after_its_patience_and_serves_the_next() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let model = Model::unique("slow", "1");
    let recipe = Recipe { content: model.name.into(), ..Recipe::default() };
    let _image = Image::push(&engine, &registry, model, &recipe);
    let proxy = Proxy::start(registry.authority().parse().unwrap()).await;
    let authority = proxy.url().trim_start_matches("http://").to_owned();
    let harness = Harness::on_engine(&engine, &registry, json!({"autoremove_containers": true}))
        .with(json!({"registry": {"url": proxy.url(), "patience": "3s"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for (job, part) in [("no-manifest", "/manifests/"), ("no-layer", "/blobs/")] {
        let stalled = proxy.inject(Fault::Hole, u64::MAX, move |head| head.target.contains(part));
        let failed = client.run(job, model, &Script::Nothing).await;
        assert!(stalled.hits() > 0, "{failed}");
        let said = message(&failed);
        assert!(said.starts_with("Failed to start sheep for this job ("), "{failed}");
        assert!(said.contains(&authority), "{said}");
        stalled.lift();
        // An engine that was told to give up a layer goes on waiting for it, and a later pull waits for the engine
        // (20.10): only the connection's end frees both.
        proxy.away().await;
        proxy.back().await;
    }
    // Slow, and not too slow.
    proxy.inject(Fault::Delay(Duration::from_millis(100)), u64::MAX, |_| true);
    assert_works(&client, "in-time", model).await;
    assert_nothing_left(&engine, &harness, daemon).await;
    engine.docker(&["rmi", &format!("{authority}/{}:1", model.name)]);
}

#[tokio::test]
async fn a_runner_past_its_processes_says_so() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let many =
        "n=0; while [ $n -lt 200 ]; do sleep 1000 & n=$((n + 1)); done; exec /bin/scripted_runner \"$@\"";
    let image = local(&engine, &registry, &Recipe::shell(many));
    let good = local(&engine, &registry, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, keys(&json!({"pids": 100})));
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("fork-bomb", image.model(), &Script::Nothing).await;
    assert_eq!(failed["status"], "failed");
    assert!(failed["error_details"].to_string().contains("fork"), "{failed}");
    assert_works(&client, "next", good.model()).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn outputs_that_became_a_link_to_elsewhere_are_refused() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    // While its runner works, something beside it puts a link in the place of a job's outputs.
    let plant = "home=${SHEPHERD_LISTEN#ipc://}; home=${home%/*}; \
         (while :; do for outputs in $home/*/outputs $home/*/*/outputs; do \
         [ -L $outputs ] || { rmdir $outputs && ln -s $ELSEWHERE $outputs && touch $ELSEWHERE.planted; }; \
         done 2>/dev/null; sleep 0.05; done) & exec /bin/scripted_runner \"$@\"";
    let image = local(&engine, &registry, &Recipe::shell(plant));
    let good = local(&engine, &registry, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, keys(&json!({})));
    let elsewhere = harness.shared("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("secret"), "nobody's business").unwrap();
    let harness = harness.with_docker_sheep(SHEEP, keys(&json!({"env": {"ELSEWHERE": elsewhere}})));
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = begin(&client, &harness, "linked", image.model()).await;
    let planted = harness.shared("elsewhere.planted");
    eventually("the link", || planted.exists().then_some(())).await;
    harness.open_gate(&gate);
    let failed = client.finished("linked").await;
    assert_eq!(failed["status"], "failed", "{failed}");
    // What was there is there, and what its runner wrote is where it may write.
    assert_eq!(std::fs::read_to_string(elsewhere.join("secret")).unwrap(), "nobody's business");
    assert_eq!(std::fs::read_to_string(elsewhere.join("output")).unwrap(), "through");
    assert!(!harness.object("linked", "outputs").join("secret").exists());
    assert_works(&client, "honest", good.model()).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_runner_that_ends_in_order_gives_its_job_back() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let image = local(&engine, &registry, &Recipe::default());
    let harness = Harness::on_engine(&engine, &registry, keys(&json!({})));
    let daemon = harness.start().await;
    let client = daemon.client();
    begin(&client, &harness, "cut-short", image.model()).await;
    engine.docker(&["stop", &engine.containers(&harness.path("state"), false)[0]]);
    // As runners that are processes do: either it goes back, or its death fails it; it does not hang.
    eventually_async("the job to go on or to fail", async || {
        let over = client.status("cut-short").await["status"] == "failed";
        (over || harness.journal().runs_of("cut-short").len() == 2).then_some(())
    })
    .await;
    harness.open_gate(&harness.shared("gate-of-cut-short"));
    client.finished("cut-short").await;
    assert_works(&client, "next", image.model()).await;
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_container_that_is_restarted_behind_our_back_is_not_taken_for_ours() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    // One that dies of SIGTERM.
    let image = local(&engine, &registry, &Recipe { manner: Manner::Raw, ..Recipe::default() });
    let harness = Harness::on_engine(&engine, &registry, keys(&json!({})));
    let daemon = harness.start().await;
    let client = daemon.client();
    begin(&client, &harness, "victim", image.model()).await;
    let container = engine.containers(&harness.path("state"), false).remove(0);
    client.submit("next", image.model(), &Script::Say("next".to_owned())).await.expect_status(200);
    // It may be gone before this is answered.
    let _ = engine.try_docker(&["restart", &container]);
    let failed = client.finished("victim").await;
    assert!(message(&failed).contains(DIED), "{failed}");
    assert_done(&client, "next", "next").await;
    assert_eq!(harness.journal().runs_of("next").len(), 1);
    assert!(!engine.containers(&harness.path("state"), true).contains(&container));
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_container_that_is_paused_is_given_up_and_its_job_tried_again() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let image = local(&engine, &registry, &Recipe::default());
    let impatient = keys(&json!({"heartbeat_timeout": "1s", "stop_grace": "200ms"}));
    let harness =
        Harness::on_engine(&engine, &registry, impatient).with(json!({"limits": {"crash_retries": 1}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = begin(&client, &harness, "frozen", image.model()).await;
    let container = engine.containers(&harness.path("state"), false).remove(0);
    engine.docker(&["pause", &container]);
    harness.begun("frozen", 2).await;
    assert!(!engine.containers(&harness.path("state"), true).contains(&container), "one attempt at a time");
    harness.open_gate(&gate);
    assert_done(&client, "frozen", "through").await;
    assert_eq!(harness.journal().runs_of("frozen").len(), 2);
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn two_shepherds_on_one_engine_end_their_own_containers_only() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    let image = local(&engine, &registry, &Recipe::default());
    let model = image.model();
    let [harness, other] = [(), ()].map(|()| Harness::on_engine(&engine, &registry, keys(&json!({}))));
    let neighbour = other.start().await;
    let other_gate = begin(&neighbour.client(), &other, "neighbours-job", model).await;
    let neighbours = engine.containers(&other.path("state"), false);
    let mut gates = Vec::new();
    for life in 0..3 {
        let daemon = harness.start().await;
        for number in 0..3 {
            let job = format!("job-{life}-{number}");
            let gate = harness.shared(format!("gate-of-{job}"));
            daemon.client().submit(&job, model, &Script::Gate(gate.clone())).await.expect_status(200);
            gates.push((job, gate));
        }
        // The first job of all is begun once in each life.
        harness.begun("job-0-0", life + 1).await;
        let containers = engine.containers(&harness.path("state"), false);
        assert_eq!(containers.len(), 1, "those of the lives before are gone");
        daemon.kill().await;
        assert_eq!(
            engine.containers(&harness.path("state"), false),
            containers,
            "they outlive a killed daemon"
        );
    }
    let daemon = harness.start().await;
    for (_, gate) in &gates {
        harness.open_gate(gate);
    }
    for (job, _) in &gates {
        assert_done(&daemon.client(), job, "through").await;
    }
    assert_nothing_left(&engine, &harness, daemon).await;
    assert_eq!(engine.containers(&other.path("state"), false), neighbours);
    other.open_gate(&other_gate);
    assert_done(&neighbour.client(), "neighbours-job", "through").await;
    assert_eq!(other.journal().runs_of("neighbours-job").len(), 1);
    assert_nothing_left(&engine, &other, neighbour).await;
}

#[tokio::test]
async fn an_engine_that_stops_gives_jobs_back_without_blame() {
    let Some((mut engine, model, harness)) = own() else { return };
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = begin(&client, &harness, "cut-off", model).await;
    engine.stop();
    // Accepted meanwhile, as ever.
    client.submit("meanwhile", model, &Script::Say("late".to_owned())).await.expect_status(200);
    let problem = waits(&client).await;
    assert!(problem.contains(engine.host()), "{problem}");
    assert!(client.status("cut-off").await["finished_at"].is_null(), "it is not to blame");
    engine.start();
    // The attempt that was cut off does not end the job in another's place.
    harness.begun("cut-off", 2).await;
    assert_eq!(engine.containers(&harness.path("state"), false).len(), 1);
    harness.open_gate(&gate);
    assert_done(&client, "cut-off", "through").await;
    assert_done(&client, "meanwhile", "late").await;
    assert_eq!(harness.journal().runs_of("cut-off").len(), 2);
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn runners_outlive_a_killed_engine_and_end_with_its_next_start() {
    let Some((mut engine, model, harness)) = own() else { return };
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = begin(&client, &harness, "orphaned", model).await;
    engine.kill();
    client.submit("meanwhile", model, &Script::Say("late".to_owned())).await.expect_status(200);
    // One that starts ends what it finds running.
    engine.start();
    harness.begun("orphaned", 2).await;
    assert_eq!(engine.containers(&harness.path("state"), false).len(), 1, "one attempt at a time");
    harness.open_gate(&gate);
    assert_done(&client, "orphaned", "through").await;
    assert_done(&client, "meanwhile", "late").await;
    assert_eq!(harness.journal().runs_of("orphaned").len(), 2);
    assert_nothing_left(&engine, &harness, daemon).await;
}

#[tokio::test]
async fn a_shepherd_that_starts_without_its_engine_ends_what_is_left_once_it_is_there() {
    let Some((mut engine, model, harness)) = own() else { return };
    let daemon = harness.start().await;
    begin(&daemon.client(), &harness, "earlier", model).await;
    daemon.kill().await;
    // Its container lives on.
    engine.kill();
    let daemon = harness.start().await;
    let client = daemon.client();
    client.submit("early", model, &Script::Say("early".to_owned())).await.expect_status(200);
    waits(&client).await;
    harness.open_gate(&harness.shared("gate-of-earlier"));
    engine.start();
    assert_done(&client, "earlier", "through").await;
    assert_done(&client, "early", "early").await;
    assert_nothing_left(&engine, &harness, daemon).await;
}
