//! Bare sheep with real processes: shell scripts stand for runners.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests too

mod fixture;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixture::{BareFixture, DEADLINE, LONG, is_there, launch, lives, model, options, refusal, script, until};
use shepherd_job::ModelRef;
use shepherd_sheep::{BareSheep, ExitCause, Sheep, SheepError, Transport};

#[tokio::test]
async fn the_runner_gets_what_it_needs_and_no_more() {
    let mut fixture = BareFixture::new(&script(
        r#"pwd | write cwd
readlink /proc/self/fd/0 | write stdin
env | write env
for arg in "$@"; do echo "$arg"; done | write args
echo $$ | write pid
exec sleep 1000"#,
    ));
    fixture.options.devices = ["/dev/nvidia1", "/dev/nvidia0", "/dev/nvidiactl"].map(str::to_owned).to_vec();
    fixture.options.port = 9123;
    // A descriptor that no library marked as not to be inherited.
    let leak = File::open("/dev/zero").unwrap();
    let leak = rustix::io::dup(leak.as_fd()).unwrap();
    let mut running = launch(&fixture.sheep()).await;
    let pid = fixture.pid("pid").await;

    assert_eq!(fixture.read("args"), "-p\n9123\nm/1/config.yaml\n");
    assert_eq!(
        Path::new(fixture.read("cwd").trim()),
        fixture.options.working_directory.canonicalize().unwrap()
    );
    assert_eq!(fixture.read("stdin"), "/dev/null\n");
    let endpoint = running.endpoint().to_owned();
    assert!(
        endpoint.starts_with(&format!("ipc://{}/.runner-", fixture.path("data/dolly").display())),
        "{endpoint}"
    );
    assert_eq!(running.io_data_root(), fixture.path("data/dolly"));
    let env = fixture.read("env");
    for line in [
        "CUDA_VISIBLE_DEVICES=1,0",
        &format!("SHEPHERD_LISTEN={endpoint}"),
        "SHEPHERD_SHEEP=dolly",
        "SHEPHERD_MODEL=m:1",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} is not in {env}");
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[2..4], [pid.to_string(), pid.to_string()], "it leads a group and a session of its own");
    let descriptors = || {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // The shell has its script open until it is `sleep`, and that its libraries until it sleeps.
    until(|| descriptors() == ["0", "1", "2"]).await;
    drop(leak);

    let exit = running.stop(LONG).await;
    assert_eq!(exit.cause, ExitCause::Signal(15));
    assert!(!is_there(pid), "the runner is reaped");
    assert!(!fixture.record().exists());
}

#[tokio::test]
async fn an_empty_version_is_legal() {
    let fixture = BareFixture::new("echo \"$3\" >&2");
    std::fs::write(fixture.path("models/m/config.yaml"), "").unwrap();
    let exit = fixture.sheep().launch(&ModelRef::parse("m", "").unwrap()).await.unwrap().exited().await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(0), "m/config.yaml"));
}

#[tokio::test]
async fn a_missing_model_is_told_in_the_words_that_clients_know() {
    let fixture = BareFixture::new("");
    let sheep = fixture.sheep();
    let file = fixture.path("models/absent/2/config.yaml");
    let expected = "Cannot load model `absent:2`, file `absent/2/config.yaml` does not exist.";
    let error = refusal(&sheep, &ModelRef::parse("absent", "2").unwrap()).await;
    assert!(matches!(&error, SheepError::Model(m) if m == expected), "{error}");
    // A directory or a file on the way is no configuration file either.
    std::fs::create_dir_all(&file).unwrap();
    assert!(matches!(refusal(&sheep, &ModelRef::parse("absent", "2").unwrap()).await, SheepError::Model(_)));
    let below_a_file = ModelRef::parse("m/1/config.yaml", "").unwrap();
    assert!(matches!(refusal(&sheep, &below_a_file).await, SheepError::Model(_)));
    launch(&sheep).await;
}

#[tokio::test]
async fn a_runner_that_cannot_be_started_is_named() {
    let mut fixture = BareFixture::new("");
    fixture.options.runner_command = vec!["no-such-runner-anywhere".to_owned()];
    let error = refusal(&fixture.sheep(), &model()).await;
    let beside = std::env::current_exe().unwrap().parent().unwrap().display().to_string();
    let text = error.to_string();
    assert!(matches!(error, SheepError::Misconfigured(_)));
    assert!(
        text.contains("`no-such-runner-anywhere`") && text.contains(&beside) && text.contains("/bin"),
        "{text}"
    );

    fixture.options.runner_command = Vec::new();
    assert!(matches!(refusal(&fixture.sheep(), &model()).await, SheepError::Misconfigured(_)));

    // Found, and not to be started: its interpreter is missing.
    let broken = fixture.path("broken");
    std::fs::copy("/bin/sh", &broken).unwrap();
    std::fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    fixture.options.runner_command = vec![broken.to_str().unwrap().to_owned()];
    let error = refusal(&fixture.sheep(), &model()).await;
    assert!(error.to_string().contains("cannot start the runner"), "{error}");
    assert!(!fixture.record().exists());
}

