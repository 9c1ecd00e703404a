//! The real program, running real commands.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "../../../crates/shepherd-runner/tests/support/shepherd.rs"]
mod shepherd;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shepherd_job::{JobError, Timestamp};
use shepherd_protocol::{CANCELLED, Connection, Event, FromRunner, ToRunner};

use shepherd::{ATTEMPT, LONG, Shepherd, TOKEN, done, job};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shepherd-runner");

/// A shepherd, and a runner with a shell script as its command.
struct Farm {
    shepherd: Shepherd,
    child: Child,
}

impl Farm {
    /// The script has the placeholders' values as `$1` (inputs) and `$2` (outputs).
    async fn new(script: &str) -> Self {
        Self::with(script, |_| {}).await
    }

    async fn with(script: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let shepherd = Shepherd::new();
        fs::write(shepherd.path("script"), script).unwrap();
        Self::start(shepherd, "runner: {command: [sh, script, \"{inputs}\", \"{outputs}\"]}", prepare).await
    }

    async fn start(mut shepherd: Shepherd, settings: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        fs::write(shepherd.path("config.yaml"), "").unwrap();
        fs::write(shepherd.path("runner.yaml"), settings).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg(shepherd.path("config.yaml")).env("SHEPHERD_LISTEN", shepherd.url());
        command.env("SHEPHERD_TOKEN", TOKEN);
        prepare(&mut command);
        let child = command.spawn().unwrap();
        let ready = shepherd.ready().await;
        let slots = if settings.contains("slots: 3") { 3 } else { 1 };
        assert_eq!((ready.slots, ready.ahead, ready.batch, ready.logs), (slots, slots, slots, true));
        Self { shepherd, child }
    }

    fn send(&self, id: &str) {
        self.shepherd.stage(id, "payload");
        self.shepherd.send(&[self.shepherd.input(id)]);
    }

    fn cancel(&self, id: &str) {
        self.shepherd.send(&[ToRunner::Cancel { job: job(id), attempt: ATTEMPT }]);
    }

    async fn error(&mut self, id: &str) -> JobError {
        self.log_and_error(id).await.1
    }

    async fn log_and_error(&mut self, id: &str) -> (String, JobError) {
        match self.shepherd.log_and_message(id).await {
            (log, FromRunner::Error { job, attempt, error }) => {
                assert_eq!((job.as_str(), attempt), (id, Some(ATTEMPT)));
                (log, error)
            }
            other => panic!("{other:?}"),
        }
    }

