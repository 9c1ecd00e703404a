//! Engines: the one that all tests share, and ones that a test may stop and kill.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::wait_for;
use crate::process;

/// Names the engine that all tests share; `cargo xtask test` sets it.
const VARIABLE: &str = "SHEPHERD_TEST_DOCKER_HOST";
const DEFAULT: &str = "unix:///var/run/docker.sock";

/// An engine that can be asked by Docker's command line.
#[derive(Debug)]
pub struct Engine {
    host: String,
    own: Option<Own>,
}

/// An engine of a test's own. It reaches no network, hence no registry.
#[derive(Debug)]
struct Own {
    daemon: Option<Child>,
    dir: TempDir,
}

impl Engine {
    /// The engine that all tests share, or [`skip`](crate::skip)s the test that asks.
    ///
    /// # Panics
    /// As `skip` does.
    pub fn shared() -> Option<Self> {
        let host = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
        if let Err(error) = UnixStream::connect(host.trim_start_matches("unix://")) {
            crate::skip(&format!("no container engine answers at {host}: {error}"));
            return None;
        }
        Some(Self { host, own: None })
    }

    /// A new engine that only this test uses, with a runtime `nvidia` that notes that it was asked and then
    /// does what the ordinary one does. [`skip`](crate::skip)s where none can be started.
    ///
    /// # Panics
    /// As `skip` does.
    pub fn own() -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root || Command::new("dockerd").arg("--version").output().is_err() {
            crate::skip("starting an engine of a test's own needs root and dockerd");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("en-").tempdir().expect("a directory can be made");
        write_nvidia(dir.path());
        let host = format!("unix://{}", dir.path().join("docker.sock").display());
        let mut engine = Self { host, own: Some(Own { daemon: None, dir }) };
        if let Err(why) = engine.try_start() {
            let end = why.lines().next_back().unwrap_or_default();
            crate::skip(&format!("an engine of a test's own does not start: {end}"));
            return None;
        }
        Some(engine)
    }

    /// Where it listens, for a configuration.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn owned(&mut self) -> &mut Own {
        self.own.as_mut().expect("only a test's own engine is started and stopped")
    }

    /// Starts the test's own engine again.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(&mut self) {
        self.try_start().unwrap_or_else(|why| panic!("the engine does not start: {why}"));
    }

    fn try_start(&mut self) -> Result<(), String> {
        let own = self.owned();
        let dir = own.dir.path().to_owned();
        let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
        let log =
            File::options().append(true).create(true).open(dir.join("log")).expect("a log can be written");
        let runtime = format!("--add-runtime=nvidia={}", dir.join("nvidia").display());
        // In a network of its own: an engine that has no bridge removes `docker0`, which may be another engine's.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "dockerd"])
            .args([
                option("data-root", "data"),
                option("exec-root", "exec"),
                option("pidfile", "pid"),
                runtime,
            ])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .arg(format!("--host=unix://{}", dir.join("docker.sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        // Of a killed engine's containerd, whose number may be another's by now, or a zombie's.
        let _ = std::fs::remove_file(dir.join("exec/containerd/containerd.pid"));
        let mut daemon = command.spawn().map_err(|error| format!("unshare cannot be run: {error}"))?;
        let mut answers = false;
        wait_for(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            answers = self.try_docker(&["version"]).is_ok();
            answers || matches!(daemon.try_wait(), Ok(Some(_)))
        });
        self.owned().daemon = Some(daemon);
        if answers {
            return Ok(());
        }
        Err(std::fs::read_to_string(dir.join("log")).unwrap_or_default())
    }

    /// Stops the test's own engine as its service manager does.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Kills the test's own engine; its containers live on.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
        // The containerd that it ran dies with it, a moment later. One that started before would wait for it in
        // vain, and, where nobody reaps it, always.
        let file = self.owned().dir.path().join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        assert!(wait_for(|| !pid.is_some_and(process::is_alive)), "the engine's containerd does not end");
        let _ = std::fs::remove_file(file);
    }

    fn end(&mut self, signal: Signal) {
        let mut daemon = self.owned().daemon.take().expect("the engine runs");
        process::signal(daemon.id().cast_signed(), signal);
        assert!(wait_for(|| matches!(daemon.try_wait(), Ok(Some(_)))), "the engine does not end");
    }

    /// What the runtime `nvidia` noted: for each container it was asked for, a line with its GPUs.
    pub fn asked_nvidia(&self) -> Vec<String> {
        let own = self.own.as_ref().expect("only a test's own engine has the runtime");
        let text = std::fs::read_to_string(own.dir.path().join("nvidia.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Docker's command line for this engine.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host]).env_remove("DOCKER_HOST").env("DOCKER_BUILDKIT", "0");
        command
    }

    /// What `docker ARGUMENTS` printed, trimmed; what it complained of as the error.
    ///
    /// # Errors
    /// When it fails.
    pub fn try_docker(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command().args(arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("docker cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What `docker ARGUMENTS` printed, trimmed.
    ///
    /// # Panics
    /// When it fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        self.try_docker(arguments).unwrap_or_else(|error| panic!("docker {}: {error}", arguments.join(" ")))
    }

    /// The ids of the containers of the shepherd that keeps its state there: all, or those that run.
    pub fn containers(&self, state_dir: &Path, all: bool) -> Vec<String> {
        let filter = of_shepherd(state_dir);
        let mut arguments = vec!["ps", "--quiet", "--no-trunc", "--filter", &filter];
        arguments.extend(all.then_some("--all"));
        self.docker(&arguments).split_whitespace().map(str::to_owned).collect()
    }
}

/// The filter for containers of the shepherd that keeps its state there.
fn of_shepherd(state_dir: &Path) -> String {
    let instance = std::fs::read_to_string(state_dir.join("instance")).unwrap_or_default();
    format!("label=shepherd.instance={}", instance.trim())
}

/// Removes the containers that a test which failed leaves of the shepherd that keeps its state there.
pub(crate) fn remove_left_over(host: &str, state_dir: &Path) {
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(["--host", host]).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    if !state_dir.join("instance").exists() {
        return;
    }
    let left = docker(&["ps", "--quiet", "--all", "--filter", &of_shepherd(state_dir)]);
    for id in left.split_whitespace() {
        docker(&["rm", "--force", "--volumes", id]);
    }
}

/// A runtime that notes which GPUs a container asks for and then is `runc`.
fn write_nvidia(dir: &Path) {
    let script = format!(
        "#!/bin/sh\n\
         bundle=; before=\n\
         for word in \"$@\"; do [ \"$before\" = --bundle ] && bundle=$word; before=$word; done\n\
         if [ -n \"$bundle\" ]; then\n\
         grep -o 'NVIDIA_VISIBLE_DEVICES=[^\"]*' \"$bundle/config.json\" >> {}\n\
         fi\n\
         exec runc \"$@\"\n",
        dir.join("nvidia.log").display()
    );
    let path: PathBuf = dir.join("nvidia");
    std::fs::write(&path, script).expect("a script can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            process::signal(daemon.id().cast_signed(), Signal::TERM);
            // Where it does not end, it is among those that are killed.
            let _ = wait_for(|| matches!(daemon.try_wait(), Ok(Some(_))));
        }
        // What a killed engine left: its containerd, the containers' shims, and what these hold mounted.
        let _ = wait_for(|| {
            let left = process::naming(self.dir.path());
            for pid in &left {
                process::signal(*pid, Signal::KILL);
            }
            left.is_empty()
        });
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut below: Vec<&str> =
            below.filter(|path| Path::new(path).starts_with(self.dir.path())).collect();
        below.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in below {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