#[tokio::test]
async fn a_runner_that_exits_at_once_leaves_its_code_and_last_words() {
    let fixture = BareFixture::new("echo to stdout; echo Traceback >&2; echo 'ValueError: no' >&2; exit 7");
    let sheep = fixture.sheep();
    let mut running = launch(&sheep).await;
    let exit = running.exited().await;
    assert_eq!(exit.to_string(), "exited with code 7; it last wrote: Traceback\nValueError: no");
    assert_eq!(running.exited().await, exit, "and again");
    assert_eq!(running.stop(LONG).await, exit);
    running.kill();

    let fixture = BareFixture::new("echo only stdout; kill -SEGV $$");
    let exit = launch(&fixture.sheep()).await.exited().await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Signal(11), "only stdout"));
}

#[tokio::test]
async fn output_is_appended_to_the_files() {
    let mut fixture = BareFixture::new("echo out; echo err >&2; exit 1");
    fixture.options.stdout_file = Some(fixture.path("out.log"));
    fixture.options.stderr_file = Some(fixture.path("err.log"));
    let sheep = fixture.sheep();
    std::fs::write(fixture.path("out.log"), "before\n").unwrap();
    for _ in 0..2 {
        assert_eq!(launch(&sheep).await.exited().await.log_tail, "err");
    }
    assert_eq!(fixture.read("out.log"), "before\nout\nout\n");
    assert_eq!(fixture.read("err.log"), "err\nerr\n");

    // One file for both is as good.
    fixture.options.stderr_file = fixture.options.stdout_file.clone();
    assert_eq!(launch(&fixture.sheep()).await.exited().await.log_tail, "out\nerr");

    fixture.options.stderr_file = Some(fixture.path("missing/logs/err.log"));
    launch(&fixture.sheep()).await.exited().await;
    assert_eq!(fixture.read("missing/logs/err.log"), "err\n", "its directory is made");
}

#[tokio::test]
async fn a_log_file_that_cannot_be_opened_fails_jobs() {
    let mut fixture = BareFixture::new("");
    let pipe = fixture.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for file in [fixture.path("runner.sh/err.log"), fixture.path("models"), pipe] {
        fixture.options.stderr_file = Some(file);
        let error = refusal(&fixture.sheep(), &model()).await;
        let named = "cannot open the `stderr_file` of sheep `dolly`";
        assert!(matches!(&error, SheepError::Model(text) if text.contains(named)), "{error}");
    }
}

#[tokio::test]
async fn much_output_stops_nobody() {
    let fixture = BareFixture::new("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo the end");
    let exit = launch(&fixture.sheep()).await.exited().await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(0), "the end"));
}

#[tokio::test]
async fn a_runner_that_ends_when_asked_is_not_killed() {
    let fixture = BareFixture::new(&script(
        r#"trap 'echo bye >&2; exit 5' TERM
echo $$ | write pid
while :; do sleep 0.01; done"#,
    ));
    let mut running = launch(&fixture.sheep()).await;
    fixture.pid("pid").await;
    let exit = running.stop(LONG).await;
    assert_eq!(exit.cause, ExitCause::Code(5));
    // The shell may also tell of its `sleep`, which was asked as well.
    assert!(exit.log_tail.ends_with("bye"), "{exit}");
}

#[tokio::test]
async fn a_runner_that_does_not_end_when_asked_is_killed() {
    let fixture =
        BareFixture::new(&script("trap '' TERM\necho $$ | write pid\nwhile :; do sleep 1000; done"));
    let mut running = launch(&fixture.sheep()).await;
    let pid = fixture.pid("pid").await;
    assert_eq!(running.stop(Duration::from_millis(20)).await.cause, ExitCause::Signal(9));
    assert!(!is_there(pid));
}

