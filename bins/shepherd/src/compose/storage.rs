//! Where the data of jobs is, and who serves it over S3.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use shepherd_config::{Config, S3Storage as S3Config, Secret, ServeS3, StorageConfig};
use shepherd_core::Shepherd;
use shepherd_job::{JobId, Timestamp};
use shepherd_s3::{Credentials, Endpoint, Flusher, Hosts};
use shepherd_storage::{LocalStorage, S3Credentials, S3Layout, S3Options, S3Storage, Staging, Storage};
use tokio::net::TcpListener;

/// The region that clients of the endpoint are told. It is where those are that were told none.
const REGION: &str = "us-east-1";

pub(super) struct Opened {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) served: Option<Served>,
}

/// A local storage that is to be served.
pub(super) struct Served {
    listener: TcpListener,
    storage: Arc<LocalStorage>,
    credentials: Credentials,
    hosts: Hosts,
}

/// Opens the storage. Of an S3 service nothing is asked yet, so one that is away keeps nobody from starting.
pub(super) async fn open(config: &Config) -> anyhow::Result<Opened> {
    match &config.storage {
        StorageConfig::Local(local) => {
            let staging = match local.staging {
                shepherd_config::Staging::Copy => Staging::Copy,
                shepherd_config::Staging::Share => Staging::Share,
            };
            let storage = LocalStorage::with(&local.dir, staging)
                .with_context(|| format!("cannot open the storage directory {}", local.dir.display()))?;
            let storage = Arc::new(storage);
            let served = match &local.serve_s3 {
                None => None,
                Some(serve) => Some(Served {
                    listener: listen(serve).await?,
                    storage: Arc::clone(&storage),
                    credentials: Credentials::new(serve.access_key.expose(), serve.secret_key.expose()),
                    hosts: Hosts::new(serve.hosts.iter().cloned()),
                }),
            };
            Ok(Opened { storage, served })
        }
        StorageConfig::S3(s3) => {
            let storage = S3Storage::open(&options(s3))
                .with_context(|| format!("cannot use the S3 service {} as the storage", s3.url))?;
            Ok(Opened { storage: Arc::new(storage), served: None })
        }
    }
}

fn options(s3: &S3Config) -> S3Options {
    let credentials = S3Credentials {
        access_key: s3.access_key.expose().to_owned(),
        secret_key: s3.secret_key.expose().to_owned(),
        session_token: s3.session_token.as_ref().map(Secret::expose).map(str::to_owned),
    };
    let layout = match &s3.layout {
        shepherd_config::S3Layout::BucketPerJob => S3Layout::BucketPerJob,
        shepherd_config::S3Layout::Prefix { bucket, prefix } => {
            S3Layout::Prefix { bucket: bucket.clone(), prefix: prefix.clone() }
        }
    };
    let mut options = S3Options::new(s3.url.to_string(), credentials, layout);
    options.region.clone_from(&s3.region);
    options.ca_file.clone_from(&s3.ca_file);
    options.proxy = s3.proxy.as_ref().map(ToString::to_string);
    options
}

async fn listen(serve: &ServeS3) -> anyhow::Result<TcpListener> {
    let (host, port) = (serve.host.as_str(), serve.port);
    crate::servers::listen(host, port)
        .await
        .with_context(|| format!("storage.serve_s3: cannot listen at {host}, port {port}"))
}

impl Served {
    /// The endpoint of this storage, which `shepherd` keeps up to date.
    pub(super) fn over(self, shepherd: &Shepherd, min_rate: u64) -> (TcpListener, Endpoint) {
        let flusher = Arc::new(Queued(shepherd.clone()));
        let endpoint = Endpoint::new(self.storage, flusher, self.credentials, self.hosts, REGION);
        (self.listener, endpoint.with_min_rate(min_rate))
    }
}

/// What the queue still has of jobs' small objects.
struct Queued(Shepherd);

#[async_trait]
impl Flusher for Queued {
    async fn flush(&self, bucket: &JobId) -> Result<(), String> {
        self.0.flush(bucket).await.map_err(|error| error.to_string())
    }

    async fn unflushed(&self) -> Result<Vec<(JobId, Timestamp)>, String> {
        self.0.unflushed().await.map_err(|error| error.to_string())
    }
}
