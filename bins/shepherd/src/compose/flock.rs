//! Sheep.

use std::sync::Arc;

use anyhow::bail;
use shepherd_config::{Config, Device, SheepConfig, SheepKind, Transport};
use shepherd_core::{Keeping, Member};
use shepherd_sheep::{BareOptions, BareSheep, Sheep};

pub(super) fn member(config: &Config, sheep: &SheepConfig) -> anyhow::Result<Member> {
    let keeping = Keeping {
        heartbeat_timeout: sheep.heartbeat_timeout,
        run_timeout: sheep.run_timeout,
        start_timeout: sheep.start_timeout,
        stop_grace: sheep.stop_grace,
        crash_retries: config.limits.crash_retries,
    };
    let kind: Arc<dyn Sheep> = match &sheep.kind {
        SheepKind::Bare(bare) => {
            let home = config.data_root.join(sheep.id.as_str());
            let mut options = BareOptions::new(sheep.id.clone(), bare.working_directory.clone(), home);
            options.state_dir.clone_from(&config.state_dir);
            options.transport = match bare.transport {
                Transport::Ipc => shepherd_sheep::Transport::Ipc,
                Transport::Tcp { .. } => shepherd_sheep::Transport::Tcp,
            };
            if let Some(port) = bare.port {
                options.port = port;
            }
            options.devices = sheep.devices.iter().map(device_path).collect();
            options.stdout_file.clone_from(&bare.stdout_file);
            options.stderr_file.clone_from(&bare.stderr_file);
            options.runner_command.clone_from(&bare.runner_command);
            options.env = sheep.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            options.withheld_env = config.withheld_env.iter().cloned().collect();
            Arc::new(BareSheep::new(options))
        }
        SheepKind::Docker(_) => {
            bail!("sheep `{}` is of type docker, which this version cannot run yet", sheep.id)
        }
    };
    Ok(Member { id: sheep.id.clone(), sheep: kind, keeping })
}

fn device_path(device: &Device) -> String {
    match device {
        Device::Gpu(number) => format!("/dev/nvidia{number}"),
        Device::Path(path) => path.to_string_lossy().into_owned(),
    }
}
