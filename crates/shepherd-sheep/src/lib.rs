//! Sheep: what holds a runner that has one model loaded.
//!
//! A [`Sheep`] launches a runner for a model. The [`RunningSheep`] that comes back
//! tells where to dial it, says when it died and how, and ends it with everything
//! that it started. [`BareSheep`] runs it as a process of this machine, [`DockerSheep`] as
//! a container of an [`Engine`].
//!
//! This crate knows nothing of jobs' data, of the queue, or of what a runner and
//! the shepherd say to each other: a launched runner need not listen yet. It never ends
//! what it cannot tell to be its own, whoever is in the way. It runs on Linux only,
//! because ending a runner for certain needs `/proc`.
//!
//! ```
//! use shepherd_job::{ModelRef, SheepId};
//! use shepherd_sheep::{BareOptions, BareSheep, ExitCause, Sheep};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let dir = tempfile::tempdir()?;
//! let models = dir.path().join("models");
//! std::fs::create_dir_all(models.join("echo/1"))?;
//! std::fs::write(models.join("echo/1/config.yaml"), "")?;
//!
//! let mut options = BareOptions::new(SheepId::parse("dolly")?, models, dir.path().join("data/dolly"));
//! options.state_dir = dir.path().join("state");
//! options.runner_command = ["/bin/sh", "-c", "echo no model >&2; exit 3"].map(String::from).to_vec();
//! let sheep = BareSheep::new(options);
//!
//! sheep.sweep().await?;
//! let mut running = sheep.launch(&ModelRef::parse("echo", "1")?).await?;
//! assert!(running.endpoint().starts_with("ipc:///"));
//! let exit = running.exited().await;
//! assert_eq!(exit.cause, ExitCause::Code(3));
//! assert_eq!(exit.log_tail, "no model");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bare;
mod descriptors;
mod docker;
mod endpoint;
mod exit;
mod lines;
mod pattern;
mod token;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use shepherd_job::{JobId, ModelRef};

pub use bare::{BareOptions, BareSheep, Transport};
pub use descriptors::raise_descriptor_limit;
pub use docker::{
    DockerOptions, DockerSheep, Engine, EngineHost, EngineOptions, Gpus, Mount, Pull, RegistryLogin, TlsFiles,
};
pub use exit::{Exit, ExitCause};
pub use pattern::ModelPattern;

/// What went wrong, by what the caller can do about it. The text is a whole
/// sentence for the person whose job it stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SheepError {
    /// This sheep cannot run the model, however often it tries: its jobs fail.
    /// Other models may run.
    #[error("{0}")]
    Model(String),
    /// The sheep cannot run anything until its operator mends what the text says.
    #[error("{0}")]
    Misconfigured(String),
    /// What the runner needs is taken or exhausted now. Worth trying again later.
    #[error("{0}")]
    Unavailable(String),
}

