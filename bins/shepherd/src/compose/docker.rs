//! The engine of docker sheep, and how each uses it.

mod instance;
mod prefetch;

use anyhow::Context as _;
use shepherd_config::{Config, DockerHost, DockerSheep as DockerConfig, SheepConfig};
use shepherd_sheep::{
    DockerOptions, Engine, EngineHost, EngineOptions, Gpus, ModelPattern, Mount, Pull, RegistryLogin,
    TlsFiles,
};

pub(crate) use prefetch::Prefetch;

use super::flock::{device_path, transport};

/// The one engine of all docker sheep; none without such. To be called under the queue's lock: it gives this
/// shepherd the name that its containers are known by.
pub(super) fn engine(config: &Config) -> anyhow::Result<Option<Engine>> {
    if config.docker_sheep().next().is_none() {
        return Ok(None);
    }
    let docker = config.docker.as_ref().context("docker sheep without an engine")?;
    let registry = config.registry.as_ref().context("docker sheep without a registry")?;
    let options = EngineOptions {
        host: match &docker.host {
            DockerHost::Unix(path) => EngineHost::Unix(path.clone()),
            DockerHost::Tcp { authority, tls } => EngineHost::Tcp {
                authority: authority.clone(),
                tls: tls.as_ref().map(|tls| TlsFiles {
                    ca: tls.ca_file.clone(),
                    cert: tls.cert_file.clone(),
                    key: tls.key_file.clone(),
                }),
            },
        },
        instance: instance::of(&config.state_dir)?,
        flock: config.sheep.iter().map(|sheep| sheep.id.clone()).collect(),
        registry: registry.prefix(),
        login: registry.credentials.as_ref().map(|credentials| RegistryLogin {
            username: credentials.username.clone(),
            password: credentials.password.expose().to_owned(),
        }),
        registry_patience: registry.patience,
        image_budget: docker.image_budget,
        state_dir: config.state_dir.clone(),
    };
    Ok(Some(Engine::new(options)?))
}

/// What is to be pulled ahead, where anything is.
pub(super) fn prefetch(config: &Config, engine: Option<&Engine>) -> Option<Prefetch> {
    let models = &config.docker.as_ref()?.prefetch;
    (!models.is_empty()).then(|| engine.map(|engine| Prefetch::new(engine.clone(), models.clone())))?
}

pub(super) fn options(
    config: &Config,
    sheep: &SheepConfig,
    docker: &DockerConfig,
) -> anyhow::Result<DockerOptions> {
    Ok(DockerOptions {
        id: sheep.id.clone(),
        data_root: config.data_root.join(sheep.id.as_str()),
        transport: transport(docker.transport),
        port: docker.port.unwrap_or_default(),
        devices: sheep.devices.iter().map(device_path).collect(),
        gpus: docker.gpus.as_ref().map(|gpus| match gpus {
            shepherd_config::Gpus::All => Gpus::All,
            shepherd_config::Gpus::Count(count) => Gpus::Count(*count),
            shepherd_config::Gpus::Ids(ids) => Gpus::Ids(ids.clone()),
        }),
        cdi: docker.cdi.clone(),
        autoremove: docker.autoremove_containers,
        memory: docker.memory,
        cpus: docker.nano_cpus.map(|billionths| billionths as f64 / 1e9),
        pids: docker.pids,
        shm_size: docker.shm_size,
        user: docker.user.clone(),
        env: sheep.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        mounts: docker.mounts.iter().map(mount).collect(),
        network: docker.network.clone(),
        read_only: docker.read_only,
        capabilities: docker.capabilities.clone(),
        models: docker.models.as_ref().map(|models| models.iter().map(ModelPattern::new).collect()),
        pull: match docker.pull {
            shepherd_config::Pull::Always => Pull::Always,
            shepherd_config::Pull::Missing => Pull::Missing,
            shepherd_config::Pull::Never => Pull::Never,
        },
        entrypoint: docker.entrypoint.clone(),
        command: docker.command.clone(),
        stdout_file: docker.stdout_file.clone(),
        stderr_file: docker.stderr_file.clone(),
        log_max_bytes: docker.log_max_bytes,
        log_files: docker.log_files,
    })
}

fn mount(mount: &shepherd_config::Mount) -> Mount {
    Mount { source: mount.source.clone(), target: mount.target.clone(), read_only: mount.read_only }
}
