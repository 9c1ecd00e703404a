//! `sheep: {ID: {type, port, devices?, ...}}`.
//!
//! | key | of | |
//! |---|---|---|
//! | `type` | | required; `bare` or `docker` |
//! | `transport` | both | `ipc`, `tcp` or `zmq`; default `tcp` for docker and with a `port`, else `ipc` |
//! | `port` | both | required unless `transport` is `ipc` |
//! | `devices` | both | list of `/dev/nvidiaN` and other devices |
//! | `env` | both | variables for the runner |
//! | `stdout_file`, `stderr_file` | both | appended to |
//! | `start_timeout` | both | until a runner is ready; default 10 minutes |
//! | `heartbeat_timeout` | both | a runner silent for this long is ended; default 30 s |
//! | `run_timeout` | both | for one job; none by default |
//! | `stop_grace` | both | between asking a runner to end and ending it; default 5 s |
//!
//! The keys of one type are in [`bare`] and [`docker`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shepherd_job::SheepId;

use crate::paths::Located;
use crate::problem::Place;
use crate::read::{Context, Section, Value};
use crate::schema::device::{self, Device};

pub(crate) mod bare;
pub(crate) mod docker;
pub(crate) mod mount;
pub(crate) mod transport;

use bare::BareSheep;
use docker::DockerSheep;
use mount::{Mounted, Surroundings};

/// One sheep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheepConfig {
    /// Its name, and that of its directory below `data_root`.
    pub id: SheepId,
    /// What runs its runner.
    pub kind: SheepKind,
    /// The devices it may use. A bare sheep is kept from other GPUs, and from nothing else.
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
    Docker(Box<DockerSheep>),
}

/// What was read of the sheep, as far as it could be.
#[derive(Default)]
pub(super) struct Flock {
    configs: Vec<SheepConfig>,
    places: Vec<(SheepId, Place)>,
    docker: Option<(SheepId, Place)>,
    ports: Vec<Port>,
    mounts: Vec<Mounted>,
    logs: Vec<Log>,
}

/// A port in use.
struct Port {
    number: u16,
    key: String,
    place: Place,
    holder: PortHolder,
}

/// What takes a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortHolder {
    /// A process of this machine.
    Process,
    /// A container, while it runs.
    Container,
}

/// A file that the output of a sheep's runners is appended to.
struct Log {
    path: PathBuf,
    sheep: SheepId,
    /// Whether it is renamed when it has grown.
    rotates: bool,
    key: String,
    place: Place,
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

    /// Reports mounts that hide what a sheep needs, and warns of those that show what
    /// is not a runner's to see. `sockets` are those of the engine.
    pub(super) fn check_mounts(
        &self,
        cx: &Context,
        data_root: Option<&Path>,
        state_dir: Option<&Path>,
        sockets: &[PathBuf],
    ) {
        let surroundings = Surroundings { data_root, state_dir, sockets };
        for mounted in &self.mounts {
            surroundings.check(cx, mounted);
        }
    }

    /// Two sheep may append to one file, unless one of them renames it under the other.
    fn check_logs(&self, cx: &Context) {
        for (index, log) in self.logs.iter().enumerate() {
            let shares = |other: &&Log| {
                other.path == log.path && other.sheep != log.sheep && (other.rotates || log.rotates)
            };
            if let Some(Log { key, place, .. }) = self.logs[..index].iter().find(shares) {
                let message = format!(
                    "is the file that `{key}` ({place}) names, and a docker sheep renames its file when it has \
                     grown, expected a file of its own"
                );
                cx.report(&log.place, &log.key, message);
            }
        }
    }

    fn check_ports(&self, cx: &Context) {
        let mut taken: BTreeMap<u16, &Port> = BTreeMap::new();
        for port in &self.ports {
            let Port { number, key, place, holder } = port;
            match taken.get(number) {
                None => drop(taken.insert(*number, port)),
                Some(first) if [first.holder, *holder] == [PortHolder::Container; 2] => {
                    let message = format!(
                        "is {number}, which `{}` ({}) has, too: only one of the two can have a runner at a time",
                        first.key, first.place
                    );
                    cx.warn(place, key, message);
                }
                Some(first) => {
                    let message = format!(
                        "is {number}, which `{}` ({}) has already, expected a port of its own",
                        first.key, first.place
                    );
                    cx.report(place, key, message);
                }
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
    flock.check_logs(cx);
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
    let env = section.value_or("env", BTreeMap::new(), |value| read_env(cx, value));
    let some = Duration::from_millis(100)..=Duration::from_hours(7 * 24);
    let long = Duration::from_millis(1)..=Duration::from_hours(366 * 24);
    let timeout = |key, default| section.value_or(key, default, |value| value.duration(some.clone()));
    let start_timeout = timeout("start_timeout", Duration::from_mins(10));
    let heartbeat_timeout = timeout("heartbeat_timeout", Duration::from_secs(30));
    let run_timeout = section.optional("run_timeout", |value| value.duration(long));
    let stop_grace = section
        .value_or("stop_grace", Duration::from_secs(5), |value| value.duration(Duration::ZERO..=*some.end()));
    let (devices, kind) = match kind? {
        Type::Bare => {
            let devices = device::read(&section);
            let bare = bare::read(cx, id, &section, flock, kept);
            let reason = "has no meaning for a bare sheep, expected only with `type: docker`";
            section.finish(&docker::OWN.map(|key| (key, reason)));
            (devices, bare.map(SheepKind::Bare))
        }
        Type::Docker => {
            flock.docker.get_or_insert_with(|| (id.clone(), value.place().clone()));
            let devices = device::read(&section);
            let docker = docker::read(id, &section, devices.as_deref(), flock, kept);
            let reason = "has no meaning for a docker sheep, expected only with `type: bare`";
            section.finish(&bare::OWN.map(|key| (key, reason)));
            (devices, docker.map(|docker| SheepKind::Docker(Box::new(docker))))
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

/// `stdout_file` and `stderr_file`.
fn read_logs(
    id: &SheepId,
    section: &Section<'_>,
    rotates: bool,
    flock: &mut Flock,
) -> [Option<Option<PathBuf>>; 2] {
    ["stdout_file", "stderr_file"].map(|name| {
        section.optional(name, |value| {
            let path = value.path()?;
            let (key, place) = (value.key.clone(), value.place().clone());
            flock.logs.push(Log { path: path.clone(), sheep: id.clone(), rotates, key, place });
            Some(path)
        })
    })
}

/// One of a command's words, which may be empty.
fn argument(item: &Value<'_>) -> Option<String> {
    let text = item.any_text()?;
    if text.contains('\0') {
        item.wrong("an argument, which holds no NUL");
        return None;
    }
    Some(text.to_owned())
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
