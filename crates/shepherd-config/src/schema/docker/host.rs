//! Where the engine listens, and with which certificates it is spoken to.
//!
//! Without `docker.host` it is what the engine's other clients take from
//! `DOCKER_HOST`, and without that `/var/run/docker.sock`. Beside `DOCKER_HOST`,
//! `DOCKER_TLS_VERIFY` or `DOCKER_CERT_PATH` asks for TLS, with the `ca.pem`,
//! `cert.pem` and `key.pem` of that directory, by default `$HOME/.docker`; files that
//! the section names come before those. There is no TLS without verification.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::paths::{Located, absolute};
use crate::problem::Place;
use crate::read::{Context, Section, Value};
use crate::url::{HttpUrl, Scheme, strip_scheme};

/// Where engines listen unless told.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The path of the key.
const HOST: &str = "docker.host";
const SHAPE: &str = "unix:///PATH, tcp://HOST:PORT or https://HOST:PORT";
const FILES: [&str; 3] = ["ca_file", "cert_file", "key_file"];

const DOCKER_HOST: &str = "DOCKER_HOST";
const DOCKER_TLS_VERIFY: &str = "DOCKER_TLS_VERIFY";
const DOCKER_CERT_PATH: &str = "DOCKER_CERT_PATH";

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// A socket file.
    Unix(PathBuf),
    /// A host and port.
    Tcp {
        /// `HOST:PORT`.
        authority: String,
        /// Without it the connection is plain.
        tls: Option<DockerTls>,
    },
}

/// The PEM files of a TLS connection. That they are there is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerTls {
    /// The authority that signed the engine's certificate.
    pub ca_file: PathBuf,
    /// Our certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// What was written as the host.
enum Address {
    Unix(PathBuf),
    Tcp(String),
    Http(String),
    Https(String),
}

/// An address, and where it was found.
struct Given {
    address: Address,
    place: Place,
}

/// TLS files of the section, with the key and the place of one of them.
struct Files {
    tls: DockerTls,
    key: String,
    place: Place,
}

/// Reads the keys of `section`, where there is one.
pub(super) fn read(
    cx: &Context,
    top: &Section<'_>,
    section: Option<&Section<'_>>,
    kept: &mut Vec<Located>,
) -> Option<DockerHost> {
    let files = match section {
        None => Some(None),
        Some(section) => read_files(section, kept),
    };
    let value = section.and_then(|section| section.get("host"));
    let (given, of_environment) = match (value, top.variable(DOCKER_HOST)) {
        (Some(value), _) => (from_key(&value)?, false),
        (None, Some(text)) => (from_environment(cx, text)?, true),
        (None, None) => {
            let place = Place::Variable { name: DOCKER_HOST.into() };
            (Given { address: Address::Unix(DEFAULT_SOCKET.into()), place }, false)
        }
    };
    let mut files = files?;
    let authority = match given.address {
        Address::Unix(path) => {
            no_files(cx, files.as_ref(), "a socket file")?;
            kept.push(Located { key: HOST.to_owned(), place: given.place, path: path.clone() });
            return Some(DockerHost::Unix(path));
        }
        Address::Http(authority) => {
            no_files(cx, files.as_ref(), "an http host")?;
            authority
        }
        Address::Https(authority) | Address::Tcp(authority) if files.is_some() => authority,
        Address::Https(authority) => {
            if of_environment {
                files = files_of_environment(cx, top, kept)?;
            }
            if files.is_none() {
                let message = "asks for TLS, expected `ca_file`, `cert_file` and `key_file` beside it";
                cx.report(&given.place, HOST, message);
                return None;
            }
            authority
        }
        Address::Tcp(authority) => {
            if of_environment {
                files = files_of_environment(cx, top, kept)?;
            }
            authority
        }
    };
    if files.is_none() && !is_loopback(&authority) {
        let message = "is reached without TLS: whoever can reach that port is root on the engine's machine";
        cx.warn(&given.place, HOST, message);
    }
    Some(DockerHost::Tcp { authority, tls: files.map(|files| files.tls) })
}

fn from_key(value: &Value<'_>) -> Option<Given> {
    match parse(value.secret_text()?) {
        Ok(address) => Some(Given { address, place: value.place().clone() }),
        Err(reason) => {
            value.fail(format!("{reason}, expected {SHAPE}"));
            None
        }
    }
}

