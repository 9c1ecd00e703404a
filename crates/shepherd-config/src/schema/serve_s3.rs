//! `storage.serve_s3: {listen, hosts, access_key, secret_key}`: the local storage,
//! served over the S3 protocol.

use crate::paths::Located;
use crate::read::Value;
use crate::secret::Secret;
use crate::url::is_host_name;

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 7000;

/// How the local storage is served over S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeS3 {
    /// The host name or address to listen at.
    pub host: String,
    /// The port to listen at; 0 stands for any free one.
    pub port: u16,
    /// Names under which clients reach it, besides those that it has anyway.
    pub hosts: Vec<String>,
    /// The id of the key that clients sign requests with.
    pub access_key: Secret,
    /// The key that clients sign requests with.
    pub secret_key: Secret,
}

pub(super) fn read(value: &Value<'_>, kept: &mut Vec<Located>) -> Option<ServeS3> {
    let section = value.section()?;
    let listen = match section.get("listen") {
        None => Some((DEFAULT_HOST.to_owned(), DEFAULT_PORT)),
        Some(value) => {
            let listen = address(value.text()?);
            if listen.is_none() {
                value.wrong("an address to listen at, such as 127.0.0.1:7000");
            }
            listen
        }
    };
    let hosts = match section.get("hosts") {
        None => Some(Vec::new()),
        Some(value) => value.list(|name| {
            let text = name.text()?;
            if !is_host_name(text) {
                name.wrong("a host name without a port, such as s3.example.com");
                return None;
            }
            Some(text.to_owned())
        }),
    };
    let access_key = section.require_secret("access_key", "access_key_file").map(|found| found.keep(kept));
    // The header that names the key separates it by a slash from what follows.
    let can_travel = |key: &Secret| key.expose().bytes().all(|b| matches!(b, b' '..=b'~') && b != b'/');
    if access_key.as_ref().is_some_and(|key| !can_travel(key))
        && let Some(value) = section.get("access_key").or_else(|| section.get("access_key_file"))
    {
        value.fail("cannot be sent in a request, expected printable ASCII characters other than `/`");
    }
    let secret_key = section.require_secret("secret_key", "secret_key_file").map(|found| found.keep(kept));
    section.finish(&[]);
    let (host, port) = listen?;
    Some(ServeS3 { host, port, hosts: hosts?, access_key: access_key?, secret_key: secret_key? })
}

/// `HOST:PORT`, with the brackets of an IPv6 address removed.
fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => Some(host).filter(|host| is_host_name(host))?,
    };
    Some((host.to_owned(), port))
}
