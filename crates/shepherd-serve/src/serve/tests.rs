use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;

/// Fails as told, then accepts from a real listener.
struct Flaky {
    failures: Mutex<VecDeque<io::ErrorKind>>,
    listener: TcpListener,
}

impl Accept for Flaky {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(kind) => Err(kind.into()),
            None => self.listener.accept().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn accepting_goes_on_after_errors() {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Other, OutOfMemory};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let failures = Mutex::new([ConnectionAborted, Other, OutOfMemory, ConnectionReset, Other].into());
    let flaky = Flaky { failures, listener };
    let (_client, (server, _)) = tokio::join!(TcpStream::connect(address), accept(&flaky));
    assert_eq!(server.local_addr().unwrap(), address);
    assert!(flaky.failures.lock().unwrap().is_empty());
}

#[tokio::test]
async fn draining_wakes_whoever_waits_for_it_before_and_after() {
    let drain = Drain::new();
    let waiting = tokio::spawn({
        let drain = drain.clone();
        async move { drain.begun().await }
    });
    let mut watch = drain.watch();
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        poll_fn(|cx| {
            let phase = watch.poll(cx);
            if seen.last() != Some(&phase) {
                seen.push(phase);
            }
            if phase == Phase::Forced { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        seen
    });
    tokio::task::yield_now().await;
    drain.begin();
    waiting.await.unwrap();
    drain.begun().await;
    tokio::task::yield_now().await;
    drain.force();
    drain.begin();
    drain.begun().await;
    assert_eq!(watching.await.unwrap(), [Phase::Running, Phase::Draining, Phase::Forced]);
}
