//! Sheep.

use std::sync::Arc;

use anyhow::Context as _;
use shepherd_config::{BareSheep as BareConfig, Config, Device, SheepConfig, SheepKind};
use shepherd_core::{Member, RunnerLimits};
use shepherd_sheep::{BareOptions, BareSheep, DockerSheep, Engine, Sheep, Transport};

use super::docker;

pub(super) fn member(
    config: &Config,
    sheep: &SheepConfig,
    engine: Option<&Engine>,
) -> anyhow::Result<Member> {
    let limits = RunnerLimits {
        heartbeat_timeout: sheep.heartbeat_timeout,
        run_timeout: sheep.run_timeout,
        start_timeout: sheep.start_timeout,
        stop_grace: sheep.stop_grace,
        crash_retries: config.limits.crash_retries,
    };
    let kind: Arc<dyn Sheep> = match &sheep.kind {
        SheepKind::Bare(bare) => Arc::new(BareSheep::new(bare_options(config, sheep, bare))),
        SheepKind::Docker(docker) => {
            let engine = engine.context("docker sheep without an engine")?;
            let options = docker::options(config, sheep, docker)?;
            if options.transport == Transport::Tcp && options.network.is_none() {
                tracing::warn!(
                    sheep = %sheep.id,
                    "its runners reach this machine's network and one another, because they are spoken to over tcp; \
                     with `transport: ipc` they reach nothing"
                );
            }
            Arc::new(DockerSheep::new(options, engine.clone()))
        }
    };
    Ok(Member { id: sheep.id.clone(), sheep: kind, limits })
}

/// How a bare sheep runs its runners.
pub(crate) fn bare_options(config: &Config, sheep: &SheepConfig, bare: &BareConfig) -> BareOptions {
    let home = config.data_root.join(sheep.id.as_str());
    let mut options = BareOptions::new(sheep.id.clone(), bare.working_directory.clone(), home);
    options.state_dir.clone_from(&config.state_dir);
    options.transport = transport(bare.transport);
    if let Some(port) = bare.port {
        options.port = port;
    }
    options.devices = sheep.devices.iter().map(device_path).collect();
    options.stdout_file.clone_from(&bare.stdout_file);
    options.stderr_file.clone_from(&bare.stderr_file);
    options.runner_command.clone_from(&bare.runner_command);
    options.env = sheep.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    options.withheld_env = config.withheld_env.iter().cloned().collect();
    options
}

/// How runners are reached; over tcp they are spoken to as they speak.
pub(super) fn transport(transport: shepherd_config::Transport) -> Transport {
    match transport {
        shepherd_config::Transport::Ipc => Transport::Ipc,
        shepherd_config::Transport::Tcp { .. } | shepherd_config::Transport::Zmq { .. } => Transport::Tcp,
    }
}

pub(super) fn device_path(device: &Device) -> String {
    match device {
        Device::Gpu(number) => format!("/dev/nvidia{number}"),
        Device::Path(path) => path.to_string_lossy().into_owned(),
    }
}