    fn end(mut self) {
        self.shepherd.shut_down(LONG);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe with a name, which scripts open as descriptor 3: `exec 3>pipe`. It ends
/// when the last process that inherited it has ended.
struct Alive(BufReader<File>);

impl Alive {
    /// Waits until a script has opened the pipe and said that it began.
    async fn began(path: std::path::PathBuf) -> Self {
        tokio::task::spawn_blocking(move || {
            let mut reader = BufReader::new(File::open(path).unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "began\n");
            Self(reader)
        })
        .await
        .unwrap()
    }

    /// Waits until all of them have ended.
    fn ended(mut self) {
        self.0.read_to_string(&mut String::new()).unwrap();
    }
}

fn make_pipe(shepherd: &Shepherd) {
    assert!(Command::new("mkfifo").arg(shepherd.path("pipe")).status().unwrap().success());
}

#[tokio::test]
async fn a_command_works_on_the_jobs_files() {
    let mut farm =
        Farm::with("cat \"$1/input\" >\"$2/output\"; echo to stdout; echo to stderr >&2", |command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        })
        .await;
    for id in ["one", "two"] {
        farm.send(id);
        let (log, answer) = farm.shepherd.log_and_message(id).await;
        assert_eq!(answer, done(id));
        assert!(["to stdout\nto stderr\n", "to stderr\nto stdout\n"].contains(&&*log), "{log}");
        assert_eq!(farm.shepherd.output(id), "payload");
    }
    farm.shepherd.shut_down(LONG);
    let mut texts = [String::new(), String::new()];
    farm.child.stdout.take().unwrap().read_to_string(&mut texts[0]).unwrap();
    farm.child.stderr.take().unwrap().read_to_string(&mut texts[1]).unwrap();
    assert_eq!(texts, ["to stdout\nto stdout\n", "to stderr\nto stderr\n"]);
    assert!(farm.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_command_does_not_get_the_secret_of_the_launch() {
    let mut farm = Farm::new("printf %s \"${SHEPHERD_TOKEN-none}\" > \"$2/output\"").await;
    farm.send("curious");
    assert_eq!(farm.shepherd.message().await, done("curious"));
    assert_eq!(farm.shepherd.output("curious"), "none");
    farm.end();
}

#[tokio::test]
async fn placeholders_directory_and_environment_are_the_settings() {
    let shepherd = Shepherd::new();
    fs::create_dir(shepherd.path("sub")).unwrap();
    fs::write(shepherd.path("sub/program"), "#!/bin/sh\nprintf '%s|' \"$PWD\" \"$A\" \"$@\" >out\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(shepherd.path("sub/program"), executable).unwrap();
    let settings = "runner:\n  command: [./program, \"{job_id}-{stream}\", \"{config}\", \"{outputs}/x\", \"{}\"]\n  cwd: sub\n  env: {A: 1}\n";
    let mut farm = Farm::start(shepherd, settings, |command| {
        command.args(["-s", "train"]);
    })
    .await;
    farm.send("one");
    assert_eq!(farm.shepherd.message().await, done("one"));
    let root = farm.shepherd.path("").canonicalize().unwrap();
    let root = root.display();
    let wanted = format!(
        "{root}/sub|1|one-train|{root}/config.yaml|{}|{{}}|",
        farm.shepherd.path("one/outputs/x").display()
    );
    assert_eq!(fs::read_to_string(farm.shepherd.path("sub/out")).unwrap(), wanted);
    farm.end();
}

#[tokio::test]
async fn a_failure_is_the_end_of_stderr() {
    let mut farm = Farm::new(
        "case $1 in *code*) echo some help; echo bad pixel >&2; exit 3;; *silent*) exit 4;; *signal*) kill -9 $$;; esac",
    )
    .await;
    for (id, message, exception_type, printed) in [
        ("code", "bad pixel", "exit code 3", &["some help", "bad pixel"][..]),
        ("silent", "the command ended with exit code 4", "exit code 4", &[]),
        ("signal", "the command ended with signal 9 (SIGKILL)", "signal 9 (SIGKILL)", &[]),
    ] {
        farm.send(id);
        let wanted = JobError { exception_type: exception_type.into(), ..JobError::new(message) };
        let (log, error) = farm.log_and_error(id).await;
        assert_eq!(error, wanted);
        // The two streams have no order.
        let mut lines: Vec<_> = log.lines().collect();
        lines.sort_unstable_by_key(|line| *line == "bad pixel");
        assert_eq!(lines, printed);
    }
    farm.send("good");
    assert_eq!(farm.shepherd.message().await, done("good"));
    farm.end();
}

#[tokio::test]
async fn a_missing_program_fails_the_job() {
    let shepherd = Shepherd::new();
    let mut farm = Farm::start(shepherd, "runner: {command: [no-such-program]}", |_| {}).await;
    for id in ["one", "two"] {
        farm.send(id);
        let error = farm.error(id).await;
        assert!(error.message.starts_with("cannot run `no-such-program`: No such file"), "{}", error.message);
        assert_eq!(error.exception_type, "SpawnError");
    }
    farm.end();
}

#[tokio::test]
async fn a_huge_stderr_is_passed_on_and_costs_nothing() {
    const LINES: usize = 2_000_000;
    let script = format!("yes 'a line of stderr' | head -n {LINES} >&2; echo the end >&2; exit 1");
    let mut farm = Farm::with(&script, |command| {
        command.stderr(Stdio::piped());
    })
    .await;
    let mut stderr = farm.child.stderr.take().unwrap();
    let count = std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()).unwrap());
    farm.send("one");
    let (log, error) = farm.log_and_error("one").await;
    assert!(log.ends_with("a line of stderr\nthe end\n"));
    assert!(error.message.len() <= 4096 && error.message.starts_with("a line of stderr\n"));
    assert!(error.message.ends_with("a line of stderr\nthe end"));
    farm.end();
    assert_eq!(count.join().unwrap(), LINES as u64 * 17 + 8);
}

#[tokio::test]
async fn a_log_is_there_while_the_command_runs_whatever_it_prints() {
    let script = "
        case $1 in *one*) ;; *) exit;; esac
        printf 'half a letter: \\305'; printf 'of stderr, ' >&2; printf '\\276, no letter: \\377\\000'
        exec 3>pipe; echo began >&3; read line <pipe2
        printf 'no end of a line' >&2";
    let mut farm = Farm::new(script).await;
    make_pipe(&farm.shepherd);
    assert!(Command::new("mkfifo").arg(farm.shepherd.path("pipe2")).status().unwrap().success());
    farm.send("one");
    let _alive = Alive::began(farm.shepherd.path("pipe")).await;
    let mut log = String::new();
    while !(log.contains("of stderr, ") && log.contains('\0')) {
        match farm.shepherd.message().await {
            FromRunner::Log { text, .. } => log.push_str(&text),
            other => panic!("{other:?}"),
        }
    }
    assert!(log.contains("half a letter: ") && log.contains("ž, no letter: \u{fffd}\0"), "{log}");
    fs::write(farm.shepherd.path("pipe2"), "\n").unwrap();
    assert_eq!(farm.shepherd.log_and_message("one").await, ("no end of a line".into(), done("one")));
    farm.send("two");
    assert_eq!(farm.shepherd.message().await, done("two"));
    farm.end();
}

