//! The daemon is killed at random moments, again and again, under load.
//!
//! What is held against it, at the end of many lives, over storage in a directory and over storage in S3:
//!
//! - every job whose submit was answered 200 is done, with its own output, and the
//!   answer to a repeated submit never says otherwise;
//! - a job that a client saw done is done for ever: it never runs again, and its
//!   status never changes;
//! - no attempt's token comes twice;
//! - no runner outlives its daemon.
//!
//! The moments come from a seed that is printed; `SHEPHERD_TEST_SEED` repeats it.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use shepherd_tests::ids::{RAW, SCRIPTED};
use shepherd_tests::s3::{Layout, S3Server};
use shepherd_tests::{Client, Harness, Journal, Model, Random, Script, eventually, start_body};
use tokio::sync::watch;

const ROUNDS: u32 = 55;
const ROUNDS_WITH_S3: u32 = 15;
const SUBMITTERS: u64 = 12;
/// From before the store is open to well into the work.
const LONGEST_LIFE: Duration = Duration::from_millis(900);
/// Between two attempts to reach a daemon that is being restarted.
const PAUSE: Duration = Duration::from_millis(5);

/// What the clients of all lives share.
struct Load {
    daemon: watch::Receiver<Option<Client>>,
    journal: Journal,
    enough: AtomicBool,
    seen: Mutex<HashMap<String, Seen>>,
    submits: AtomicU64,
    repeats: AtomicU64,
}

/// A job that was seen done.
#[derive(Clone, Debug)]
struct Seen {
    status: Value,
    /// How much was in the journal then: the job has no business behind it.
    journal: u64,
}

