//! What listens. All of it ends together: when it is told to, or when one ends by itself.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a port that is taken is waited for. A runner that was being started when an earlier
/// daemon was killed holds that daemon's sockets until it becomes another program.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is tried meanwhile: nothing tells when a port becomes free.
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Listens at a port.
pub(crate) async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind((host, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PORT_PATIENCE => {
                tokio::time::sleep(PORT_RETRY).await;
            }
            bound => return bound,
        }
    }
}

pub(crate) struct Servers {
    running: JoinSet<&'static str>,
    /// Dropped to say that it is enough.
    stop: Option<watch::Sender<()>>,
}

impl Servers {
    pub(crate) fn new() -> Self {
        Self { running: JoinSet::new(), stop: Some(watch::Sender::new(())) }
    }

    /// Runs what `serve` makes of the future that is ready once it is to end.
    pub(crate) fn start<F>(&mut self, name: &'static str, serve: impl FnOnce(Enough) -> F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let enough = Enough(self.stop.as_ref().map(watch::Sender::subscribe));
        let serving = serve(enough);
        self.running.spawn(async move {
            serving.await;
            name
        });
    }

    /// Waits until one ends by itself, and says which. Cancel-safe.
    pub(crate) async fn failed(&mut self) -> String {
        match self.running.join_next().await {
            Some(Ok(name)) => format!("{name} has ended"),
            Some(Err(error)) => format!("a server has ended: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Tells all of them to drain.
    pub(crate) fn drain(&mut self) {
        self.stop = None;
    }

    /// Waits until all of them have ended.
    pub(crate) async fn ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Says when it is enough.
pub(crate) struct Enough(Option<watch::Receiver<()>>);

impl Enough {
    pub(crate) async fn wait(self) {
        if let Some(mut stop) = self.0 {
            // Nothing is ever sent: the error is the end.
            while stop.changed().await.is_ok() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_told_to_drain_and_waited_for() {
        let mut servers = Servers::new();
        for name in ["one", "two"] {
            servers.start(name, Enough::wait);
        }
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), servers.failed()).await;
        assert!(early.is_err(), "{early:?}");
        servers.drain();
        servers.ended().await;
    }

    #[tokio::test]
    async fn one_that_ends_by_itself_is_told_of() {
        let mut servers = Servers::new();
        servers.start("the good", Enough::wait);
        servers.start("the bad", |_| async {});
        assert_eq!(servers.failed().await, "the bad has ended");
        servers.start("the ugly", |_| async { panic!("on purpose") });
        assert!(servers.failed().await.contains("on purpose"));
    }
}
