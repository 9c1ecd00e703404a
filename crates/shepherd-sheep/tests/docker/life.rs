//! How runners begin and end.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use shepherd_sheep::{ExitCause, Sheep as _, SheepError};

use crate::site::{LONG, lives, site, until};

#[tokio::test]
async fn a_runner_that_exits_leaves_its_code_and_last_words_and_no_container() {
    let Some(site) = site() else { return };
    let mut running =
        site.launch("echo to stdout; echo Traceback >&2; echo 'ValueError: no' >&2; exit 7").await;
    let exit = running.exited().await;
    assert_eq!(exit.to_string(), "exited with code 7; it last wrote: Traceback\nValueError: no");
    assert_eq!(running.exited().await, exit, "and again");
    assert_eq!(running.stop(LONG).await, exit);
    running.kill();
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn the_images_own_command_is_run_and_the_last_container_may_stay() {
    let Some(site) = site() else { return };
    let mut options = site.options("");
    options.command = None;
    options.autoremove = false;
    let sheep = site.sheep(options);
    let exit = sheep.launch(&site.model()).await.unwrap().exited().await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(5), "its own"));
    let first = site.containers();
    assert_eq!(first.lines().count(), 1);
    sheep.launch(&site.model()).await.unwrap().exited().await;
    let second = site.containers();
    assert_eq!(second.lines().count(), 1);
    assert_ne!(first, second, "until the next one");
    sheep.sweep().await.unwrap();
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn stop_asks_first_and_kills_what_does_not_listen() {
    let Some(site) = site() else { return };
    let mut running = site.launch("trap 'echo asked >&2; exit 3' TERM; while :; do sleep 0.01; done").await;
    until(|| site.containers() != "").await;
    // The trap is set once the loop runs; a signal before is as good as none to catch.
    until(|| site.docker(&["top", &site.containers()]).contains("sleep")).await;
    let exit = running.stop(LONG).await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(3), "asked"));

    let mut running = site.launch("trap '' TERM; while :; do sleep 0.01; done").await;
    until(|| site.docker(&["top", &site.containers()]).contains("sleep")).await;
    assert!(running.stop(LONG).now_or_never().is_none(), "dropped before, it was asked and not killed");
    let id = site.containers();
    assert_eq!(site.docker(&["inspect", "-f", "{{.State.Running}}", &id]), "true");
    let exit = running.stop(Duration::ZERO).await;
    assert_eq!(exit.cause, ExitCause::Signal(9));
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn a_runner_makes_room_for_the_next_as_soon_as_it_is_dead() {
    let Some(site) = site() else { return };
    // Two at once would meet in the sheep's directory.
    let home = site.home();
    let script = format!(
        "cd {}; mkdir alive || touch met; trap 'rmdir alive; exit 0' TERM; touch begun; while :; do sleep 0.01; done",
        home.display()
    );
    for autoremove in [true, false] {
        let mut options = site.options(&script);
        options.autoremove = autoremove;
        let sheep = site.sheep(options);
        for _ in 0..5 {
            let mut running = sheep.launch(&site.model()).await.unwrap();
            until(|| home.join("begun").exists()).await;
            std::fs::remove_file(home.join("begun")).unwrap();
            running.vacate(LONG).await;
            assert!(!home.join("alive").exists());
        }
        assert!(!home.join("met").exists());
        let mut deaf = sheep.launch(&site.model()).await.unwrap();
        deaf.vacate(Duration::ZERO).await;
        // It may have been killed before it said so.
        let _ = std::fs::remove_dir(home.join("alive"));
        sheep.settled().await;
        let left = site.containers().lines().count();
        assert!(if autoremove { left == 0 } else { left <= 2 }, "{left} containers are left");
        sheep.sweep().await.unwrap();
        assert_eq!(site.containers(), "");
    }
}

