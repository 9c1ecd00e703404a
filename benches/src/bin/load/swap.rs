//! What a change of models costs a docker sheep, against `docker run` by hand.
//!
//! One sheep and two images, whose jobs come in turns: each job ends the container of
//! the other model and starts one of its own. What is measured is the time from the
//! submit, at which nothing else is to be done, to the moment at which the new runner
//! has begun the job. By hand is one container of the same image with the same fences,
//! from the command's start to its end, which comes when the container runs; nothing is
//! stopped for it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use shepherd_tests::docker::{Engine, Image, Recipe, Registry};
use shepherd_tests::{Harness, Model, Script};

use crate::Options;
use crate::percentile::median;
use crate::report::{Section, Wanted};

/// Changes that are measured for each round that is asked for.
const CHANGES: usize = 6;

pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(changes(options))
}

async fn changes(options: &Options) -> anyhow::Result<Section> {
    let mut section = Section::new("change of models, docker");
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else {
        section.row("measured, for want of an engine", 0.0, "changes");
        return Ok(section);
    };
    let models = [Model::unique("this", "1"), Model::unique("that", "1")];
    let images = models.map(|model| {
        let recipe = Recipe { content: model.name.into(), ..Recipe::default() };
        Image::push(&engine, &registry, model, &recipe)
    });
    let count = options.rounds.max(1) * CHANGES;
    let mut by_hand = Vec::new();
    for (name, pull) in [("the image is here", "missing"), ("the registry is asked", "always")] {
        let harness =
            Harness::on_engine(&engine, &registry, json!({"pull": pull, "autoremove_containers": true}));
        let daemon = harness.start().await;
        let client = daemon.client();
        let mut took = Vec::new();
        for number in 0..count + 2 {
            let job = format!("change-{number}");
            let since = Instant::now();
            client.submit(&job, models[number % 2], &Script::Nothing).await.expect_status(200);
            harness.begun(&job, 1).await;
            // The first of each image are not changes, or bring the image into memory.
            if number >= 2 {
                took.push(millis(since.elapsed()));
            }
            client.finished(&job).await;
            if pull == "missing" && number >= 2 {
                by_hand.push(run_by_hand(&engine, images[number % 2].reference())?);
            }
        }
        daemon.stop().await;
        if by_hand.len() == count && took.len() == count {
            let (change, hand) = (median(took), median(by_hand.clone()));
            section.row(format!("change of models, {name}"), change, "ms");
            let ratio = change / hand;
            if pull == "missing" {
                section.row("docker run by hand", hand, "ms");
                section.wanted("change to docker run", ratio, "times", Wanted::AtMost(1.2));
            } else {
                section.row("the same, the registry is asked", ratio, "times");
            }
        }
    }
    Ok(section)
}

fn run_by_hand(engine: &Engine, image: &str) -> anyhow::Result<f64> {
    let mut run = engine.command();
    run.args([
        "run",
        "--detach",
        "--network=none",
        "--read-only",
        "--tmpfs=/tmp",
        "--init",
        "--cap-drop=ALL",
    ]);
    run.args(["--security-opt=no-new-privileges", "--pids-limit=4096", "--entrypoint=/bin/sleep"]);
    run.args([image, "1000"]);
    let since = Instant::now();
    let output = run.output()?;
    let took = millis(since.elapsed());
    ensure!(output.status.success(), "docker run: {}", String::from_utf8_lossy(&output.stderr));
    engine.docker(&["rm", "--force", String::from_utf8_lossy(&output.stdout).trim()]);
    Ok(took)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
