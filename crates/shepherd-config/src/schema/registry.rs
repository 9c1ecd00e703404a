//! `registry: {url, username?, password? | password_file?, patience?}`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::paths::Located;
use crate::read::Value;
use crate::secret::Secret;
use crate::url::HttpUrl;

/// Where images are pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Its address. Host, port and path are what an image's name begins with.
    pub url: HttpUrl,
    /// What to log in with, where it asks for that.
    pub credentials: Option<Credentials>,
    /// How long a registry that is away, or says nothing, is waited for.
    pub patience: Duration,
}

const PATIENCE: Duration = Duration::from_mins(1);
const PATIENCES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

const EXPECTED_URL: &str =
    "HOST[:PORT][/PATH], after http:// or https:// or without, or empty quotes for Docker Hub";
const DOCKER_HUB: &str = "https://docker.io";

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

pub(super) fn read(value: &Value<'_>, kept: &mut Vec<Located>) -> Option<RegistryConfig> {
    let section = value.section()?;
    let url = section.require("url", EXPECTED_URL).and_then(|value| read_url(&value));
    let username = section.get("username");
    let password = section.secret("password", "password_file");
    let password_given = section.gives("password", "password_file");
    if username.is_some() && !password_given {
        section.missing("password", "is missing beside `username`, expected `password` or `password_file`");
    }
    if username.is_none() && password_given {
        section.missing("username", "is missing beside the password, expected the name of a user");
    }
    let username = username.and_then(|value| value.text().map(str::to_owned));
    let password = password.map(|found| found.keep(kept));
    let patience = section.value_or("patience", PATIENCE, |value| value.duration(PATIENCES));
    section.finish(&[]);
    let credentials = username.zip(password).map(|(username, password)| Credentials { username, password });
    Some(RegistryConfig { url: url?, credentials, patience: patience? })
}

fn read_url(value: &Value<'_>) -> Option<HttpUrl> {
    let text = value.any_text()?;
    let parsed = match text {
        "" => HttpUrl::parse(DOCKER_HUB),
        _ if text.contains("://") => HttpUrl::parse(text),
        // The engine decides how it speaks to a registry.
        _ => HttpUrl::parse(&format!("https://{text}")),
    };
    let url = match parsed {
        Ok(url) => url,
        Err(reason) => {
            value.fail(format!("{reason}, expected {EXPECTED_URL}"));
            return None;
        }
    };
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
    };
    if !url.path().split('/').skip(1).all(is_part) {
        value.fail(
            "has a path that no image's name can have, expected lower-case letters, digits, `.`, `_`, `-` \
             and `/`",
        );
        return None;
    }
    // Else an engine takes it for a part of a name at its default registry.
    if !url.authority().contains(['.', ':']) && url.authority() != "localhost" {
        value.fail("has a host that an image's name cannot show to be one, expected a port or a dot in it");
        return None;
    }
    Some(url)
}

impl RegistryConfig {
    /// What the name of an image in it begins with: `HOST[:PORT][/PATH]`.
    pub fn prefix(&self) -> String {
        format!("{}{}", self.url.authority(), self.url.path())
    }
}
