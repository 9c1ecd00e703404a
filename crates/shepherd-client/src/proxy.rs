//! What the environment says of proxies. A shepherd on this machine is asked without one: a proxy cannot reach it.

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

/// Whether the URL names a loopback address.
pub(crate) fn leads_to_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

/// The proxy that the environment names for this URL, without user and password.
pub(crate) fn of(url: &Url) -> Option<String> {
    // As reqwest looks for it.
    let intercept = Matcher::from_env().intercept(&url.as_str().parse().ok()?)?;
    let proxy = intercept.uri();
    // It keeps them apart from the address.
    Some(format!(
        "{}://{}",
        proxy.scheme_str().unwrap_or("http"),
        proxy.authority()?.as_str().rsplit('@').next()?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_several_names() {
        for (url, local) in [
            ("http://127.0.0.1:5000", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:5000", true),
            ("http://LocalHost.:5000", true),
            ("http://a.localhost", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(leads_to_this_machine(&Url::parse(url).unwrap()), local, "{url}");
        }
    }
}
