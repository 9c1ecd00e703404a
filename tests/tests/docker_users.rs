//! A daemon that is not root, with containers of yet another user: what that user makes can be read, and removed
//! again.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use shepherd_tests::docker::{Engine, Image, Recipe, Registry};
use shepherd_tests::{Daemon, Harness, Model, Script, eventually};

/// The daemon's user.
const US: u32 = 51_234;
/// Its runners'.
const STRANGER: u32 = 54_321;

/// Puts a directory that it closes into each job's, beside what the job says; nobody but root reads or removes it.
const CLOSES: &str = "umask 077; home=${SHEPHERD_LISTEN#ipc://}; home=${home%/*}; \
    (while :; do for job in $home/[a-z]*; do \
    [ -d $job/closed ] || { mkdir -p $job/closed/deep && touch $job/closed/deep/file && chmod 700 $job/closed/deep \
    $job/closed; }; done 2>/dev/null; sleep 0.05; done) & exec /bin/scripted_runner \"$@\"";

/// Gives the harness to [`US`], with the group that may ask the engine; starts daemons as them.
fn give(engine: &Engine, harness: &Harness) -> impl AsyncFn() -> Daemon {
    let socket = engine.host().trim_start_matches("unix://");
    let group = std::fs::metadata(socket).expect("the engine's socket is there").gid();
    // Where the binary is built may be closed to others.
    std::fs::copy(harness.command().get_program(), harness.path("shepherd")).expect("it is copied");
    let owner = format!("{US}:{group}");
    let mut chown = Command::new("chown");
    let status = chown.args(["-R", &owner]).arg(harness.path("")).status().expect("chown is there");
    assert!(status.success());
    async move || {
        let mut command = Command::new(harness.path("shepherd"));
        command.args(harness.command().get_args()).current_dir(harness.path("")).uid(US).gid(group);
        harness.start_command(command).await
    }
}

/// How many files below are the stranger's.
fn left(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| {
        let Ok(stat) = entry.path().symlink_metadata() else { return 0 };
        usize::from(stat.uid() == STRANGER) + if stat.is_dir() { left(&entry.path()) } else { 0 }
    };
    entries.map(count).sum()
}

#[tokio::test]
async fn a_daemon_and_its_runners_may_be_two_users_neither_of_them_root() {
    let (Some(engine), Some(registry)) = (Engine::shared(), Registry::open()) else { return };
    if !rustix::process::geteuid().is_root() {
        return shepherd_tests::skip("only root can be several users");
    }
    let [closing, other] = [Recipe::shell(CLOSES), Recipe::default()]
        .map(|recipe| Image::make(&engine, registry.authority(), Model::unique("users", "1"), &recipe));
    let keys = json!({"autoremove_containers": true, "pull": "never", "user": STRANGER.to_string()});
    let harness = Harness::on_engine(&engine, &registry, keys);
    let start = give(&engine, &harness);
    let daemon = start().await;
    let client = daemon.client();
    let files =
        vec![("output".to_owned(), "whole".to_owned()), ("deep/er/file".to_owned(), "deep".to_owned())];
    for job in ["first", "second"] {
        let status = client.run(job, closing.model(), &Script::Files(files.clone())).await;
        assert_eq!(status["status"], "done", "{status}");
        assert_eq!(client.result(job).await.text(), "whole");
        assert_eq!(std::fs::read_to_string(harness.object(job, "outputs/deep/er/file")).unwrap(), "deep");
    }
    // One more is in work when the closed directory is there for certain.
    let gate = harness.shared("gate");
    client.submit("third", closing.model(), &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("third", 1).await;
    let place = harness.path("data").join(shepherd_tests::ids::SHEEP).join("third/closed/deep");
    eventually("what nobody else may remove", || place.exists().then_some(())).await;
    harness.open_gate(&gate);
    assert_eq!(client.finished("third").await["status"], "done");
    // Another model's runner is another container: nothing of the first is left then, or soon after.
    let status = client.run("other", other.model(), &Script::Say("x".to_owned())).await;
    assert_eq!(status["status"], "done", "{status}");
    let attic = harness.path("data/.attic");
    eventually("the first model's directories to go", || (left(&attic) == 0).then_some(())).await;
    // What a killed daemon leaves is removed by the next one.
    let gate = harness.shared("gate-of-last");
    client.submit("last", closing.model(), &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("last", 1).await;
    let place = harness.path("data").join(shepherd_tests::ids::SHEEP).join("last/closed/deep");
    eventually("what nobody else may remove", || place.exists().then_some(())).await;
    daemon.kill().await;
    let daemon = start().await;
    harness.open_gate(&gate);
    assert_eq!(daemon.client().finished("last").await["status"], "done");
    assert_eq!(daemon.stop().await.code, Some(0));
    let aside = std::fs::read_dir(harness.path("data")).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with(".not-removable"));
    assert_eq!(aside.count(), 0);
    assert_eq!(engine.containers(&harness.path("state"), true), [""; 0]);
}
