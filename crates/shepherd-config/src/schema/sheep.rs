//! `sheep: {ID: {type, port, devices?, ...}}`.
//!
//! | key | of | |
//! |---|---|---|
//! | `type` | | required; `bare` or `docker` |
//! | `devices` | both | list of `/dev/nvidiaN`; docker takes other devices too |
//! | `env` | both | variables for the runner |
//! | `start_timeout` | both | until a runner is ready; default 10 minutes |
//! | `heartbeat_timeout` | both | a runner silent for this long is ended; default 30 s |
//! | `run_timeout` | both | for one job; none by default |
//! | `stop_grace` | both | between asking a runner to end and ending it; default 5 s |
//! | `working_directory` | bare | required; the directory of models |
//! | `runner_command` | bare | list; default `[shepherd-runner]` |
//! | `stdout_file`, `stderr_file` | bare | appended to |
//! | `transport` | bare | `ipc` (default) or `tcp` |
//! | `port` | both | required for docker and for `transport: tcp` |
//! | `autoremove_containers` | docker | default false |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use shepherd_job::SheepId;

use crate::paths::{Located, absolute};
use crate::problem::Place;
use crate::read::{Context, Section, Value};
use crate::schema::device::{self, Device};

/// One sheep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheepConfig {
    /// Its name, and that of its directory below `data_root`.
    pub id: SheepId,
    /// What runs its runner.
    pub kind: SheepKind,
    /// The devices it may use; of a bare sheep all are GPUs.
    pub devices: Vec<Device>,
    /// Variables for the runner, besides those that the shepherd sets.
    pub env: BTreeMap<String, String>,
    /// How long a runner may take until it is ready.
    pub start_timeout: Duration,
    /// A runner that is silent for this long is ended.
    pub heartbeat_timeout: Duration,
    /// How long one job may run; as long as it takes when absent.
    pub run_timeout: Option<Duration>,
    /// How long a runner may take to end when it is asked to.
    pub stop_grace: Duration,
}

impl SheepConfig {
    /// The numbers of its GPUs, in the order of the file.
    pub fn gpus(&self) -> impl Iterator<Item = u32> {
        self.devices.iter().filter_map(|device| match device {
            Device::Gpu(number) => Some(*number),
            Device::Path(_) => None,
        })
    }
}

/// What runs a sheep's runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SheepKind {
    /// A process.
    Bare(BareSheep),
    /// A container.
    Docker(DockerSheep),
}

/// A sheep whose runner is a process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareSheep {
    /// The directory that holds `NAME/VERSION/config.yaml` of each model.
    pub working_directory: PathBuf,
    /// The program and its first arguments; never empty, nor is the program's name.
    /// A name with a slash is an absolute path.
    pub runner_command: Vec<String>,
    /// Where the runner's standard output is appended.
    pub stdout_file: Option<PathBuf>,
    /// Where the runner's standard error is appended.
    pub stderr_file: Option<PathBuf>,
    /// How the runner is spoken to.
    pub transport: Transport,
    /// The configured port, which is given to the runner with any transport.
    pub port: Option<u16>,
}

/// How a runner is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A socket in the sheep's directory.
    Ipc,
    /// A port of this machine, which no other sheep has.
    Tcp {
        /// The port.
        port: u16,
    },
}

/// A sheep whose runner is a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSheep {
    /// The port of this machine that leads to the container's, which no other sheep
    /// has.
    pub port: u16,
    /// Whether a container is removed once it has ended.
    pub autoremove_containers: bool,
}

/// What was read of the sheep, as far as it could be.
#[derive(Default)]
pub(super) struct Flock {
    configs: Vec<SheepConfig>,
    places: Vec<(SheepId, Place)>,
    docker: Option<(SheepId, Place)>,
    /// The ports in use, with the key and the place of each.
    ports: Vec<(u16, String, Place)>,
}

impl Flock {
    pub(super) fn into_configs(self) -> Vec<SheepConfig> {
        self.configs
    }

