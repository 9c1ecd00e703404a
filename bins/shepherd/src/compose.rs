//! From a configuration to the parts of a shepherd.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use shepherd_api::{ApiOptions, Cors};
use shepherd_config::{Config, CorsOrigins, Device, SheepConfig, SheepKind, StorageConfig, Transport};
use shepherd_core::{Keeping, Member, Options, Shepherd};
use shepherd_queue::{SqliteOptions, SqliteQueue};
use shepherd_sheep::{BareOptions, BareSheep, Sheep};
use shepherd_storage::{LocalStorage, Storage};

/// Opens the queue and the storage, and starts the shepherd over them.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Shepherd> {
    let state_dir = &config.state_dir;
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
    // The queue's lock comes first: nothing of a running shepherd is touched by a second one.
    let queue = SqliteQueue::open(state_dir, SqliteOptions::default())?;
    let storage = storage(config)?;
    let mut options = Options::new(&config.data_root, state_dir);
    options.status_document = Some(shepherd_api::status_document);
    for sheep in &config.sheep {
        let member = member(config, sheep)?;
        tracing::info!("Created sheep `{}` of type `{}`", member.id, member.sheep.kind());
        options.flock.push(member);
    }
    let shepherd = Shepherd::start(options, Arc::new(queue), storage).await?;
    if shepherd.readiness().problems.is_empty() {
        tracing::info!("Storage appears to be up and running");
    }
    Ok(shepherd)
}

fn storage(config: &Config) -> anyhow::Result<Arc<dyn Storage>> {
    match &config.storage {
        StorageConfig::Local(local) => {
            let storage = LocalStorage::open(&local.dir)
                .with_context(|| format!("cannot open the storage directory {}", local.dir.display()))?;
            Ok(Arc::new(storage))
        }
        StorageConfig::S3(_) => bail!("storage.url names an S3 service, which this version cannot use yet"),
    }
}

fn member(config: &Config, sheep: &SheepConfig) -> anyhow::Result<Member> {
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

/// How the API treats requests.
pub(crate) fn api_options(config: &Config) -> anyhow::Result<ApiOptions> {
    let mut options = ApiOptions::new(config.storage.job_id_rule(), config.state_dir.join("spool"));
    options.max_body_bytes = config.limits.max_body_bytes;
    options.cors = match &config.api.cors_origins {
        CorsOrigins::Any => Cors::Any,
        CorsOrigins::Only(origins) => Cors::parse(origins)
            .map_err(|origin| anyhow::anyhow!("api.cors_origins: `{origin}` is no origin of a web page"))?,
    };
    Ok(options)
}
