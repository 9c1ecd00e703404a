//! The keys of docker sheep.
//!
//! | key | |
//! |---|---|
//! | `port` | leads to the container's port 9999, on this machine only; not used with `ipc` |
//! | `autoremove_containers` | once a container has ended; default false |
//! | `gpus` | by device request: `all`, how many, or a list of numbers or UUIDs |
//! | `cdi` | list of CDI names such as `nvidia.com/gpu=0` |
//! | `memory`, `shm_size` | sizes; the engine's defaults |
//! | `cpus` | how many processors' time, such as 1.5; as much as there is |
//! | `pids` | the most processes and threads; default 4096 |
//! | `user` | `USER[:GROUP]` by name or number |
//! | `mounts` | [`mount`]; list of `SOURCE:TARGET[:ro\|rw]` |
//! | `network` | by name; default none with `ipc`, else the engine's own |
//! | `read_only` | the image, for its runner; default true |
//! | `capabilities` | list such as `[SYS_NICE]`; all others are dropped |
//! | `models` | list of patterns such as `ocr`, `team/*` or `ocr:1.*`; any by default |
//! | `pull` | `always` (default), `missing` or `never` |
//! | `entrypoint`, `command` | lists, in place of the image's |
//! | `log_max_size` | a larger `stdout_file` or `stderr_file` is renamed; default 16 MiB |
//! | `log_files` | how many renamed ones are kept; default 4 |
//!
//! With `network: none` or `host` the engine publishes no port, so they are for `ipc`
//! only. `gpus` beside `/dev/nvidiaN` in `devices` would say one thing in two ways.

use std::path::PathBuf;

use shepherd_job::SheepId;

use super::mount::{self, Mount};
use super::transport::{self, Transport, Word};
use super::{Flock, PortHolder, argument, read_logs};
use crate::paths::Located;
use crate::read::{Section, Value};
use crate::schema::device::{self, Device, Gpus};

/// A sheep whose runner is a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSheep {
    /// How the runner is spoken to. A port is one of this machine that leads to the
    /// container's.
    pub transport: Transport,
    /// The configured port, which is not used with [`Transport::Ipc`].
    pub port: Option<u16>,
    /// Whether a container is removed once it has ended.
    pub autoremove_containers: bool,
    /// GPUs by device request; where it is there, no device of the sheep is a GPU.
    pub gpus: Option<Gpus>,
    /// Devices by their CDI names.
    pub cdi: Vec<String>,
    /// The most memory, in bytes.
    pub memory: Option<u64>,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// How many processors' time, in billionths of a processor.
    pub nano_cpus: Option<u64>,
    /// The most processes and threads.
    pub pids: u32,
    /// `USER[:GROUP]`, by name or number.
    pub user: Option<String>,
    /// Directories and files of the machine.
    pub mounts: Vec<Mount>,
    /// The engine's network, by name.
    pub network: Option<String>,
    /// Whether the runner cannot write to its image.
    pub read_only: bool,
    /// Capabilities that the runner keeps, without `CAP_`; may be `ALL`.
    pub capabilities: Vec<String>,
    /// Patterns of the models that it runs, never empty; any where absent.
    pub models: Option<Vec<String>>,
    /// When images are pulled.
    pub pull: Pull,
    /// In place of the image's own; never empty.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's own; never empty.
    pub command: Option<Vec<String>>,
    /// Where the runner's standard output is appended.
    pub stdout_file: Option<PathBuf>,
    /// Where the runner's standard error is appended.
    pub stderr_file: Option<PathBuf>,
    /// A log file that grew past so many bytes is renamed.
    pub log_max_bytes: u64,
    /// How many renamed log files are kept.
    pub log_files: u32,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Before each start of a runner.
    Always,
    /// When it is not here.
    Missing,
    /// Never.
    Never,
}

/// The keys that only docker sheep have.
pub(super) const OWN: [&str; 18] = [
    "autoremove_containers",
    "gpus",
    "cdi",
    "memory",
    "shm_size",
    "cpus",
    "pids",
    "user",
    "mounts",
    "network",
    "read_only",
    "capabilities",
    "models",
    "pull",
    "entrypoint",
    "command",
    "log_max_size",
    "log_files",
];

const MIB: u64 = 1 << 20;
/// The engine takes no less memory.
const LEAST_MEMORY: u64 = 6 * MIB;
/// The engine takes no less than a hundredth of a processor.
const LEAST_CPUS: u64 = 10_000_000;
const MOST_CPUS: u64 = 100_000 * 1_000_000_000;
/// The most that Linux has.
const MOST_PIDS: u32 = 1 << 22;
const MOST_BYTES: u64 = i64::MAX as u64;