    pub(super) fn places(&self) -> Vec<(SheepId, Place)> {
        self.places.clone()
    }

    pub(super) fn first_docker(&self) -> Option<(&SheepId, &Place)> {
        self.docker.as_ref().map(|(id, place)| (id, place))
    }

    fn check_ports(&self, cx: &Context) {
        let mut taken: BTreeMap<u16, (&str, &Place)> = BTreeMap::new();
        for (port, key, place) in &self.ports {
            if let Some((first, at)) = taken.get(port) {
                let message =
                    format!("is {port}, which `{first}` ({at}) has already, expected a port of its own");
                cx.report(place, key, message);
            } else {
                taken.insert(*port, (key, place));
            }
        }
    }
}

pub(super) fn read(cx: &Context, top: &Section<'_>, kept: &mut Vec<Located>) -> Option<Flock> {
    let sheep = top.require("sheep", "a mapping of ids to sheep")?;
    let mut flock = Flock::default();
    for (place, key, value) in sheep.map()? {
        let id = match SheepId::parse(key) {
            Ok(id) => id,
            Err(rule) => {
                cx.report(place, &value.key, format!("is not the id of a sheep, which {rule}"));
                continue;
            }
        };
        flock.places.push((id.clone(), place.clone()));
        let config = read_one(cx, &id, &value, &mut flock, kept);
        flock.configs.extend(config);
    }
    flock.check_ports(cx);
    Some(flock)
}

/// The two words that `type` takes.
#[derive(Clone, Copy)]
enum Type {
    Bare,
    Docker,
}

fn read_one(
    cx: &Context,
    id: &SheepId,
    value: &Value<'_>,
    flock: &mut Flock,
    kept: &mut Vec<Located>,
) -> Option<SheepConfig> {
    let section = value.section()?;
    let kind = section
        .require("type", "`bare` or `docker`")
        .and_then(|value| value.choice(&[("bare", Type::Bare), ("docker", Type::Docker)]));
    let env = match section.get("env") {
        None => Some(BTreeMap::new()),
        Some(value) => read_env(cx, &value),
    };
    let some = Duration::from_millis(100)..=Duration::from_secs(7 * 24 * 60 * 60);
    let long = Duration::from_millis(1)..=Duration::from_secs(366 * 24 * 60 * 60);
    let timeout = |key, default: u64| match section.get(key) {
        None => Some(Duration::from_secs(default)),
        Some(value) => value.duration(some.clone()),
    };
    let start_timeout = timeout("start_timeout", 600);
    let heartbeat_timeout = timeout("heartbeat_timeout", 30);
    let run_timeout = match section.get("run_timeout") {
        None => Some(None),
        Some(value) => value.duration(long).map(Some),
    };
    let stop_grace = match section.get("stop_grace") {
        None => Some(Duration::from_secs(5)),
        Some(value) => value.duration(Duration::ZERO..=*some.end()),
    };
    let (devices, kind) = match kind? {
        Type::Bare => {
            let devices = device::read(&section, device::gpu_only);
            let bare = read_bare(cx, &section, flock, kept);
            let reason = "has no meaning for a bare sheep, expected only with `type: docker`";
            section.finish(&[("autoremove_containers", reason)]);
            (devices, bare.map(SheepKind::Bare))
        }
        Type::Docker => {
            flock.docker.get_or_insert_with(|| (id.clone(), value.place().clone()));
            let devices = device::read(&section, device::any);
            let docker = read_docker(&section, flock);
            let reason = "has no meaning for a docker sheep, expected only with `type: bare`";
            let of_bare = ["working_directory", "runner_command", "stdout_file", "stderr_file", "transport"];
            section.finish(&of_bare.map(|key| (key, reason)));
            (devices, docker.map(SheepKind::Docker))
        }
    };
    Some(SheepConfig {
        id: id.clone(),
        kind: kind?,
        devices: devices?,
        env: env?,
        start_timeout: start_timeout?,
        heartbeat_timeout: heartbeat_timeout?,
        run_timeout: run_timeout?,
        stop_grace: stop_grace?,
    })
}

