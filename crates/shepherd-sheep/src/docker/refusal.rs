//! What the engine's refusals mean to a sheep: its words, made into a sentence for whoever
//! can do something about it.
//!
//! The engine's statuses say little: much of what is configured wrongly is a 500, found by
//! the container runtime at the start. Its words are looked at instead, and quoted. Words
//! that are not known here may be about the image as well as about the machine: which one
//! it is, [`trial`](super::trial) finds out.

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

/// Who is to blame for a refusal.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The engine's words say it.
    Known(SheepError),
    /// The image, if the engine runs the same container of another image; otherwise this.
    Unclear(SheepError),
}

/// Why a container could not be made or started, other than by the loss of the engine.
///
/// What one image or the devices of one sheep lack fails the job. What is wrong with all
/// that the sheep could run waits for its operator.
pub(super) fn verdict(asked: &Asked<'_>, message: &str) -> Verdict {
    let Asked { options, image, .. } = asked;
    let has = |text: &str| message.to_ascii_lowercase().contains(&text.to_ascii_lowercase());
    let any = |texts: &[&str]| texts.iter().any(|text| has(text));

    if has("could not select device driver") {
        if has("\"cdi\"") {
            return fails("the engine does not know CDI devices", message);
        }
        return fails(
            "the engine has no driver for GPUs: NVIDIA's container toolkit is missing on its machine",
            message,
        );
    }
    if any(&["cdi device injection failed", "unresolvable cdi devices"]) {
        return fails("the engine does not find the CDI devices of this sheep", message);
    }
    if any(&["nvidia-container", "nvidia-smi", "libnvidia"]) {
        return fails("the GPUs of this sheep cannot be brought into a container", message);
    }
    if any(&["unknown runtime", "unknown or invalid runtime", "invalid runtime name"]) {
        let runtime = gpu::RUNTIME;
        return fails(
            &format!("the engine has no runtime `{runtime}`, which GPUs among `devices` need"),
            message,
        );
    }
    if has("gathering device information") {
        return fails("a device of this sheep is not on the engine's machine", message);
    }
    if is_port_taken(message) {
        return unavailable(format!("port {} is in use: {message}", options.port));
    }
    if let Some(path) = missing_source(message) {
        let home = options.data_root.to_str();
        let is_ours =
            home == Some(path) || asked.private_socket.is_some_and(|socket| socket.starts_with(path));
        return Verdict::Known(SheepError::Misconfigured(if is_ours {
            format!(
                "the engine does not see the directory {path}: it is on another machine, or the shepherd in a \
                 container where the machine's directory is not mounted at the same path"
            )
        } else {
            format!("{path}, which this sheep mounts, is not on the engine's machine")
        }));
    }
    if any(&[
        "unable to find user",
        "unable to find group",
        "no matching entries in passwd",
        "no matching entries in group",
    ]) {
        return match &options.user {
            Some(user) => fails(&format!("the image `{image}` does not know the user `{user}`"), message),
            None => fails(&format!("the image `{image}` names a user that it does not know"), message),
        };
    }
    if has("no such image") {
        // It was here a moment ago.
        return unavailable(format!("the image `{image}` was removed before it could be started"));
    }
    if any(&["no command specified", "manifest unknown"]) {
        return fails(&format!("the image `{image}` does not say what to run"), message);
    }
    if any(&["exec format error", "executable file not found"]) {
        return match options.entrypoint.is_some() || options.command.is_some() {
            true => fails(&format!("the configured command cannot be run in the image `{image}`"), message),
            false => fails(&format!("the image `{image}` cannot be run"), message),
        };
    }
    if any(&["network"]) && any(&["not found", "could not find"]) {
        let network = options.network.as_deref().unwrap_or("default");
        return waits(&format!("the engine has no network `{network}`"), message);
    }
    if any(&["memory limit"]) {
        return waits("the engine does not take the configured memory", message);
    }
    if any(&["range of cpus", "nanocpus"]) {
        return waits("the engine does not take the configured cpus", message);
    }
    if any(&["capability", "invalid capadd"]) {
        return waits("the engine does not take the configured capabilities", message);
    }
    if has("is marked for removal") {
        return unavailable(format!("the engine cannot start a container now: {message}"));
    }
    if any(&["no space left on device", "cannot allocate memory", "resource temporarily unavailable"]) {
        return Verdict::Unclear(SheepError::Unavailable(format!(
            "the engine cannot start a container now: {message}"
        )));
    }
    Verdict::Unclear(SheepError::Misconfigured(format!("the engine refuses the container: {message}")))
}

/// The same, of any trouble.
pub(super) fn of_trouble(
    asked: &Asked<'_>,
    trouble: &Trouble,
    unavailable: impl FnOnce(&Trouble) -> SheepError,
) -> Verdict {
    match trouble {
        Trouble::Refused { message, .. } => verdict(asked, message),
        // It may be the image whose volumes are copied, or whose disk is mounted, for so long.
        Trouble::Late(_) => Verdict::Unclear(unavailable(trouble)),
        Trouble::Lost(_) | Trouble::Garbled(_) => Verdict::Known(unavailable(trouble)),
    }
}

/// What to say of an image of which no container can be made or started.
pub(super) fn of_image(image: &str, trouble: &Trouble) -> SheepError {
    SheepError::Model(format!("the engine cannot run the image `{image}`: {trouble}"))
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

fn fails(sentence: &str, message: &str) -> Verdict {
    Verdict::Known(SheepError::Model(format!("{sentence}: {message}")))
}

fn waits(sentence: &str, message: &str) -> Verdict {
    Verdict::Known(SheepError::Misconfigured(format!("{sentence}: {message}")))
}

fn unavailable(sentence: String) -> Verdict {
    Verdict::Known(SheepError::Unavailable(sentence))
}

#[cfg(test)]
mod tests;
