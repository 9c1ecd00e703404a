//! An engine of a test's own, which may be stopped and killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::site::{DEADLINE, Site, site, skip};

const DOCKERD: &str = "/usr/sbin/dockerd";
const UNSHARE: &str = "/usr/bin/unshare";
const CONTAINERD: &str = "/usr/bin/containerd";

/// An engine below a directory of its own, without networks. Its containerd runs beside
/// it, as where a service manager runs both: it lives on when the engine is killed.
pub(crate) struct Private {
    dir: TempDir,
    arguments: Vec<String>,
    containerd: Child,
    process: Option<Child>,
}

/// A site at an engine of its own, started with these arguments.
pub(crate) fn private(arguments: &[&str]) -> Option<(Site, Private)> {
    // Where no engine may be asked, none is to be started either.
    drop(site()?);
    if !rustix::process::geteuid().is_root() {
        return skip("only root can start an engine");
    }
    if let Some(absent) =
        [DOCKERD, CONTAINERD, UNSHARE].into_iter().find(|program| !Path::new(program).exists())
    {
        return skip(&format!("there is no {absent}"));
    }
    // The engine's own sockets need a short path.
    let dir = tempfile::Builder::new().prefix("eng").tempdir_in("/tmp").unwrap();
    let arguments =
        arguments.iter().map(|argument| argument.replace("{}", dir.path().to_str().unwrap())).collect();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let config = format!(
        "version = 2\nroot = '{}'\nstate = '{}'\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']\n\
         [grpc]\naddress = '{}'\n",
        path("c-root"),
        path("c-state"),
        path("c")
    );
    std::fs::write(dir.path().join("containerd.toml"), config).unwrap();
    let log = std::fs::File::create(dir.path().join("containerd.log")).unwrap();
    let containerd = Command::new(CONTAINERD)
        .args(["--config", &path("containerd.toml")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut engine = Private { dir, arguments, containerd, process: None };
    engine.start();
    Some((Site::at(engine.host()), engine))
}

impl Private {
    pub(crate) fn host(&self) -> String {
        format!("unix://{}/s", self.dir.path().display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        // One that was killed leaves it behind.
        let _ = std::fs::remove_file(self.path("pid"));
        // In a network of its own: one that is told to have no bridge removes `docker0`,
        // which is the bridge of the machine's own engine.
        let mut command = Command::new(UNSHARE);
        command
            .args(["--net", "--", DOCKERD])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--host", &self.host(), "--containerd", &path("c")])
            .args(["--bridge=none", "--iptables=false"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
        let start = Instant::now();
        while !Command::new("docker").args(["-H", &self.host(), "version"]).output().unwrap().status.success()
        {
            let log = || std::fs::read_to_string(self.path("log")).unwrap();
            assert!(start.elapsed() < DEADLINE, "the engine does not start: {}", log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Sends it a signal; one that ends it, until it has.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let process = self.process.as_mut().unwrap();
        let pid = Pid::from_child(process);
        rustix::process::kill_process(pid, signal).unwrap();
        if signal == Signal::TERM || signal == Signal::KILL {
            process.wait().unwrap();
            self.process = None;
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = rustix::process::kill_process(Pid::from_child(&process), Signal::TERM);
            let _ = process.wait();
        }
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        // What a test that failed has left: containers, and what watches them.
        let place = self.dir.path().to_str().unwrap();
        for (pid, _) in processes(|command| command.contains("containerd-shim") && command.contains(place)) {
            for (child, _) in processes(|_| true).into_iter().filter(|(_, parent)| *parent == pid) {
                let _ = rustix::process::kill_process(Pid::from_raw(child).unwrap(), Signal::KILL);
            }
            let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(place));
        for path in below.collect::<Vec<_>>().into_iter().rev() {
            let _ = Command::new("umount").args(["-l", path]).output();
        }
    }
}

/// The processes with such a command line, and their parents.
fn processes(is_wanted: impl Fn(&str) -> bool) -> Vec<(i32, i32)> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |pid: i32, name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let parent = |pid| {
        let stat = String::from_utf8_lossy(&read(pid, "stat")).into_owned();
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    pids.filter(|pid| is_wanted(&String::from_utf8_lossy(&read(*pid, "cmdline"))))
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}
