//! An S3 server that others wrote, in a process of its own so that its share of the
//! processor is not counted as anybody else's.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use shepherd_tests::s3::S3Server;

/// Serves from the temporary directory, prints the URL, and goes on until standard
/// input ends.
pub(crate) fn serve() -> anyhow::Result<()> {
    let server = S3Server::start();
    println!("{}", server.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// That process. It ends, and its data is removed, when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// Starts one whose data lies below `parent`.
    pub(crate) fn start(parent: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("s3-server")
            .env("TMPDIR", parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the S3 server")?;
        let mut url = String::new();
        let output = child.stdout.take().context("its output is a pipe")?;
        BufReader::new(output).read_line(&mut url)?;
        anyhow::ensure!(!url.is_empty(), "the S3 server did not start");
        Ok(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
