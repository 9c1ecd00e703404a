//! The two kinds of address a configuration holds: a service over HTTP and a
//! directory.

use std::fmt;
use std::path::PathBuf;

/// How a service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The scheme as it is written in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The address of a service: `http://HOST[:PORT][/PATH]`, without credentials,
/// query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    scheme: Scheme,
    authority: String,
    path: String,
}

impl HttpUrl {
    /// What such a URL looks like, for messages.
    pub(crate) const SHAPE: &str = "http://HOST[:PORT] or https://HOST[:PORT]";

    /// # Errors
    /// What is wrong, without repeating the URL: it may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = if let Some(rest) = strip_scheme(text, "http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = strip_scheme(text, "https://") {
            (Scheme::Https, rest)
        } else {
            return Err("does not begin with http:// or https://");
        };
        if rest.contains(['?', '#']) {
            return Err("has a query or a fragment");
        }
        if !rest.chars().all(|c| c.is_ascii_graphic()) {
            return Err("holds a character that no URL can hold");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err("holds credentials, which have keys of their own");
        }
        if !is_authority(authority) {
            return Err("has no valid host and port");
        }
        Ok(Self {
            scheme,
            authority: authority.to_ascii_lowercase(),
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// HTTP or HTTPS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `HOST` or `HOST:PORT`, as in the name of an image.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path below the host, without a slash at the end; mostly empty.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path)
    }
}

/// Schemes are matched in any case.
pub(crate) fn strip_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, after)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("v6", if after.is_empty() { None } else { Some(after.strip_prefix(':').unwrap_or("")) })
            }
            Some(_) | None => return false,
        },
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    is_host_name(host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A DNS name or an IPv4 address, as far as its characters tell.
pub(crate) fn is_host_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !host.starts_with(['.', '-'])
}

/// Whether `text` names a directory by URL.
pub(crate) fn is_file_url(text: &str) -> bool {
    strip_scheme(text, "file:").is_some()
}

/// The directory of `file:///DIR`, with `%XX` decoded.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn file_url(text: &str) -> Result<PathBuf, &'static str> {
    let Some(path) = strip_scheme(text, "file://") else {
        return Err("does not begin with file:///");
    };
    if !path.starts_with('/') {
        return Err("has a host or a relative path after file://");
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        // The pair is checked first: the parser would take a sign too.
        match digits.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some(pair) => bytes.push(u8::from_str_radix(pair, 16).unwrap_or_default()),
            None => return Err("has a `%` without two hexadecimal digits"),
        }
        rest = &after[2..];
    }
    match String::from_utf8(bytes) {
        Ok(path) if !path.contains('\0') => Ok(PathBuf::from(path)),
        Ok(_) | Err(_) => Err("is not a path once its `%XX` are decoded"),
    }
}
