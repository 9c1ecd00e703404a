//! What jobs print, and how far they are.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Harness, Io, PATIENCE, Script, echoing, spec};
use futures::StreamExt as _;
use shepherd_core::{Data, JobEventKind, Progress, RunnerLimits, ShepherdError, Submit};
use shepherd_job::{Attempt, JobId, JobState, LOG_OBJECT, Phase};
use shepherd_protocol::{FromRunner, Input, ToRunner};

/// A runner that does `work` with each job when the test says so, and tells the test
/// that it has.
fn stepwise(work: impl Fn(&mut Io, &Input) + Send + Sync + 'static) -> (Script, Sender<()>, Receiver<()>) {
    let (go, gone) = channel::<()>();
    let (worked, has_worked) = channel::<()>();
    let (gone, worked) = (Mutex::new(gone), Mutex::new(worked));
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            work(io, &input);
            worked.lock().unwrap().send(()).unwrap();
            gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            io.done(&input);
        }
    });
    (script, go, has_worked)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

async fn log(harness: &Harness, id: &JobId) -> String {
    String::from_utf8(harness.shepherd.log(id).await.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_log_and_progress_are_seen_while_it_runs_and_its_log_afterwards() {
    let (script, go, worked) = stepwise(|io, input| {
        io.ready.logs = true;
        io.log(input, "one\n");
        let (job, attempt) = (input.job.to_string(), Some(input.attempt));
        io.say(FromRunner::Progress { job, attempt, fraction: Some(0.5), message: Some("half".into()) });
    });
    let harness = Harness::with(script).await;
    let id = harness.submit("job-1", "m", "x").await;
    let mut events = harness.shepherd.events(&id, None).await.unwrap();
    let mut followed = harness.shepherd.follow_log(&id).await.unwrap();
    worked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(followed.next().await.unwrap(), "one\n");
    let half = Progress { fraction: Some(0.5), message: Some("half".into()) };
    until("progress", async || harness.shepherd.progress(&id) == Some(half.clone())).await;
    assert_eq!(log(&harness, &id).await, "one\n");

    go.send(()).unwrap();
    harness.is_done(&id).await;
    assert_eq!(followed.next().await, None);
    assert_eq!((harness.shepherd.progress(&id), log(&harness, &id).await), (None, "one\n".into()));
    let late: Vec<_> = harness.shepherd.follow_log(&id).await.unwrap().collect().await;
    assert_eq!(late, ["one\n"]);
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(match event.kind {
            JobEventKind::State(record) => format!("{:?}", record.state.phase()),
            JobEventKind::Progress(progress) => progress.message.unwrap(),
        });
    }
    assert!(seen.ends_with(&["half".into(), "Done".into()]), "{seen:?}");

    let file = harness.dir.path().join("storage/job-1").join(LOG_OBJECT);
    harness.shepherd.shutdown(Duration::from_secs(5)).await;
    assert_eq!(std::fs::read(file).unwrap(), b"one\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_prints_nothing_has_no_log() {
    let harness = Harness::with(echoing()).await;
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    assert_eq!(log(&harness, &id).await, "");
    assert_eq!(harness.shepherd.follow_log(&id).await.unwrap().count().await, 0);
    let nobody = spec("nobody", "m").id;
    assert!(matches!(harness.shepherd.log(&nobody).await, Err(ShepherdError::UnknownJob)));
    assert!(matches!(harness.shepherd.follow_log(&nobody).await.err(), Some(ShepherdError::UnknownJob)));
    assert!(matches!(harness.shepherd.events(&nobody, None).await.err(), Some(ShepherdError::UnknownJob)));
    let dir = harness.dir.path().join("storage/job-1");
    harness.shepherd.shutdown(Duration::from_secs(5)).await;
    assert!(!dir.join("logs").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_fail_or_are_cancelled_keep_their_logs() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            io.log(&input, &format!("{}\n", input.job));
            if input.job.as_str() == "fails" {
                io.fail(&input, "no such luck");
            }
        }
    }))
    .await;
    let fails = harness.submit("fails", "m", "x").await;
    harness.failure(&fails).await;
    assert_eq!(log(&harness, &fails).await, "fails\n");
    let cancelled = harness.submit("cancelled", "m", "x").await;
    until("the log", async || log(&harness, &cancelled).await == "cancelled\n").await;
    harness.shepherd.cancel(&cancelled).await.unwrap();
    assert_eq!(log(&harness, &cancelled).await, "cancelled\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_prints_while_it_is_being_cancelled_is_in_its_log() {
    for logs in [true, false] {
        let harness = Harness::with(Arc::new(move |io| {
            io.ready.logs = logs;
            while let Some(input) = io.next() {
                let say = |io: &Io, text: &str| if logs { io.log(&input, text) } else { io.print(text) };
                say(io, "working\n");
                while !matches!(io.hear(), Some(ToRunner::Cancel { .. }) | None) {}
                say(io, "cleaning up\n");
                io.fail(&input, "cancelled");
            }
        }))
        .await;
        let id = harness.submit("job-1", "m", "x").await;
        until("the log", async || log(&harness, &id).await == "working\n").await;
        harness.shepherd.cancel(&id).await.unwrap();
        until("the rest", async || log(&harness, &id).await == "working\ncleaning up\n").await;
        assert_eq!(harness.read(&id, LOG_OBJECT).await, b"working\ncleaning up\n");
        harness.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_printed_that_had_to_be_ended_is_in_the_log_of_its_cancelled_job() {
    let harness = Harness::limits(
        Arc::new(|io| {
            io.ready.logs = true;
            while let Some(input) = io.next() {
                io.print("one\n");
                io.log(&input, "one\n");
                while !matches!(io.hear(), Some(ToRunner::Cancel { .. }) | None) {}
                io.print("two\n");
                while io.hear().is_some() {}
            }
        }),
        RunnerLimits { stop_grace: Duration::from_millis(100), ..RunnerLimits::default() },
    )
    .await;
    let id = harness.submit("job-1", "m", "x").await;
    until("the log", async || log(&harness, &id).await == "one\n").await;
    harness.shepherd.cancel(&id).await.unwrap();
    until("the rest", async || log(&harness, &id).await == "one\ntwo\n").await;
    harness.shutdown().await;
}

/// The error's details and the log of a job whose runner prints this and dies, after another job.
async fn death(logs: bool, slots: u32) -> (String, String) {
    let harness = Harness::with(Arc::new(move |io| {
        io.print("loading\n");
        (io.ready.logs, io.ready.slots) = (logs, slots);
        while let Some(input) = io.next() {
            io.print(&format!("secret of {}\n", input.job));
            if logs {
                io.log(&input, &format!("secret of {}\n", input.job));
            }
            if input.job.as_str() == "bad" {
                // Sent to nobody.
                io.print("last words\n");
                return;
            }
            io.done(&input);
        }
    }))
    .await;
    let good = harness.submit("good", "m", "x").await;
    harness.is_done(&good).await;
    let bad = harness.submit("bad", "m", "x").await;
    let error = harness.failure(&bad).await;
    let log = log(&harness, &bad).await;
    assert_eq!(self::log(&harness, &good).await, if logs || slots == 1 { "secret of good\n" } else { "" });
    harness.shutdown().await;
    (error.exception_traceback, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_runner_died_is_told_its_own_last_words_and_no_others() {
    let own = "secret of bad\nlast words";
    for (logs, slots) in [(false, 1), (true, 1), (true, 3)] {
        let (details, log) = death(logs, slots).await;
        assert_eq!(
            details,
            format!("exited with code 3; it last wrote: {own}"),
            "logs {logs}, slots {slots}"
        );
        assert_eq!(log, format!("{own}\n"), "logs {logs}, slots {slots}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ran_too_long_keeps_what_it_printed_last() {
    let harness = Harness::limits(
        Arc::new(|io| {
            while let Some(_input) = io.next() {
                while io.hear().is_some() {}
                io.print("killed\n");
            }
        }),
        RunnerLimits { run_timeout: Some(Duration::from_millis(200)), ..RunnerLimits::default() },
    )
    .await;
    let id = harness.submit("job-1", "m", "x").await;
    assert!(harness.failure(&id).await.message.contains("longer than its limit"));
    assert_eq!(log(&harness, &id).await, "killed\n");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_says_where_another_attempt_begins() {
    let attempts = Mutex::new(0);
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            io.log(&input, "begun");
            *attempts.lock().unwrap() += 1;
            if *attempts.lock().unwrap() == 1 {
                return;
            }
            io.done(&input);
        }
    });
    let harness = Harness::limits(script, RunnerLimits { crash_retries: 1, ..RunnerLimits::default() }).await;
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    assert_eq!(log(&harness, &id).await, "begun\n[attempt 2]\nbegun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_anew_does_not_keep_the_log_of_the_run_before() {
    let first = Mutex::new(true);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            if std::mem::take(&mut *first.lock().unwrap()) {
                io.log(&input, "once\n");
            }
            io.done(&input);
        }
    }))
    .await;
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    harness.shepherd.flush(&id).await.unwrap();
    assert_eq!(harness.read(&id, LOG_OBJECT).await, b"once\n");
    harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data: Data::Stored }).await.unwrap();
    harness.is_done(&id).await;
    assert_eq!(log(&harness, &id).await, "");
    harness.shepherd.flush(&id).await.unwrap();
    assert_eq!(harness.read(&id, LOG_OBJECT).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_jobs_that_the_runner_does_not_have_is_passed_over() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            let say = |job: &str, attempt| {
                let (job, attempt) = (job.to_owned(), Some(attempt));
                io.say(FromRunner::Log { job: job.clone(), attempt, text: "stale\n".into() });
                io.say(FromRunner::Progress { job, attempt, fraction: None, message: None });
            };
            say("another", input.attempt);
            say(input.job.as_str(), Attempt { number: input.attempt.number + 1, ..input.attempt });
            io.done(&input);
            say(input.job.as_str(), input.attempt);
        }
    }))
    .await;
    for name in ["job-1", "job-2"] {
        let id = harness.submit(name, "m", "x").await;
        harness.is_done(&id).await;
        assert_eq!((log(&harness, &id).await, harness.shepherd.progress(&id)), (String::new(), None));
    }
    assert_eq!(harness.flock[0].launches(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_prints_that_knows_no_logs_is_its_jobs() {
    let harness = Harness::with(Arc::new(|io| {
        io.print("loading\n");
        while let Some(input) = io.next() {
            io.print(&format!("working on {}\n", input.job));
            io.done(&input);
        }
    }))
    .await;
    for name in ["job-1", "job-2"] {
        let id = harness.submit(name, "m", "x").await;
        harness.is_done(&id).await;
        assert_eq!(log(&harness, &id).await, format!("working on {name}\n"));
    }
}

/// A runner whose jobs are answered before what they printed is there.
async fn late() -> Harness {
    Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            io.done(&input);
            io.print(&format!("{}\n", input.job));
        }
    }))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_printed_last_is_its_own_also_where_it_comes_late() {
    let harness = late().await;
    harness.flock[0].delay_prints(Duration::from_millis(500));
    for name in ["job-1", "job-2"] {
        let id = harness.submit(name, "m", "x").await;
        harness.is_done(&id).await;
        assert_eq!(log(&harness, &id).await, format!("{name}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_printed_before_it_was_ready_is_no_job_s_also_where_it_comes_late() {
    let harness = Harness::with(Arc::new(|io| {
        io.last_of_loading = "loaded\n";
        while let Some(input) = io.next() {
            io.print("working\n");
            io.done(&input);
        }
    }))
    .await;
    harness.flock[0].delay_prints(Duration::from_millis(500));
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    assert_eq!(log(&harness, &id).await, "working\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_waits_for_last_words_counts_when_the_runner_is_ended() {
    let harness = late().await;
    let first = harness.submit("job-0", "m", "x").await;
    harness.is_done(&first).await;
    harness.flock[0].delay_prints(Duration::from_secs(3600));
    let id = harness.submit("job-1", "m", "x").await;
    let is_printed = async || harness.shepherd.log(&id).await.is_ok_and(|log| log == "job-1\n");
    until("the answer", is_printed).await;
    harness.shepherd.shutdown(Duration::from_millis(100)).await;
    let state = &harness.shepherd.job(&id).await.unwrap().state;
    assert!(matches!(state, JobState::Done { .. }), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_prints_that_has_logs_of_its_own_is_nobodys() {
    let harness = Harness::with(Arc::new(|io| {
        io.ready.logs = true;
        while let Some(input) = io.next() {
            io.print("for the operator\n");
            io.log(&input, "for the client\n");
            io.done(&input);
        }
    }))
    .await;
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    assert_eq!(log(&harness, &id).await, "for the client\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_watch_are_sent_away_when_the_shepherd_ends() {
    let harness = Harness::flock(Vec::new(), RunnerLimits::default()).await;
    let id = harness.submit("job-1", "m", "x").await;
    let mut events = harness.shepherd.events(&id, None).await.unwrap();
    let log = harness.shepherd.follow_log(&id).await.unwrap();
    let JobEventKind::State(record) = events.next().await.unwrap().kind else { panic!("no state") };
    assert_eq!(record.state.phase(), Phase::Queued);
    assert!(matches!(record.state, JobState::Queued { .. }));
    harness.shutdown().await;
    assert_eq!((events.count().await, log.count().await), (0, 0));
}
