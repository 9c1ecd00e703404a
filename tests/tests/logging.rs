//! The daemon's log: what becomes of it, and what is in it.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::json;
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::{Client, Harness, Script, Step, eventually_async, free_port, process};

/// Starts the daemon with its log at `stderr`, which nobody needs to read.
async fn start(harness: &Harness, stderr: impl Into<Stdio>) -> (Child, Client) {
    let port = free_port();
    let mut command: Command = harness.bare_command();
    command.arg("-c").arg(harness.write_config()).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    let daemon = command.stdin(Stdio::null()).stderr(stderr).spawn().expect("the daemon starts");
    let client = Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    eventually_async("the daemon to be ready", || async {
        client.try_get("/readyz").await.ok().filter(|reply| reply.status == 200).map(drop)
    })
    .await;
    (daemon, client)
}

/// Runs jobs, and ends the daemon as it should end.
async fn serves_and_ends(harness: &Harness, mut daemon: Child, client: &Client) {
    for number in 0..20 {
        let job = format!("job-{number}");
        assert_eq!(client.run(&job, SCRIPTED, &Script::Say("x".into())).await["status"], "done");
    }
    assert_eq!(client.get("/readyz").await.status, 200);
    process::signal(i32::try_from(daemon.id()).expect("a process id"), Signal::TERM);
    let status = tokio::task::spawn_blocking(move || daemon.wait()).await;
    let status = status.expect("the wait ends").expect("a child can be waited for");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(harness.processes().is_empty(), "a daemon that ended leaves no process");
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_stops_nothing() {
    let harness = Harness::new();
    let (daemon, client) = {
        let (reader, writer) = std::io::pipe().unwrap();
        let started = start(&harness, writer).await;
        drop(reader);
        started
    };
    serves_and_ends(&harness, daemon, &client).await;
}

#[tokio::test]
async fn a_log_on_a_full_disk_stops_nothing() {
    let harness = Harness::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (daemon, client) = start(&harness, full).await;
    serves_and_ends(&harness, daemon, &client).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let harness = Harness::new().with(json!({"logging": {"level": "trace"}}));
    let (reader, writer) = std::io::pipe().unwrap();
    // As if it were full already.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let (daemon, client) = start(&harness, writer).await;
    serves_and_ends(&harness, daemon, &client).await;
    drop(reader);
}

#[tokio::test]
async fn the_end_of_each_job_is_one_line() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    client.run("good", SCRIPTED, &Script::Say("x".into())).await;
    client.run("bad", SCRIPTED, &Script::Fail("first\n ERROR second".into())).await;
    let gate = harness.path("gate");
    client.submit("unwanted", SCRIPTED, &Script::Gate(gate)).await.expect_status(200);
    harness.begun("unwanted", 1).await;
    assert_eq!(client.ask(http::Method::POST, "/jobs/unwanted/cancel").await.status, 200);
    let log = daemon.stop().await.log;
    let ends: Vec<&str> = log.lines().filter(|line| line.contains("the job has ended")).collect();
    let [good, bad, unwanted] = ends[..] else { panic!("{ends:?}") };
    let model = format!("model={}:{}", SCRIPTED.name, SCRIPTED.version);
    for (line, job, outcome) in
        [(good, "good", "done"), (bad, "bad", "failed"), (unwanted, "unwanted", "cancelled")]
    {
        for part in
            [&format!("job={job} "), &model, &format!("outcome=\"{outcome}\""), "waited=", "ran=", " INFO "]
        {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    assert!(good.contains(&format!("sheep={SHEEP}")), "{good}");
    assert!(bad.contains("first"), "{bad}");
    assert!(
        !log.lines().any(|line| line.starts_with(" ERROR")),
        "a runner's words look like the daemon's:\n{log}"
    );
}

#[tokio::test]
async fn the_steps_of_a_job_are_told_at_debug() {
    let harness = Harness::new().with(json!({"logging": {"level": "debug"}}));
    let daemon = harness.start().await;
    daemon.client().run("walked", SCRIPTED, &Script::Say("x".into())).await;
    let log = daemon.stop().await.log;
    let steps: Vec<&str> = log.lines().filter(|line| line.contains("job=walked")).collect();
    let mut rest = steps.iter();
    for step in [
        "claimed",
        "its working directory is ready",
        "sent to the runner",
        "the runner has done it",
        "has ended",
    ] {
        assert!(rest.any(|line| line.contains(step)), "no `{step}` in its place: {steps:#?}");
    }
}

#[tokio::test]
async fn what_a_runner_prints_is_logged_with_its_job_and_without_control_characters() {
    let harness = Harness::new().with_sheep(SHEEP, json!({"stdout_file": null, "stderr_file": null}));
    let daemon = harness.start().await;
    let words = Script::Steps(vec![Step::Print("clear\u{1b}[2Jed\nplain\n".into())]);
    assert_eq!(daemon.client().run("printed", SCRIPTED, &words).await["status"], "done");
    for text in ["[2Jed", "plain"] {
        let line = daemon.await_line(text).await;
        assert!(line.contains("job=printed") && line.contains(&format!("sheep={SHEEP}")), "{line}");
    }
    assert!(!daemon.log().text().contains('\u{1b}'));
}

#[tokio::test]
async fn a_runner_that_dies_is_told_in_words() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let status = daemon.client().run("deadly", SCRIPTED, &Script::Exit(3)).await;
    assert_eq!(status["status"], "failed");
    let line = daemon.await_line("ending the runner").await;
    assert!(line.contains("it exited with code 3") && !line.contains("Died("), "{line}");
}