fn from_environment(cx: &Context, text: &str) -> Option<Given> {
    let place = Place::Variable { name: DOCKER_HOST.into() };
    match parse(text) {
        Ok(address) => Some(Given { address, place }),
        Err(reason) => {
            cx.report(&place, HOST, format!("{reason}, expected {SHAPE}"));
            None
        }
    }
}

/// # Errors
/// What is wrong, without repeating the text: it may hold a password.
fn parse(text: &str) -> Result<Address, &'static str> {
    if let Some(path) = strip_scheme(text, "unix://") {
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err("does not name a socket file by its absolute path");
        }
        return Ok(Address::Unix(path.into()));
    }
    // After the scheme the rules are the same.
    let tcp = strip_scheme(text, "tcp://").map(|rest| format!("http://{rest}"));
    if tcp.is_none() && !["http://", "https://"].iter().any(|scheme| strip_scheme(text, scheme).is_some()) {
        return Err("does not begin with unix://, tcp://, http:// or https://");
    }
    let url = HttpUrl::parse(tcp.as_deref().unwrap_or(text))?;
    if !url.path().is_empty() {
        return Err("has a path after the port");
    }
    let authority = url.authority().to_owned();
    if authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err("has no port");
    }
    Ok(match (tcp, url.scheme()) {
        (Some(_), _) => Address::Tcp(authority),
        (None, Scheme::Http) => Address::Http(authority),
        (None, Scheme::Https) => Address::Https(authority),
    })
}

/// All three files or none.
fn read_files(section: &Section<'_>, kept: &mut Vec<Located>) -> Option<Option<Files>> {
    let values = FILES.map(|key| section.get(key));
    let Some((key, place)) = values.iter().flatten().next().map(|v| (v.key.clone(), v.place().clone()))
    else {
        return Some(None);
    };
    let [ca_file, cert_file, key_file] = [0, 1, 2].map(|index| match &values[index] {
        None => {
            let message = "is missing, expected all of `ca_file`, `cert_file` and `key_file`, or none";
            section.missing(FILES[index], message);
            None
        }
        Some(value) => {
            let path = value.path()?;
            kept.push(Located { key: value.key.clone(), place: value.place().clone(), path: path.clone() });
            Some(path)
        }
    });
    let tls = DockerTls { ca_file: ca_file?, cert_file: cert_file?, key_file: key_file? };
    Some(Some(Files { tls, key, place }))
}

/// Nothing where files are given, which is reported.
fn no_files(cx: &Context, files: Option<&Files>, host: &str) -> Option<()> {
    let Some(Files { key, place, .. }) = files else { return Some(()) };
    let message = format!("has no meaning with {host}, expected only with tcp:// or https://");
    cx.report(place, key, message);
    None
}

/// The files that the variables beside `DOCKER_HOST` ask for.
fn files_of_environment(cx: &Context, top: &Section<'_>, kept: &mut Vec<Located>) -> Option<Option<Files>> {
    let named = top.variable(DOCKER_CERT_PATH);
    let name = if named.is_some() { DOCKER_CERT_PATH } else { DOCKER_TLS_VERIFY };
    if top.variable(name).is_none() {
        return Some(None);
    }
    let place = Place::Variable { name: name.into() };
    let directory = match (named, top.variable("HOME")) {
        (Some(named), _) => absolute(&cx.cwd, Path::new(named)),
        (None, Some(home)) => absolute(&cx.cwd, Path::new(home)).join(".docker"),
        (None, None) => {
            let message = "asks for TLS with the certificates of a home directory that is not known, \
                           expected DOCKER_CERT_PATH too";
            cx.report(&place, HOST, message);
            return None;
        }
    };
    let [ca_file, cert_file, key_file] = ["ca.pem", "cert.pem", "key.pem"].map(|name| directory.join(name));
    kept.push(Located { key: HOST.to_owned(), place: place.clone(), path: directory });
    let tls = DockerTls { ca_file, cert_file, key_file };
    Some(Some(Files { tls, key: HOST.to_owned(), place }))
}

/// Whether only this machine can be meant by `HOST:PORT`.
fn is_loopback(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// The socket files by which this machine's engine may be reached.
pub(in crate::schema) fn sockets(host: Option<&DockerHost>) -> Vec<PathBuf> {
    let mut sockets: Vec<PathBuf> =
        [DEFAULT_SOCKET, "/run/docker.sock", "/run/containerd/containerd.sock"].map(PathBuf::from).into();
    match host {
        Some(DockerHost::Unix(path)) => sockets.push(path.clone()),
        Some(DockerHost::Tcp { .. }) | None => {}
    }
    sockets
}
