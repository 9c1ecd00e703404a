//! From a configuration to the parts of a shepherd.

mod docker;
mod flock;
mod lost_queue;
mod names;
mod private;
mod storage;

use std::sync::Arc;

use anyhow::Context as _;
use shepherd_api::{ApiOptions, Cors, Hosts, ServeOptions};
use shepherd_config::{Config, CorsOrigins, StorageConfig};
use shepherd_core::{Options, RemovedSheep, Shepherd, UnknownModels};
use shepherd_queue::{SqliteOptions, SqliteStore};
use shepherd_s3::Endpoint;
use tokio::net::TcpListener;

use docker::Prefetch;
pub(crate) use flock::bare_options;
pub(crate) use lost_queue::refuse_lost_queue;

/// What was started.
pub(crate) struct Started {
    pub(crate) shepherd: Shepherd,
    /// The endpoint over the storage, and what it is to listen at.
    pub(crate) endpoint: Option<(TcpListener, Endpoint)>,
    /// The images that are to be pulled ahead.
    pub(crate) prefetch: Option<Prefetch>,
}

/// Opens the queue and the storage, and starts the shepherd over them.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Started> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let state_dir = &config.state_dir;
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
    private::close(state_dir, config.umask)?;
    // The queue's lock comes first: nothing of a running shepherd is touched by a second one.
    let queue = SqliteStore::open(state_dir, SqliteOptions::default())?;
    // The endpoint's address too is taken before anything runs.
    let opened = storage::open(config).await?;
    let mut options = Options::new(&config.data_root, state_dir);
    options.data_root_mask = config.umask;
    options.job_log = config.limits.job_log;
    options.status_document = Some(shepherd_api::status_document);
    options.max_wait = config.scheduler.max_wait;
    options.unknown_models = match config.scheduler.unknown_models {
        shepherd_config::UnknownModels::Refuse => UnknownModels::Refuse,
        shepherd_config::UnknownModels::Wait => UnknownModels::Wait,
    };
    options.removed_sheep = match config.scheduler.removed_sheep {
        shepherd_config::RemovedSheep::Wait => RemovedSheep::Wait,
        shepherd_config::RemovedSheep::Fail => RemovedSheep::Fail,
        shepherd_config::RemovedSheep::Unpin => RemovedSheep::Unpin,
    };
    let engine = docker::engine(config)?;
    for sheep in &config.sheep {
        let member = flock::member(config, sheep, engine.as_ref())?;
        tracing::info!("Created sheep `{}` of type `{}`", member.id, member.sheep.kind());
        options.flock.push(member);
    }
    let shepherd = Shepherd::start(options, Arc::new(queue), opened.storage).await?;
    if shepherd.readiness().problems.is_empty() {
        tracing::info!("Storage appears to be up and running");
    }
    let endpoint = opened.served.map(|served| served.over(&shepherd, config.limits.request_body_min_rate));
    let prefetch = docker::prefetch(config, engine.as_ref());
    Ok(Started { shepherd, endpoint, prefetch })
}

/// Descriptors that are kept for the daemon itself (queue, storage, runtime), and for each
/// sheep: its runner's sockets and pipes, and the files of the jobs that are staged.
const OWN_DESCRIPTORS: u64 = 256;
const DESCRIPTORS_PER_SHEEP: u64 = 32;

/// Descriptors that a connection may take: its socket, and a file that it reads or fills.
const PER_CONNECTION: u64 = 2;

/// Number of connections that one address may have although that is more than half of all.
const FEW_CONNECTIONS: usize = 64;

/// How connections are treated, wherever they come in, where `descriptors` may be open at
/// once.
pub(crate) fn serve_options(config: &Config, descriptors: Option<u64>) -> ServeOptions {
    let listeners = match &config.storage {
        StorageConfig::Local(local) if local.serve_s3.is_some() => 2,
        StorageConfig::Local(_) | StorageConfig::S3(_) => 1,
    };
    let wanted = u64::from(config.limits.max_connections);
    let most = descriptors.map_or(wanted, |limit| connections(limit, config.sheep.len() as u64, listeners));
    if most < wanted {
        tracing::warn!(
            "limits.max_connections is lowered from {wanted} to {most}, since no more than {} files may be open at once",
            descriptors.unwrap_or_default()
        );
    }
    let max_connections = usize::try_from(wanted.min(most)).unwrap_or(usize::MAX);
    let of_address = config.limits.max_connections_per_address.map_or_else(
        || (max_connections / 2).max(FEW_CONNECTIONS).min(max_connections),
        |most| usize::try_from(most).unwrap_or(usize::MAX),
    );
    ServeOptions {
        header_timeout: config.limits.request_header_timeout,
        max_connections,
        max_connections_per_address: of_address,
        drain_timeout: config.shutdown.grace,
        ..ServeOptions::default()
    }
}

/// How many connections each listener may have, so that jobs have descriptors whatever
/// clients do. Where there are too few for both, jobs have half of them.
fn connections(descriptors: u64, sheep: u64, listeners: u64) -> u64 {
    let kept = (OWN_DESCRIPTORS + DESCRIPTORS_PER_SHEEP * sheep).min(descriptors / 2);
    ((descriptors - kept) / (PER_CONNECTION * listeners)).max(1)
}

/// How the API treats requests when it listens at `host`.
pub(crate) fn api_options(config: &Config, host: &str) -> anyhow::Result<ApiOptions> {
    let mut options = ApiOptions::new(config.storage.job_id_rule(), config.state_dir.join("spool"));
    options.max_body_bytes = config.limits.max_body_bytes;
    options.body_pace.total = config.limits.request_body_timeout;
    options.body_pace.min_rate = config.limits.request_body_min_rate;
    let local = names::of_this_machine();
    options.hosts = Hosts::of(config.api.hosts.iter().chain(&local).map(String::as_str).chain([host]));
    options.cors = match &config.api.cors_origins {
        CorsOrigins::Any => Cors::Any,
        CorsOrigins::Only(origins) => Cors::parse(origins)
            .map_err(|origin| anyhow::anyhow!("api.cors_origins: `{origin}` is no origin of a web page"))?,
    };
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::connections;

    #[test]
    fn connections_leave_descriptors_for_jobs() {
        assert_eq!(connections(20_000, 2, 1), (20_000 - 256 - 64) / 2);
        assert_eq!(connections(20_000, 2, 2), (20_000 - 256 - 64) / 4);
        assert_eq!(connections(256, 100, 1), 64, "half of them");
        assert_eq!(connections(1, 1, 2), 1);
    }
}
