//! The names under which the endpoint is known.
//!
//! `PUT /inputs` with the `Host` `a-job.example.com` asks for an object of the bucket
//! `a-job` (virtual-hosted style), and with `example.com` for a bucket `inputs` (path
//! style). Only whoever knows its own names can tell; a request for a name that may
//! be either is refused, rather than to make the wrong bucket of it.

use std::net::IpAddr;

use s3s::host::{S3Host, VirtualHost};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// The names of the endpoint. An IP address and a name without a dot are always its
/// own, and before any other of its names a bucket's may stand.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    names: Vec<String>,
    /// The name of this machine, without its domain.
    machine: String,
}

impl Hosts {
    /// The names in `more`, `localhost`, and those of this machine: its host name,
    /// with and without a domain, and what containers call it.
    pub fn new(more: impl IntoIterator<Item = String>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim().to_ascii_lowercase();
        let machine = host.split('.').next().unwrap_or_default().to_owned();
        let own = ["localhost".to_owned(), "host.docker.internal".to_owned(), host];
        let more = more.into_iter().map(|name| name.to_ascii_lowercase());
        let names = more.chain(own).filter(|name| !name.is_empty()).collect();
        Self { names, machine }
    }

    /// The bucket that the name of a host begins with.
    fn bucket<'a>(&self, host: &'a str) -> Result<Option<&'a str>, ()> {
        let is_own = |host: &str| {
            self.names.iter().any(|name| name == host)
                || !host.contains('.')
                || host.split('.').next() == Some(&self.machine)
        };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if is_own(host) || literal.parse::<IpAddr>().is_ok() {
            return Ok(None);
        }
        let before = |name: &String| host.strip_suffix(name.as_str())?.strip_suffix('.');
        self.names.iter().find_map(before).map(Some).ok_or(())
    }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
        let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match self.bucket(&name) {
            Ok(None) => Ok(VirtualHost::new(host)),
            Ok(Some(bucket)) => Ok(VirtualHost::new(host).with_bucket(bucket.to_owned())),
            Err(()) => Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                format!(
                    "The host `{name}` is no name of this endpoint, so whether it begins with a bucket's name is \
                     unknown; storage.serve_s3.hosts must have the endpoint's names"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_told_from_a_host() {
        let hosts =
            Hosts { names: vec!["s3.example.com".into(), "localhost".into()], machine: "gpu1".into() };
        for own in [
            "s3.example.com",
            "S3.Example.com:7000",
            "s3.example.com.",
            "localhost",
            "localhost:7000",
            "shepherd",
            "shepherd:80",
            "gpu1.lab.example.org",
            "[::1]",
            "[::1]:7000",
        ] {
            assert_eq!(hosts.parse_host_header(own).unwrap().bucket(), None, "{own}");
        }
        for (host, bucket) in [
            ("a-job.s3.example.com", "a-job"),
            ("a.job.s3.example.com:7000", "a.job"),
            ("a-job.localhost:7000", "a-job"),
        ] {
            assert_eq!(hosts.parse_host_header(host).unwrap().bucket(), Some(bucket), "{host}");
        }
        for other in ["a-job.shepherd", "other.example.com", "s3.example.com.evil.org", "example.com"] {
            assert!(hosts.parse_host_header(other).is_err(), "{other}");
        }
    }
}
