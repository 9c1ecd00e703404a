//! What every kind of runner must do, and what none may do to the jobs of others.
//!
//! Each case is run with each kind, through the real daemon, on one of two sheep; on the
//! other one a job is in work all the while. Afterwards that job is done, and so is the
//! next one on the first sheep: by the same process where the runner is to live on, and
//! by another one where it is not.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::pin::pin;
use std::time::Duration;

use http::{Method, header};
use rustix::process::Signal;
use serde_json::{Value, json};
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::runners::{After, BROKEN, Kind, RunnerHarness, result_path};
use shepherd_tests::{SPARSE_PIECE, Script, Step, eventually, eventually_async, process, sparse_piece};

/// One module a case, one test in it for each kind of runner that can show the case.
macro_rules! suite {
    ($($case:ident ($settings:ident) $rust:tt $raw:tt $python:tt $command:tt $legacy:tt)*) => { $(
        mod $case {
            cell!($case $settings rust Rust $rust);
            cell!($case $settings raw Raw $raw);
            cell!($case $settings python_oldest PythonOldest $python);
            cell!($case $settings python_newest PythonNewest $python);
            cell!($case $settings command Command $command);
            cell!($case $settings legacy Legacy $legacy);
        }
    )* };
}

macro_rules! cell {
    ($case:ident $settings:ident $test:ident $kind:ident -) => {};
    ($case:ident $settings:ident $test:ident $kind:ident $after:ident) => {
        #[tokio::test]
        async fn $test() {
            use shepherd_tests::runners::{After, Kind};
            super::check(Kind::$kind, super::$settings(), After::$after, super::$case).await;
        }
    };
}

// What becomes of the runner. `-`: this kind cannot do that. The SDK of Rust says nothing
// that it should not, a command does not speak to the shepherd at all, and runners of the
// first shepherd know of no attempts (what was sent ahead of one's death is in `legacy`).
suite! {
    //                              rust   raw    python command legacy
    says_one_thing      (usual)     Same   Same   Same   Same    Same
    fails               (usual)     Same   Same   Same   Same    Same
    fails_among_others  (usual)     Same   Same   Same   Same    Same
    several_outputs     (usual)     Same   Same   Same   Same    Same
    nested_outputs      (usual)     Same   Same   Same   Same    Same
    empty_output        (usual)     Same   Same   Same   Same    Same
    no_output           (usual)     Same   Same   Same   Same    Same
    huge_output         (usual)     Same   Same   Same   Same    Same
    unicode_names       (usual)     Same   Same   Same   Same    Same
    slow                (watchful)  Same   Same   Same   Same    Same
    noise               (usual)     Same   Same   Same   Same    Same
    is_logged           (heard)     Same   Same   Same   Same    Same
    says_how_far_it_is  (usual)     Same   Same   Same   -       -
    dies_before_ready   (usual)     Other  Other  Other  Other   Other
    // The runner outlives its command.
    dies_in_a_job       (usual)     Other  Other  Other  Same    Other
    is_killed           (usual)     Other  Other  Other  Other   Other
    hangs               (watchful)  Other  Other  Other  Other   Other
    takes_too_long      (hasty)     Other  Other  Other  Other   Other
    garbage             (usual)     -      Other  Other  -       Other
    another_s_job       (usual)     -      Other  Other  -       Other
    answers_twice       (usual)     -      Same   Same   -       Same
    stale_attempt       (retrying)  -      Other  Other  -       -
    // Cannot be told: it is ended instead.
    is_cancelled        (impatient) Same   Same   Same   Same    Other
    finishes_at_the_end (usual)     Other  Other  Other  Other   Other
    is_given_back       (brief)     Other  Other  Other  Other   Other
}

/// The sheep's configuration, and what is beside it.
fn usual() -> Value {
    json!({})
}

/// What the runner prints goes to the shepherd, and to no file.
fn heard() -> Value {
    json!({"sheep": {SHEEP: {"stdout_file": null, "stderr_file": null}}})
}

fn watchful() -> Value {
    json!({"sheep": {SHEEP: {"heartbeat_timeout": "2s", "stop_grace": "500ms"}}})
}

fn hasty() -> Value {
    json!({"sheep": {SHEEP: {"run_timeout": "3s", "stop_grace": "500ms"}}})
}

fn impatient() -> Value {
    json!({"sheep": {SHEEP: {"stop_grace": "2s"}}})
}

fn retrying() -> Value {
    json!({"limits": {"crash_retries": 1}})
}

fn brief() -> Value {
    json!({"shutdown": {"grace": "2s"}})
}

