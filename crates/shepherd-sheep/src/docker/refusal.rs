//! What the engine's refusals mean to a sheep: its words, made into a sentence for whoever
//! can do something about it.
//!
//! The engine's statuses say little: much of what is configured wrongly is a 500, found by
//! the container runtime at the start. Its words are looked at instead, and quoted; what is
//! not known here is the operator's to read.

use super::engine::Trouble;
use super::{DockerOptions, gpu};
use crate::SheepError;

/// What a container was to be made of.
pub(super) struct Asked<'a> {
    pub(super) options: &'a DockerOptions,
    /// The image's name.
    pub(super) image: &'a str,
    pub(super) private_socket: Option<&'a str>,
}

/// Why a container could not be made or started, other than by the loss of the engine.
pub(super) fn error(asked: &Asked<'_>, message: &str) -> SheepError {
    let Asked { options, image, .. } = asked;
    let has = |text: &str| message.to_ascii_lowercase().contains(&text.to_ascii_lowercase());
    let any = |texts: &[&str]| texts.iter().any(|text| has(text));

    if has("could not select device driver") {
        if has("\"cdi\"") {
            return wrong("the engine does not know CDI devices", message);
        }
        return wrong(
            "the engine has no driver for GPUs: NVIDIA's container toolkit is missing on its machine",
            message,
        );
    }
    if any(&["cdi device injection failed", "unresolvable cdi devices"]) {
        return wrong("the engine does not find the CDI devices of this sheep", message);
    }
    if any(&["nvidia-container", "nvidia-smi", "libnvidia"]) {
        return wrong("the GPUs of this sheep cannot be brought into a container", message);
    }
    if any(&["unknown runtime", "unknown or invalid runtime", "invalid runtime name"]) {
        let runtime = gpu::RUNTIME;
        return wrong(
            &format!("the engine has no runtime `{runtime}`, which GPUs among `devices` need"),
            message,
        );
    }
    if has("gathering device information") {
        return wrong("a device of this sheep is not on the engine's machine", message);
    }
    if is_port_taken(message) {
        return SheepError::Unavailable(format!("port {} is in use: {message}", options.port));
    }
    if let Some(path) = missing_source(message) {
        let home = options.data_root.to_str();
        let is_ours =
            home == Some(path) || asked.private_socket.is_some_and(|socket| socket.starts_with(path));
        return SheepError::Misconfigured(if is_ours {
            format!(
                "the engine does not see the directory {path}: it is on another machine, or the shepherd in a \
                 container where the machine's directory is not mounted at the same path"
            )
        } else {
            format!("{path}, which this sheep mounts, is not on the engine's machine")
        });
    }
    if any(&[
        "unable to find user",
        "unable to find group",
        "no matching entries in passwd",
        "no matching entries in group",
    ]) {
        return match &options.user {
            Some(user) => wrong(&format!("the image `{image}` does not know the user `{user}`"), message),
            None => bad(&format!("the image `{image}` names a user that it does not know"), message),
        };
    }
    if any(&["no command specified", "no such image", "manifest unknown"]) {
        return if has("no such image") {
            // It was here a moment ago.
            SheepError::Unavailable(format!("the image `{image}` was removed before it could be started"))
        } else {
            bad(&format!("the image `{image}` does not say what to run"), message)
        };
    }
    if any(&["exec format error", "executable file not found", "starting container process caused"]) {
        return match options.entrypoint.is_some() || options.command.is_some() {
            true => wrong(&format!("the configured command cannot be run in the image `{image}`"), message),
            false => bad(&format!("the image `{image}` cannot be run"), message),
        };
    }
    if any(&[
        "no space left on device",
        "cannot allocate memory",
        "resource temporarily unavailable",
        "is marked for removal",
    ]) {
        return SheepError::Unavailable(format!("the engine cannot start a container now: {message}"));
    }
    if any(&["network"]) && any(&["not found", "could not find"]) {
        let network = options.network.as_deref().unwrap_or("default");
        return wrong(&format!("the engine has no network `{network}`"), message);
    }
    if any(&["memory limit"]) {
        return wrong("the engine does not take the configured memory", message);
    }
    if any(&["range of cpus", "nanocpus"]) {
        return wrong("the engine does not take the configured cpus", message);
    }
    if any(&["capability", "invalid capadd"]) {
        return wrong("the engine does not take the configured capabilities", message);
    }
    wrong("the engine refuses the container", message)
}

/// The same, of any trouble.
pub(super) fn of_trouble(
    asked: &Asked<'_>,
    trouble: &Trouble,
    unavailable: impl FnOnce(&Trouble) -> SheepError,
) -> SheepError {
    match trouble {
        Trouble::Refused { message, .. } => error(asked, message),
        Trouble::Lost(_) | Trouble::Late(_) | Trouble::Garbled(_) => unavailable(trouble),
    }
}

/// Whether a published port was not to be had.
pub(super) fn is_port_taken(message: &str) -> bool {
    ["port is already allocated", "address already in use", "failed to bind port", "ports are not available"]
        .iter()
        .any(|text| message.contains(text))
}

/// The source of a mount that is not on the engine's machine.
fn missing_source(message: &str) -> Option<&str> {
    let (_, path) = message.split_once("bind source path does not exist: ")?;
    Some(path.lines().next().unwrap_or(path).trim())
}

fn wrong(sentence: &str, message: &str) -> SheepError {
    SheepError::Misconfigured(format!("{sentence}: {message}"))
}

fn bad(sentence: &str, message: &str) -> SheepError {
    SheepError::Model(format!("{sentence}: {message}"))
}

#[cfg(test)]
mod tests;