impl Load {
    /// Asks whatever daemon lives, until one answers.
    async fn persist<T, F: Future<Output = Option<T>>>(&self, mut ask: impl FnMut(Client) -> F) -> T {
        let mut daemon = self.daemon.clone();
        loop {
            let client = daemon.wait_for(Option::is_some).await.expect("the test goes on").clone();
            if let Some(answer) = ask(client.expect("waited for it")).await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Submits one job until it is known to be accepted.
    async fn submit(&self, body: &Value) {
        let mut sent = false;
        self.persist(|client| {
            let repeated = std::mem::replace(&mut sent, true);
            async move {
                let reply = client.try_start_job(body).await.ok()?;
                match reply.status {
                    200 => Some(()),
                    // Accepted before, by a daemon that could not say so any more.
                    409 if repeated => {
                        self.repeats.fetch_add(1, Ordering::Relaxed);
                        Some(())
                    }
                    503 => None,
                    _ => panic!("a submit was answered {reply:?}"),
                }
            }
        })
        .await;
        self.submits.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until a job is done, and checks what it left.
    async fn see_done(&self, job: &str) {
        let status = self
            .persist(|client| async move {
                let reply = client.try_get(&format!("/jobs/{job}/wait_ready")).await.ok()?;
                match reply.status {
                    200 => Some(reply.json()),
                    202 | 503 => None,
                    _ => panic!("an accepted job is not known: {reply:?}"),
                }
            })
            .await;
        // The journal is read after the job was seen done: what is there by now may
        // have been begun before, what comes later may not.
        let journal = self.journal.length();
        assert_eq!(status["status"], "done", "{job}: {status}");
        self.lock_seen().insert(job.to_owned(), Seen { status, journal });
        self.check_result(job).await;
    }

    fn lock_seen(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check_result(&self, job: &str) {
        let result = self
            .persist(|client| async move {
                let reply = client.try_get(&format!("/jobs/{job}/result")).await.ok()?;
                (reply.status != 503).then_some(reply)
            })
            .await;
        assert_eq!((result.status, result.text().as_str()), (200, job));
    }

    /// Looks again at something that is finished.
    async fn look_again(&self, random: &mut Random) {
        let seen: Option<(String, Seen)> = {
            let seen = self.lock_seen();
            let nth = random.below(seen.len().max(1) as u64) as usize;
            seen.iter().nth(nth).map(|(job, seen)| (job.clone(), seen.clone()))
        };
        let Some((job, seen)) = seen else { return };
        let status = self
            .persist(|client| {
                let path = format!("/jobs/{job}/status");
                async move {
                    let reply = client.try_get(&path).await.ok()?;
                    (reply.status != 503).then_some(reply)
                }
            })
            .await;
        assert_eq!(status.status, 200, "{job}: {status:?}");
        assert_eq!(status.json(), seen.status, "{job} was finished");
    }
}

async fn submitter(load: Arc<Load>, number: u64, mut random: Random) {
    for i in 0.. {
        if load.enough.load(Ordering::Relaxed) {
            break;
        }
        // A few at a time, so that there is a queue.
        let jobs: Vec<_> = (0..=random.below(4)).map(|j| format!("job-{number}-{i}-{j}")).collect();
        for job in &jobs {
            load.submit(&body(job, &mut random)).await;
        }
        for job in &jobs {
            load.see_done(job).await;
        }
        load.look_again(&mut random).await;
    }
}

fn body(job: &str, random: &mut Random) -> Value {
    let model: Model = if random.below(8) == 0 { RAW } else { SCRIPTED };
    // Small payloads ride in the queue's commit and large ones do not; both say the job's name.
    let script = Script::Say(job.to_owned()).text();
    let padding = if random.below(16) == 0 { 300_000 } else { 0 };
    start_body(job, model, &format!("{script}{}", " ".repeat(padding)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_and_nothing_finishes_twice() {
    let harness = Harness::new();
    let storage = harness.path("storage");
    survive(harness, &storage, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_storage_in_s3() {
    let server = S3Server::start();
    let harness = Harness::on_s3(&server.url(), Layout::BucketPerJob);
    // The server keeps a bucket as a directory and an object as a file.
    survive(harness, server.root(), ROUNDS_WITH_S3).await;
}

/// Kills the daemon of a harness again and again; `storage` is where objects are in the end, as files.
async fn survive(harness: Harness, storage: &Path, rounds: u32) {
    let mut random = Random::new();
    let harness = harness.with_sheep("second", json!({})).with(json!({"limits": {"crash_retries": 0}}));
    let (lives, daemon) = watch::channel(None);
    let load = Arc::new(Load {
        daemon,
        journal: harness.journal(),
        enough: AtomicBool::new(false),
        seen: Mutex::default(),
        submits: AtomicU64::new(0),
        repeats: AtomicU64::new(0),
    });
    let mut submitters = tokio::task::JoinSet::new();
    for number in 0..SUBMITTERS {
        submitters.spawn(submitter(Arc::clone(&load), number, random.split()));
    }

    for round in 0..rounds {
        let mut daemon = harness.spawn(harness.command());
        let life = random.up_to(LONGEST_LIFE);
        let begun = tokio::time::Instant::now();
        // Killed while it starts, as often as not.
        let available = tokio::time::timeout(life, daemon.available()).await.is_ok();
        if available {
            lives.send_replace(Some(daemon.client()));
            tokio::time::sleep_until(begun + random.up_to(LONGEST_LIFE)).await;
        }
        assert!(daemon.is_running(), "round {round}: it ended by itself\n{}", daemon.log().text());
        daemon.kill().await;
        lives.send_replace(None);
        eventually("the runners to end with their daemon", || harness.processes().is_empty().then_some(()))
            .await;
        if let Some(Err(failed)) = submitters.try_join_next() {
            std::panic::resume_unwind(failed.into_panic());
        }
    }

    // A last life to finish everything in.
    load.enough.store(true, Ordering::Relaxed);
    let daemon = harness.start().await;
    lives.send_replace(Some(daemon.client()));
    while let Some(submitter) = submitters.join_next().await {
        if let Err(failed) = submitter {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    let seen = load.lock_seen().clone();
    for (job, seen) in &seen {
        assert_eq!(daemon.client().status(job).await, seen.status, "{job} was finished");
    }
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);

    let submits = load.submits.load(Ordering::Relaxed);
    assert_eq!(seen.len() as u64, submits, "every accepted job was seen done");
    assert!(submits > u64::from(rounds), "too few jobs to tell anything: {submits}");
    for job in seen.keys() {
        // What lies in storage in the end is what clients were given.
        assert_eq!(std::fs::read_to_string(storage.join(job).join("outputs/output")).unwrap(), *job);
        let status: Value =
            serde_json::from_slice(&std::fs::read(storage.join(job).join("job_status.json")).unwrap())
                .unwrap();
        assert_eq!(status["status"], "done", "{job}");
    }
    let runs = harness.journal().runs();
    let mut tokens = HashSet::new();
    for run in &runs {
        assert!(
            tokens.insert((&run.job, &run.attempt)),
            "the attempt {} at {} came twice",
            run.attempt,
            run.job
        );
        let seen = seen.get(&run.job).unwrap_or_else(|| panic!("{} was never accepted", run.job));
        assert!(run.offset < seen.journal, "{} ran again after it was seen done", run.job);
    }
    println!(
        "{rounds} kills: {submits} jobs in {} attempts, {} submits whose answer was lost",
        runs.len(),
        load.repeats.load(Ordering::Relaxed),
    );
}
