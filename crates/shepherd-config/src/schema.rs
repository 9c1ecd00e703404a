//! The keys of a configuration and what they mean.
//!
//! | key | |
//! |---|---|
//! | `data_root` | required; working directories, emptied at every start |
//! | `state_dir` | what is kept across starts; default `<data_root>/state` |
//! | `storage` | [`storage`]; default `file://<state_dir>/storage` |
//! | `registry` | [`registry`]; required when a docker sheep is configured |
//! | `docker` | [`docker`]; the engine of docker sheep |
//! | `sheep` | required; [`sheep`] by id |
//! | `logging`, `limits`, `scheduler`, `shutdown`, `api`, `umask` | [`service`] |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::paths::{Layout, Located};
use crate::problem::Problem;
use crate::read::{Context, Section};

pub(crate) mod device;
pub(crate) mod docker;
pub(crate) mod registry;
pub(crate) mod serve_s3;
pub(crate) mod service;
pub(crate) mod sheep;
pub(crate) mod storage;

use docker::DockerConfig;
use registry::RegistryConfig;
use service::{ApiConfig, LimitsConfig, LoggingConfig, SchedulerConfig, ShutdownConfig};
use sheep::{SheepConfig, SheepKind};
use storage::StorageConfig;

/// A valid configuration. Every path in it is absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Working directories of sheep, `<data_root>/<sheep id>`. Everything in it but
    /// `state_dir` may be removed at any start.
    pub data_root: PathBuf,
    /// What is kept across starts. May lie inside `data_root`, but never inside the
    /// directory of a sheep.
    pub state_dir: PathBuf,
    /// Where the data of jobs is.
    pub storage: StorageConfig,
    /// Where images are pulled from; there when a sheep is of type docker.
    pub registry: Option<RegistryConfig>,
    /// The engine that runs containers; there when a sheep is of type docker.
    pub docker: Option<DockerConfig>,
    /// What is logged, and how.
    pub logging: LoggingConfig,
    /// The sheep in the order of the file, those that only the environment names
    /// last.
    pub sheep: Vec<SheepConfig>,
    /// Bounds on what is accepted.
    pub limits: LimitsConfig,
    /// How jobs and sheep come together.
    pub scheduler: SchedulerConfig,
    /// How the shepherd ends.
    pub shutdown: ShutdownConfig,
    /// Where the API listens.
    pub api: ApiConfig,
    /// The permission bits that files and directories do not get; `0o077` unless told.
    pub umask: u32,
    /// The names of the environment variables that secrets came from: runners have
    /// no business with them.
    pub withheld_env: BTreeSet<String>,
    /// What is allowed and dangerous, in the order of the file: whoever starts the
    /// shepherd is to be told.
    pub warnings: Vec<Problem>,
}

/// Reads the top of the file. The result counts only if nothing was reported.
pub(crate) fn read(cx: &Context, top: Section<'_>, file: &Path, home: Option<&Path>) -> Option<Config> {
    let mut kept = Vec::new();
    let data_root = top.require("data_root", "the directory of working files").and_then(|value| {
        Some(Located { path: value.path()?, place: value.place().clone(), key: value.key })
    });
    let state_dir = match top.get("state_dir") {
        Some(value) => {
            value.path().map(|path| Located { path, place: value.place().clone(), key: value.key.clone() })
        }
        None => data_root.as_ref().map(|root| Located {
            path: root.path.join("state"),
            place: root.place.clone(),
            key: top.path_of("state_dir"),
        }),
    };
    let mut withheld_env = BTreeSet::new();
    let storage = storage::read(&top, state_dir.as_ref(), &mut kept, &mut withheld_env);
    let registry = top.get("registry").map(|value| registry::read(&value, &mut kept));
    let sheep = sheep::read(cx, &top, &mut kept);
    let docker_sheep = sheep.as_ref().is_some_and(|flock| flock.first_docker().is_some());
    let docker = docker::read(cx, &top, docker_sheep, &mut kept);
    let config_of_service = service::read(&top);

    if registry.is_none()
        && let Some(flock) = &sheep
        && let Some((docker, place)) = flock.first_docker()
    {
        let needs = format!("the docker sheep `{docker}` ({place}) pulls its images from it");
        top.missing("registry", &format!("is missing, expected a mapping with `url`: {needs}"));
    }
    top.finish(&[]);
    if let Some(flock) = &sheep {
        let path = |located: &Option<Located>| located.as_ref().map(|located| located.path.clone());
        let host = docker.as_ref().and_then(Option::as_ref).map(|docker| &docker.host);
        let sockets = docker::host::sockets(host);
        flock.check_mounts(cx, path(&data_root).as_deref(), path(&state_dir).as_deref(), &sockets);
    }

    let (data_root, state_dir) = (data_root?, state_dir?);
    let located_storage = storage.as_ref().and_then(|(_, located)| located.as_ref());
    let sheep_places = sheep.as_ref().map(sheep::Flock::places).unwrap_or_default();
    let layout = Layout {
        data_root: &data_root,
        state_dir: &state_dir,
        storage: located_storage,
        sheep: &sheep_places,
        kept: &kept,
        config_file: file,
        home,
    };
    layout.check(cx);

    let (logging, limits, scheduler, shutdown, api, umask) = config_of_service?;
    Some(Config {
        data_root: data_root.path,
        state_dir: state_dir.path,
        storage: storage?.0,
        registry: match registry {
            None => None,
            Some(read) => Some(read?),
        },
        docker: docker?,
        logging,
        sheep: sheep?.into_configs(),
        limits,
        scheduler,
        shutdown,
        api,
        umask,
        withheld_env,
        warnings: cx.take_warnings(),
    })
}

impl Config {
    /// The sheep that run in containers.
    pub fn docker_sheep(&self) -> impl Iterator<Item = &SheepConfig> {
        self.sheep.iter().filter(|sheep| match sheep.kind {
            SheepKind::Docker(_) => true,
            SheepKind::Bare(_) => false,
        })
    }
}