/// Every key is read before any failure ends this.
pub(super) fn read(
    id: &SheepId,
    section: &Section<'_>,
    devices: Option<&[Device]>,
    flock: &mut Flock,
    kept: &mut Vec<Located>,
) -> Option<DockerSheep> {
    let leads = |_: &str| "the port that leads to the container's, or `transport: ipc`".to_owned();
    let spoken = transport::read(section, Word::Tcp, PortHolder::Container, leads, flock);
    let autoremove = section.value_or("autoremove_containers", false, |value| {
        // The original took numbers, too.
        value.choice_or(&[("true", true), ("false", false)], &[("1", true), ("0", false)])
    });
    let gpus = section.optional("gpus", |value| gpus(value, devices));
    let cdi = device::cdi(section);
    let memory = section.optional("memory", |value| value.size(LEAST_MEMORY..=MOST_BYTES));
    let shm_size = section.optional("shm_size", |value| value.size(1..=MOST_BYTES));
    let nano_cpus = section.optional("cpus", |value| value.billionths(LEAST_CPUS..=MOST_CPUS));
    let pids = section.value_or("pids", 4096, |value| value.number(1..=MOST_PIDS));
    let user = section.optional("user", user);
    let mounts = section.value_or("mounts", Vec::new(), |value| mount::read(value, id, flock, kept));
    let transport = spoken.map(|(transport, _)| transport);
    let network = section.optional("network", |value| network(value, transport));
    let read_only = section.value_or("read_only", true, Value::boolean);
    let capabilities = section.value_or("capabilities", Vec::new(), capabilities);
    let models = section.optional("models", models);
    let pulls = [("always", Pull::Always), ("missing", Pull::Missing), ("never", Pull::Never)];
    let pull = section.value_or("pull", Pull::Always, |value| value.choice(&pulls));
    let entrypoint = section.optional("entrypoint", command);
    let command = section.optional("command", command);
    let [stdout_file, stderr_file] = read_logs(id, section, true, flock);
    let log_max_bytes = section.value_or("log_max_size", 16 * MIB, |value| value.size(4096..=MOST_BYTES));
    let log_files = section.value_or("log_files", 4, |value| value.number(0..=1_000));
    let (transport, port) = spoken?;
    Some(DockerSheep {
        transport,
        port,
        autoremove_containers: autoremove?,
        gpus: gpus?,
        cdi: cdi?,
        memory: memory?,
        shm_size: shm_size?,
        nano_cpus: nano_cpus?,
        pids: pids?,
        user: user?,
        mounts: mounts?,
        network: network?,
        read_only: read_only?,
        capabilities: capabilities?,
        models: models?,
        pull: pull?,
        entrypoint: entrypoint?,
        command: command?,
        stdout_file: stdout_file?,
        stderr_file: stderr_file?,
        log_max_bytes: log_max_bytes?,
        log_files: log_files?,
    })
}

fn gpus(value: &Value<'_>, devices: Option<&[Device]>) -> Option<Gpus> {
    let gpus = device::gpus(value)?;
    let twice = devices?.iter().find(|device| match device {
        Device::Gpu(_) => true,
        Device::Path(_) => false,
    });
    if let Some(device) = twice {
        value.fail(format!("is given beside `{device}` in `devices`, expected GPUs in one of the two"));
        return None;
    }
    Some(gpus)
}

fn user(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if !part(user) || !group.is_none_or(part) {
        value.wrong("a user and perhaps a group, such as 1000, 1000:1000 or nobody");
        return None;
    }
    Some(text.to_owned())
}

fn network(value: &Value<'_>, transport: Option<Transport>) -> Option<String> {
    let text = value.text()?;
    let legal = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if !legal {
        value.wrong("the name of a network of the engine");
        return None;
    }
    match (text, transport) {
        ("none" | "host", Some(Transport::Tcp { .. } | Transport::Zmq { .. })) => {
            value.wrong("another network or `transport: ipc`, as the engine publishes no port of this one");
            return None;
        }
        ("host", Some(Transport::Ipc)) => value.warn(
            "is the machine's own network: the runner reaches every service of it, this shepherd's API too, \
             and its ports are the machine's",
        ),
        (_, Some(Transport::Ipc | Transport::Tcp { .. } | Transport::Zmq { .. }) | None) => {}
    }
    Some(text.to_owned())
}

fn capabilities(value: &Value<'_>) -> Option<Vec<String>> {
    let names = value.list(|item| {
        let text = item.text()?;
        let name = text.strip_prefix("CAP_").unwrap_or(text);
        if name == "ALL" {
            item.warn("gives the runner every capability, and with them the machine");
        } else if !CAPABILITIES.contains(&name) {
            item.wrong("a capability such as SYS_NICE");
            return None;
        }
        Some(name.to_owned())
    })?;
    value.each_once(names, "capability")
}

fn models(value: &Value<'_>) -> Option<Vec<String>> {
    let patterns = value.list(|item| {
        let text = item.text()?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._/*?:".contains(&b);
        if !text.bytes().all(legal) || text.matches(':').count() > 1 {
            item.wrong("a pattern of models, such as ocr, team/* or ocr:1.*");
            return None;
        }
        Some(text.to_owned())
    })?;
    if patterns.is_empty() {
        value.wrong("at least one pattern of models, such as ocr, team/* or ocr:1.*");
        return None;
    }
    Some(patterns)
}

fn command(value: &Value<'_>) -> Option<Vec<String>> {
    let command = value.list(argument)?;
    if command.first().is_none_or(String::is_empty) {
        value.fail("begins with nothing, expected a list such as `[runner, -v]`");
        return None;
    }
    Some(command)
}

/// Those of Linux 5.9 and later (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
