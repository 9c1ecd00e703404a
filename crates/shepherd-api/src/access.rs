//! Which requests are refused because a web page may be behind them.
//!
//! A browser sends requests of any page to any address that it can reach, and this API
//! asks for no password. So a page of another origin changes nothing here, whether or
//! not it could read the answer; and a page whose own name was made to lead here (DNS
//! rebinding), for which the browser takes this API for its origin, is recognised by
//! that name, which is none of ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::cors::Cors;
use crate::error::ApiError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The host names that requests may be sent to.
///
/// IP addresses, `localhost` and names without a dot are always legal: nobody can make
/// one of those lead elsewhere for the browsers of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// All names: for a proxy in front that checks them.
    Any,
    /// These, in lower case, beside those that are always legal.
    Only(BTreeSet<String>),
}

impl Default for Hosts {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Hosts {
    /// These names; `*` among them means all.
    pub fn of<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(|name| plain(name.as_ref())).collect();
        if names.contains("*") { Self::Any } else { Self::Only(names) }
    }

    fn allow(&self, host: &str) -> bool {
        let Self::Only(names) = self else { return true };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if address.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = plain(host);
        !name.contains('.') || name.ends_with(".localhost") || names.contains(&name)
    }
}

/// A name as it is compared: in lower case, without the dot of the root.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Checks whom the request is sent to, and on whose behalf.
pub(crate) fn check(request: &Parts, hosts: &Hosts, cors: &Cors) -> Result<(), ApiError> {
    let host = host_of(request)?;
    for authority in [request.uri.authority(), host.as_ref()].into_iter().flatten() {
        if !hosts.allow(authority.host()) {
            return Err(ApiError::Forbidden(format!(
                "The shepherd does not answer to the host name `{}`; `api.hosts` of its configuration can list it",
                authority.host()
            )));
        }
    }
    let changes =
        request.method != Method::GET && request.method != Method::HEAD && request.method != Method::OPTIONS;
    if changes && !is_of_own_page(&request.headers, host.as_ref(), cors) {
        return Err(ApiError::Forbidden(
            "Web pages of other origins may change nothing here; `api.cors_origins` of the configuration can list them"
                .to_owned(),
        ));
    }
    Ok(())
}

/// The one Host header of the request; none where HTTP/1.0 gives none or it is empty.
fn host_of(request: &Parts) -> Result<Option<Authority>, ApiError> {
    let mut given = request.headers.get_all(HOST).iter();
    match (given.next(), given.next()) {
        (None, _) if request.version < Version::HTTP_11 => Ok(None),
        (None, _) => Err(ApiError::BadRequest("The Host header is missing".into())),
        (Some(_), Some(_)) => Err(ApiError::BadRequest("The Host header is given more than once".into())),
        (Some(host), None) if host.is_empty() => Ok(None),
        (Some(host), None) => Authority::try_from(host.as_bytes())
            .map(Some)
            .map_err(|_| ApiError::BadRequest("The Host header must be HOST or HOST:PORT".into())),
    }
}

/// Whether the request comes from no page, from one of ours, or from one that may call.
/// Programs that are no browsers send neither header.
fn is_of_own_page(headers: &HeaderMap, host: Option<&Authority>, cors: &Cors) -> bool {
    let origin = headers.get(ORIGIN);
    if origin.is_some_and(|origin| cors.allows(origin)) {
        return true;
    }
    match headers.get(SEC_FETCH_SITE) {
        // A page of the same site (another port of this machine, say) is a stranger, too.
        Some(site) => site == "same-origin" || site == "none",
        None => origin.is_none_or(|origin| is_origin_of(origin, host)),
    }
}

/// Whether a page of this origin was sent by the host that is asked now.
fn is_origin_of(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let (Ok(origin), Some(host)) = (Uri::try_from(origin.as_bytes()), host) else { return false };
    let Some(authority) = origin.authority() else { return false };
    let usual = if origin.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
    plain(authority.host()) == plain(host.host()) && port(authority) == port(host)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check_with(method: &str, lines: &[(&str, &str)], hosts: &Hosts, cors: &Cors) -> Result<(), u16> {
        let mut request = Request::builder().method(method).uri("/jobs/a/cancel");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, hosts, cors).map_err(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn a_host_is_an_address_a_local_name_or_one_that_was_told() {
        let hosts = Hosts::of(["Shepherd.Example.", "b.example"]);
        let ask = |host: &str| check_with("GET", &[("host", host)], &hosts, &Cors::Off);
        for host in [
            "127.0.0.1:5000",
            "10.1.2.3",
            "[::1]:5000",
            "[fe80::1]",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "a.localhost:5000",
            "shepherd",
            "shepherd.example:5000",
            "b.EXAMPLE.",
            "",
        ] {
            assert_eq!(ask(host), Ok(()), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "shepherd.example.evil", "a.shepherd.example"]
        {
            assert_eq!(ask(host), Err(403), "{host}");
        }
        assert_eq!(ask("a b"), Err(400));
        assert_eq!(check_with("GET", &[("host", "evil.example")], &Hosts::of(["*"]), &Cors::Off), Ok(()));
    }

    #[test]
    fn the_host_of_a_whole_uri_counts_too() {
        let request = Request::get("http://evil.example/jobs").header("host", "localhost").body(()).unwrap();
        let refused = check(&request.into_parts().0, &Hosts::default(), &Cors::Off);
        assert!(matches!(refused, Err(ApiError::Forbidden(_))));
    }

    #[test]
    fn there_is_one_host() {
        let ask = |lines: &[(&str, &str)]| check_with("GET", lines, &Hosts::default(), &Cors::Off);
        assert_eq!(ask(&[]), Err(400));
        assert_eq!(ask(&[("host", "a"), ("host", "a")]), Err(400));
        let old = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        assert!(check(&old.into_parts().0, &Hosts::default(), &Cors::Off).is_ok());
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let cors = Cors::parse(&["https://a.example"]).unwrap();
        for (lines, may) in [
            (&[][..], true),
            (&[("origin", "http://shepherd:5000")], true),
            (&[("origin", "https://shepherd:5000")], true),
            (&[("origin", "http://shepherd")], false),
            (&[("origin", "http://shepherd:5001")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-origin")], true),
            // A proxy in front has changed the host.
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://front.example")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://shepherd:5000")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://a.example")], true),
            (&[("origin", "https://a.example")], true),
        ] {
            let lines = [&[("host", "shepherd:5000")], lines].concat();
            let wanted = if may { Ok(()) } else { Err(403) };
            assert_eq!(check_with("POST", &lines, &Hosts::default(), &cors), wanted, "{lines:?}");
            assert_eq!(check_with("DELETE", &lines, &Hosts::default(), &cors), wanted, "{lines:?}");
            assert_eq!(check_with("GET", &lines, &Hosts::default(), &cors), Ok(()), "{lines:?}");
            assert_eq!(
                check_with("POST", &lines, &Hosts::default(), &Cors::Any).is_ok(),
                may || lines.iter().any(|l| l.0 == "origin")
            );
        }
        // The usual ports of schemes.
        for (origin, host) in [("https://s.example", "s.example"), ("http://s.example", "s.example:80")] {
            let lines = [("host", host), ("origin", origin)];
            assert_eq!(check_with("POST", &lines, &Hosts::Any, &Cors::Off), Ok(()));
        }
    }
}
