//! Servers written in Python, each in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::{python, script};

/// A script that prints its port and serves until its standard input ends, which the
/// end of this process does too.
#[derive(Debug)]
struct Serving {
    child: Child,
    port: u16,
}

impl Serving {
    fn start(python: &Path, name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(script(name)).args(arguments);
        // They print a line for each request there.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its output can be read");
        let port = line.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("{command:?} ended before it listened"));
        Self { child, port }
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `moto`: an S3 server that keeps any key, and checks no signature.
#[derive(Debug)]
pub struct Moto(Serving);

impl Moto {
    /// Starts one that is empty, at a free port.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(python: &Path) -> Self {
        Self(Serving::start(python, "moto_server.py", &[]))
    }

    /// The one that the tests of this program share; they use names of their own.
    /// Without a Python for it, the test is skipped.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        let python = python()?;
        Some(SHARED.get_or_init(|| Self::start(&python)))
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// A client of it.
    pub fn client(&self) -> super::S3Client {
        super::S3Client::new(self.url())
    }
}

/// TLS before a server that has none, with a certificate that nobody knows.
#[derive(Debug)]
pub struct TlsFront(Serving);

impl TlsFront {
    /// Starts one; the certificate of the authority that vouches for it goes to the
    /// file `authority`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(python: &Path, upstream: SocketAddr, authority: &Path) -> Self {
        let port = upstream.port().to_string();
        Self(Serving::start(python, "tls_front.py", &[&port, &authority.to_string_lossy()]))
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.0.address())
    }
}
