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
    /// Its address; the authority is the first part of an image's name.
    pub url: HttpUrl,
    /// What to log in with, where it asks for that.
    pub credentials: Option<Credentials>,
    /// How long a registry that is away, or says nothing, is waited for.
    pub patience: Duration,
}

const PATIENCE: Duration = Duration::from_mins(1);
const PATIENCES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

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
    let url = section.require("url", HttpUrl::SHAPE).and_then(|value| {
        let url = value.http_url()?;
        if !url.path().is_empty() {
            // An image's name has the authority only; a path would silently be another repository.
            value.fail(format!("has a path after the host, expected {} alone", HttpUrl::SHAPE));
            return None;
        }
        // Else an engine takes it for a part of a name at its default registry.
        if !url.authority().contains(['.', ':']) && url.authority() != "localhost" {
            value.fail(
                "has a host that an image's name cannot show to be one, expected a port or a dot in it",
            );
            return None;
        }
        Some(url)
    });
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