async fn check(kind: Kind, settings: Value, after: After, case: impl AsyncFn(&mut RunnerHarness)) {
    let Some(mut runners) = RunnerHarness::start(kind, settings).await else { return };
    case(&mut runners).await;
    runners.leave(after).await;
}

const DIED: &str = "Sheep container died without notice";

fn say(text: &str) -> Script {
    Script::Say(text.to_owned())
}

fn files(files: &[(&str, &str)]) -> Script {
    Script::Files(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

async fn says_one_thing(runners: &mut RunnerHarness) {
    let text = "hello\r\n\u{0} žluťoučký 羊";
    runners.run("job", &say(text)).await;
    runners.done("job", &[("output", text.as_bytes())]).await;
    assert_eq!(runners.runs("job"), 1);
}

async fn fails(runners: &mut RunnerHarness) {
    let text = "bad picture: žluťoučký 羊";
    runners.run("job", &Script::Fail(text.to_owned())).await;
    let failure = runners.failed("job").await;
    assert_eq!(failure.message, text);
    let (kind, place) = match runners.kind {
        Kind::Rust | Kind::Raw => ("", ""),
        Kind::PythonOldest | Kind::PythonNewest | Kind::Legacy => ("ValueError", "in work"),
        Kind::Command => ("exit code 1", ""),
    };
    assert_eq!(failure.kind, kind);
    assert!(failure.traceback.contains(place), "{failure:?}");
}

async fn fails_among_others(runners: &mut RunnerHarness) {
    let ids: Vec<String> = (0..30).map(|number| format!("job-{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let script = if number % 3 == 1 { Script::Fail(id.clone()) } else { say(id) };
        runners.submit(id, &script).await;
    }
    for (number, id) in ids.iter().enumerate() {
        if number % 3 == 1 {
            assert_eq!(runners.failed(id).await.message, *id);
        } else {
            runners.done(id, &[("output", id.as_bytes())]).await;
        }
        assert_eq!(runners.runs(id), 1);
    }
}

async fn several_outputs(runners: &mut RunnerHarness) {
    runners.run("job", &files(&[("output", "one"), ("second.json", "{}"), ("third", "3\n")])).await;
    runners.done("job", &[("output", b"one"), ("second.json", b"{}"), ("third", b"3\n")]).await;
}

async fn nested_outputs(runners: &mut RunnerHarness) {
    runners.run("job", &files(&[("a/b/c/file", "deep"), ("a/file", "less")])).await;
    runners.done("job", &[("a/b/c/file", b"deep"), ("a/file", b"less")]).await;
    assert_eq!(runners.output("job", "output").await.status, 404);
}

async fn empty_output(runners: &mut RunnerHarness) {
    runners.run("job", &say("")).await;
    runners.done("job", &[("output", b"")]).await;
}

async fn no_output(runners: &mut RunnerHarness) {
    runners.run("job", &Script::Nothing).await;
    runners.done("job", &[]).await;
    runners.output("job", "output").await.expect_message(404, "Requested file does not exist");
}

async fn huge_output(runners: &mut RunnerHarness) {
    const SIZE: u64 = 1 << 30;
    runners.run("job", &Script::Sparse(SIZE)).await;
    assert_eq!(runners.client().finished("job").await["status"], "done");
    let path = result_path("job", "output");
    let head = runners.client().ask(Method::HEAD, &path).await;
    assert_eq!((head.status, head.header(header::CONTENT_LENGTH)), (200, SIZE.to_string().as_str()));
    let tail =
        runners.client().get_with(&path, header::RANGE, &format!("bytes={}-", SIZE - SPARSE_PIECE)).await;
    assert_eq!((tail.status, tail.body.len() as u64), (206, SPARSE_PIECE));
    assert_eq!(tail.body[..8], sparse_piece(SIZE - SPARSE_PIECE));
    let mut file = BufReader::with_capacity(
        1 << 20,
        File::open(runners.harness.object("job", "outputs/output")).expect("it is there"),
    );
    let mut piece = vec![0; SPARSE_PIECE as usize];
    let zeroes = vec![0; SPARSE_PIECE as usize];
    for offset in (0..SIZE).step_by(piece.len()) {
        file.read_exact(&mut piece).expect("it is as long as it is said to be");
        assert_eq!(piece[..8], sparse_piece(offset));
        assert!(piece[8..] == zeroes[8..], "something else from {offset} on");
    }
    assert_eq!(file.read(&mut piece).expect("it can be read"), 0);
}

async fn unicode_names(runners: &mut RunnerHarness) {
    let names = ["a b%2F?#.txt", "d\u{11b}tsk\u{fd} \u{7f8a}/žluťoučký 🐑.txt", "input"];
    let script = Script::Copy.text();
    for name in names {
        runners.harness.put("job", &format!("inputs/{name}"), &script);
    }
    let body = json!({"job_id": "job", "model": SCRIPTED.json(), "sheep_id": SHEEP});
    assert_eq!(runners.client().start_job(&body).await.status, 200);
    runners.done("job", &names.map(|name| (name, script.as_bytes()))).await;
}

async fn slow(runners: &mut RunnerHarness) {
    runners.submit("job", &Script::Gate(runners.gate("job"))).await;
    runners.submit("behind", &say("behind")).await;
    runners.pid("job").await;
    // Longer than a runner may be silent. It is not: it works.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(runners.client().status("job").await["status"], "processing");
    runners.open("job");
    runners.done("job", &[("output", b"through")]).await;
    runners.done("behind", &[("output", b"behind")]).await;
    assert_eq!(runners.runs("job"), 1);
}

async fn noise(runners: &mut RunnerHarness) {
    runners.run("job", &Script::Noise).await;
    runners.done("job", &[("output", b"said")]).await;
}

async fn is_logged(runners: &mut RunnerHarness) {
    for job in ["job", "next"] {
        let text = format!("this is {job}: žluťoučký 羊\n");
        let steps = vec![Step::Print(text.clone()), Step::Gate(runners.gate(job))];
        runners.submit(job, &Script::Steps(steps)).await;
        let path = format!("/jobs/{job}/logs");
        let log = async || runners.client().get(&path).await.text();
        eventually_async("the log", || async { log().await.ends_with(&text).then_some(()) }).await;
        runners.open(job);
        runners.done(job, &[("output", b"stepped")]).await;
        let log = log().await;
        assert_eq!(
            (log.ends_with(&text), log.matches("this is j").count()),
            (true, usize::from(job == "job")),
            "{log}"
        );
    }
    let before = runners.client().get("/jobs/first/logs").await;
    assert!(before.status == 200 && !before.text().contains("this is job"), "{before:?}");
}

async fn says_how_far_it_is(runners: &mut RunnerHarness) {
    let steps = vec![Step::Progress(0.5, "half".to_owned()), Step::Gate(runners.gate("job"))];
    runners.submit("job", &Script::Steps(steps)).await;
    let client = runners.client();
    let progress = async || client.status("job").await.get("progress").cloned();
    let said = eventually_async("progress", &progress).await;
    assert_eq!(said, json!({"fraction": 0.5, "message": "half"}));
    runners.open("job");
    runners.done("job", &[("output", b"stepped")]).await;
    assert_eq!(progress().await, None, "of a finished job there is none");
}

async fn dies_before_ready(runners: &mut RunnerHarness) {
    runners.submit_to(SHEEP, "job", BROKEN, &say("never")).await;
    runners.submit("behind", &say("behind")).await;
    let failure = runners.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied", "{failure:?}");
    runners.done("behind", &[("output", b"behind")]).await;
    assert_eq!(runners.runs("job"), 0);
}

async fn dies_in_a_job(runners: &mut RunnerHarness) {
    runners.run("job", &Script::Exit(9)).await;
    let failure = runners.failed("job").await;
    if runners.kind == Kind::Command {
        assert_eq!(
            (failure.message.as_str(), failure.kind.as_str()),
            ("the command ended with exit code 9", "exit code 9")
        );
    } else {
        assert!(failure.message.contains(DIED), "{failure:?}");
        assert_eq!(failure.kind, "RunnerDied");
    }
    assert_is_blamed(runners);
}

/// Where others had been sent with it, it is tried once more, by itself.
fn assert_is_blamed(runners: &RunnerHarness) {
    assert_ran_at_most(runners, 2);
}

#[track_caller]
fn assert_ran_at_most(runners: &RunnerHarness, runs: usize) {
    assert!(runners.runs("job") <= runs, "{}", runners.runs("job"));
}

/// The runner gets a signal whenever it works on a job.
async fn is_hit(runners: &mut RunnerHarness, signal: Signal) -> String {
    runners.submit("job", &Script::Gate(runners.gate("never"))).await;
    let client = runners.client();
    let mut finished = pin!(client.finished("job"));
    for attempt in 1.. {
        tokio::select! {
            _ = &mut finished => break,
            () = runners.harness.begun("job", attempt) => {}
        }
        process::signal(runners.harness.journal().runs_of("job")[attempt - 1].pid, signal);
        if attempt == 1 {
            runners.submit("behind", &say("behind")).await;
        }
    }
    let failure = runners.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied", "{failure:?}");
    runners.done("behind", &[("output", b"behind")]).await;
    assert_eq!(runners.runs("behind"), 1);
    // A runner that is killed as soon as it has a job may have been idle: the job is tried once more.
    assert_ran_at_most(runners, if signal == Signal::KILL { 3 } else { 2 });
    failure.message
}

async fn is_killed(runners: &mut RunnerHarness) {
    let message = is_hit(runners, Signal::KILL).await;
    assert!(message.contains(DIED), "{message}");
}

async fn hangs(runners: &mut RunnerHarness) {
    let message = is_hit(runners, Signal::STOP).await;
    assert!(message.contains("did not answer"), "{message}");
}

async fn takes_too_long(runners: &mut RunnerHarness) {
    let child = runners.harness.path("child");
    runners.run("job", &Script::Hang { child: child.clone() }).await;
    let failure = runners.failed("job").await;
    assert_eq!(failure.message, "The job ran longer than its limit of 3s");
    assert_eq!(runners.runs("job"), 1);
    let child = std::fs::read_to_string(child).expect("the job wrote it");
    let child: i32 = child.parse().expect("a process id");
    eventually("the end of the runner's child", || (!process::is_alive(child)).then_some(())).await;
}

async fn garbage(runners: &mut RunnerHarness) {
    runners.run_liar("job", &Script::Garbage).await;
    let failure = runners.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied");
    assert!(failure.message.contains("cannot be understood"), "{failure:?}");
    assert_is_blamed(runners);
}

async fn another_s_job(runners: &mut RunnerHarness) {
    // Of one on the other sheep, and of one that there is not.
    for (liar, job) in [("liar", "neighbour"), ("next-liar", "nobody")] {
        runners.run_liar(liar, &Script::AnswerFor { job: job.to_owned() }).await;
        let failure = runners.failed(liar).await;
        assert_eq!(failure.kind, "RunnerDied");
        assert!(failure.message.contains("does not have") && failure.message.contains(job), "{failure:?}");
    }
    assert_eq!(runners.client().status("neighbour").await["status"], "processing");
    let nobody = runners.client().get("/jobs/nobody/status").await;
    nobody.expect_message(400, "Data for job `nobody` does not exist");
}

async fn answers_twice(runners: &mut RunnerHarness) {
    runners.run("job", &Script::AnswerTwice).await;
    runners.done("job", &[("output", b"answered")]).await;
    let first = runners.client().status("job").await;
    runners.run("next", &say("next")).await;
    assert_eq!(runners.client().status("job").await, first);
}

async fn stale_attempt(runners: &mut RunnerHarness) {
    let marker = runners.harness.path("marker");
    runners.run_liar("job", &Script::StaleAnswer { marker }).await;
    // The attempt before said done.
    let failure = runners.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied");
    assert!(failure.message.contains("does not have"), "{failure:?}");
    assert!(runners.runs("job") >= 2);
}

async fn is_cancelled(runners: &mut RunnerHarness) {
    runners.submit("job", &Script::Gate(runners.gate("never"))).await;
    runners.submit("waiting", &say("never")).await;
    runners.submit("behind", &say("behind")).await;
    runners.pid("job").await;
    for job in ["waiting", "job"] {
        let reply = runners.client().ask(Method::POST, &format!("/jobs/{job}/cancel")).await;
        assert!(reply.is_success(), "{reply:?}");
        let failure = runners.failed(job).await;
        assert_eq!(failure.message, "The job was cancelled");
    }
    runners.done("behind", &[("output", b"behind")]).await;
    assert_eq!((runners.runs("job"), runners.runs("waiting"), runners.runs("behind")), (1, 0, 1));
}

async fn finishes_at_the_end(runners: &mut RunnerHarness) {
    runners.submit("job", &Script::Gate(runners.gate("job"))).await;
    runners.pid("job").await;
    runners.submit("behind", &say("behind")).await;
    runners.terminate().await;
    runners.open("job");
    runners.open("neighbour");
    runners.restart().await;
    runners.done("job", &[("output", b"through")]).await;
    runners.done("behind", &[("output", b"behind")]).await;
    assert_eq!(runners.runs("job"), 1);
}

async fn is_given_back(runners: &mut RunnerHarness) {
    runners.expect_neighbours(2);
    runners.submit("job", &Script::Gate(runners.gate("job"))).await;
    runners.pid("job").await;
    runners.terminate().await;
    runners.restart().await;
    runners.open("job");
    // It is nobody's crash: no retry is allowed.
    runners.done("job", &[("output", b"through")]).await;
    assert_eq!(runners.runs("job"), 2);
    runners.harness.begun("neighbour", 2).await;
}
