//! Runners that lie, die, hang or refuse to start, and what the shepherd makes of
//! it: their job comes to an end that tells why, and no other is disturbed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fake::{Harness, Io, PATIENCE, Script, echo, echoing, spec};
use shepherd_core::{RunnerLimits, ShepherdError};
use shepherd_job::{Attempt, JobError, JobState};
use shepherd_protocol::{CANCELLED, FromRunner, ToRunner};
use shepherd_sheep::{ExitCause, SheepError};

const HASTY: Duration = Duration::from_millis(400);

/// A runner that does `misdeed` for the job `bad` and echoes the others.
fn but_for_bad(
    misdeed: impl Fn(&mut crate::fake::Io, &shepherd_protocol::Input) + Send + Sync + 'static,
) -> Script {
    Arc::new(move |io| {
        while let Some(input) = io.next() {
            if input.job.as_str() == "bad" {
                misdeed(io, &input);
                if !std::path::Path::new(&*input.io_data_root).exists() {
                    return;
                }
            } else {
                echo(&input);
                io.done(&input);
            }
        }
    })
}

/// What is said of the death of this module's runners under a job.
const DIED: &str = "the runner exited with code 3 (Sheep container died without notice)";

/// A runner that ends when it gets the job `bad`.
fn dying() -> Script {
    Arc::new(|io| {
        while let Some(input) = io.next() {
            io.print(&format!("working on {}\n", input.job));
            if input.job.as_str() == "bad" {
                return;
            }
            echo(&input);
            io.done(&input);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_fails_its_job_and_no_other() {
    let harness = Harness::with(dying()).await;
    let (before, bad, after) = (
        harness.submit("before", "m", "x").await,
        harness.submit("bad", "m", "x").await,
        harness.submit("after", "m", "x").await,
    );
    let error = harness.failure(&bad).await;
    assert_eq!(error.message, DIED);
    assert_eq!(error.exception_traceback, "exited with code 3; it last wrote: working on bad");
    harness.is_done(&before).await;
    harness.is_done(&after).await;
    assert_eq!(harness.flock[0].launches(), 2);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_runner_died_is_tried_again_within_the_limit() {
    let harness =
        Harness::limits(dying(), RunnerLimits { crash_retries: 2, ..RunnerLimits::default() }).await;
    let bad = harness.submit("bad", "m", "x").await;
    assert_eq!(harness.failure(&bad).await.message, DIED);
    assert_eq!(harness.flock[0].launches(), 3);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_sent_ahead_of_a_death_are_not_blamed() {
    // Fast enough to be sent jobs ahead; then it dies with all of them in hand.
    let harness = Harness::with(Arc::new(|io| {
        io.ready.ahead = 32;
        io.ready.batch = 32;
        while let Some(input) = io.next() {
            if input.job.as_str() == "bad" {
                return;
            }
            io.done(&input);
        }
    }))
    .await;
    let mut others = Vec::new();
    for number in 0..200 {
        let name = if number == 100 { "bad".to_owned() } else { format!("job-{number}") };
        let id = harness.submit(&name, "m", "x").await;
        if number != 100 {
            others.push(id);
        }
    }
    assert_eq!(harness.failure(&spec("bad", "m").id).await.message, DIED);
    for id in others {
        harness.is_done(&id).await;
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_ran_beside_the_one_that_killed_their_runner_are_not_blamed() {
    let lives = AtomicUsize::new(0);
    let harness = Harness::with(Arc::new(move |io| {
        io.ready.slots = 4;
        if lives.fetch_add(1, Ordering::SeqCst) == 0 {
            // All of them are in work.
            for _ in 0..4 {
                io.next();
            }
            return;
        }
        while let Some(input) = io.next() {
            if input.job.as_str() == "bad" {
                return;
            }
            io.done(&input);
        }
    }))
    .await;
    let mut others = Vec::new();
    for name in ["job-1", "bad", "job-2", "job-3"] {
        let id = harness.submit(name, "m", "x").await;
        if name != "bad" {
            others.push(id);
        }
    }
    assert_eq!(harness.failure(&spec("bad", "m").id).await.message, DIED);
    for id in others {
        harness.is_done(&id).await;
    }
    assert_eq!(harness.flock[0].launches(), 3);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_runner_gives_up_because_it_ends_go_to_the_next_without_blame() {
    let lives = AtomicUsize::new(0);
    let after = Arc::new(AtomicUsize::new(0));
    let got = Arc::clone(&after);
    let harness = Harness::with(Arc::new(move |io| {
        if lives.fetch_add(1, Ordering::SeqCst) > 0 {
            return echoing()(io);
        }
        let Some(input) = io.next() else { return };
        let error = JobError { exception_type: CANCELLED.to_owned(), ..JobError::new("ending") };
        io.say(FromRunner::Error { job: input.job.to_string(), attempt: Some(input.attempt), error });
        // It gets no other, and is told to end in case it has thought better of it.
        while io.next().is_some() {
            got.fetch_add(1, Ordering::SeqCst);
        }
    }))
    .await;
    let jobs = [harness.submit("one", "m", "x").await, harness.submit("two", "m", "x").await];
    for job in jobs {
        let record = harness.finished(&job).await;
        assert!(
            matches!(record.state, JobState::Done { history, .. } if history.crashes == 0),
            "{:?}",
            record.state
        );
    }
    assert_eq!((harness.flock[0].launches(), after.load(Ordering::SeqCst)), (2, 0));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_started_when_its_runner_began_it_and_knows_its_limit() {
    const LIMIT: Duration = Duration::from_secs(600);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            // The next is claimed, and its files are made ready, while this one works.
            std::thread::sleep(Duration::from_millis(200));
            notes.lock().unwrap().push((SystemTime::now(), input.deadline));
            io.done(&input);
        }
    });
    for limit in [Some(LIMIT), None] {
        let limits = RunnerLimits { run_timeout: limit, ..RunnerLimits::default() };
        let harness = Harness::limits(Arc::clone(&script), limits).await;
        let jobs = [harness.submit("one", "m", "x").await, harness.submit("two", "m", "x").await];
        let mut started = Vec::new();
        for job in &jobs {
            match harness.finished(job).await.state {
                JobState::Done { started_at, .. } => started.push(started_at),
                ref other => panic!("{other:?}"),
            }
        }
        harness.shutdown().await;
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let first_ended = seen[0].0.duration_since(UNIX_EPOCH).unwrap().as_micros();
        let second_began = u128::try_from(started[1].as_micros()).unwrap();
        assert!(second_began >= first_ended, "{second_began} {first_ended}");
        for ((_, deadline), started) in seen.iter().zip(&started) {
            // The two clocks are read one after the other.
            let within = deadline.map(|deadline| deadline.since(started.after(LIMIT)));
            assert_eq!(within.is_some(), limit.is_some());
            assert!(within.is_none_or(|by| by < Duration::from_secs(60)), "{deadline:?} {started:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_a_job_it_never_had_ends_the_runner() {
    let harness =
        Harness::with(but_for_bad(|io, _| io.done_as("another", Attempt { epoch: 1, number: 1 }))).await;
    let (bad, after) = (harness.submit("bad", "m", "x").await, harness.submit("after", "m", "x").await);
    let error = harness.failure(&bad).await;
    assert!(error.message.contains("does not have: `another`"), "{}", error.message);
    harness.is_done(&after).await;
    assert_eq!(harness.flock[0].launches(), 2);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_never_finishes_a_job() {
    let harness = Harness::with(but_for_bad(|io, input| {
        let stale = Attempt { epoch: 0, ..input.attempt };
        io.done_as(input.job.as_str(), stale);
    }))
    .await;
    let bad = harness.submit("bad", "m", "x").await;
    assert!(harness.failure(&bad).await.message.contains("does not have"));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_given_twice_counts_once() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            io.done(&input);
            io.fail(&input, "changed its mind");
            io.done(&input);
        }
    }))
    .await;
    for number in 0..20 {
        let id = harness.submit(&format!("job-{number}"), "m", "x").await;
        harness.is_done(&id).await;
    }
    assert_eq!(harness.flock[0].launches(), 1);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_falls_silent_is_ended() {
    let silent = RunnerLimits { heartbeat_timeout: HASTY, ..RunnerLimits::default() };
    // It reads on, and answers nothing, not even pings.
    let harness = Harness::limits(but_for_bad(|io, _| while io.hear().is_some() {}), silent).await;
    let (bad, after) = (harness.submit("bad", "m", "x").await, harness.submit("after", "m", "x").await);
    assert!(harness.failure(&bad).await.message.contains("did not answer"), "silence is the reason");
    harness.is_done(&after).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_too_long_fails_though_its_runner_answers_pings() {
    let limited = RunnerLimits { run_timeout: Some(HASTY), ..RunnerLimits::default() };
    let harness = Harness::limits(
        but_for_bad(|io, _| {
            io.next();
        }),
        limited,
    )
    .await;
    let bad = harness.submit("bad", "m", "x").await;
    assert!(harness.failure(&bad).await.message.contains("longer than its limit"));
    let after = harness.submit("after", "m", "x").await;
    harness.is_done(&after).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_over_at_once_and_its_late_answer_is_void() {
    let (started, has_started) = std::sync::mpsc::channel();
    let started = Mutex::new(started);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            if input.job.as_str() == "bad" {
                started.lock().unwrap().send(()).unwrap();
                while let Some(message) = io.hear() {
                    if let ToRunner::Cancel { .. } = message {
                        break;
                    }
                }
            }
            echo(&input);
            io.done(&input);
        }
    }))
    .await;
    let bad = harness.submit("bad", "m", "x").await;
    tokio::task::spawn_blocking(move || has_started.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    let record = harness.shepherd.cancel(&bad).await.unwrap();
    assert!(matches!(record.state, JobState::Cancelled { started_at: Some(_), .. }));
    let after = harness.submit("after", "m", "x").await;
    harness.is_done(&after).await;
    assert!(matches!(harness.finished(&bad).await.state, JobState::Cancelled { .. }));
    assert_eq!(harness.shepherd.cancel(&bad).await.unwrap(), record, "to cancel again changes nothing");
    assert!(matches!(harness.shepherd.cancel(&after).await, Err(ShepherdError::Finished)));
    assert_eq!(harness.flock[0].launches(), 1, "a runner that lets go goes on");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_does_not_let_go_of_a_cancelled_job_is_ended() {
    let (started, has_started) = std::sync::mpsc::channel();
    let started = Mutex::new(started);
    let harness = Harness::limits(
        but_for_bad(move |io, _| {
            started.lock().unwrap().send(()).unwrap();
            io.next();
        }),
        RunnerLimits {
            stop_grace: HASTY,
            run_timeout: Some(PATIENCE),
            heartbeat_timeout: HASTY,
            ..RunnerLimits::default()
        },
    )
    .await;
    let bad = harness.submit("bad", "m", "x").await;
    tokio::task::spawn_blocking(move || has_started.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    harness.shepherd.cancel(&bad).await.unwrap();
    let after = harness.submit("after", "m", "x").await;
    harness.is_done(&after).await;
    assert_eq!(harness.flock[0].launches(), 2);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_fails_its_jobs_only() {
    let harness = Harness::with(echoing()).await;
    harness.flock[0].refuse(SheepError::Model("Cannot load model `m:1`.".to_owned()));
    let bad = harness.submit("bad", "m", "x").await;
    assert_eq!(
        harness.failure(&bad).await.message,
        "Failed to start sheep for this job (Cannot load model `m:1`.)"
    );
    let after = harness.submit("after", "m", "x").await;
    harness.is_done(&after).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_had_is_not_shown_as_the_sheeps() {
    let harness = Harness::with(echoing()).await;
    let model = || harness.shepherd.flock()[0].model.as_ref().map(|model| model.name().to_owned());
    let refuse = async |name: &str| {
        harness.flock[0].refuse(SheepError::Model("no such model".to_owned()));
        let id = harness.submit(name, "missing", "x").await;
        harness.failure(&id).await;
        // The outcome is durable a little after the sheep knows it, never before.
        model()
    };
    assert_eq!(refuse("job-1").await, None);
    let id = harness.submit("job-2", "good", "x").await;
    harness.is_done(&id).await;
    assert_eq!(refuse("job-3").await.as_deref(), Some("good"));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_model_gets_a_new_runner_before_its_next_job() {
    let harness = Harness::with(echoing()).await;
    for (number, launches) in [(1, 1), (2, 1)] {
        let id = harness.submit(&format!("job-{number}"), "m", "x").await;
        harness.is_done(&id).await;
        assert_eq!(harness.flock[0].launches(), launches);
    }
    harness.flock[0].edit_models();
    for (number, launches) in [(3, 2), (4, 2)] {
        let id = harness.submit(&format!("job-{number}"), "m", "x").await;
        harness.is_done(&id).await;
        assert_eq!(harness.flock[0].launches(), launches);
    }
    assert_eq!(harness.flock[0].vacated(), 1, "it was asked to end");
    harness.shutdown().await;
}

/// A model whose runners do this rests ever longer, and the sheep works for others meanwhile.
async fn is_left_alone(misdeed: fn(&mut Io)) {
    let harness = Harness::with(Arc::new(move |io| {
        if io.model.name() == "bad" {
            return misdeed(io);
        }
        while let Some(input) = io.next() {
            echo(&input);
            io.done(&input);
        }
    }))
    .await;
    let mut bad = Vec::new();
    // Their rests would be a minute in all.
    for number in 0..12 {
        bad.push(harness.submit(&format!("bad-{number}"), "bad", "x").await);
    }
    harness.failure(&bad[0]).await;
    let good = harness.submit("good", "good", "x").await;
    harness.is_done(&good).await;
    let last = &harness.shepherd.job(&bad[11]).await.unwrap().state;
    assert!(matches!(last, JobState::Queued { .. }), "{last:?}");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_does_not_keep_the_sheep_from_others() {
    is_left_alone(|_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_runners_die_does_not_keep_the_sheep_from_others() {
    is_left_alone(|io| drop(io.next())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sheep_that_cannot_run_rests_and_its_jobs_wait() {
    let harness = Harness::with(echoing()).await;
    harness.flock[0].refuse(SheepError::Unavailable("port 9001 is in use".to_owned()));
    let id = harness.submit("job-1", "m", "x").await;
    let problem = async {
        while harness.shepherd.flock()[0].problem.is_none() {
            tokio::task::yield_now().await;
        }
        harness.shepherd.flock()[0].problem.clone().unwrap()
    };
    assert_eq!(tokio::time::timeout(PATIENCE, problem).await.unwrap(), "port 9001 is in use");
    harness.is_done(&id).await;
    assert_eq!(harness.shepherd.flock()[0].problem, None);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_before_it_is_ready_fails_the_job() {
    let harness = Harness::with(Arc::new(|_| {})).await;
    let id = harness.submit("job-1", "m", "x").await;
    let error = harness.failure(&id).await;
    assert_eq!(
        error.message,
        "the runner exited with code 3 before it was ready: last words (Sheep container died without notice)"
    );
    assert_eq!(error.exception_traceback, "exited with code 3; it last wrote: last words");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_never_ready_fails_the_job() {
    let harness = Harness::limits(
        Arc::new(|io| {
            io.ready.name = "never".to_owned();
            std::thread::sleep(HASTY * 3);
        }),
        RunnerLimits { start_timeout: HASTY, ..RunnerLimits::default() },
    )
    .await;
    let id = harness.submit("job-1", "m", "x").await;
    assert!(harness.failure(&id).await.message.contains("not ready within"));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_unknown_chatter_disturb_nothing() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            let (job, attempt) = (input.job.to_string(), Some(input.attempt));
            io.say(FromRunner::Progress { job, attempt, fraction: Some(0.5), message: None });
            io.say(FromRunner::Pong { nonce: 99 });
            io.done(&input);
        }
    }))
    .await;
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_end_in_time_is_given_back_at_the_drain() {
    let harness = Harness::with(but_for_bad(|io, _| {
        io.next();
    }))
    .await;
    let id = harness.submit("bad", "m", "x").await;
    while harness.shepherd.flock()[0].job.is_none() {
        tokio::task::yield_now().await;
    }
    harness.shepherd.shutdown(Duration::from_millis(500)).await;
    match &harness.shepherd.job(&id).await.unwrap().state {
        JobState::Queued { history, .. } => assert_eq!((history.attempts, history.crashes), (1, 0)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_idle_runner_was_ended_from_outside_runs_again() {
    for cause in [
        ExitCause::Signal(15),
        ExitCause::Signal(9),
        ExitCause::OutOfMemory { limit: None },
        ExitCause::Code(0),
    ] {
        let lives = AtomicUsize::new(0);
        let harness = Harness::with(Arc::new(move |io| {
            while let Some(input) = io.next() {
                if lives.fetch_add(1, Ordering::SeqCst) == 0 {
                    return;
                }
                io.done(&input);
            }
        }))
        .await;
        harness.flock[0].exit_with(cause);
        let id = harness.submit("job-1", "m", "x").await;
        harness.is_done(&id).await;
        harness.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_its_runner_killed_whenever_it_begins_fails() {
    let harness = Harness::with(dying()).await;
    harness.flock[0].exit_with(ExitCause::OutOfMemory { limit: None });
    let bad = harness.submit("bad", "m", "x").await;
    assert_eq!(harness.failure(&bad).await.exception_type, "RunnerDied");
    assert_eq!(harness.flock[0].launches(), 2);
    harness.shutdown().await;
}

/// A runner that ends when the test says so, though it has a job.
fn ending(end: std::sync::mpsc::Receiver<()>) -> Script {
    let end = Mutex::new(end);
    Arc::new(move |io| {
        if io.next().is_some() {
            let _ = end.lock().unwrap().recv();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_gets_the_signal_to_drain_too_costs_no_job() {
    for runner_first in [true, false] {
        let (end, ended) = std::sync::mpsc::channel();
        let harness = Harness::with(ending(ended)).await;
        harness.flock[0].exit_with(ExitCause::Code(0));
        let id = harness.submit("job-1", "m", "x").await;
        while harness.shepherd.flock()[0].job.is_none() {
            tokio::task::yield_now().await;
        }
        // Long enough that the job has begun for sure.
        tokio::time::sleep(HASTY).await;
        let shutdown = harness.shepherd.shutdown(Duration::from_secs(5));
        if runner_first {
            end.send(()).unwrap();
            shutdown.await;
        } else {
            tokio::join!(shutdown, async { end.send(()).unwrap() });
        }
        match &harness.shepherd.job(&id).await.unwrap().state {
            JobState::Queued { history, .. } => assert_eq!((history.attempts, history.crashes), (1, 0)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_other_slots_give_a_job_no_more_time() {
    let limits = RunnerLimits { run_timeout: Some(HASTY), ..RunnerLimits::default() };
    let script: Script = Arc::new(|io| {
        io.ready.slots = 2;
        while let Some(input) = io.next() {
            if input.job.as_str() != "bad" {
                std::thread::sleep(Duration::from_millis(50));
                io.done(&input);
            }
        }
    });
    let harness = Harness::limits(script, limits).await;
    let bad = harness.submit("bad", "m", "x").await;
    let mut others = Vec::new();
    for number in 0..100 {
        others.push(harness.submit(&format!("job-{number}"), "m", "x").await);
    }
    assert!(harness.failure(&bad).await.message.contains("longer than its limit"));
    let last = &harness.shepherd.job(&others[99]).await.unwrap().state;
    assert!(matches!(last, JobState::Queued { .. }), "{last:?}");
    harness.shutdown().await;
}
