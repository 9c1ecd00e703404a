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
use shepherd_tests::runners::{After, BROKEN, Farm, Kind, result_path};
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

async fn check(kind: Kind, settings: Value, after: After, case: impl AsyncFn(&mut Farm)) {
    let Some(mut farm) = Farm::start(kind, settings).await else { return };
    case(&mut farm).await;
    farm.leave(after).await;
}

const DIED: &str = "Sheep container died without notice";

fn say(text: &str) -> Script {
    Script::Say(text.to_owned())
}

fn files(files: &[(&str, &str)]) -> Script {
    Script::Files(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

async fn says_one_thing(farm: &mut Farm) {
    let text = "hello\r\n\u{0} žluťoučký 羊";
    farm.run("job", &say(text)).await;
    farm.done("job", &[("output", text.as_bytes())]).await;
    assert_eq!(farm.runs("job"), 1);
}

async fn fails(farm: &mut Farm) {
    let text = "bad picture: žluťoučký 羊";
    farm.run("job", &Script::Fail(text.to_owned())).await;
    let failure = farm.failed("job").await;
    assert_eq!(failure.message, text);
    let (kind, place) = match farm.kind {
        Kind::Rust | Kind::Raw => ("", ""),
        Kind::PythonOldest | Kind::PythonNewest | Kind::Legacy => ("ValueError", "in work"),
        Kind::Command => ("exit code 1", ""),
    };
    assert_eq!(failure.kind, kind);
    assert!(failure.traceback.contains(place), "{failure:?}");
}

async fn fails_among_others(farm: &mut Farm) {
    let ids: Vec<String> = (0..30).map(|number| format!("job-{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let script = if number % 3 == 1 { Script::Fail(id.clone()) } else { say(id) };
        farm.submit(id, &script).await;
    }
    for (number, id) in ids.iter().enumerate() {
        if number % 3 == 1 {
            assert_eq!(farm.failed(id).await.message, *id);
        } else {
            farm.done(id, &[("output", id.as_bytes())]).await;
        }
        assert_eq!(farm.runs(id), 1);
    }
}

async fn several_outputs(farm: &mut Farm) {
    farm.run("job", &files(&[("output", "one"), ("second.json", "{}"), ("third", "3\n")])).await;
    farm.done("job", &[("output", b"one"), ("second.json", b"{}"), ("third", b"3\n")]).await;
}

async fn nested_outputs(farm: &mut Farm) {
    farm.run("job", &files(&[("a/b/c/file", "deep"), ("a/file", "less")])).await;
    farm.done("job", &[("a/b/c/file", b"deep"), ("a/file", b"less")]).await;
    assert_eq!(farm.output("job", "output").await.status, 404);
}

async fn empty_output(farm: &mut Farm) {
    farm.run("job", &say("")).await;
    farm.done("job", &[("output", b"")]).await;
}

async fn no_output(farm: &mut Farm) {
    farm.run("job", &Script::Nothing).await;
    farm.done("job", &[]).await;
    farm.output("job", "output").await.expect_message(404, "Requested file does not exist");
}

async fn huge_output(farm: &mut Farm) {
    const SIZE: u64 = 1 << 30;
    farm.run("job", &Script::Sparse(SIZE)).await;
    assert_eq!(farm.client().finished("job").await["status"], "done");
    let path = result_path("job", "output");
    let head = farm.client().ask(Method::HEAD, &path).await;
    assert_eq!((head.status, head.header(header::CONTENT_LENGTH)), (200, SIZE.to_string().as_str()));
    let tail = farm.client().get_with(&path, header::RANGE, &format!("bytes={}-", SIZE - SPARSE_PIECE)).await;
    assert_eq!((tail.status, tail.body.len() as u64), (206, SPARSE_PIECE));
    assert_eq!(tail.body[..8], sparse_piece(SIZE - SPARSE_PIECE));
    let mut file = BufReader::with_capacity(
        1 << 20,
        File::open(farm.site.object("job", "outputs/output")).expect("it is there"),
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

async fn unicode_names(farm: &mut Farm) {
    let names = ["a b%2F?#.txt", "d\u{11b}tsk\u{fd} \u{7f8a}/žluťoučký 🐑.txt", "input"];
    let script = Script::Copy.text();
    for name in names {
        farm.site.put("job", &format!("inputs/{name}"), &script);
    }
    let body = json!({"job_id": "job", "model": SCRIPTED.json(), "sheep_id": SHEEP});
    assert_eq!(farm.client().start_job(&body).await.status, 200);
    farm.done("job", &names.map(|name| (name, script.as_bytes()))).await;
}

async fn slow(farm: &mut Farm) {
    farm.submit("job", &Script::Gate(farm.gate("job"))).await;
    farm.submit("behind", &say("behind")).await;
    farm.pid("job").await;
    // Longer than a runner may be silent. It is not: it works.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(farm.client().status("job").await["status"], "processing");
    farm.open("job");
    farm.done("job", &[("output", b"through")]).await;
    farm.done("behind", &[("output", b"behind")]).await;
    assert_eq!(farm.runs("job"), 1);
}

async fn noise(farm: &mut Farm) {
    farm.run("job", &Script::Noise).await;
    farm.done("job", &[("output", b"said")]).await;
}

async fn is_logged(farm: &mut Farm) {
    for job in ["job", "next"] {
        let text = format!("this is {job}: žluťoučký 羊\n");
        let steps = vec![Step::Print(text.clone()), Step::Gate(farm.gate(job))];
        farm.submit(job, &Script::Steps(steps)).await;
        let path = format!("/jobs/{job}/logs");
        let log = async || farm.client().get(&path).await.text();
        eventually_async("the log", || async { log().await.ends_with(&text).then_some(()) }).await;
        farm.open(job);
        farm.done(job, &[("output", b"stepped")]).await;
        let log = log().await;
        assert_eq!(
            (log.ends_with(&text), log.matches("this is j").count()),
            (true, usize::from(job == "job")),
            "{log}"
        );
    }
    let before = farm.client().get("/jobs/first/logs").await;
    assert!(before.status == 200 && !before.text().contains("this is job"), "{before:?}");
}

async fn says_how_far_it_is(farm: &mut Farm) {
    let steps = vec![Step::Progress(0.5, "half".to_owned()), Step::Gate(farm.gate("job"))];
    farm.submit("job", &Script::Steps(steps)).await;
    let client = farm.client();
    let progress = async || client.status("job").await.get("progress").cloned();
    let said = eventually_async("progress", &progress).await;
    assert_eq!(said, json!({"fraction": 0.5, "message": "half"}));
    farm.open("job");
    farm.done("job", &[("output", b"stepped")]).await;
    assert_eq!(progress().await, None, "of a finished job there is none");
}

async fn dies_before_ready(farm: &mut Farm) {
    farm.submit_to(SHEEP, "job", BROKEN, &say("never")).await;
    farm.submit("behind", &say("behind")).await;
    let failure = farm.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied", "{failure:?}");
    farm.done("behind", &[("output", b"behind")]).await;
    assert_eq!(farm.runs("job"), 0);
}

async fn dies_in_a_job(farm: &mut Farm) {
    farm.run("job", &Script::Exit(9)).await;
    let failure = farm.failed("job").await;
    if farm.kind == Kind::Command {
        assert_eq!(
            (failure.message.as_str(), failure.kind.as_str()),
            ("the command ended with exit code 9", "exit code 9")
        );
    } else {
        assert!(failure.message.contains(DIED), "{failure:?}");
        assert_eq!(failure.kind, "RunnerDied");
    }
    assert_is_blamed(farm);
}

/// Where others had been sent with it, it is tried once more, by itself.
fn assert_is_blamed(farm: &Farm) {
    assert_ran_at_most(farm, 2);
}

#[track_caller]
fn assert_ran_at_most(farm: &Farm, runs: usize) {
    assert!(farm.runs("job") <= runs, "{}", farm.runs("job"));
}

/// The runner gets a signal whenever it works on a job.
async fn is_hit(farm: &mut Farm, signal: Signal) -> String {
    farm.submit("job", &Script::Gate(farm.gate("never"))).await;
    let client = farm.client();
    let mut finished = pin!(client.finished("job"));
    for attempt in 1.. {
        tokio::select! {
            _ = &mut finished => break,
            () = farm.site.begun("job", attempt) => {}
        }
        process::signal(farm.site.journal().runs_of("job")[attempt - 1].pid, signal);
        if attempt == 1 {
            farm.submit("behind", &say("behind")).await;
        }
    }
    let failure = farm.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied", "{failure:?}");
    farm.done("behind", &[("output", b"behind")]).await;
    assert_eq!(farm.runs("behind"), 1);
    // A runner that is killed as soon as it has a job may have been idle: the job is tried once more.
    assert_ran_at_most(farm, if signal == Signal::KILL { 3 } else { 2 });
    failure.message
}

async fn is_killed(farm: &mut Farm) {
    let message = is_hit(farm, Signal::KILL).await;
    assert!(message.contains(DIED), "{message}");
}

async fn hangs(farm: &mut Farm) {
    let message = is_hit(farm, Signal::STOP).await;
    assert!(message.contains("did not answer"), "{message}");
}

async fn takes_too_long(farm: &mut Farm) {
    let child = farm.site.path("child");
    farm.run("job", &Script::Hang { child: child.clone() }).await;
    let failure = farm.failed("job").await;
    assert_eq!(failure.message, "The job ran longer than its limit of 3s");
    assert_eq!(farm.runs("job"), 1);
    let child = std::fs::read_to_string(child).expect("the job wrote it");
    let child: i32 = child.parse().expect("a process id");
    eventually("the end of the runner's child", || (!process::is_alive(child)).then_some(())).await;
}

async fn garbage(farm: &mut Farm) {
    farm.run_liar("job", &Script::Garbage).await;
    let failure = farm.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied");
    assert!(failure.message.contains("cannot be understood"), "{failure:?}");
    assert_is_blamed(farm);
}

async fn another_s_job(farm: &mut Farm) {
    // Of one on the other sheep, and of one that there is not.
    for (liar, job) in [("liar", "neighbour"), ("next-liar", "nobody")] {
        farm.run_liar(liar, &Script::AnswerFor { job: job.to_owned() }).await;
        let failure = farm.failed(liar).await;
        assert_eq!(failure.kind, "RunnerDied");
        assert!(failure.message.contains("does not have") && failure.message.contains(job), "{failure:?}");
    }
    assert_eq!(farm.client().status("neighbour").await["status"], "processing");
    let nobody = farm.client().get("/jobs/nobody/status").await;
    nobody.expect_message(400, "Data for job `nobody` does not exist");
}

async fn answers_twice(farm: &mut Farm) {
    farm.run("job", &Script::AnswerTwice).await;
    farm.done("job", &[("output", b"answered")]).await;
    let first = farm.client().status("job").await;
    farm.run("next", &say("next")).await;
    assert_eq!(farm.client().status("job").await, first);
}

async fn stale_attempt(farm: &mut Farm) {
    let marker = farm.site.path("marker");
    farm.run_liar("job", &Script::StaleAnswer { marker }).await;
    // The attempt before said done.
    let failure = farm.failed("job").await;
    assert_eq!(failure.kind, "RunnerDied");
    assert!(failure.message.contains("does not have"), "{failure:?}");
    assert!(farm.runs("job") >= 2);
}

async fn is_cancelled(farm: &mut Farm) {
    farm.submit("job", &Script::Gate(farm.gate("never"))).await;
    farm.submit("waiting", &say("never")).await;
    farm.submit("behind", &say("behind")).await;
    farm.pid("job").await;
    for job in ["waiting", "job"] {
        let reply = farm.client().ask(Method::POST, &format!("/jobs/{job}/cancel")).await;
        assert!(reply.is_success(), "{reply:?}");
        let failure = farm.failed(job).await;
        assert_eq!(failure.message, "The job was cancelled");
    }
    farm.done("behind", &[("output", b"behind")]).await;
    assert_eq!((farm.runs("job"), farm.runs("waiting"), farm.runs("behind")), (1, 0, 1));
}

async fn finishes_at_the_end(farm: &mut Farm) {
    farm.submit("job", &Script::Gate(farm.gate("job"))).await;
    farm.pid("job").await;
    farm.submit("behind", &say("behind")).await;
    farm.terminate().await;
    farm.open("job");
    farm.open("neighbour");
    farm.restart().await;
    farm.done("job", &[("output", b"through")]).await;
    farm.done("behind", &[("output", b"behind")]).await;
    assert_eq!(farm.runs("job"), 1);
}

async fn is_given_back(farm: &mut Farm) {
    farm.expect_neighbours(2);
    farm.submit("job", &Script::Gate(farm.gate("job"))).await;
    farm.pid("job").await;
    farm.terminate().await;
    farm.restart().await;
    farm.open("job");
    // It is nobody's crash: no retry is allowed.
    farm.done("job", &[("output", b"through")]).await;
    assert_eq!(farm.runs("job"), 2);
    farm.site.begun("neighbour", 2).await;
}
