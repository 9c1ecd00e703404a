//! How a runner is reached and how much it takes at a time.

use std::time::Duration;

use shepherd_protocol::Token;

/// Settings of [`serve`](crate::serve).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to listen: `ipc:///PATH` or `tcp://ADDRESS:PORT`.
    pub listen: String,
    /// The secret that the shepherd must prove to know, as the runner proves it to him. Without
    /// one, whoever connects first is taken for the shepherd, and gives the runner its jobs.
    pub token: Option<Token>,
    /// What the runner calls itself in the shepherd's log.
    pub name: String,
    /// How many jobs [`serve_parallel`](crate::serve_parallel) and
    /// [`serve_async`](crate::serve_async) work on at a time; at least 1. The other ways
    /// to serve work on one job or batch at a time, and this must be 1.
    pub slots: u32,
    /// The most jobs of a batch of [`serve_batches`](crate::serve_batches); at least 1.
    pub max_batch: u32,
    /// How long a batch waits to become full, from its first job on.
    pub max_wait: Duration,
    /// How many inputs the shepherd may send beyond those in work. Many hide
    /// the way between two short jobs; few leave jobs that take long to others.
    pub ahead: u32,
    /// How many messages are put together in a frame; at least 1.
    pub batch: u32,
    /// How long the jobs in work may go on after SIGTERM or SIGINT.
    pub grace: Duration,
    /// Whether the shepherd is told what each job logs ([`Job::log`](crate::Job::log)).
    /// If not, it takes what the process prints while a job is in work, as far as it can
    /// tell whose it is: where `slots` is 1 and jobs do not come in batches.
    pub logs: bool,
    /// Whether all that the process writes to its standard output and error while a job
    /// is in work counts as logged by it, and by each job of a batch. It is passed on to
    /// where they led. Implies [`logs`](Self::logs); not for several slots.
    pub capture_output: bool,
}

impl Options {
    /// Listens at `listen`, for short jobs: 32 ahead, 32 a frame.
    pub fn new(listen: impl Into<String>) -> Self {
        let program = std::env::current_exe().ok();
        let name = program
            .as_deref()
            .and_then(|path| path.file_name())
            .map_or_else(|| "runner".to_owned(), |name| name.to_string_lossy().into_owned());
        Self {
            listen: listen.into(),
            token: None,
            name,
            slots: 1,
            max_batch: 8,
            max_wait: Duration::ZERO,
            ahead: 32,
            batch: 32,
            grace: Duration::from_secs(10),
            logs: false,
            capture_output: false,
        }
    }

    /// Works on so many jobs at a time.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Works on batches of at most so many jobs, each of which waits for so long to
    /// become full.
    #[must_use]
    pub fn batches(mut self, max_batch: u32, max_wait: Duration) -> Self {
        (self.max_batch, self.max_wait) = (max_batch, max_wait);
        self
    }

    /// Whether the shepherd is told what each job logs.
    #[must_use]
    pub fn logs(mut self, logs: bool) -> Self {
        self.logs = logs;
        self
    }

    /// Whether all that the process writes while a job is in work counts as logged by it.
    #[must_use]
    pub fn capture_output(mut self, capture_output: bool) -> Self {
        self.capture_output = capture_output;
        self
    }

    /// With the [token](Self::token) of the environment's `SHEPHERD_TOKEN`, if there is one.
    /// Listens where the sheep says: at the URL in the environment's
    /// `SHEPHERD_LISTEN`; without it at `port` of the address in
    /// `SHEPHERD_LISTEN_HOST`, and without that of 127.0.0.1 only.
    pub fn from_env(port: u16) -> Self {
        let variable = |name| std::env::var(name).ok();
        let listen = listen_url(variable("SHEPHERD_LISTEN"), variable("SHEPHERD_LISTEN_HOST"), port);
        Self { token: Token::from_env(), ..Self::new(listen) }
    }
}

fn listen_url(url: Option<String>, host: Option<String>, port: u16) -> String {
    if let Some(url) = url.filter(|url| !url.is_empty()) {
        return url;
    }
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned());
    if host.contains(':') && !host.starts_with('[') {
        return format!("tcp://[{host}]:{port}");
    }
    format!("tcp://{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_not_reached_unless_asked_for() {
        let url = |url: Option<&str>, host: Option<&str>| {
            listen_url(url.map(str::to_owned), host.map(str::to_owned), 9999)
        };
        assert_eq!(url(None, None), "tcp://127.0.0.1:9999");
        assert_eq!(url(Some(""), Some("")), "tcp://127.0.0.1:9999");
        assert_eq!(url(None, Some("0.0.0.0")), "tcp://0.0.0.0:9999");
        assert_eq!(url(None, Some("::1")), "tcp://[::1]:9999");
        assert_eq!(url(Some("ipc:///run/a.sock"), Some("0.0.0.0")), "ipc:///run/a.sock");
    }
}