#[tokio::test]
async fn a_stopped_runner_ends_too() {
    let fixture = BareFixture::new(&script("echo $$ | write pid\nkill -STOP $$\n"));
    let mut running = launch(&fixture.sheep()).await;
    let pid = fixture.pid("pid").await;
    until(|| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")).await;
    assert_eq!(running.stop(LONG).await.cause, ExitCause::Signal(15));
}

/// A runner with descendants of every kind, each with its process id in a file.
const FAMILY: &str = r#"
member='trap "" TERM HUP; echo $$ > "$DIR/.$1"; mv "$DIR/.$1" "$DIR/$1"; while :; do sleep 1000; done'
sh -c "$member" sh child &
setsid sh -c "$member" sh daemon &
echo $$ | write pid
while ! [ -e "$DIR/leave" ]; do sleep 0.01; done
"#;

/// The runner, its child, and one that left its session.
async fn family(fixture: &BareFixture) -> [i32; 3] {
    [fixture.pid("pid").await, fixture.pid("child").await, fixture.pid("daemon").await]
}

/// Launches the family in another process, which is killed. Returns when the runner
/// has gone with it.
async fn orphans(fixture: &BareFixture) -> [i32; 2] {
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon_that_is_killed"])
        .env("SHEPHERD_TEST_DIR", fixture.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let [runner, child, orphan] = family(fixture).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until(|| !lives(runner)).await;
    assert!(lives(orphan), "the session of its own saved it so far");
    [child, orphan]
}

#[tokio::test]
async fn descendants_end_with_their_runner() {
    for end in ["stop", "kill", "drop", "death"] {
        let fixture = BareFixture::new(&script(FAMILY));
        let mut running = launch(&fixture.sheep()).await;
        let family = family(&fixture).await;
        assert!(family.iter().all(|pid| lives(*pid)));
        match end {
            "stop" => {
                running.stop(LONG).await;
            }
            "kill" => {
                running.kill();
                running.exited().await;
            }
            "drop" => drop(running),
            _ => {
                std::fs::write(fixture.path("leave"), "").unwrap();
                running.exited().await;
            }
        }
        if end == "drop" {
            until(|| family.iter().all(|pid| !lives(*pid))).await;
            until(|| !fixture.record().exists() && !is_there(family[0])).await;
        }
        assert!(family.iter().all(|pid| !lives(*pid)), "{end}: {family:?}");
        assert!(!is_there(family[0]), "{end}: the runner is reaped");
        assert!(!fixture.record().exists());
    }
}

/// A runner, and a process that left its session, lost its parent and cleared its environment.
const HERMIT: &str = r#"
hermit='trap "" TERM HUP; echo $$ > "$0/.hermit"; mv "$0/.hermit" "$0/hermit"; while :; do sleep 1000; done'
(setsid env -i /bin/sh -c "$hermit" "$DIR" &)
echo $$ | write pid
while ! [ -e "$DIR/leave" ]; do sleep 0.01; done
"#;

/// Whether runners here are in control groups of their own.
fn is_grouped(pid: i32) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    if groups.lines().any(|line| line.starts_with("0::") && line.contains("/shepherd-")) {
        return true;
    }
    let forbidden = std::env::var("SHEPHERD_TEST_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!forbidden || !rustix::process::geteuid().is_root(), "root may make control groups");
    println!("skipped: no control group can be made");
    false
}

#[tokio::test]
async fn a_process_that_hides_in_every_way_ends_with_its_runner() {
    for end in ["stop", "drop", "death"] {
        let fixture = BareFixture::new(&script(HERMIT));
        let mut running = launch(&fixture.sheep()).await;
        let [runner, hermit] = [fixture.pid("pid").await, fixture.pid("hermit").await];
        if !is_grouped(runner) {
            let hermit = rustix::process::Pid::from_raw(hermit).unwrap();
            return rustix::process::kill_process(hermit, rustix::process::Signal::KILL).unwrap();
        }
        let group = std::fs::read_to_string(format!("/proc/{hermit}/cgroup")).unwrap();
        assert!(lives(hermit));
        match end {
            "stop" => drop(running.stop(LONG).await),
            "drop" => drop(running),
            _ => {
                std::fs::write(fixture.path("leave"), "").unwrap();
                running.exited().await;
            }
        }
        until(|| !fixture.record().exists()).await;
        assert!(!lives(hermit), "{end}");
        let name = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        until(|| mounts.iter().all(|mount| !Path::new(&format!("{mount}{name}")).exists())).await;
    }
}

#[tokio::test]
async fn a_process_that_hid_from_a_killed_daemon_is_ended_by_the_next() {
    let fixture = BareFixture::new(&script(HERMIT));
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon_that_is_killed"])
        .env("SHEPHERD_TEST_DIR", fixture.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let [runner, hermit] = [fixture.pid("pid").await, fixture.pid("hermit").await];
    let is_grouped = is_grouped(runner);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until(|| !lives(runner)).await;
    if is_grouped {
        fixture.sheep().sweep().await.unwrap();
        assert!(!lives(hermit));
    } else {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(hermit).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }
}

#[tokio::test]
async fn a_port_in_use_is_refused_and_its_holder_left_alone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut fixture = BareFixture::new("echo \"$SHEPHERD_LISTEN $2\" >&2");
    fixture.options.transport = Transport::Tcp;
    fixture.options.port = port;
    let sheep = fixture.sheep();
    let error = refusal(&sheep, &model()).await;
    assert_eq!(error.to_string(), format!("port {port} is in use by another process"));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    drop(listener);
    let start = Instant::now();
    let mut running = loop {
        match sheep.launch(&model()).await {
            // Children that other tests fork have the listener too until they exec.
            Err(SheepError::Unavailable(_)) if start.elapsed() < DEADLINE => tokio::task::yield_now().await,
            launched => break launched.unwrap(),
        }
    };
    assert_eq!(running.endpoint(), format!("tcp://127.0.0.1:{port}"));
    assert_eq!(running.exited().await.log_tail, format!("tcp://127.0.0.1:{port} {port}"));
}

#[tokio::test]
async fn each_launch_has_an_endpoint_of_its_own() {
    let fixture = BareFixture::new("exec sleep 1000");
    let sheep = fixture.sheep();
    let first = launch(&sheep).await;
    let endpoint = first.endpoint().to_owned();
    assert!(matches!(refusal(&sheep, &model()).await, SheepError::Unavailable(_)), "one runner at a time");
    assert!(matches!(sheep.sweep().await, Err(SheepError::Unavailable(_))), "a sweep ends no living runner");
    drop(first);
    let second = launch(&sheep).await;
    assert_ne!(second.endpoint(), endpoint);
}

#[tokio::test]
async fn a_launch_that_is_given_up_leaves_nothing() {
    let fixture = BareFixture::new("echo $$ >> \"$DIR/pids\"; exec sleep 1000");
    let sheep = fixture.sheep();
    for _ in 0..20 {
        let wanted = model();
        tokio::select! {
            biased;
            // The thread can have been so quick; then it is the dropped handle that ends it.
            launched = sheep.launch(&wanted) => drop(launched),
            () = tokio::task::yield_now() => {}
        }
    }
    let mut running = launch(&sheep).await;
    running.stop(LONG).await;
    let pids = std::fs::read_to_string(fixture.path("pids")).unwrap_or_default();
    assert!(pids.lines().all(|pid| !is_there(pid.parse().unwrap())), "{pids}");
    assert!(!fixture.record().exists());
}

#[tokio::test]
async fn a_long_path_gets_a_private_socket_that_goes_with_the_run() {
    let mut fixture =
        BareFixture::new("[ -d \"$(dirname \"${SHEPHERD_LISTEN#ipc://}\")\" ] && echo ready >&2");
    fixture.options.data_root = fixture.path(&format!("data/{}", "long".repeat(30)));
    let mut running = launch(&fixture.sheep()).await;
    let socket = PathBuf::from(running.endpoint().strip_prefix("ipc://").unwrap());
    assert!(socket.as_os_str().len() <= 107 && !socket.starts_with(fixture.dir.path()));
    assert_eq!(running.exited().await.log_tail, "ready");
    assert!(!socket.parent().unwrap().exists());
}

/// Not a test: the daemon of the test below, which kills it.
#[tokio::test]
#[ignore = "runs only as another process of a test"]
async fn daemon_that_is_killed() {
    let Some(dir) = std::env::var_os("SHEPHERD_TEST_DIR") else { return };
    let _running = launch(&BareSheep::new(options(Path::new(&dir)))).await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_daemon_leaves_no_runner_and_its_next_life_ends_the_rest() {
    let fixture = BareFixture::new(&script(FAMILY));
    let [child, orphan] = orphans(&fixture).await;
    assert!(fixture.record().exists());

    let sheep = fixture.sheep();
    sheep.sweep().await.unwrap();
    assert!(!lives(child) && !lives(orphan));
    assert!(!fixture.record().exists());
    sheep.sweep().await.unwrap();
}

#[tokio::test]
async fn a_launch_without_a_sweep_ends_the_orphans_first() {
    let fixture = BareFixture::new(&script(FAMILY));
    let [child, orphan] = orphans(&fixture).await;
    std::fs::write(fixture.path("runner.sh"), "exec sleep 1000").unwrap();
    let _running = launch(&fixture.sheep()).await;
    assert!(!lives(child) && !lives(orphan));
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_named() {
    let mut fixture = BareFixture::new("");
    fixture.options.state_dir = fixture.path("runner.sh");
    let error = refusal(&fixture.sheep(), &model()).await;
    assert!(
        matches!(&error, SheepError::Misconfigured(m) if m.contains("runner.sh/sheep/dolly.json")),
        "{error}"
    );
}
