//! kill -9 at a random moment, again and again: nothing acknowledged is lost, and no
//! token comes twice.
//!
//! The victim is this test binary, run again with one test selected and a directory
//! in its environment. It writes a line to its standard output after each answer
//! that it got; the killer believes whole lines only.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use shepherd_job::{Attempt, JobState, Phase};

use super::open;
use crate::contract::{at, claim_at, complete, id, model, object, sheep, with_objects};
use crate::{Change, Claim, JobStore as _, ListQuery, Outbox as _, PendingLimits};

const DIR: &str = "SHEPHERD_QUEUE_CRASH_DIR";
const ROUND: &str = "SHEPHERD_QUEUE_CRASH_ROUND";
const ROUNDS: u64 = 8;

fn say(line: &str) {
    // One write a line, so that a torn line is the last one only.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Not a test by itself: what the killer starts. Without the directory it does nothing.
#[test]
fn victim() {
    let (Some(dir), Some(round)) = (std::env::var_os(DIR), std::env::var_os(ROUND)) else { return };
    let round = round.into_string().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = Arc::new(open(Path::new(&dir)).await);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let (queue, round) = (Arc::clone(&queue), round.clone());
            tasks.spawn(async move {
                for n in 0.. {
                    let names: Vec<String> = (0..3).map(|k| format!("job-{round}-{task}-{n}-{k}")).collect();
                    let jobs = names.iter().map(|name| with_objects(name, &[object("inputs/input", name)]));
                    queue.submit(jobs.collect()).await.unwrap();
                    names.iter().for_each(|name| say(&format!("+ submitted {name}")));
                }
            });
        }
        for name in ["dolly", "shaun"] {
            let queue = Arc::clone(&queue);
            tasks.spawn(async move {
                loop {
                    let claim = Claim::new(model("m"), sheep(name), 3, at(10));
                    let claimed = queue.claim(claim).await.unwrap();
                    for c in &claimed {
                        say(&format!("+ claimed {} {}", c.job.spec.id, c.attempt));
                    }
                    let changes = claimed.iter().map(|c| Change {
                        job: c.job.spec.id.clone(),
                        event: complete(c.attempt),
                        objects: vec![object("outputs/output", c.attempt.to_string())],
                    });
                    let out = queue.apply(changes.collect()).await.unwrap();
                    assert!(out.iter().all(Result::is_ok));
                    for c in &claimed {
                        say(&format!("+ finished {} {}", c.job.spec.id, c.attempt));
                    }
                    let pending = queue.pending(None, PendingLimits::jobs(2)).await.unwrap();
                    queue.delivered(pending).await.unwrap();
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

#[derive(Default)]
struct Witness {
    submitted: HashSet<String>,
    finished: HashMap<String, Attempt>,
    tokens: HashSet<(String, Attempt)>,
}

impl Witness {
    fn hear(&mut self, line: &str) {
        // The test harness writes lines of its own, and begins this one.
        let Some((_, words)) = line.split_once("+ ") else { return };
        let words: Vec<&str> = words.split(' ').collect();
        match words[..] {
            ["submitted", job] => assert!(self.submitted.insert(job.to_owned())),
            ["claimed", job, token] => {
                let token: Attempt = token.parse().unwrap();
                assert!(self.tokens.insert((job.to_owned(), token)), "{job} got {token} twice");
            }
            ["finished", job, token] => {
                let before = self.finished.insert(job.to_owned(), token.parse().unwrap());
                assert!(before.is_none(), "{job} finished twice");
            }
            _ => panic!("{line}"),
        }
    }
}

/// Runs the victim until it has said this many lines, and a little longer.
fn murder(dir: &Path, round: u64, lines: usize, witness: &mut Witness) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::tests::crash::victim", "--nocapture", "--test-threads", "1"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(victim.stdout.take().unwrap());
    let mut heard = 0;
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if line.ends_with('\n') {
            witness.hear(line.trim_end());
        }
        line.clear();
        heard += 1;
        if heard == lines {
            // What it says until it is dead is read to the end.
            victim.kill().unwrap();
        }
    }
    assert!(heard >= lines, "the victim ended by itself");
    victim.wait().unwrap();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut witness = Witness::default();
    for round in 0..ROUNDS {
        murder(dir.path(), round, 40 + usize::try_from(round * 157 % 700).unwrap(), &mut witness);
        let queue = open(dir.path()).await;
        for name in &witness.submitted {
            let record = queue.get(&id(name)).await.unwrap();
            let record = record.unwrap_or_else(|| panic!("{name} is lost"));
            let finished = witness.finished.get(name);
            match &record.state {
                JobState::Queued { .. } => assert_eq!(finished, None, "{name} lost its outcome"),
                JobState::Done { history, .. } => {
                    if let Some(token) = finished {
                        assert_eq!(history.attempts, token.number);
                    }
                }
                other => panic!("{name} is {other:?}"),
            }
        }
        assert_eq!(queue.counts().await.unwrap().processing, 0);
    }
    // What is left can be run to its end, with all its objects.
    let queue = open(dir.path()).await;
    loop {
        let claimed = claim_at(&queue, 100, 10).await;
        if claimed.is_empty() {
            break;
        }
        for c in &claimed {
            assert!(witness.tokens.insert((c.job.spec.id.to_string(), c.attempt)));
            let objects = [object("inputs/input", c.job.spec.id.as_str())];
            assert!(c.objects.is_empty() || c.objects == objects);
        }
        let changes = claimed.iter().map(|c| crate::contract::change(&c.job.spec.id, complete(c.attempt)));
        assert!(queue.apply(changes.collect()).await.unwrap().iter().all(Result::is_ok));
    }
    let all = queue.list(ListQuery { limit: usize::MAX, ..ListQuery::default() }).await.unwrap();
    assert!(all.len() >= witness.submitted.len());
    assert!(all.iter().all(|record| record.state.phase() == Phase::Done));
    assert_eq!(queue.counts().await.unwrap().done, all.len() as u64);
}
