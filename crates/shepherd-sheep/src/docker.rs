//! Runners as containers of an engine that speaks the Docker API.
//!
//! ```text
//! launch ──▶ engine there? earlier run gone? ─▶ sweep ─▶ image ─▶ port free, socket's place
//!                 │
//!                 ▼
//!            monitor task: create ─▶ start ─▶ watch, by the engine and by the kernel
//!                 │ death                       ▲ wishes of the RunningSheep
//!                 ▼
//!            last words ─▶ code, memory, or the engine's end ─▶ remove ─▶ Exit
//! ```
//!
//! Nothing of a runner outlives its run unnoticed, whichever dies first:
//!
//! - **The runner** has an init process above it and no process outside its container, so
//!   that all of it is gone when the container's first process is. [`watch`] says how that
//!   is known for certain.
//! - **The launch**, when it is dropped: its container's name is decided before it is asked
//!   for, and the [`monitor`] waits for the answer and removes it again. Where the engine is
//!   lost before it answered, he looks for it for some seconds; what is made later yet does
//!   not run, and the next sweep removes it.
//! - **The daemon**: containers run on when it is killed. They carry labels, and a
//!   [`sweep`] at the next start, and before each launch, finds and ends them. With the
//!   engine away at the start, it is the launch's that does.
//! - **The engine**: one that is stopped ends its containers, one that is killed does so when
//!   it comes back, and with live-restore neither does. A container that ended with it or
//!   while it was lost is nobody's fault ([`ExitCause::EngineStopped`](crate::ExitCause)); one
//!   that it comes back to lives on, and its output is read on.
//!
//! Every request has a time limit, and every loop that waits for the engine backs off. Only
//! one thing is waited for without end: that a container's processes are gone. While the
//! engine is away they can be killed where this machine's kernel shows them, and only then.
//!
//! The container is fenced ([`spec`]); its output is read from the engine's record of it
//! ([`logs`]); what the engine refuses becomes a sentence ([`refusal`]), and where its words
//! do not tell whether the image is to blame, an empty one is tried in its place ([`trial`]).

mod activity;
mod backoff;
mod chown_container;
mod container;
mod engine;
mod engine_liveness;
#[cfg(test)]
mod fixtures;
mod gpu;
mod images;
mod logs;
mod monitor;
mod process;
mod reclaim;
mod refusal;
mod rotate;
mod run;
mod sheep;
mod spec;
mod sweep;
mod trial;
mod watch;

use std::path::PathBuf;

use shepherd_job::SheepId;

pub use engine::{Engine, EngineHost, EngineOptions, RegistryLogin, TlsFiles};
pub use images::Pull;
pub use sheep::DockerSheep;

use crate::{ModelPattern, Transport};

/// How a docker sheep runs its runners.
#[derive(Clone)]
pub struct DockerOptions {
    /// The sheep's name.
    pub id: SheepId,
    /// The sheep's own directory, below which jobs' directories lie. It is mounted
    /// at the same path, and must be there on the engine's machine.
    pub data_root: PathBuf,
    /// How the runner is reached.
    pub transport: Transport,
    /// The port of this machine's loopback interface that leads to the container's
    /// port 9999; used with [`Transport::Tcp`].
    pub port: u16,
    /// Devices of the machine; of them `/dev/nvidiaN` are GPUs, which the runtime
    /// `nvidia` brings in.
    pub devices: Vec<String>,
    /// GPUs by device request.
    pub gpus: Option<Gpus>,
    /// Devices by their CDI names, such as `nvidia.com/gpu=0`.
    pub cdi: Vec<String>,
    /// Whether a container is removed once it has ended. One that is not stays for
    /// inspection until the sheep's next one.
    pub autoremove: bool,
    /// The most memory, in bytes; the engine's default where absent.
    pub memory: Option<u64>,
    /// How many processors' time, such as 1.5.
    pub cpus: Option<f64>,
    /// The most processes and threads.
    pub pids: u32,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// `USER[:GROUP]`, by name or number.
    pub user: Option<String>,
    /// Variables of the runner.
    pub env: Vec<(String, String)>,
    /// Directories and files of the machine.
    pub mounts: Vec<Mount>,
    /// The engine's network; by default none with [`Transport::Ipc`], and the
    /// engine's own with the others.
    pub network: Option<String>,
    /// Whether the image is read-only to its runner, which then has a `/tmp` in
    /// memory.
    pub read_only: bool,
    /// Capabilities that the runner keeps, such as `SYS_NICE`; all others are dropped.
    pub capabilities: Vec<String>,
    /// The models that it runs; any where absent.
    pub models: Option<Vec<ModelPattern>>,
    /// When images are pulled.
    pub pull: Pull,
    /// In place of the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's own.
    pub command: Option<Vec<String>>,
    /// The file that standard output is appended to, in place of the daemon's log.
    pub stdout_file: Option<PathBuf>,
    /// The file that standard error is appended to, in place of the daemon's log.
    pub stderr_file: Option<PathBuf>,
    /// A log file that grew past so many bytes is renamed to `NAME.1`, and so on.
    pub log_max_bytes: u64,
    /// Number of renamed log files that are kept.
    pub log_files: u32,
}

/// Which GPUs, by device request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// All there are.
    All,
    /// A number of GPUs.
    Count(u32),
    /// These, by number or UUID.
    Ids(Vec<String>),
}

/// A directory or file of the machine in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its absolute path on the machine.
    pub source: PathBuf,
    /// Its absolute path in the container.
    pub target: PathBuf,
    /// Whether the runner may only read it.
    pub read_only: bool,
}
