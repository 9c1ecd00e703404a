//! One pull of one image, whoever waits for it.
//!
//! A pull is a future that all who wait for the image share; whoever is polled drives
//! it for all. So it has no task of its own: when one of them is dropped the others go
//! on with it, and when the last is, the request to the engine is dropped, upon which
//! the engine gives up.
//!
//! The registry's patience is the time without progress, over all attempts; coming
//! as far as an earlier attempt came is none (see [`Progress`]). The engine has longer
//! times of its own for a registry that is silent, and shorter ones for a connection
//! that is refused: what it reports is tried again until the patience is over.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptions, CreateImageOptionsBuilder};
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures::stream::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::failure::Failure;
use super::name::{self, ImageName};
use super::progress::Progress;
use crate::docker::engine::{EngineOptions, Link, Trouble};

/// How often a pull under way is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The engine may be as long silent when all is loaded: it unpacks, and syncs the disk.
const UNPACK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Longer than any wait of ours, so that ours decide.
const NO_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an engine may take to show that it is there when a pull makes no progress.
const STALLED_PULL_CHECK: Duration = Duration::from_secs(10);

/// What came of a pull: the image's id.
pub(super) type Outcome = Result<String, Failure>;
/// A pull that several wait for.
pub(super) type Joined = Shared<BoxFuture<'static, Outcome>>;

/// The pulls under way, by the image's name.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<String, UnderWay>>);

struct UnderWay {
    pull: WeakShared<BoxFuture<'static, Outcome>>,
    phrase: watch::Receiver<String>,
}

impl Pulls {
    /// The pull of `name` that is under way, or else the one that `begin` makes, with
    /// what it tells of its progress.
    pub(super) fn join<F>(
        &self,
        name: &ImageName,
        begin: impl FnOnce(watch::Sender<String>) -> F,
    ) -> (Joined, watch::Receiver<String>)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that nobody waits for is over, and one that has its outcome is: whoever
        // comes now asks anew.
        pulls.retain(|_, under_way| under_way.pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        let key = name.to_string();
        if let Some(under_way) = pulls.get(&key)
            && let Some(pull) = under_way.pull.upgrade()
        {
            return (pull, under_way.phrase.clone());
        }
        let (tell, phrase) = watch::channel(format!("pulling {}", name.model()));
        let pull = begin(tell).boxed().shared();
        if let Some(weak) = pull.downgrade() {
            pulls.insert(key, UnderWay { pull: weak, phrase: phrase.clone() });
        }
        (pull, phrase)
    }
}

/// Pulls `name`, waiting for the registry for `patience`.
pub(super) async fn pull(
    link: &Link,
    options: &EngineOptions,
    name: &ImageName,
    patience: Duration,
    tell: &watch::Sender<String>,
) -> Result<(), Failure> {
    let mut pull =
        Pull { link, options, name, patience, tell, progress: Progress::default(), moved: Instant::now() };
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match pull.attempt().await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if !failure.is_passing() || pull.moved.elapsed() + pause >= patience {
            return Err(failure);
        }
        tracing::info!(image = %name, failure = failure.sentence(name), "trying the pull again");
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

struct Pull<'a> {
    link: &'a Link,
    options: &'a EngineOptions,
    name: &'a ImageName,
    patience: Duration,
    tell: &'a watch::Sender<String>,
    progress: Progress,
    /// When it last came further than ever.
    moved: Instant,
}

impl Pull<'_> {
    async fn attempt(&mut self) -> Result<(), Failure> {
        let name = self.name;
        let docker = self.link.reached().await.map_err(Failure::Engine)?.clone().with_timeout(NO_LIMIT);
        let mut events = docker.create_image(Some(self.query()), None, self.credentials());
        let mut log = interval_at(Instant::now() + LOG_EVERY, LOG_EVERY);
        log.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let patience =
                if self.progress.is_loaded() { UNPACK_TIMEOUT.max(self.patience) } else { self.patience };
            // Each of these may be dropped for another: the stream and the interval keep
            // their place, and the time to wait for is computed anew.
            tokio::select! {
                event = events.next() => match event {
                    None => return Ok(()),
                    Some(Ok(event)) => {
                        if self.progress.note(&event) {
                            self.moved = Instant::now();
                        }
                        self.tell.send_if_modified(|told| {
                            let phrase = self.progress.phrase(name.model());
                            let other = *told != phrase;
                            *told = phrase;
                            other
                        });
                    }
                    Some(Err(error)) => {
                        return Err(Failure::of(Trouble::from(error), name, self.options.login.as_ref()));
                    }
                },
                () = sleep_until(self.moved + patience) => return Err(self.silence(patience).await),
                _ = log.tick() => tracing::info!(image = %name, "{}", self.progress.phrase(name.model())),
            }
        }
    }

    /// Whose silence it is that was waited through.
    async fn silence(&self, waited: Duration) -> Failure {
        let seconds = waited.as_secs_f64();
        if !self.link.answers(STALLED_PULL_CHECK).await {
            return Failure::Engine(Trouble::Late(format!("nothing was heard of the pull for {seconds} s")));
        }
        if self.progress.is_loaded() {
            return Failure::Refused(format!("the engine did not finish unpacking it within {seconds} s"));
        }
        Failure::Silent(format!("the registry made no progress for {seconds} s"))
    }

    fn query(&self) -> CreateImageOptions {
        CreateImageOptionsBuilder::new().from_image(self.name.repository()).tag(self.name.tag()).build()
    }

    fn credentials(&self) -> Option<DockerCredentials> {
        self.options.login.as_ref().map(|login| DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.clone()),
            serveraddress: Some(name::authority(&self.options.registry).to_owned()),
            ..DockerCredentials::default()
        })
    }
}

#[cfg(test)]
mod tests;
