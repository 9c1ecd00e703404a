//! Which URLs are usable, said before nng would say nothing.

use std::path::{Path, PathBuf};

use crate::Error;

/// What a Unix socket's address holds, without its final NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Where a runner listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Ipc(PathBuf),
    Tcp { host: String, port: u16 },
}

/// Takes a runner's URL apart.
pub(super) fn parse(url: &str) -> Result<Address, Error> {
    address(url).map_err(|reason| Error::Url { url: url.to_owned(), reason })
}

fn address(url: &str) -> Result<Address, String> {
    if url.contains('\0') {
        return Err("it holds a NUL".to_owned());
    }
    if let Some(path) = url.strip_prefix("ipc://") {
        if !path.starts_with('/') {
            return Err("the path of a socket must be absolute".to_owned());
        }
        if path.len() > MAX_SOCKET_PATH {
            let length = path.len();
            return Err(format!("the path of a socket holds at most {MAX_SOCKET_PATH} bytes, not {length}"));
        }
        return Ok(Address::Ipc(Path::new(path).to_path_buf()));
    }
    let authority = url.strip_prefix("tcp://").ok_or("it must begin with ipc:// or tcp://")?;
    let (host, port) =
        authority.rsplit_once(':').ok_or("it must end with a port, such as tcp://127.0.0.1:9999")?;
    let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_and_ports_are_usable() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        assert_eq!(parse("ipc:///run/a b.sock").unwrap(), Address::Ipc("/run/a b.sock".into()));
        assert_eq!(parse("tcp://127.0.0.1:9999").unwrap(), tcp("127.0.0.1", 9999));
        assert_eq!(parse("tcp://[::1]:0").unwrap(), tcp("::1", 0));
        let longest = format!("ipc:///{}", "x".repeat(MAX_SOCKET_PATH - 1));
        assert!(parse(&longest).is_ok());
        let too_long = format!("{longest}x");
        for bad in [
            "",
            "ipc://a",
            "ipc:///a\0",
            "tcp://host",
            "tcp://:1",
            "tcp://host:port",
            "tcp://h:99999",
            "inproc://x",
            &too_long,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
