//! Answers of the engine that are lost, late or wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use shepherd_sheep::{DockerSheep, ExitCause, Sheep as _, SheepError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::site::{Site, lives, site};

/// What becomes of an answer. The engine has done what it was asked to.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connection breaks before it.
    Lost,
    /// The connection breaks within it.
    Torn,
    /// It is no answer.
    Garbled,
    /// It is a failure.
    Failed,
    /// It never comes.
    Held,
}

/// A way to the engine on which the first answers to some requests go wrong.
struct Way {
    host: String,
    left: Arc<AtomicU32>,
    serving: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Way {
    /// Of requests whose first line has `needle` in it, `count` go wrong.
    fn to(site: &Site, needle: &'static str, fault: Fault, count: u32) -> Self {
        let path = site.dir.path().join(format!("way-{}", uuid::Uuid::now_v7().simple()));
        let engine = site.host.strip_prefix("unix://").unwrap().to_owned();
        let listener = UnixListener::bind(&path).unwrap();
        let left = Arc::new(AtomicU32::new(count));
        let counter = Arc::clone(&left);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, engine.clone(), needle, fault, Arc::clone(&counter)));
            }
        });
        Self { host: format!("unix://{}", path.display()), left, serving }
    }

    fn has_struck(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn sheep(&self, site: &Site, script: &str) -> DockerSheep {
        DockerSheep::new(site.options(script), site.engine_at(&self.host))
    }
}

/// Serves one request: the daemon has a connection for each.
async fn serve(mut client: UnixStream, engine: String, needle: &str, fault: Fault, left: Arc<AtomicU32>) {
    let mut engine = UnixStream::connect(engine).await.unwrap();
    let mut begin = vec![0; 64 * 1024];
    let count = client.read(&mut begin).await.unwrap_or(0);
    let line = String::from_utf8_lossy(&begin[..count]).lines().next().unwrap_or_default().to_owned();
    engine.write_all(&begin[..count]).await.unwrap();
    let strikes = line.contains(needle)
        && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    if !strikes {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
        return;
    }
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let answer = async {
        // The engine has done its work when it begins to answer.
        let mut answer = vec![0; 1024];
        let count = from_engine.read(&mut answer).await.unwrap_or(0);
        let sent: &[u8] = match fault {
            Fault::Lost => b"",
            Fault::Torn => &answer[..count.min(60)],
            Fault::Garbled => {
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"Id\": 5}"
            }
            Fault::Failed => {
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 23\r\n\r\n{\"message\": \"my fault\"}"
            }
            Fault::Held => return std::future::pending().await,
        };
        let _ = to_client.write_all(sent).await;
    };
    tokio::select! {
        () = answer => {}
        _ = copy(&mut from_client, &mut to_engine) => {}
    }
}

#[tokio::test]
async fn a_launch_whose_answers_go_wrong_fails_and_leaves_nothing() {
    let Some(site) = site() else { return };
    for needle in ["/containers/create", "/start "] {
        for fault in [Fault::Lost, Fault::Torn, Fault::Garbled, Fault::Failed] {
            let way = Way::to(&site, needle, fault, 1);
            let sheep = way.sheep(&site, "sleep 1000");
            match (needle, fault, sheep.launch(&site.model()).await) {
                // A start's answer has nothing in it that could be wrong.
                ("/start ", Fault::Garbled | Fault::Torn, Ok(running)) => drop(running),
                (_, _, Ok(_)) => panic!("{needle}{fault:?} was not noticed"),
                (_, Fault::Failed, Err(error)) => assert!(error.to_string().contains("my fault"), "{error}"),
                (_, _, Err(error)) => {
                    assert!(matches!(&error, SheepError::Unavailable(_)), "{fault:?}: {error}");
                }
            }
            assert!(way.has_struck());
            sheep.sweep().await.unwrap();
            assert_eq!(site.containers(), "", "{needle}{fault:?}");
            let mut running = sheep.launch(&site.model()).await.unwrap();
            running.stop(Duration::ZERO).await;
        }
    }
}

/// Each fault while a runner lives, which then ends by itself.
#[tokio::test]
async fn a_run_whose_answers_go_wrong_goes_on() {
    let Some(site) = site() else { return };
    for needle in ["/json", "/wait?", "/logs?"] {
        for fault in [Fault::Lost, Fault::Torn, Fault::Garbled, Fault::Failed] {
            let way = Way::to(&site, needle, fault, 4);
            let mut options = site.options("echo begun; while [ ! -e $D/end ]; do sleep 0.02; done; exit 9");
            options.env = vec![("D".to_owned(), site.home().to_str().unwrap().to_owned())];
            let sheep = DockerSheep::new(options, site.engine_at(&way.host));
            let mut running = loop {
                match sheep.launch(&site.model()).await {
                    Ok(running) => break running,
                    // Images and lists are asked for in the same words.
                    Err(error) => assert!(needle == "/json", "{error}"),
                }
            };
            let pid: i32 =
                site.docker(&["inspect", "-f", "{{.State.Pid}}", &site.containers()]).parse().unwrap();
            let struck = async {
                while !way.has_struck() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::select! {
                exit = running.exited() => panic!("{needle}{fault:?}: {exit}"),
                () = struck => {}
            }
            assert!(lives(pid) && running.exited().now_or_never().is_none());
            // Until it is seen to live on, its end is taken for the engine's.
            std::fs::write(site.home().join("end"), "").unwrap();
            let exit = running.exited().await;
            let is_right = exit.cause == ExitCause::Code(9) || exit.cause == ExitCause::EngineStopped;
            assert!(is_right && exit.log_tail == "begun", "{needle}{fault:?}: {exit}");
            assert_eq!(site.containers(), "");
            std::fs::remove_file(site.home().join("end")).unwrap();
        }
    }
}

/// Each fault while a runner is ended.
#[tokio::test]
async fn a_runner_is_ended_although_answers_go_wrong() {
    let Some(site) = site() else { return };
    for needle in ["/kill?", "DELETE ", "/logs?", "_ping"] {
        for fault in [Fault::Lost, Fault::Garbled, Fault::Failed] {
            let way = Way::to(&site, needle, fault, 0);
            let sheep = way.sheep(&site, "trap '' TERM; while :; do sleep 1; done");
            let mut running = sheep.launch(&site.model()).await.unwrap();
            let pid: i32 =
                site.docker(&["inspect", "-f", "{{.State.Pid}}", &site.containers()]).parse().unwrap();
            way.left.store(2, Ordering::SeqCst);
            running.stop(Duration::ZERO).await;
            assert!(!lives(pid), "{needle}{fault:?}");
            drop(running);
            // What could not be removed then is now.
            way.left.store(0, Ordering::SeqCst);
            sheep.sweep().await.unwrap();
            assert_eq!(site.containers(), "", "{needle}{fault:?}");
        }
    }
    let way = Way::to(&site, "/logs?", Fault::Held, 1);
    let exit =
        way.sheep(&site, "echo last words >&2; exit 4").launch(&site.model()).await.unwrap().exited().await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(4), "last words"));
}
