//! `registry: {url, username?, password? | password_file?}`.

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
}

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
    let url = section.require("url", HttpUrl::SHAPE).and_then(|value| value.http_url());
    let username = section.get("username");
    let password = section.secret("password", "password_file");
    let password_given = section.get("password").is_some() || section.get("password_file").is_some();
    if username.is_some() && !password_given {
        section.missing("password", "is missing beside `username`, expected `password` or `password_file`");
    }
    if username.is_none() && password_given {
        section.missing("username", "is missing beside the password, expected the name of a user");
    }
    let username = username.and_then(|value| value.text().map(str::to_owned));
    let password = password.map(|found| found.keep(kept));
    section.finish(&[]);
    let credentials = username.zip(password).map(|(username, password)| Credentials { username, password });
    Some(RegistryConfig { url: url?, credentials })
}
