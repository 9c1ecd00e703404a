//! The Rust client against real daemons.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use shepherd_client::{Client, Error, EventKind, Job, Options, State, Submission, blocking};
use shepherd_tests::ids::{RAW, SCRIPTED, SHEEP};
use shepherd_tests::{Daemon, Harness, PATIENCE, Script, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn client(daemon: &Daemon) -> Client {
    Client::new(&format!("http://{}/", daemon.client().address())).unwrap()
}

fn scripted(script: &Script) -> Submission {
    Submission::new(SCRIPTED.name, SCRIPTED.version).payload(script.text())
}

/// Waits until the job is in work.
async fn in_work(job: &Job) {
    let mut events = job.events(None);
    while let Some(event) = events.next().await.unwrap() {
        if matches!(event.kind, EventKind::Status(status) if status.state == State::Processing) {
            return;
        }
    }
    panic!("the job has ended");
}

#[tokio::test]
async fn a_payload_becomes_a_result() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = client(&daemon);
    let text = "žluťoučký \u{1f411} \u{0} \"kůň\"\n";
    let job = client.submit(scripted(&Script::Say(text.into())).priority(3)).await.unwrap();
    assert_eq!(job.result(None).await.unwrap(), text);
    let status = job.status().await.unwrap();
    assert_eq!((status.state, status.error.clone()), (State::Done, None));
    assert_eq!(job.wait(None).await.unwrap(), status);
    let value = json!({"a": [1, "ž"]});
    let files = Script::Files(vec![("a b/č#.json".into(), value.to_string())]);
    let job = client.submit(scripted(&files)).await.unwrap();
    assert_eq!(job.result_json::<serde_json::Value>(Some("a b/č#.json")).await.unwrap(), value);
    job.download(Some("a b/č#.json"), &harness.path("saved")).await.unwrap();
    assert_eq!(std::fs::read_to_string(harness.path("saved")).unwrap(), value.to_string());
    assert!(matches!(job.result(Some("none")).await, Err(Error::UnknownFile { .. })));
    let page = client.jobs(None, 1, None).await.unwrap();
    assert_eq!((page.jobs.len(), page.jobs[0].id.as_str()), (1, job.id()));
    let rest = client.jobs(Some("done"), 5, page.next.as_deref()).await.unwrap();
    assert_eq!((rest.jobs.len(), rest.next), (1, None));
    assert!(client.flock().await.unwrap()["dolly"].running);
    assert!(client.readiness().await.unwrap().ready);
}

#[tokio::test]
async fn what_goes_wrong_has_its_own_error() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = client(&daemon);
    let sad = client.submit(scripted(&Script::Fail("no grass".into()))).await.unwrap();
    match sad.result(None).await {
        Err(Error::Failed { job, error }) => {
            assert_eq!((job.as_str(), error.message.as_str()), (sad.id(), "no grass"));
        }
        other => panic!("{other:?}"),
    }
    for id in ["no-such-job", "..", "a/b", "ž?#%"] {
        let job = client.job(id);
        assert!(matches!(job.status().await, Err(Error::UnknownJob(_))), "{id}");
        assert!(matches!(job.wait(None).await, Err(Error::UnknownJob(_))), "{id}");
        assert!(matches!(job.cancel().await, Err(Error::UnknownJob(_))), "{id}");
        assert!(matches!(job.logs().await, Err(Error::UnknownJob(_))), "{id}");
        assert!(matches!(job.events(None).next().await, Err(Error::UnknownJob(_))), "{id}");
    }
    let refused = client.submit(scripted(&Script::Nothing).id("Not A Bucket")).await;
    assert!(matches!(refused, Err(Error::Rejected { status: 400, .. })), "{refused:?}");
    let same = scripted(&Script::Say("x".into())).id("the-same");
    client.submit(same.clone()).await.unwrap();
    assert!(matches!(client.submit(same.clone()).await, Err(Error::AlreadySubmitted(_))));
    client.submit(same.exist_ok()).await.unwrap();
    let other = scripted(&Script::Say("y".into())).id("the-same").exist_ok();
    assert!(matches!(client.submit(other).await, Err(Error::AlreadySubmitted(_))));
}

