//! How a daemon ends, and what the next one finds.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use shepherd_tests::ids::{RAW, SCRIPTED, SHEEP};
use shepherd_tests::{Daemon, Harness, Script, eventually, eventually_async, process};

/// Waits until the daemon takes no more jobs.
async fn draining(daemon: &Daemon) {
    let client = daemon.client();
    // The job names no payload and has no stored input, so a daemon that does not drain
    // yet refuses it, too, and asking changes nothing.
    let body = json!({"job_id": "too-late", "model": SCRIPTED.json()});
    eventually_async("the daemon to drain", || async {
        match client.try_start_job(&body).await {
            Ok(reply) if reply.status == 400 => None,
            Ok(reply) => {
                assert_eq!(reply.status, 503, "{reply:?}");
                assert!(!reply.message(503).is_empty());
                Some(())
            }
            Err(_) => Some(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_signal_lets_running_jobs_end() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let harness = Harness::new().with(json!({"shutdown": {"grace": "1h"}}));
        let daemon = harness.start().await;
        let gate = harness.path("gate");
        let client = daemon.client();
        client.submit("running", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
        harness.begun("running", 1).await;
        client.submit("queued", SCRIPTED, &Script::Say("later".into())).await.expect_status(200);
        daemon.signal(signal);
        draining(&daemon).await;
        assert!(daemon.is_running());
        harness.open_gate(&gate);
        let ended = daemon.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(harness.processes().is_empty(), "a daemon that ended leaves no process");

        let daemon = harness.start().await;
        assert_eq!(daemon.client().status("running").await["status"], "done");
        assert_eq!(daemon.client().result("running").await.text(), "through");
        assert_eq!(daemon.client().finished("queued").await["status"], "done");
        assert_eq!(harness.journal().runs_of("running").len(), 1);
    }
}

#[tokio::test]
async fn a_daemon_that_is_to_outlive_its_terminal_does() {
    let harness = Harness::new();
    let daemon = harness.command();
    let mut command = std::process::Command::new("nohup");
    command.current_dir(harness.path("")).arg(daemon.get_program()).args(daemon.get_args());
    let daemon = harness.start_command(command).await;
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.client().run("after", SCRIPTED, &Script::Say("x".into())).await["status"], "done");
    assert!(!daemon.log().text().contains("draining"));
}

/// A core would hold the keys of the storage.
#[tokio::test]
async fn a_daemon_that_is_aborted_leaves_no_core() {
    let dumping = |program: &std::ffi::OsStr, args: &mut dyn Iterator<Item = &std::ffi::OsStr>| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", r#"ulimit -c unlimited; exec "$@""#, "sh"]).arg(program).args(args);
        command
    };
    let harness = Harness::new();
    let abort = [std::ffi::OsStr::new("-c"), "kill -ABRT $$".as_ref()];
    let other =
        dumping("sh".as_ref(), &mut abort.into_iter()).current_dir(harness.path("")).status().unwrap();
    if !other.core_dumped() {
        // No part is missing: such a machine leaves nothing to prove.
        eprintln!("this machine writes no cores");
        return;
    }
    let daemon = harness.command();
    let mut command = dumping(daemon.get_program(), &mut daemon.get_args());
    command.current_dir(harness.path(""));
    let daemon = harness.start_command(command).await;
    daemon.signal(Signal::ABORT);
    let ended = daemon.ended().await;
    assert_eq!(ended.code, None, "{}", ended.log);
    assert!(!ended.core_dumped);
}

#[tokio::test]
async fn a_running_job_that_does_not_end_is_given_back() {
    for model in [SCRIPTED, RAW] {
        let harness = Harness::new()
            .with_sheep(SHEEP, json!({"stop_grace": "200ms"}))
            .with(json!({"shutdown": {"grace": "500ms"}}));
        let daemon = harness.start().await;
        let gate = harness.path("gate");
        daemon.client().submit("long", model, &Script::Gate(gate.clone())).await.expect_status(200);
        harness.begun("long", 1).await;
        let ended = daemon.stop().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(harness.processes().is_empty(), "a daemon that ended leaves no process");
        harness.open_gate(&gate);
        let daemon = harness.start().await;
        assert_eq!(daemon.client().finished("long").await["status"], "done");
        // Shutting down is nobody's crash, though no retry is allowed.
        assert_eq!(harness.journal().runs_of("long").len(), 2);
    }
}

#[tokio::test]
async fn a_second_signal_forces() {
    let harness = Harness::new().with(json!({"shutdown": {"grace": "12h"}}));
    let daemon = harness.start().await;
    let gate = harness.path("gate");
    daemon.client().submit("long", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("long", 1).await;
    daemon.signal(Signal::TERM);
    draining(&daemon).await;
    assert!(daemon.is_running());
    daemon.signal(Signal::TERM);
    daemon.ended().await;
    eventually("all processes to end", || harness.processes().is_empty().then_some(())).await;
    harness.open_gate(&gate);
    let daemon = harness.start().await;
    assert_eq!(daemon.client().finished("long").await["status"], "done");
}

#[tokio::test]
async fn an_idle_daemon_ends_at_once() {
    let harness = Harness::new().with(json!({"shutdown": {"grace": "12h"}}));
    let daemon = harness.start().await;
    daemon.client().run("warm-up", SCRIPTED, &Script::Say(String::new())).await;
    let client = daemon.client();
    // Nor is it held by a connection that is kept open.
    let _idle = tokio::net::TcpStream::connect(client.address()).await.unwrap();
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(harness.processes().is_empty());
}

#[tokio::test]
async fn those_who_wait_are_let_go() {
    let harness = Harness::new().with(json!({"shutdown": {"grace": "500ms"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    client.submit("long", SCRIPTED, &Script::Gate(harness.path("never"))).await.expect_status(200);
    harness.begun("long", 1).await;
    let waiting = tokio::spawn(async move { client.try_get("/jobs/long/wait_ready").await });
    daemon.stop().await;
    // An answer that is no end of the job, or none.
    if let Ok(reply) = waiting.await.unwrap() {
        assert!(matches!(reply.status, 202 | 503), "{reply:?}");
    }
}

#[tokio::test]
async fn a_killed_daemon_loses_nothing_and_leaves_nothing_running() {
    let port = shepherd_tests::free_port();
    let harness = Harness::new().with_sheep(SHEEP, json!({"transport": "tcp", "port": port}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let (gate, child) = (harness.path("gate"), harness.path("child"));
    client.submit("running", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("running", 1).await;
    for i in 0..5 {
        client.submit(&format!("queued-{i}"), SCRIPTED, &Script::Say(i.to_string())).await.expect_status(200);
    }
    let runner = harness.journal().runs_of("running")[0].pid;
    daemon.kill().await;
    eventually("the runner to end with its shepherd", || (!process::is_alive(runner)).then_some(())).await;
    harness.open_gate(&gate);

    // The port is free for the next runner, and resubmitting is answered as before.
    let daemon = harness.start().await;
    let client = daemon.client();
    let again = shepherd_tests::start_body("running", SCRIPTED, "other");
    assert_eq!(client.start_job(&again).await.status, 409);
    assert_eq!(client.finished("running").await["status"], "done");
    for i in 0..5 {
        assert_eq!(client.finished(&format!("queued-{i}")).await["status"], "done");
        assert_eq!(client.result(&format!("queued-{i}")).await.text(), i.to_string());
    }

    // A runner's own children outlive it; the next daemon ends them.
    client.submit("parent", SCRIPTED, &Script::Hang { child: child.clone() }).await.expect_status(200);
    let pid =
        eventually("the runner's child", || std::fs::read_to_string(&child).ok()?.parse::<i32>().ok()).await;
    daemon.kill().await;
    let daemon = harness.start().await;
    assert!(!process::is_alive(pid), "an orphan of the earlier life still runs");
    drop(daemon);
}

#[tokio::test]
async fn a_pause_of_the_daemon_is_not_blamed_on_its_runners() {
    let limits = json!({"heartbeat_timeout": "1s", "run_timeout": "3s"});
    let harness = Harness::new().with_sheep(SHEEP, limits);
    let daemon = harness.start().await;
    let gate = harness.path("gate");
    let client = daemon.client();
    client.submit("running", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("running", 1).await;
    // Longer than both limits.
    daemon.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(4)).await;
    daemon.signal(Signal::CONT);
    daemon.await_line("the daemon itself was held up").await;
    harness.open_gate(&gate);
    assert_eq!(client.finished("running").await["status"], "done");
    assert_eq!(harness.journal().runs_of("running").len(), 1);
}
