//! The name of a model's image: `REGISTRY/NAME:VERSION`.
//!
//! A model's name may hold more than a repository's: the engine would refuse it with
//! a sentence about its own grammar, or take a registry without a dot or a port for a
//! user of Docker Hub. So both are checked here, by the grammar that
//! `distribution/reference` documents.

use std::fmt;

use shepherd_job::ModelRef;

use crate::SheepError;

/// A repository's longest name, its registry included.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// An image by registry, path and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageName {
    /// `REGISTRY/NAME`.
    repository: String,
    tag: String,
    /// The model, for people: `NAME:VERSION`.
    model: String,
}

impl ImageName {
    /// The image of `model`; an empty version is `latest`.
    ///
    /// # Errors
    /// [`SheepError::Model`] when no image can have such a name.
    pub(super) fn of(registry: &str, model: &ModelRef) -> Result<Self, SheepError> {
        let refused = |rule: &str| {
            Err(SheepError::Model(format!("no image can have the name of the model `{model}`: {rule}")))
        };
        if !model.name().split('/').all(is_component) {
            return refused(
                "each part of an image's name is of lower-case letters and digits, with a single `.`, one or two `_`, or hyphens between them",
            );
        }
        let tag = if model.version().is_empty() { "latest" } else { model.version() };
        let is_tag = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if tag.starts_with(['-', '.']) || !tag.bytes().all(is_tag) {
            return refused(
                "a tag is of ASCII letters, digits, `_`, `-` and `.`, and does not begin with a hyphen or a dot",
            );
        }
        if tag.len() > TAG_MAX {
            return refused("a tag has at most 128 characters");
        }
        let repository = format!("{registry}/{}", model.name());
        if repository.len() > NAME_MAX {
            return refused("with its registry it has more than 255 characters");
        }
        Ok(Self { repository, tag: tag.to_owned(), model: format!("{}:{tag}", model.name()) })
    }

    /// `REGISTRY/NAME`.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// What the model calls its version.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// `NAME:VERSION`, as the model's users know it.
    pub(super) fn model(&self) -> &str {
        &self.model
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// What the engine itself calls the image of this name: Docker Hub's lose the registry.
pub(super) fn familiar(name: &str) -> &str {
    let Some(short) = name.strip_prefix("docker.io/").or_else(|| name.strip_prefix("index.docker.io/"))
    else {
        return name;
    };
    short.strip_prefix("library/").unwrap_or(short)
}

/// The part of `HOST[:PORT][/PATH]` that is the registry's own.
pub(super) fn authority(registry: &str) -> &str {
    registry.split_once('/').map_or(registry, |(authority, _)| authority)
}

/// Checks that the engine takes the beginning of `registry` for one, and the rest for the
/// beginning of a repository.
///
/// # Errors
/// [`SheepError::Misconfigured`] with the rule that is broken.
pub(super) fn check_registry(registry: &str) -> Result<(), SheepError> {
    let refused = |rule: &str| {
        Err(SheepError::Misconfigured(format!("the registry `{registry}` cannot be used: {rule}")))
    };
    let authority = authority(registry);
    if !registry.split('/').skip(1).all(is_component) {
        return refused("its path is no part of an image's name");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return refused("what follows the colon is no port");
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|address| {
        !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
    });
    if !is_v6 && !host.split('.').all(is_label) {
        return refused("it is to be HOST or HOST:PORT, and perhaps a path");
    }
    if port.is_none() && !is_v6 && !host.contains('.') && host != "localhost" {
        return refused(
            "the engine takes a name without a dot or a port for one of Docker Hub; write its port too",
        );
    }
    Ok(())
}

/// `[a-z0-9]+((.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(|b| is_word(*b));
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.split(|b| is_word(*b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

#[cfg(test)]
mod tests;
