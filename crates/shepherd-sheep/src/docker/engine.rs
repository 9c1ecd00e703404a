//! The engine that runs containers: how it is reached, and the registry it pulls from.
//!
//! All docker sheep of a shepherd share one [`Engine`]. It may be away when the
//! daemon starts and go and come as it likes: nothing is kept open between requests
//! ([`wire`] says why), and each one that fails says whether the engine was lost or
//! refused ([`Trouble`]).

mod tls;
mod transport;
mod trouble;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use shepherd_job::{ModelRef, SheepId};

use self::transport::Transport;
pub(super) use self::trouble::Trouble;
use super::images::Images;
use crate::SheepError;

/// How long the engine may take to begin an answer, for those who ask without a
/// time of their own.
const ANSWER: Duration = Duration::from_secs(120);

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineHost {
    /// A socket file.
    Unix(PathBuf),
    /// A host and port, with or without TLS.
    Tcp {
        /// `HOST:PORT`.
        authority: String,
        /// Without them the connection is plain.
        tls: Option<TlsFiles>,
    },
}

/// PEM files for a TLS connection to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that signed the engine's certificate.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A login to the registry. No `Debug`: it holds the password.
#[derive(Clone)]
pub struct RegistryLogin {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// How the engine is used.
#[derive(Clone)]
pub struct EngineOptions {
    /// Where it listens.
    pub host: EngineHost,
    /// Tells this shepherd's containers and images from others', across restarts;
    /// letters, digits and `-`.
    pub instance: String,
    /// All sheep that are configured. Containers of this instance's other sheep are of an
    /// earlier configuration, and are ended.
    pub flock: Vec<SheepId>,
    /// The registry, `HOST[:PORT]`, and where images are in it, `/PATH`: the beginning of
    /// every image's name.
    pub registry: String,
    /// What to log in to the registry with.
    pub login: Option<RegistryLogin>,
    /// How long to wait for a registry that is away or silent.
    pub registry_patience: Duration,
    /// Images pulled by this shepherd may take so many bytes; without it none is
    /// removed.
    pub image_budget: Option<u64>,
    /// Where is kept what must survive a restart of the daemon.
    pub state_dir: PathBuf,
}

impl fmt::Display for EngineHost {
    /// The URL by which Docker's own tools know it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { authority, .. } => write!(f, "tcp://{authority}"),
        }
    }
}

/// The host in `HOST[:PORT]`, an IPv6 address without its brackets.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// One engine, shared by all docker sheep of a shepherd. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<EngineOptions>,
    link: Link,
    images: Images,
}

/// A way to ask the engine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    transport: Arc<Transport>,
    docker: Docker,
}

impl Link {
    fn new(host: EngineHost) -> Result<Self, SheepError> {
        Self::over(Arc::new(Transport::new(host)?))
    }

    fn over(transport: Arc<Transport>) -> Result<Self, SheepError> {
        let carrier = Arc::clone(&transport);
        let docker = Docker::connect_with_custom_transport(
            move |request| Arc::clone(&carrier).send(request),
            // A place for the path to be in; the wire knows where the engine is.
            Some("http://engine"),
            ANSWER.as_secs(),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|e| SheepError::Misconfigured(format!("the engine's client cannot be made: {e}")))?;
        Ok(Self { transport, docker })
    }

    /// See [`Engine::reached`].
    pub(super) async fn reached(&self) -> Result<&Docker, Trouble> {
        self.transport.ready().await?;
        Ok(&self.docker)
    }

    /// See [`Engine::unavailable`].
    pub(super) fn unavailable(&self, trouble: &Trouble) -> SheepError {
        let host = self.transport.host();
        SheepError::Unavailable(match trouble {
            Trouble::Lost(why) | Trouble::Late(why) => {
                format!("the container engine at {host} does not answer: {why}")
            }
            Trouble::Refused { .. } => format!("the container engine at {host} is not well: {trouble}"),
            Trouble::Garbled(_) => format!("what is at {host} answers like no container engine: {trouble}"),
        })
    }

    /// See [`Engine::answer`].
    pub(super) async fn answer(&self) -> Result<(), Trouble> {
        Ok(self.transport.ping().await.map(drop)?)
    }

    /// See [`Engine::answers`].
    pub(super) async fn answers(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.transport.ping()).await.is_ok_and(|answer| answer.is_ok())
    }
}

impl Engine {
    /// An engine that was not asked anything yet, and need not be there.
    ///
    /// # Errors
    /// [`SheepError::Misconfigured`] when a TLS file cannot be used, or the registry's
    /// authority would not be taken for one.
    pub fn new(options: EngineOptions) -> Result<Self, SheepError> {
        let options = Arc::new(options);
        let link = Link::new(options.host.clone())?;
        let images = Images::new(Arc::clone(&options), link.clone())?;
        Ok(Self { inner: Arc::new(Inner { options, link, images }) })
    }

    /// Pulls the images of `models` one after another, as a start with
    /// [`Pull::Always`](super::Pull::Always) would; what fails is logged. May be
    /// dropped at any time, which ends the pull under way unless a sheep waits for it.
    pub async fn prefetch(&self, models: &[ModelRef]) {
        self.inner.images.prefetch(models).await;
    }

    /// The client, once the engine was reached and a version of its API agreed on.
    /// A request may take 120 s to be answered; `client.clone().with_timeout(...)` is a
    /// client for those that take longer.
    pub(super) async fn reached(&self) -> Result<&Docker, Trouble> {
        self.inner.link.reached().await
    }

    /// What to say of a request that failed because the engine is away or unwell.
    pub(super) fn unavailable(&self, trouble: &Trouble) -> SheepError {
        self.inner.link.unavailable(trouble)
    }

    /// Whether the engine answers on a fresh connection, within this time.
    pub(super) async fn answers(&self, within: Duration) -> bool {
        self.inner.link.answers(within).await
    }

    /// Asks the engine for a sign of life on a fresh connection.
    pub(super) async fn answer(&self) -> Result<(), Trouble> {
        self.inner.link.answer().await
    }

    pub(super) fn options(&self) -> &EngineOptions {
        &self.inner.options
    }

    pub(super) fn images(&self) -> &Images {
        &self.inner.images
    }
}