#[tokio::test]
async fn a_job_can_be_cancelled_more_than_once() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = client(&daemon);
    let gated = client.submit(scripted(&Script::Gate(harness.path("gate")))).await.unwrap();
    assert!(matches!(gated.wait(Some(Duration::from_millis(50))).await, Err(Error::Timeout(_))));
    let cancelled = gated.cancel().await.unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
    assert!(matches!(gated.result(None).await, Err(Error::Cancelled(_))));
    assert_eq!(gated.cancel().await.unwrap(), cancelled);
    assert_eq!(gated.status().await.unwrap(), cancelled);
    let done = client.submit(scripted(&Script::Nothing)).await.unwrap();
    done.wait(None).await.unwrap();
    assert!(matches!(done.cancel().await, Err(Error::AlreadyFinished(_))));
}

#[tokio::test]
async fn an_empty_input_is_an_input() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = client(&daemon);
    let empty = Submission::new(SCRIPTED.name, SCRIPTED.version).id("empty").payload("");
    // The runner copies what is no script.
    assert_eq!(client.run(empty.clone()).await.unwrap(), "");
    assert!(matches!(client.submit(empty.clone()).await, Err(Error::AlreadySubmitted(_))));
    client.submit(empty.exist_ok()).await.unwrap();
}

#[tokio::test]
async fn a_live_job_with_another_model_is_not_taken_for_ones_own() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = client(&daemon);
    let live = client.submit(scripted(&Script::Gate(harness.path("gate"))).id("live")).await.unwrap();
    let other = Submission::new(RAW.name, RAW.version).id("live");
    assert!(matches!(client.submit(other).await, Err(Error::AlreadySubmitted(_))));
    client.submit(Submission::new(SCRIPTED.name, SCRIPTED.version).id("live")).await.unwrap();
    harness.open_gate(&harness.path("gate"));
    live.wait(None).await.unwrap();
    assert_eq!(live.status().await.unwrap().model.name.as_deref(), Some(SCRIPTED.name));
}

#[tokio::test]
async fn a_shepherd_that_keeps_silent_is_not_waited_for_beyond_the_time_given() {
    // It takes connections and requests, as one that was stopped does, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let options = Options { retry_for: Duration::from_millis(100) };
    let client = Client::with_options(&url, options).unwrap();
    let waits = async {
        let waited = client.job("some-job").wait(Some(Duration::from_millis(300))).await;
        assert!(matches!(waited, Err(Error::Timeout(_))), "{waited:?}");
        let asked = client.job("some-job").status().await;
        assert!(matches!(asked, Err(Error::Unavailable(_))), "{asked:?}");
    };
    // Each of them took a minute or more beyond its time.
    tokio::time::timeout(Duration::from_secs(30), waits).await.unwrap();
}

#[tokio::test]
async fn inputs_in_storage_need_no_payload() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    harness.put("stored", "inputs/a", "1");
    harness.put("stored", "inputs/b", "22");
    let stored = Submission::new(SCRIPTED.name, SCRIPTED.version).id("stored");
    let listing = client(&daemon).run(stored).await.unwrap();
    assert_eq!(listing, "a 1\nb 2\n");
}

#[tokio::test]
async fn waiting_and_events_survive_a_kill() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let address = daemon.client().address();
    let job = client(&daemon).submit(scripted(&Script::Gate(harness.path("gate")))).await.unwrap();
    in_work(&job).await;
    let mut events = job.events(None);
    events.next().await.unwrap().unwrap();
    let waiter = job.clone();
    let waiter = tokio::spawn(async move { waiter.wait(Some(PATIENCE)).await });
    daemon.kill().await;
    let _daemon = start_at(&harness, address).await;
    harness.open_gate(&harness.path("gate"));
    assert_eq!(waiter.await.unwrap().unwrap().state, State::Done);
    let mut last = None;
    while let Some(event) = events.next().await.unwrap() {
        last = Some(event);
    }
    let last = last.unwrap();
    assert!(matches!(&last.kind, EventKind::Status(status) if status.state == State::Done), "{last:?}");
    assert!(job.events(Some(last.id)).next().await.unwrap().is_none());
}

/// Starts the daemon where another was.
async fn start_at(harness: &Harness, address: SocketAddr) -> Daemon {
    let mut command = harness.bare_command();
    command.arg("-c").arg(harness.write_config());
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
    harness.start_command(command).await
}

