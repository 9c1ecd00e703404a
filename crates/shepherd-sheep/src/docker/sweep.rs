//! Ending containers of earlier runs, which are found by their labels.
//!
//! A container is made under this instance's and sheep's labels before anything else is
//! known of it, so whatever became of a run, this finds what it left. Others' containers
//! are never touched, whatever they are called and whichever port they hold.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::ContainerSummary;

use super::backoff::Backoff;
use super::container::{Container, list};
use super::engine::{Engine, Trouble};
use super::{DockerOptions, spec};
use crate::SheepError;
use crate::endpoint::remove_private;

/// How long a container may take to go.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a sweep came to nothing.
pub(super) enum Unswept {
    /// The engine cannot be asked.
    Away(Trouble),
    /// A container does not end.
    Remains(SheepError),
}

/// Kills and removes every container of the sheep, and of sheep that this shepherd had
/// once and has no more. Those of these names are still seen to by others, and left to them.
pub(super) async fn sweep(
    engine: &Engine,
    options: &DockerOptions,
    in_care: &[String],
) -> Result<(), Unswept> {
    let (instance, flock) = (&engine.options().instance, &engine.options().flock);
    let labels = [(spec::INSTANCE, instance.as_str())];
    let found = list(engine, &labels, true).await.map_err(Unswept::Away)?;
    for summary in found {
        // The engine was asked for these only; what it is asked next cannot be undone.
        let label =
            |name: &str| summary.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        let is_swept = |sheep: &str| {
            sheep == options.id.as_str() || !flock.iter().any(|member| member.as_str() == sheep)
        };
        let is_ours =
            label(spec::INSTANCE) == Some(instance.as_str()) && label(spec::SHEEP).is_some_and(is_swept);
        let name = name_of(&summary);
        let Some(id) = summary.id.clone().filter(|_| is_ours && !in_care.contains(&name)) else { continue };
        let container = Container::known(engine, id);
        let ended = tokio::time::timeout(REMOVE_TIMEOUT, end(&container)).await;
        let trouble = match ended {
            Ok(Ok(())) => None,
            Ok(Err(trouble @ (Trouble::Lost(_) | Trouble::Late(_)))) => return Err(Unswept::Away(trouble)),
            Ok(Err(trouble @ (Trouble::Refused { .. } | Trouble::Garbled(_)))) => Some(trouble.to_string()),
            Err(_) => Some("it does not go".to_owned()),
        };
        match trouble {
            None => {
                tracing::info!(sheep = %options.id, container = name, "removed a container of an earlier run");
                if let Some(socket) = label(spec::SOCKET) {
                    forget_socket(Path::new(socket));
                }
            }
            Some(why) => {
                // One that is dead is in nobody's way.
                if container.inspect().await.map_err(Unswept::Away)?.is_some_and(|seen| seen.is_running) {
                    return Err(Unswept::Remains(SheepError::Unavailable(format!(
                        "the container `{name}` of an earlier run of sheep `{}` does not end: {why}",
                        options.id
                    ))));
                }
                tracing::warn!(sheep = %options.id, container = name, why, "a dead container stays behind");
            }
        }
    }
    Ok(())
}

/// Ends a container, and removes it.
async fn end(container: &Container) -> Result<(), Trouble> {
    let mut backoff = Backoff::new();
    loop {
        match container.inspect().await? {
            None => return Ok(()),
            Some(seen) if seen.is_running => container.kill().await?,
            Some(_) => break,
        }
        backoff.pause().await;
    }
    remove(container).await
}

/// Removes a container, until it is gone.
pub(super) async fn remove(container: &Container) -> Result<(), Trouble> {
    let mut backoff = Backoff::new();
    loop {
        match container.remove().await {
            Ok(()) => return Ok(()),
            // Another removes it.
            Err(trouble) if trouble.is_status(409) => {}
            Err(trouble) => return Err(trouble),
        }
        backoff.pause().await;
        if container.inspect().await?.is_none() {
            return Ok(());
        }
    }
}

/// What to say of a port of this machine that a stranger holds, who is left alone.
pub(super) async fn port_in_use(engine: &Engine, port: u16) -> SheepError {
    let publishes = |summary: &&ContainerSummary| {
        summary.ports.iter().flatten().any(|published| published.public_port == Some(port))
    };
    let running = list(engine, &[], false).await.unwrap_or_default();
    SheepError::Unavailable(match running.iter().find(publishes) {
        Some(holder) => {
            format!("port {port} is in use by the container `{}`, which is not this sheep's", name_of(holder))
        }
        None => format!("port {port} is in use by another process"),
    })
}

fn name_of(summary: &ContainerSummary) -> String {
    let name = summary.names.iter().flatten().next().map(|name| name.trim_start_matches('/').to_owned());
    name.or_else(|| summary.id.clone()).unwrap_or_default()
}

/// Removes the private directory of a run's socket, if that is what the label names.
fn forget_socket(socket: &Path) {
    let dir = socket.ancestors().nth(2).filter(|dir| socket == dir.join("s/sock"));
    let is_ours = dir.is_some_and(|dir| {
        let below = [std::env::temp_dir(), PathBuf::from("/tmp")];
        dir.parent().is_some_and(|parent| below.iter().any(|temporary| parent == temporary))
            && dir
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("shepherd-"))
    });
    if is_ours {
        remove_private(socket);
    }
}