#[tokio::test]
async fn endless_output_that_nobody_reads_is_held_up_and_cancelled_all_the_same() {
    for stream in ["1", "2"] {
        let mut farm = Farm::with(&format!("exec yes \"$1\" >&{stream}"), |command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        })
        .await;
        farm.send("one");
        // It prints, and nobody reads it but the log.
        assert!(matches!(farm.shepherd.message().await, FromRunner::Log { .. }));
        farm.shepherd.send(&[ToRunner::Ping { nonce: 5 }]);
        assert_eq!(farm.shepherd.log_and_message("one").await.1, FromRunner::Pong { nonce: 5 });
        farm.cancel("one");
        assert_eq!(farm.error("one").await.exception_type, CANCELLED);
        farm.end();
    }
}

#[tokio::test]
async fn output_in_the_hands_of_a_stranger_holds_up_no_job() {
    // Not a descendant of the runner: it opens the pipe that the command prints to, by
    // another descriptor than the one that the shell moves about.
    let mut farm = Farm::new("exec 3>pipe 4>&1; echo printed; echo began $$ >&3; read line <pipe2").await;
    make_pipe(&farm.shepherd);
    assert!(Command::new("mkfifo").arg(farm.shepherd.path("pipe2")).status().unwrap().success());
    farm.send("one");
    let pipe = farm.shepherd.path("pipe");
    let began = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(File::open(pipe).unwrap()).read_line(&mut line).unwrap();
        line
    });
    let began = began.await.unwrap();
    let pid = began.trim_end().strip_prefix("began ").unwrap();
    let stranger = File::options().write(true).open(format!("/proc/{pid}/fd/4")).unwrap();
    fs::write(farm.shepherd.path("pipe2"), "\n").unwrap();
    assert_eq!(farm.shepherd.log_and_message("one").await, ("printed\n".into(), done("one")));
    drop(stranger);
    farm.end();
}

/// Descendants in other process groups and sessions, and without a living parent.
const TREE: &str = "
    setsid sleep 1000 &
    (setsid sh -c 'sleep 1000 & sleep 1000' &)
    (nohup sleep 1000 >/dev/null 2>&1 &)
