//! Images: their names, and having them here.
//!
//! ```text
//! obtain ─▶ name it ─▶ hold it ─▶ here? ─▶ pull, or join the one under way ─▶ ImageInUse
//!                                                     │ it brought a new image
//!                                          record ─▶ budget: the oldest go
//! ```
//!
//! The engine does the pulling, with the login sent along for each pull; nothing is
//! stored at the engine. What the registry refuses fails the job in a sentence of its
//! own ([`failure`]); a registry that is away is tried for as long as it is waited for
//! ([`pull`]).

mod budget;
mod failure;
mod name;
mod progress;
mod pull;
mod record;
mod usage;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shepherd_job::ModelRef;
use tokio::sync::watch;
use tokio::time::Instant;

use self::budget::Budget;
use self::failure::Failure;
use self::name::ImageName;
use self::pull::{Joined, Outcome, Pulls};
use self::record::Record;
use self::usage::{Hold, Usage};

use super::activity::Activity;
use super::engine::{EngineOptions, Link, Trouble};
use crate::SheepError;

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Before each start: a name may come to mean another image. When the registry
    /// cannot be reached, an image that is here is used.
    #[default]
    Always,
    /// When it is not here.
    Missing,
    /// Never.
    Never,
}

/// How long a registry counts as away. A pull that can do without it gives it only [`BRIEF`]
/// meanwhile: otherwise each swap of models would wait for it in full.
const AWAY_FOR: Duration = Duration::from_secs(60);
const BRIEF: Duration = Duration::from_secs(3);

/// The images of one engine.
pub(super) struct Images {
    store: Arc<ImageStore>,
}

/// What a pull needs, whoever waits for it.
struct ImageStore {
    options: Arc<EngineOptions>,
    link: Link,
    record: Arc<Record>,
    usage: Usage,
    budget: Budget,
    pulls: Pulls,
    /// When the registry was last found to be away, while it has not been found back.
    away: Mutex<Option<Instant>>,
}

/// An image that is here, and is not removed while this lives.
pub(super) struct ImageInUse {
    /// What a container is made from: `sha256:...`.
    pub(super) id: String,
    /// The name it was asked for by.
    pub(super) name: String,
    _hold: Hold,
}

impl Images {
    /// The images that the record in the state directory knows.
    ///
    /// # Errors
    /// [`SheepError::Misconfigured`] when the engine would not take the registry for one.
    pub(super) fn new(options: Arc<EngineOptions>, link: Link) -> Result<Self, SheepError> {
        name::check_registry(&options.registry)?;
        let record = Arc::new(Record::read(options.state_dir.join("images.json"), options.host.to_string()));
        let usage = Usage::new(Arc::clone(&record));
        let budget = Budget {
            bytes: options.image_budget,
            link: link.clone(),
            record: Arc::clone(&record),
            usage: usage.clone(),
            turn: Arc::default(),
        };
        let store = ImageStore {
            options,
            link,
            record,
            usage,
            budget,
            pulls: Pulls::default(),
            away: Mutex::default(),
        };
        Ok(Self { store: Arc::new(store) })
    }

    /// See [`Engine::prefetch`](super::Engine::prefetch).
    pub(super) async fn prefetch(&self, models: &[ModelRef]) {
        // Held until the last is here: none is to make room for another.
        let mut held = Vec::with_capacity(models.len());
        for (number, model) in models.iter().enumerate() {
            tracing::info!(%model, "pulling ahead, {} of {}", number + 1, models.len());
            match self.obtain(model, Pull::Always, &Activity::default()).await {
                Ok(image) => held.push(image),
                Err(error) => tracing::warn!(%model, %error, "cannot pull ahead"),
            }
        }
    }

    /// Has the image of `model` here. A pull of it that is under way is joined. When
    /// the future is dropped, the pull goes on for the others that wait for it, and
    /// ends when nobody does.
    ///
    /// # Errors
    /// [`SheepError::Model`] for what concerns the image or the registry, with a
    /// sentence for the job's client; [`SheepError::Unavailable`] when the engine is
    /// away.
    pub(super) async fn obtain(
        &self,
        model: &ModelRef,
        pull: Pull,
        activity: &Activity,
    ) -> Result<ImageInUse, SheepError> {
        let store = &self.store;
        let name = ImageName::of(&store.options.registry, model)?;
        let hold = store.usage.hold(&name.to_string()).await;
        let here = match pull {
            Pull::Always => None,
            Pull::Missing | Pull::Never => {
                store.find(&name).await.map_err(|trouble| store.link.unavailable(&trouble))?
            }
        };
        let id = match (here, pull) {
            (Some(id), _) => id,
            (None, Pull::Never) => {
                return Err(SheepError::Model(format!(
                    "the image `{name}` is not here, and this sheep pulls none"
                )));
            }
            (None, Pull::Always | Pull::Missing) => {
                hold.await_pull();
                let begin = |tell| Arc::clone(store).pull(name.clone(), tell);
                let (pull, phrase) = store.pulls.join(&name, begin);
                watched(pull, phrase, activity).await.map_err(|failure| match failure {
                    Failure::Engine(trouble) => store.link.unavailable(&trouble),
                    Failure::Away(_) | Failure::Silent(_) | Failure::Full | Failure::Refused(_) => {
                        SheepError::Model(failure.sentence(&name))
                    }
                })?
            }
        };
        hold.settle(&id);
        Ok(ImageInUse { id, name: name.to_string(), _hold: hold })
    }
}