#[tokio::test]
async fn a_runner_that_is_dropped_after_it_made_room_leaves_nothing() {
    let Some(site) = site() else { return };
    let sheep = site.sheep(site.options("sleep 1000"));
    let mut running = sheep.launch(&site.model()).await.unwrap();
    running.vacate(LONG).await;
    drop(running);
    sheep.settled().await;
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn what_others_do_to_a_container_is_noticed() {
    let Some(site) = site() else { return };
    for (commands, cause) in [
        (&["kill"][..], ExitCause::Signal(9)),
        (&["kill", "-s", "HUP"], ExitCause::Signal(1)),
        (&["rm", "-f"], ExitCause::Signal(9)),
        (&["stop", "-t", "0"], ExitCause::Signal(9)),
    ] {
        let mut running = site.launch("trap '' TERM; while :; do sleep 1; done").await;
        let id = site.containers();
        until(|| site.docker(&["top", &id]).contains("sleep")).await;
        assert!(running.exited().now_or_never().is_none());
        let mut command = commands.to_vec();
        command.push(&id);
        site.docker(&command);
        let exit = running.exited().await;
        // Whoever removes it may do so before its code was asked for.
        assert!(
            exit.cause == cause || (commands[0] == "rm" && exit.cause == ExitCause::Unknown),
            "{commands:?}: {exit}"
        );
        assert_eq!(site.containers(), "");
    }
}

#[tokio::test]
async fn a_paused_container_can_be_stopped() {
    let Some(site) = site() else { return };
    let mut running = site.launch("sleep 1000").await;
    let id = site.containers();
    site.docker(&["pause", &id]);
    assert!(running.exited().now_or_never().is_none());
    let exit = running.stop(LONG).await;
    assert_eq!(exit.cause, ExitCause::Signal(15), "asked");

    let mut running = site.launch("sleep 1000").await;
    site.docker(&["pause", &site.containers()]);
    let exit = running.stop(Duration::ZERO).await;
    assert!(matches!(exit.cause, ExitCause::Signal(9 | 15)), "{exit}");
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn a_dropped_runner_is_killed_and_the_next_launch_waits_for_it() {
    let Some(site) = site() else { return };
    let sheep = site.sheep(site.options("trap '' TERM; sleep 1000"));
    let running = sheep.launch(&site.model()).await.unwrap();
    let first = site.containers();
    let pid: i32 = site.docker(&["inspect", "-f", "{{.State.Pid}}", &first]).parse().unwrap();
    let error = sheep.launch(&site.model()).await.err().unwrap();
    assert!(matches!(&error, SheepError::Unavailable(text) if text.contains("still running")), "{error}");
    assert!(lives(pid));
    drop(running);
    let mut running = sheep.launch(&site.model()).await.unwrap();
    assert!(!lives(pid));
    let second = site.containers();
    assert!(second.lines().count() == 1 && second != first, "{first}, {second}");
    running.kill();
    assert_eq!(running.exited().await.cause, ExitCause::Signal(9));
    sheep.sweep().await.unwrap();
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn a_launch_dropped_at_any_moment_leaves_nothing() {
    let Some(site) = site() else { return };
    let sheep = site.sheep(site.options("sleep 1000"));
    let model = site.model();
    let whole = Instant::now();
    drop(sheep.launch(&model).await.unwrap());
    let whole = whole.elapsed();
    for step in 0..24 {
        // Each time a little later.
        let moment = whole * step / 20;
        if let Ok(running) = tokio::time::timeout(moment, sheep.launch(&model)).await {
            drop(running.unwrap());
        }
        // Waits for what was dropped.
        sheep.sweep().await.unwrap();
        assert_eq!(site.containers(), "", "dropped after {moment:?}");
    }
    assert_eq!(std::fs::read_dir(site.home()).unwrap().count(), 0, "no socket stays");
    assert_eq!(sheep.activity(), None);
}

#[tokio::test]
async fn what_an_earlier_life_left_is_swept_and_strangers_are_not() {
    let Some(site) = site() else { return };
    let instance = format!("shepherd.instance={}", site.instance);
    let left = |extra: &[&str]| {
        let mut arguments = vec!["--label", instance.as_str()];
        arguments.extend_from_slice(extra);
        site.stranger(&arguments, "trap '' TERM; while :; do sleep 1; done")
    };
    let (running, paused) = (left(&[]), left(&[]));
    site.docker(&["pause", paused.id()]);
    let (running, paused) = (std::mem::ManuallyDrop::new(running), std::mem::ManuallyDrop::new(paused));
    let other_sheep = left(&["--label", "shepherd.sheep=molly"]);
    let other_instance = site.stranger(&["--label", "shepherd.instance=another"], "sleep 1000");
    site.sheep(site.options("")).sweep().await.unwrap();
    assert!(other_sheep.is_running() && other_instance.is_running());
    let containers = site.containers();
    assert!(!containers.contains(running.id()) && !containers.contains(paused.id()), "{containers}");
}
