//! Why an image did not come, in a sentence for the job's client.
//!
//! The engine reports what its registry said as text, most of it with status 500.
//! The texts looked for are those of Docker 20.10 to 29 (with its own image store and
//! with containerd's) and of podman; what is none of them is passed on as it is.

use super::name::ImageName;
use crate::docker::engine::{RegistryLogin, Trouble};

/// No text of the engine is passed on further than this.
const QUOTE_MAX: usize = 400;

/// Why a pull failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The registry was not reached or is not well: what it does or does not. Worth
    /// trying again.
    Away(String),
    /// The registry, or the engine when all is loaded, made no progress for as long
    /// as it is waited for.
    Silent(String),
    /// The engine is away or unwell.
    Engine(Trouble),
    /// The engine's disk has no room for it. It may well run what it has.
    Full,
    /// Trying again changes nothing: the rest of a sentence that begins with the image.
    Refused(String),
}

impl Failure {
    /// What the engine's trouble with pulling `name` means.
    pub(super) fn of(trouble: Trouble, name: &ImageName, login: Option<&RegistryLogin>) -> Self {
        let message = match trouble {
            Trouble::Refused { message, .. } => message,
            Trouble::Lost(_) | Trouble::Late(_) | Trouble::Garbled(_) => return Self::Engine(trouble),
        };
        let text = without_name(&message, name).to_lowercase();
        let says = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
        let quote = || quoted(&message, login);

        // The engine's own faults: the image and its registry are not to blame.
        if says(&["no space left on device", "disk quota exceeded"]) {
            return Self::Full;
        }
        if says(&[
            "containerd.sock",
            "rpc error: code = unavailable",
            "input/output error",
            "read-only file system",
        ]) {
            return Self::Engine(Trouble::Refused { status: 500, message: quote() });
        }
        if says(&["server gave http response to https client"]) {
            return Self::Refused(
                "the registry speaks http where the engine expects https; the engine's `insecure-registries` must name it"
                    .to_owned(),
            );
        }
        if says(&[
            "x509:",
            "certificate signed by unknown authority",
            "tls: failed to verify",
            "remote error: tls:",
        ]) {
            return Self::Refused(format!(
                "the engine does not trust the registry's certificate: {}",
                quote()
            ));
        }
        if says(&[
            "no matching manifest",
            "cannot be used on this platform",
            "does not match the specified platform",
            "no image found in manifest list",
            "no image found in image index",
        ]) {
            return Self::Refused("the registry has it for other platforms only".to_owned());
        }
        if let Some(away) = away(&text) {
            return Self::Away(away);
        }
        if says(&["no basic auth credentials"]) {
            return Self::Refused("the registry wants a login and none is configured".to_owned());
        }
        if says(&[
            "repository does not exist or may require",
            "insufficient_scope",
            "repository name not known",
            "name unknown",
            "name_unknown",
        ]) && !says(&["denied: requested access", "access to the resource is denied"])
        {
            return Self::Refused(match login {
                Some(_) => "the registry has no such image, or not for the configured user".to_owned(),
                None => "the registry has no such image, or not without a login".to_owned(),
            });
        }
        if says(&[
            "unauthorized",
            "authentication required",
            "incorrect username or password",
            "invalid username/password",
        ]) {
            return Self::Refused(match login {
                Some(login) => format!("the registry refuses the login of `{}`", login.username),
                None => "the registry wants a login and none is configured".to_owned(),
            });
        }
        if says(&["denied", "forbidden"]) {
            return Self::Refused(match login {
                Some(login) => format!("the registry denies `{}` access to it", login.username),
                None => "the registry denies access to it without a login".to_owned(),
            });
        }
        if says(&["manifest unknown", "manifest_unknown", "not found"]) {
            return Self::Refused(format!(
                "the registry has no version `{}` of it, or no such image at all",
                name.tag()
            ));
        }
        Self::Refused(quote())
    }

    /// Whether the next attempt may well succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Silent(_) | Self::Engine(_) | Self::Full | Self::Refused(_) => false,
        }
    }

    /// The whole sentence. No secret is in it.
    pub(super) fn sentence(&self, name: &ImageName) -> String {
        match self {
            Self::Away(why) => format!("cannot pull the image `{name}`: the registry {why}"),
            Self::Silent(why) | Self::Refused(why) => format!("cannot pull the image `{name}`: {why}"),
            Self::Engine(trouble) => format!("cannot pull the image `{name}`: the engine failed: {trouble}"),
            Self::Full => format!("cannot pull the image `{name}`: the engine's disk has no room for it"),
        }
    }
}

/// The text without the image's name, which may hold any of the words looked for.
fn without_name(message: &str, name: &ImageName) -> String {
    let path = name.repository().split_once('/').map_or("", |(_, path)| path);
    message
        .replace(&format!("/v2/{path}/manifests/{}", name.tag()), "")
        .replace(&format!("/v2/{path}/"), "")
        .replace(&name.to_string(), "")
        .replace(name.repository(), "")
}

const BROKE_OFF: &str = "broke the connection off";

/// What ails the registry, where `text`, in lower case, says that it may pass.
fn away(text: &str) -> Option<String> {
    const SAYINGS: &[(&[&str], &str)] = &[
        (&["connection refused"], "cannot be reached: connection refused"),
        (
            &["no such host", "server misbehaving", "temporary failure in name resolution"],
            "cannot be reached: its name cannot be resolved",
        ),
        (
            &["network is unreachable", "no route to host", "host is down"],
            "cannot be reached: there is no way to it",
        ),
        (&["timeout", "deadline exceeded", "timed out", "request canceled"], "does not answer"),
        (&["toomanyrequests", "too many requests"], "is asked too often"),
        (
            &[
                "connection reset",
                "broken pipe",
                "unexpected eof",
                "use of closed network connection",
                "connection aborted",
            ],
            BROKE_OFF,
        ),
    ];
    let found = SAYINGS.iter().find(|(needles, _)| needles.iter().any(|needle| text.contains(needle)));
    if let Some((_, saying)) = found {
        return Some((*saying).to_owned());
    }
    if text.ends_with(": eof") || text == "eof" {
        return Some(BROKE_OFF.to_owned());
    }
    // "received unexpected HTTP status: 503 Service Unavailable", and containerd's
    // "unexpected status from HEAD request to URL: 503 Service Unavailable".
    let status = text.split_once("unexpected").and_then(|(_, rest)| {
        let (_, after) = rest.split_once("status").filter(|(before, _)| before.len() < 10)?;
        after.rsplit_once(": ").map(|(_, status)| status)
    })?;
    status.starts_with('5').then(|| format!("answers {status}"))
}

/// What the engine said, at most so long, and without the password should a registry
/// repeat it.
fn quoted(message: &str, login: Option<&RegistryLogin>) -> String {
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(login) = login.filter(|login| !login.password.is_empty()) {
        text = text.replace(&login.password, "***");
    }
    if text.len() > QUOTE_MAX {
        let end = (0..=QUOTE_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