/// How long the engine may take to tell of an image, from the first byte to the last.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// Asks the engine with a limit on the whole answer.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Late("it did not answer in time".to_owned())),
    }
}

impl ImageStore {
    /// The id of the image that has this name now, where one has it.
    async fn find(&self, name: &ImageName) -> Result<Option<String>, Trouble> {
        let docker = self.link.reached().await?;
        match within(ANSWER, docker.inspect_image(&name.to_string())).await {
            Ok(image) => match image.id {
                Some(id) => Ok(Some(id)),
                None => Err(Trouble::Garbled(format!("the image `{name}` has no id"))),
            },
            Err(trouble) if trouble.is_status(404) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Asks the registry for the image, and writes down what came. An image that was
    /// here before will do when the registry is away.
    async fn pull(self: Arc<Self>, name: ImageName, tell: watch::Sender<String>) -> Outcome {
        let begun = Instant::now();
        let before = self.find(&name).await.map_err(Failure::Engine)?;
        let mut patience = self.options.registry_patience;
        if before.is_some() && self.was_away() {
            patience = patience.min(BRIEF);
        }
        match (pull::pull(&self.link, &self.options, &name, patience, &tell).await, before) {
            (Ok(()), before) => {
                self.note_away(false);
                let Some(id) = self.find(&name).await.map_err(Failure::Engine)? else {
                    return Err(Failure::Refused("it was removed as soon as it was pulled".to_owned()));
                };
                // What was here already under this name is not ours, unless we wrote it down.
                if before.as_ref() != Some(&id) {
                    tracing::info!(image = %name, id, seconds = begun.elapsed().as_secs_f64(), "pulled");
                    self.record.add(&name.to_string(), &id);
                    self.usage.arrived(&name.to_string(), &id);
                    self.write().await;
                    self.budget.enforce().await;
                }
                Ok(id)
            }
            (Err(failure @ (Failure::Away(_) | Failure::Silent(_))), Some(id)) => {
                self.note_away(true);
                tracing::warn!(image = %name, failure = failure.sentence(&name), "using the image that is here");
                Ok(id)
            }
            (Err(failure @ (Failure::Away(_) | Failure::Silent(_))), None) => {
                self.note_away(true);
                Err(failure)
            }
            // It cannot load what is new, and may well run what it has.
            (Err(failure @ (Failure::Full | Failure::Engine(Trouble::Refused { .. }))), Some(id)) => {
                tracing::warn!(image = %name, failure = failure.sentence(&name), "using the image that is here");
                Ok(id)
            }
            (Err(failure @ (Failure::Engine(_) | Failure::Full | Failure::Refused(_))), _) => Err(failure),
        }
    }

    /// Writes the record; when this is dropped, it is written all the same.
    async fn write(&self) {
        let record = Arc::clone(&self.record);
        if let Err(error) = tokio::task::spawn_blocking(move || record.write()).await {
            tracing::error!(%error, "writing the record of pulled images broke off");
        }
    }

    fn was_away(&self) -> bool {
        let away = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|since| since.elapsed() < AWAY_FOR)
    }

    fn note_away(&self, is_away: bool) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = is_away.then(Instant::now);
    }
}

/// Waits for a pull and shows its progress meanwhile.
async fn watched(mut pull: Joined, mut phrase: watch::Receiver<String>, activity: &Activity) -> Outcome {
    /// Takes the phrase away again, also when the launch is dropped.
    struct Shown<'a>(&'a Activity);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            self.0.set(None);
        }
    }
    let shown = Shown(activity);
    shown.0.set(Some(phrase.borrow_and_update().clone()));
    loop {
        tokio::select! {
            outcome = &mut pull => return outcome,
            // An error means that the pull is over: it has the sender.
            Ok(()) = phrase.changed() => shown.0.set(Some(phrase.borrow_and_update().clone())),
        }
    }
}

#[cfg(test)]
mod tests;