";

#[tokio::test]
async fn a_cancelled_command_ends_with_all_that_it_started() {
    let mut farm = Farm::new(&format!("exec 3>pipe; {TREE} echo began >&3; wait; sleep 1000")).await;
    make_pipe(&farm.shepherd);
    for id in ["one", "two"] {
        farm.send(id);
        let alive = Alive::began(farm.shepherd.path("pipe")).await;
        // Heartbeats are answered meanwhile.
        farm.shepherd.send(&[ToRunner::Ping { nonce: 5 }]);
        assert_eq!(farm.shepherd.message().await, FromRunner::Pong { nonce: 5 });
        farm.cancel(id);
        assert_eq!(farm.error(id).await.exception_type, CANCELLED);
        alive.ended();
    }
    farm.end();
}

#[tokio::test]
async fn a_shutdown_kills_what_does_not_want_to_end_and_answers_nothing() {
    let ignoring = "exec 3>pipe; trap '' TERM; setsid sh -c \"trap '' TERM; echo began >&3; while :; do sleep 1; done\" & while :; do sleep 1; done";
    let mut farm = Farm::new(ignoring).await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    farm.shepherd.shut_down(Duration::from_secs(2));
    assert_eq!(farm.shepherd.event().await, Event::Disconnected);
    assert!(farm.child.wait().unwrap().success());
    alive.ended();
}