fn read_bare(
    cx: &Context,
    section: &Section<'_>,
    flock: &mut Flock,
    kept: &mut Vec<Located>,
) -> Option<BareSheep> {
    #[derive(Clone, Copy)]
    enum Word {
        Ipc,
        Tcp,
    }
    let directory = section.require("working_directory", "the directory of the models").and_then(|value| {
        let path = value.path()?;
        let (key, place) = (value.key.clone(), value.place().clone());
        kept.push(Located { key, place, path: path.clone() });
        Some(path)
    });
    let command = match section.get("runner_command") {
        None => Some(vec!["shepherd-runner".to_owned()]),
        Some(value) => read_command(cx, &value),
    };
    let log = |key| match section.get(key) {
        None => Some(None),
        Some(value) => value.path().map(Some),
    };
    let (stdout_file, stderr_file) = (log("stdout_file"), log("stderr_file"));
    let word = match section.get("transport") {
        None => Some(Word::Ipc),
        Some(value) => value.choice(&[("ipc", Word::Ipc), ("tcp", Word::Tcp)]),
    };
    // The original always asked for a port, so one that is not used is welcome.
    let port = match word {
        Some(Word::Tcp) => read_port(section, "a port, as `transport` is `tcp`", flock).map(Some),
        Some(Word::Ipc) | None => match section.get("port") {
            None => Some(None),
            Some(value) => value.number(1..=u16::MAX).map(Some),
        },
    };
    let port = port?;
    let transport = match (word?, port) {
        (Word::Tcp, Some(port)) => Transport::Tcp { port },
        (Word::Tcp | Word::Ipc, _) => Transport::Ipc,
    };
    Some(BareSheep {
        working_directory: directory?,
        runner_command: command?,
        stdout_file: stdout_file?,
        stderr_file: stderr_file?,
        transport,
        port,
    })
}

fn read_docker(section: &Section<'_>, flock: &mut Flock) -> Option<DockerSheep> {
    let port = read_port(section, "the port that leads to the container's", flock);
    let autoremove = match section.get("autoremove_containers") {
        None => Some(false),
        Some(value) => value.boolean(),
    };
    Some(DockerSheep { port: port?, autoremove_containers: autoremove? })
}

/// A port that the sheep will listen on.
fn read_port(section: &Section<'_>, expected: &str, flock: &mut Flock) -> Option<u16> {
    let value = section.require("port", expected)?;
    let port = value.number(1..=u16::MAX)?;
    flock.ports.push((port, value.key.clone(), value.place().clone()));
    Some(port)
}

fn read_command(cx: &Context, value: &Value<'_>) -> Option<Vec<String>> {
    let mut command = value.list(|item| {
        let text = item.any_text()?;
        if text.contains('\0') {
            item.wrong("an argument, which holds no NUL");
            return None;
        }
        Some(text.to_owned())
    })?;
    match command.first_mut() {
        Some(program) if !program.is_empty() => {
            if program.contains('/') {
                *program = absolute(&cx.cwd, program.as_ref()).display().to_string();
            }
            Some(command)
        }
        Some(_) | None => {
            value.fail("names no program, expected a list such as `[shepherd-runner]`");
            None
        }
    }
}

fn read_env(cx: &Context, value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    let mut legal = true;
    for (place, key, value) in value.map()? {
        if key.is_empty() || key.contains(['=', '\0']) {
            let message = "is not the name of a variable, expected one without `=` and NUL";
            cx.report(place, &value.key, message);
            legal = false;
            continue;
        }
        match value.any_text() {
            Some(text) if !text.contains('\0') => {
                env.insert(key.to_owned(), text.to_owned());
            }
            Some(_) => {
                value.fail("holds a NUL, expected text without");
                legal = false;
            }
            None => legal = false,
        }
    }
    legal.then_some(env)
}
