//! TCP sockets as `/proc` shows them, and whose they are.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::process::Process;

/// The state of a socket that listens.
const LISTEN: u8 = 0x0a;
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// One end of a connection over TCP, or a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    state: u8,
    pub(super) user: u32,
    /// 0 for one that belongs to no process: it is not accepted yet, or closed already.
    inode: u64,
}

impl Socket {
    /// All of this machine, or of the daemon's container.
    pub(super) fn all() -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for table in TABLES {
            match std::fs::read_to_string(table) {
                Ok(text) => all.extend(text.lines().skip(1).filter_map(Self::parse)),
                // A kernel without one of the two.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }

    /// Reads a line of proc_net_tcp(5).
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(Self {
            local: address(fields.get(1)?)?,
            remote: address(fields.get(2)?)?,
            state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
            user: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    }

    pub(super) fn is_listener(&self) -> bool {
        self.state == LISTEN
    }

    /// Whether it is one of those that are [open](open_in).
    pub(super) fn is_in(&self, open: &HashSet<u64>) -> bool {
        self.inode != 0 && open.contains(&self.inode)
    }
}

/// The inodes of the sockets that these processes have open. One that may not be looked into
/// has none.
pub(super) fn open_in(processes: &[Process]) -> HashSet<u64> {
    let directories = processes.iter().map(|process| format!("/proc/{}/fd", process.pid));
    let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter_map(|link| inode(link.to_str()?)).collect()
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Reads an address as `/proc` writes it: words of memory in hexadecimal digits, each in the
/// byte order of the machine, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)?),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn mine() -> HashSet<u64> {
        open_in(&[Process::read(std::process::id().cast_signed()).unwrap()])
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1";
        let socket = Socket::parse(line).unwrap();
        assert!(socket.is_listener());
        assert_eq!((socket.user, socket.inode), (1000, 31337));
        #[cfg(target_endian = "little")]
        assert_eq!(socket.local, "127.0.0.1:8080".parse().unwrap());
        #[cfg(target_endian = "little")]
        assert_eq!(
            address("0000000000000000FFFF00000100007F:0050"),
            Some("127.0.0.1:80".parse().unwrap()),
            "an IPv4 address of an IPv6 socket"
        );
        assert_eq!(Socket::parse("  sl  local_address rem_address   st"), None);
        assert_eq!(address("0100007F"), None);
        assert_eq!(address("01007F:1F90"), None);
    }

    #[test]
    fn sockets_are_found_with_their_processes() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let ours = stream.local_addr().unwrap();
            let ends =
                |all: &[Socket]| all.iter().copied().find(|s| s.remote == ours && s.local.port() == port);
            let before = ends(&Socket::all().unwrap()).unwrap();
            assert!(!before.is_in(&mine()), "it is not accepted yet");
            let _accepted = listener.accept().unwrap();
            let all = Socket::all().unwrap();
            assert!(ends(&all).unwrap().is_in(&mine()));
            assert!(!ends(&all).unwrap().is_in(&open_in(&[])));
            let listening = all.iter().find(|s| s.is_listener() && s.local.port() == port).unwrap();
            assert!(listening.is_in(&mine()));
            assert_eq!(listening.user, rustix::process::geteuid().as_raw());
        }
    }
}