#[tokio::test]
async fn sigterm_ends_the_runner_and_its_command() {
    let mut farm = Farm::new(&format!("exec 3>pipe; {TREE} echo began >&3; sleep 1000")).await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    kill_process(Pid::from_child(&farm.child), Signal::TERM).unwrap();
    assert!(farm.child.wait().unwrap().success());
    alive.ended();
    assert_eq!(farm.shepherd.event().await, Event::Disconnected);
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_its_job() {
    let mut farm = Farm::new(&format!("exec 3>pipe; {TREE} echo began >&3")).await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    assert_eq!(farm.shepherd.message().await, done("one"));
    alive.ended();
    farm.end();
}

#[tokio::test]
async fn a_command_that_keeps_starting_others_is_killed_all_the_same() {
    let script = "exec 3>pipe; sh -c 'while :; do setsid sleep 0.2 & sleep 0.01; done' & echo began >&3";
    let mut farm = Farm::new(script).await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    assert_eq!(farm.shepherd.message().await, done("one"));
    alive.ended();
    farm.end();
}

#[tokio::test]
async fn a_killed_runner_takes_its_command_with_it() {
    let mut farm = Farm::new("exec 3>pipe; echo began >&3; exec sleep 1000").await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    farm.child.kill().unwrap();
    assert_eq!(farm.shepherd.event().await, Event::Disconnected);
    alive.ended();
}

#[tokio::test]
async fn a_killed_runner_takes_all_that_its_command_started_with_it() {
    let mut farm = Farm::new(&format!("exec 3>pipe; {TREE} echo began >&3; sleep 1000")).await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    farm.child.kill().unwrap();
    assert_eq!(farm.shepherd.event().await, Event::Disconnected);
    alive.ended();
}

#[tokio::test]
async fn a_command_that_kills_the_process_of_its_slot_ends_the_runner_and_all_that_it_started() {
    let mut farm = Farm::new(&format!("exec 3>pipe; {TREE} echo began >&3; kill -9 $PPID; sleep 1000")).await;
    make_pipe(&farm.shepherd);
    farm.send("one");
    let alive = Alive::began(farm.shepherd.path("pipe")).await;
    assert_eq!(farm.shepherd.event().await, Event::Disconnected);
    alive.ended();
    assert_eq!(farm.child.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn jobs_in_several_slots_run_at_once_and_each_ends_with_what_it_alone_started() {
    let shepherd = Shepherd::new();
    let script =
        format!("exec 3>\"pipe-$3\"; {TREE} echo began >&3; echo \"this is $3\"; read line <\"go-$3\"");
    fs::write(shepherd.path("script"), script).unwrap();
    for id in ["one", "two", "three"] {
        for name in ["pipe", "go"] {
            let path = shepherd.path(&format!("{name}-{id}"));
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }
    }
    let settings = "runner: {command: [sh, script, \"{inputs}\", \"{outputs}\", \"{job_id}\"], slots: 3}";
    let mut farm = Farm::start(shepherd, settings, |_| {}).await;
    let mut alive = Vec::new();
    for id in ["one", "two", "three"] {
        farm.send(id);
        alive.push(Alive::began(farm.shepherd.path(&format!("pipe-{id}"))).await);
        assert!(matches!(
            farm.shepherd.message().await,
            FromRunner::Log { job, text, .. } if job == id && text == format!("this is {id}\n")
        ));
    }
    let [one, two, three] = <[Alive; 3]>::try_from(alive).ok().unwrap();
    farm.cancel("one");
    assert_eq!(farm.error("one").await.exception_type, CANCELLED);
    one.ended();
    // The others wait for their line still, and all that they started is there.
    for (id, alive) in [("two", two), ("three", three)] {
        fs::write(farm.shepherd.path(&format!("go-{id}")), "\n").unwrap();
        assert_eq!(farm.shepherd.message().await, done(id));
        alive.ended();
    }
    farm.end();
}

#[tokio::test]
async fn a_command_prints_to_terminals_when_asked_to() {
    let shepherd = Shepherd::new();
    let script =
        "[ -t 0 ] || [ ! -t 1 ] || [ ! -t 2 ] || echo terminals; printf '\\tone\\r\\ntwo\\n' >&2; exit 3";
    fs::write(shepherd.path("script"), script).unwrap();
    let mut farm = Farm::start(shepherd, "runner: {command: [sh, script], tty: true}", |_| {}).await;
    for id in ["one", "two"] {
        farm.send(id);
        let (log, error) = farm.log_and_error(id).await;
        assert!(["terminals\n\tone\r\ntwo\n", "\tone\r\ntwo\nterminals\n"].contains(&&*log), "{log:?}");
        assert_eq!(error.message, "\tone\r\ntwo");
    }
    farm.end();
}

#[tokio::test]
async fn a_command_s_environment_tells_its_deadline_and_has_python_print_at_once() {
    let script = "printf '%s|' \"$PYTHONUNBUFFERED\" \"$SHEPHERD_JOB_DEADLINE\" >\"$2/output\"";
    for (env, unbuffered) in [("", "1"), (", env: {PYTHONUNBUFFERED: \"\"}", "")] {
        let shepherd = Shepherd::new();
        fs::write(shepherd.path("script"), script).unwrap();
        let settings = format!("runner: {{command: [sh, script, \"{{inputs}}\", \"{{outputs}}\"]{env}}}");
        let mut farm = Farm::start(shepherd, &settings, |command| {
            command.env_remove("PYTHONUNBUFFERED");
        })
        .await;
        farm.shepherd.stage("one", "");
        let ToRunner::Input(mut input) = farm.shepherd.input("one") else { panic!() };
        input.deadline = Some(Timestamp::from_micros(1_700_000_000_250_000));
        farm.shepherd.send(&[ToRunner::Input(input)]);
        assert_eq!(farm.shepherd.message().await, done("one"));
        assert_eq!(farm.shepherd.output("one"), format!("{unbuffered}|1700000000.250|"));
        farm.send("two");
        assert_eq!(farm.shepherd.message().await, done("two"));
        assert_eq!(farm.shepherd.output("two"), format!("{unbuffered}||"));
        farm.end();
    }
}

#[tokio::test]
async fn the_first_shepherds_arguments_are_taken() {
    let shepherd = Shepherd::new();
    fs::write(shepherd.path("config.yaml"), "").unwrap();
    fs::write(shepherd.path("runner.yaml"), "runner: {command: [\"true\"]}").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let runner = || {
        let mut command = Command::new(PROGRAM);
        command
            .args(["-p", &port, "-s", "predict"])
            .arg(shepherd.path("config.yaml"))
            .env_remove("SHEPHERD_LISTEN");
        command
    };
    let refused = runner().output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"), "{refused:?}");

    drop(listener);
    let mut child = runner().spawn().unwrap();
    let mut connection = Connection::dial(&format!("tcp://127.0.0.1:{port}")).unwrap();
    loop {
        match tokio::time::timeout(LONG, connection.recv()).await.unwrap() {
            Event::Message(FromRunner::Ready(_)) => break,
            Event::Connected | Event::Disconnected => {}
            other => panic!("{other:?}"),
        }
    }
    connection.send(&[ToRunner::Shutdown { grace: LONG }]).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn mistakes_are_told_with_the_file_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(PROGRAM);
        // There is no Python runner.
        command.args(arguments).arg(path("config.yaml")).env("PATH", dir.path()).output().unwrap()
    };
    let check = |output: Output, wanted: &[&str]| {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(wanted.iter().all(|text| stderr.contains(text)), "{stderr}");
    };
    check(run(&[]), &["cannot find", "config.yaml"]);
    fs::write(path("config.yaml"), "").unwrap();
    check(run(&[]), &["there is no", "runner.yaml", "shepherd-runner-py"]);
    fs::write(path("runner.yaml"), "runner:\n  command: [a]\n  cmd: b\n").unwrap();
    check(run(&[]), &["runner.yaml", "line 3", "cmd"]);
    fs::write(path("runner.yaml"), "runner: {class: models.Ocr}").unwrap();
    check(run(&[]), &["models.Ocr", "there is no `shepherd-runner-py`", "install"]);
    check(run(&["-r", "a.B"]), &["models.Ocr", "there is no `shepherd-runner-py`"]);
    fs::remove_file(path("runner.yaml")).unwrap();
    check(run(&["-r", "a.B"]), &["a.B", "there is no `shepherd-runner-py`"]);
    check(run(&["-p", "no"]), &["no", "--port"]);
    fs::remove_file(path("config.yaml")).unwrap();
    fs::create_dir(path("config.yaml")).unwrap();
    check(run(&[]), &["cannot find", "config.yaml/config.yaml"]);
    fs::create_dir(path("config.yaml/config.yaml")).unwrap();
    check(run(&[]), &["config.yaml/config.yaml` is not a file"]);
}

#[test]
fn a_class_or_nothing_at_all_is_handed_over_to_python_in_the_same_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let config = fs::canonicalize(dir.path()).unwrap().join("config.yaml");
    fs::write(&config, "").unwrap();
    for (program, said) in [("shepherd-runner-py", "package"), ("python", "interpreter")] {
        let script = format!("#!/bin/sh\necho $$ {said} \"$@\" $A\n");
        fs::write(path(program), script).unwrap();
        fs::set_permissions(path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let check = |arguments: &[&str], wanted: &str| {
        let mut command = Command::new(PROGRAM);
        // The directory stands for the configuration in it.
        let model = if arguments.is_empty() { "." } else { "config.yaml" };
        command.args(arguments).arg(model).current_dir(dir.path()).env("PATH", dir.path());
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let wanted = format!("{pid} {wanted}\n").replace("CONFIG", config.to_str().unwrap());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
    };
    check(&[], "package -p 9999 -s predict -- CONFIG");
    check(&["-p", "7", "-s", "other", "-r", "a.B"], "package -p 7 -s other -r a.B -- CONFIG");
    fs::write(path("runner.yaml"), "runner: {class: a.C, env: {A: more}}").unwrap();
    check(&[], "package -p 9999 -s predict --class a.C -- CONFIG more");
    // As with the first shepherd, the model's own settings beat the command line.
    check(&["-r", "a.B"], "package -p 9999 -s predict --class a.C -- CONFIG more");
    fs::write(path("runner.yaml"), "runner: {class: a.C, python: ./python}").unwrap();
    check(&[], "interpreter -m shepherd_runner -p 9999 -s predict --class a.C -- CONFIG");
}