/// One place where a runner can be. It has at most one at a time.
#[async_trait]
pub trait Sheep: Send + Sync + 'static {
    /// What kind of sheep this is, in the word that configures it, such as `bare`.
    fn kind(&self) -> &'static str;

    /// Whether its runners are strangers: they run under other users, and must not
    /// see one another's files or change what they are given to read.
    fn is_isolated(&self) -> bool {
        false
    }

    /// What [`launch`](Sheep::launch) is busy with, when that takes its time; a
    /// phrase such as "pulling mnist:2, 40 of 120 MB". Cheap: asked for each status.
    fn activity(&self) -> Option<String> {
        None
    }

    /// Why this sheep cannot run `model`, where that is known without a launch: a phrase
    /// such as "has no file `ocr/1/config.yaml`", for the person whose job it is. Looks at
    /// the file system, so it may block.
    fn lacks(&self, model: &ModelRef) -> Option<String> {
        let _ = model;
        None
    }

    /// Tells the state of a model's configuration from others, where this sheep can see it: a
    /// runner that was launched for another one is out of date. Blocks as the disk does.
    fn model_stamp(&self, model: &ModelRef) -> Option<u64> {
        let _ = model;
        None
    }

    /// Whether it could launch a runner, as far as that is known without a model. To be
    /// called from time to time while there is no runner.
    ///
    /// # Errors
    /// What an operator must mend, or what is not there at present.
    async fn check(&self) -> Result<(), SheepError> {
        Ok(())
    }

    /// Ends what an earlier life of this sheep left behind. To be called once
    /// before its working directory is cleaned and its port or GPU used again.
    ///
    /// # Errors
    /// [`SheepError::Unavailable`] when something left behind does not end.
    async fn sweep(&self) -> Result<(), SheepError>;

    /// Makes the directories `names` of `dir`, which runners made under other users, and
    /// those in them the daemon's own, as far as that is needed to remove them and this
    /// sheep can. Whether it changed any. To be called with none of them in use.
    async fn reclaim(&self, dir: &Path, names: &[OsString]) -> bool {
        let _ = (dir, names);
        false
    }

    /// Waits until nothing is left of launches that were dropped and of runners that
    /// [vacated](RunningSheep::vacate) their place; for a while, where something does not
    /// end. To be called before the program ends.
    async fn settled(&self);

    /// Starts a runner for `model`, which begins to listen at the endpoint some time
    /// later. When the future is dropped, nothing is left running.
    ///
    /// Waits for an earlier runner that was killed or dropped; while one is running
    /// that was not, this is [`SheepError::Unavailable`].
    ///
    /// # Errors
    /// See [`SheepError`]; nothing is running then.
    async fn launch(&self, model: &ModelRef) -> Result<Box<dyn RunningSheep>, SheepError>;
}

/// A runner that listens, and not where it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Astray {
    /// Where it listens, and what to do about it: a phrase such as "it listens at port 9999, not
    /// at ...".
    pub message: String,
    /// Whether it took that place for its endpoint, so that it will not come to listen there.
    pub is_for_good: bool,
}

/// A sheep with a runner. Dropping it kills the runner.
#[async_trait]
pub trait RunningSheep: Send {
    /// The URL to dial: `ipc:///...` or `tcp://127.0.0.1:PORT`.
    fn endpoint(&self) -> &str;

    /// The directory of jobs' directories, as the runner sees it.
    fn io_data_root(&self) -> &Path;

    /// The secret of this launch, which the runner has as `SHEPHERD_TOKEN`; none where it was
    /// not given one.
    fn token(&self) -> Option<&str> {
        None
    }

    /// Whether a connection over TCP, from `ours` to `theirs`, is one to the runner, of a peer
    /// that did not prove to know the [token](Self::token). It passes where nobody else can have
    /// the runner's port, and where the runner is dead, which is told otherwise.
    ///
    /// # Errors
    /// It is not, or it cannot be known: why, for the operator.
    async fn verify_peer(&mut self, ours: SocketAddr, theirs: SocketAddr) -> Result<(), String> {
        let _ = (ours, theirs);
        Ok(())
    }

    /// Where the runner listens, as long as it does not at its endpoint, if it listens at all.
    async fn astray(&mut self) -> Option<Astray> {
        None
    }

    /// Resolves when the runner has died, by itself or not: at once when it is dead
    /// already. By then all that it started is dead too, and its port and GPU are
    /// free. May be dropped and called again at any time.
    async fn exited(&mut self) -> Exit;

    /// What the runner has printed on both its streams since this was asked last, as
    /// far as it has come here; of much of it the end. Does not wait.
    fn printed(&mut self) -> String {
        String::new()
    }

    /// How much later than it was printed something may come here, on a machine that
    /// keeps up.
    fn print_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Says which job the runner works on from now on, for the log of what it prints.
    fn works_on(&self, job: Option<&JobId>) {
        let _ = job;
    }

    /// Asks the runner to end, and kills it when it has not after `grace`. Resolves
    /// like [`exited`](RunningSheep::exited). When it is dropped before, the runner
    /// has been asked and not been killed.
    async fn stop(&mut self, grace: Duration) -> Exit;

    /// Like [`stop`](RunningSheep::stop), but resolves as soon as another runner may be
    /// launched: all that this one started is dead by then, and its port and GPU are free.
    /// Nobody is told how it ended, which may take longer to find out.
    async fn vacate(&mut self, grace: Duration) {
        self.stop(grace).await;
    }

    /// Kills the runner and all that it started, without waiting for the end.
    fn kill(&mut self);
}