#[tokio::test]
async fn a_log_is_followed_to_its_end_across_a_kill() {
    let harness = Harness::new().with_sheep(SHEEP, json!({"stdout_file": null, "stderr_file": null}));
    let daemon = harness.start().await;
    let address = daemon.client().address();
    let script = Script::Steps(vec![
        Step::Print("begun\n".to_owned()),
        Step::Gate(harness.path("gate")),
        Step::Print("end\n".to_owned()),
    ]);
    let job = client(&daemon).submit(scripted(&script)).await.unwrap();
    let mut log = job.follow_logs();
    let mut text = log.next().await.unwrap().unwrap().to_vec();
    assert_eq!(text, b"begun\n");
    daemon.kill().await;
    let daemon = start_at(&harness, address).await;
    harness.open_gate(&harness.path("gate"));
    while let Some(piece) = log.next().await.unwrap() {
        text.extend_from_slice(&piece);
    }
    // What the killed attempt printed went with the daemon; the next one prints it again.
    assert_eq!(text, b"begun\nend\n");
    assert_eq!(job.logs().await.unwrap(), "begun\nend\n");
    assert!(matches!(client(&daemon).job("none").follow_logs().next().await, Err(Error::UnknownJob(_))));
}

#[tokio::test]
async fn a_submit_whose_answer_is_lost_is_repeated() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let cuts = Arc::new(AtomicUsize::new(2));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = daemon.client().address();
    let mut proxy = JoinSet::new();
    let left = cuts.clone();
    // Passes requests on, and cuts the connection when there is an answer.
    proxy.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let left = left.clone();
            connections.spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let (mut from, mut to) = (vec![0; 65536], vec![0; 65536]);
                loop {
                    tokio::select! {
                        n = client.read(&mut from) => match n {
                            Ok(n @ 1..) => server.write_all(&from[..n]).await.unwrap(),
                            _ => return,
                        },
                        n = server.read(&mut to) => match n {
                            Ok(n @ 1..) => {
                                let cut = |n: usize| n.checked_sub(1);
                                if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok() {
                                    return;
                                }
                                client.write_all(&to[..n]).await.unwrap();
                            }
                            _ => return,
                        },
                    }
                }
            });
        }
    });
    let client = Client::new(&url).unwrap();
    let job = client.submit(scripted(&Script::Say("once".into()))).await.unwrap();
    assert_eq!(cuts.load(Ordering::SeqCst), 0);
    assert_eq!(job.result(None).await.unwrap(), "once");
    assert_eq!(harness.journal().runs_of(job.id()).len(), 1);
    cuts.store(1, Ordering::SeqCst);
    let another = scripted(&Script::Say("another".into())).id(job.id());
    assert!(matches!(client.submit(another).await, Err(Error::AlreadySubmitted(_))));
}

#[tokio::test]
async fn one_who_is_not_there_is_unavailable() {
    let options = Options { retry_for: Duration::from_millis(100) };
    let client = Client::with_options("http://user:pass-word@127.0.0.1:1/base", options).unwrap();
    let error = client.submit(scripted(&Script::Nothing)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    for text in [error.to_string(), format!("{error:?}"), format!("{client:?}")] {
        assert!(text.contains("127.0.0.1:1/base") && !text.contains("pass-word"), "{text}");
    }
    for url in ["127.0.0.1:5000", "ftp://x", "http://x?secret", ""] {
        let error = Client::new(url).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn the_blocking_half_does_the_same() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let url = format!("http://{}", daemon.client().address());
    let work = move || {
        let client = blocking::Client::new(&url).unwrap();
        assert_eq!(client.run(scripted(&Script::Say("said".into()))).unwrap(), "said");
        let job = client.submit(scripted(&Script::Say("again".into()))).unwrap();
        let events: Result<Vec<_>, _> = job.events(None).collect();
        assert!(matches!(&events.unwrap().last().unwrap().kind, EventKind::Status(s) if s.is_finished()));
        assert_eq!(job.result(None).unwrap(), "again");
        assert_eq!(client.jobs(None, 10, None).unwrap().jobs.len(), 2);
        assert!(matches!(client.job("none").status(), Err(Error::UnknownJob(_))));
        assert!(client.readiness().unwrap().ready);
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}
