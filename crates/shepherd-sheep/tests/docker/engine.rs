//! Engines that end, come back, hang, and bring in GPUs.

use std::time::Duration;

use futures::FutureExt as _;
use rustix::process::Signal;
use shepherd_sheep::{ExitCause, RunningSheep, Sheep as _, SheepError};

use crate::private::private;
use crate::site::{Site, lives, until};

/// The first process of the one container.
fn pid(site: &Site) -> i32 {
    site.docker(&["inspect", "-f", "{{.State.Pid}}", &site.containers()]).parse().unwrap()
}

async fn stop(running: &mut Box<dyn RunningSheep>) -> ExitCause {
    running.stop(Duration::ZERO).await.cause
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_ends_with_its_engine_is_not_to_blame() {
    let Some((site, mut engine)) = private(&[]) else { return };
    let sheep = site.sheep(site.options("trap 'exit 1' TERM; while :; do sleep 0.1; done"));
    let mut running = sheep.launch(&site.model()).await.unwrap();
    let pid = pid(&site);
    assert!(running.exited().now_or_never().is_none());
    tokio::task::block_in_place(|| engine.signal(Signal::TERM));
    assert_eq!(running.exited().await.cause, ExitCause::EngineStopped);
    assert!(!lives(pid));
    assert_eq!(stop(&mut running).await, ExitCause::EngineStopped, "and again");
    sheep.sweep().await.unwrap();
    let error = sheep.launch(&site.model()).await.err().unwrap();
    assert!(matches!(&error, SheepError::Unavailable(_)), "{error}");
    engine.start();
    let mut running = sheep.launch(&site.model()).await.unwrap();
    assert_eq!(site.containers().lines().count(), 1, "what was left is removed");
    stop(&mut running).await;
    assert_eq!(site.containers(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_outlives_its_engines_death_and_ends_with_its_return() {
    let Some((site, mut engine)) = private(&[]) else { return };
    let sheep = site.sheep(site.options("while :; do sleep 0.1; done"));
    let mut running = sheep.launch(&site.model()).await.unwrap();
    let pid = pid(&site);
    engine.signal(Signal::KILL);
    assert!(lives(pid) && running.exited().now_or_never().is_none());
    // The new engine ends what the old one ran.
    tokio::task::block_in_place(|| engine.start());
    assert_eq!(running.exited().await.cause, ExitCause::EngineStopped);
    assert!(!lives(pid));
    stop(&mut sheep.launch(&site.model()).await.unwrap()).await;
    assert_eq!(site.containers(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_can_be_killed_while_its_engine_is_away() {
    let Some((site, mut engine)) = private(&[]) else { return };
    let sheep = site.sheep(site.options("trap '' TERM; while :; do sleep 0.1; done"));
    let mut running = sheep.launch(&site.model()).await.unwrap();
    let first = pid(&site);
    engine.signal(Signal::KILL);
    stop(&mut running).await;
    assert!(!lives(first));
    drop(running);
    engine.start();

    // And while it hangs.
    let mut running = sheep.launch(&site.model()).await.unwrap();
    let second = pid(&site);
    engine.signal(Signal::STOP);
    stop(&mut running).await;
    assert!(!lives(second));
    engine.signal(Signal::CONT);
    stop(&mut sheep.launch(&site.model()).await.unwrap()).await;
    assert_eq!(site.containers(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_its_engine_comes_back_to_lives_on() {
    let Some((site, mut engine)) = private(&["--live-restore"]) else { return };
    let log = site.dir.path().join("log");
    let mut options = site.options(
        "i=0; while :; do while [ -e $D/$i ]; do echo line $i; i=$((i+1)); done; [ -e $D/end ] && exit 3; sleep 0.05; done",
    );
    options.env = vec![("D".to_owned(), site.home().to_str().unwrap().to_owned())];
    options.stdout_file = Some(log.clone());
    let read = || std::fs::read_to_string(&log).unwrap();
    let write = |name: &str| std::fs::write(site.home().join(name), "").unwrap();
    let sheep = site.sheep(options);
    let mut running = sheep.launch(&site.model()).await.unwrap();
    let pid = pid(&site);
    for name in ["0", "1", "2"] {
        write(name);
    }
    until(|| read().ends_with("line 2\n")).await;
    for (signal, name) in [(Signal::KILL, "3"), (Signal::TERM, "4")] {
        tokio::task::block_in_place(|| engine.signal(signal));
        write(name);
        assert!(lives(pid) && running.exited().now_or_never().is_none());
        tokio::task::block_in_place(|| engine.start());
        until(|| read().ends_with(&format!("line {name}\n"))).await;
        assert!(lives(pid) && running.exited().now_or_never().is_none());
    }
    write("end");
    let exit = running.exited().await;
    let whole = "line 0\nline 1\nline 2\nline 3\nline 4";
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(3), whole));
    assert_eq!(read().trim(), whole, "nothing is lost, and nothing twice");
    assert_eq!(site.containers(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_among_the_devices_are_brought_in_by_their_runtime() {
    // What NVIDIA's toolkit would install: it is told by the bundle what it is to do.
    let wrapper = r#"#!/bin/sh
case " $* " in *" create "*)
    for a; do [ "$last" = --bundle ] && bundle=$a; last=$a; done
    grep -o '"NVIDIA_VISIBLE_DEVICES=[^"]*"' "$bundle/config.json" >> "${0%/*}/asked" ;;
esac
exec runc "$@"
"#;
    let Some((site, engine)) = private(&["--add-runtime", "nvidia={}/nvidia"]) else { return };
    let path = engine.path("nvidia");
    std::fs::write(&path, wrapper).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut options = site.options("echo $NVIDIA_VISIBLE_DEVICES");
    options.devices = ["/dev/nvidia1", "/dev/nvidia0", "/dev/null"].map(str::to_owned).to_vec();
    let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
    assert_eq!(exit.log_tail, "1,0", "{exit}");
    assert_eq!(
        std::fs::read_to_string(engine.path("asked")).unwrap().trim(),
        r#""NVIDIA_VISIBLE_DEVICES=1,0""#
    );
    // Others do not come near it.
    assert_eq!(site.launch("echo \"[$NVIDIA_VISIBLE_DEVICES]\"").await.exited().await.log_tail, "[]");
    assert_eq!(std::fs::read_to_string(engine.path("asked")).unwrap().lines().count(), 1);
}
