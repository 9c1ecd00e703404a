//! A registry: Debian's, with its images in a directory of its own.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::daemon::wait_for;

/// Who may use a registry with a login.
pub const USER: &str = "shep";
/// The password: in standard base64 it gives `+` and `/`, and it holds a letter that is not ASCII.
pub const PASSWORD: &str = "b~a?r>ä+/";
/// By bcrypt, as the registry wants it.
const PASSWORD_HASH: &str = "$2b$05$pTu8HFm1a7fqY32VBniSP..lpbFO1HFiTFHtQjGe8AwcntocwAFEy";

/// A running registry. It ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    authority: String,
    server: Option<Child>,
    dir: TempDir,
    has_login: bool,
}

impl Registry {
    /// One that is open to all, or [`skip`](crate::skip)s the test that asks.
    ///
    /// # Panics
    /// As `skip` does, or when it does not start although it is installed.
    pub fn open() -> Option<Self> {
        Self::serving(false)
    }

    /// One for [`USER`] with [`PASSWORD`] alone.
    ///
    /// # Panics
    /// As [`open`](Self::open).
    pub fn with_login() -> Option<Self> {
        Self::serving(true)
    }

    fn serving(has_login: bool) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            crate::skip("there is no docker-registry");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory can be made");
        let authority = format!("127.0.0.1:{}", crate::free_port());
        let path = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
             http: {{addr: \"{authority}\"}}\n"
        );
        if has_login {
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n"));
            let line = format!("{USER}:{PASSWORD_HASH}\n");
            std::fs::write(dir.path().join("htpasswd"), line).expect("a file can be written");
        }
        std::fs::write(dir.path().join("config.yml"), config).expect("a file can be written");
        let mut registry = Self { authority, server: None, dir, has_login };
        registry.start();
        Some(registry)
    }

    /// Starts it, where it was stopped.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub fn start(&mut self) {
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.dir.path().join("config.yml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It would trace to a collector that is not there.
        command.env("OTEL_TRACES_EXPORTER", "none");
        self.server = Some(command.spawn().expect("a registry can be run"));
        let listens = wait_for(|| std::net::TcpStream::connect(&self.authority).is_ok());
        assert!(listens, "the registry does not listen");
    }

    /// Ends it; its images stay.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It is ended either way.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// `HOST:PORT`, the first part of its images' names.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// For a configuration.
    pub fn config(&self) -> serde_json::Value {
        let mut config = serde_json::json!({"url": format!("http://{}", self.authority)});
        if self.has_login {
            config["username"] = USER.into();
            config["password"] = PASSWORD.into();
        }
        config
    }

    /// Whether it asks who one is.
    pub(super) fn has_login(&self) -> bool {
        self.has_login
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
