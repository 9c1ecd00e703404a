//! The container engine that tests run containers on.
//!
//! One that answers is used. Otherwise, as root, Debian's is installed and started for this run alone, with
//! directories and a socket of its own, and ended with all its containers when the tests are over. Its socket is
//! named to the tests by [`VARIABLE`]; where there is none they are skipped.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{self, succeeds};
use crate::setup::{self, Need};
use crate::{Result, tests_run};

/// Names the engine's socket, `unix://PATH`, to the tests.
pub(crate) const VARIABLE: &str = "SHEPHERD_TEST_DOCKER_HOST";
/// The packages whose tests use an engine.
const USERS: [&str; 2] = ["shepherd-sheep", "shepherd-tests"];
/// How the names of engines' directories begin; the process that started one comes after it.
const PREFIX: &str = "shepherd-engine-";
/// How long an engine may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

const ENGINE: Need = Need {
    what: "a container engine",
    why: "docker sheep are tested with a real one",
    // Its storage and networks need the last two, which it only recommends.
    packages: &["docker.io", "iptables", "kmod"],
    is_present: || succeeds("dockerd", &["--version"]),
};
/// The command line: a package of its own from Debian 13 on, and part of the engine's before. The first that can
/// be had is installed.
const COMMAND_LINE: [Need; 2] = [command_line(&["docker-cli"]), command_line(&["docker.io"])];
/// What is beside it.
const BESIDE: &[Need] = &[
    Need {
        what: "an image registry",
        why: "docker sheep are tested with a real one",
        packages: &["docker-registry"],
        is_present: || succeeds("docker-registry", &["--version"]),
    },
    Need {
        what: "docker compose",
        why: "the sandbox of containers is tried",
        packages: &["docker-compose"],
        is_present: || {
            succeeds("docker", &["compose", "version"]) || succeeds("docker-compose", &["--version"])
        },
    },
    SHELL,
];

/// The shell of images that are made from nothing.
pub(crate) const SHELL: Need = Need {
    what: "a shell that needs no library",
    why: "images are made from nothing but it and our own programs",
    packages: &["busybox-static"],
    is_present: || succeeds("busybox", &["true"]),
};

const fn command_line(packages: &'static [&'static str]) -> Need {
    Need {
        what: "docker's command line",
        why: "images are made, and the engine is asked, with it",
        packages,
        is_present: || succeeds("docker", &["--version"]),
    }
}

/// Whether `cargo test` with these arguments runs tests that use an engine.
pub(crate) fn is_wanted(arguments: &[String]) -> bool {
    tests_run::tests_any(arguments, &USERS)
}

/// An engine for the tests. One that was started for them ends when this is dropped.
pub(crate) struct Engine {
    /// `unix://PATH`.
    pub(crate) host: String,
    started: Option<Started>,
}

struct Started {
    daemon: Child,
    dir: PathBuf,
}

impl Engine {
    /// An engine that answers, or a new one; none, and why is printed, where neither can be had.
    pub(crate) fn find() -> Option<Self> {
        let found = Self::running().map_or_else(Self::install_and_start, Ok);
        let found = found.and_then(|engine| {
            install_first(&COMMAND_LINE)?;
            setup::install_missing(BESIDE)?;
            Ok(engine)
        });
        match found {
            Ok(engine) => Some(engine),
            Err(error) => {
                println!("no container engine for the tests, and those that need one are skipped: {error}");
                None
            }
        }
    }

    fn running() -> Option<Self> {
        let named = [VARIABLE, "DOCKER_HOST"].into_iter().filter_map(|name| std::env::var(name).ok());
        let default = "unix:///var/run/docker.sock".to_owned();
        let mut hosts = named.filter(|host| host.starts_with("unix://")).chain([default]);
        let host = hosts.find(|host| answers(Path::new(host.trim_start_matches("unix://"))))?;
        command::step(&format!("using the container engine at {host}"));
        Some(Self { host, started: None })
    }

    fn install_and_start() -> Result<Self> {
        if !setup::is_root() {
            return Err("none answers, and starting one needs root".into());
        }
        setup::install_missing(&[ENGINE])?;
        // Short, because the path of a socket is, and not below `target`, whose file system may be one that
        // containers cannot be put on top of.
        sweep();
        let dir = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        command::step("starting a container engine for the tests");
        let log = dir.join("log");
        let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
        // It is asked to end when we are killed, too.
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "dockerd"])
            .arg(option("data-root", "data"))
            .arg(option("exec-root", "exec"))
            .arg(option("pidfile", "pid"))
            .arg(format!("--host=unix://{}", dir.join("docker.sock").display()))
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .map_err(|error| format!("dockerd cannot be started: {error}"))?;
        let socket = dir.join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let mut started = Started { daemon, dir };
        let until = Instant::now() + PATIENCE;
        while !answers(&socket) {
            let ended = started.daemon.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let last = log.lines().rev().take(3).collect::<Vec<_>>().join("; ");
                return Err(format!("dockerd does not run here: {last}").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { host, started: Some(started) })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.started.is_some() {
            let list = Command::new("docker").args(["--host", &self.host, "ps", "--quiet", "--all"]).output();
            let ids =
                list.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            if !ids.trim().is_empty() {
                let mut remove = Command::new("docker");
                remove.args(["--host", &self.host, "rm", "--force"]).args(ids.split_whitespace());
                // What stays ends with its engine.
                let _ = remove.output();
            }
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let pid = self.daemon.id().to_string();
        // Asked, it ends its containers and lets go of their file systems.
        if succeeds("kill", &["-TERM", &pid]) {
            let until = Instant::now() + PATIENCE;
            while matches!(self.daemon.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            println!("the test engine's directory {} stays: {error}", self.dir.display());
        }
    }
}

/// Installs the first of several that can be had, each of which is enough.
fn install_first(needs: &[Need]) -> Result<()> {
    let mut outcome = Ok(());
    for need in needs {
        outcome = setup::install_missing(std::slice::from_ref(need));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Removes what runs before this one left that were killed.
fn sweep() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Where its engine still ends, the next run does it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether an engine answers at this socket.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")?;
        let mut head = vec![0; 64];
        let count = stream.read(&mut head)?;
        head.truncate(count);
        Ok(head)
    };
    ask().is_ok_and(|head| String::from_utf8_lossy(&head).contains(" 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_that_use_an_engine_start_one() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for line in [
            "",
            "--workspace",
            "--lib",
            "-p shepherd-job --package=shepherd-tests --test docker",
            "-pshepherd-sheep",
        ] {
            assert!(is_wanted(&words(line)), "{line}");
        }
        for line in ["-p shepherd-job", "--package shepherd-core -- shepherd-sheep"] {
            assert!(!is_wanted(&words(line)), "{line}");
        }
    }

    #[test]
    fn nobody_answers_at_a_socket_that_is_not_there() {
        assert!(!answers(Path::new("/nowhere/docker.sock")));
    }
}
