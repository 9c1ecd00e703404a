//! Engines that are away, go away, or are reached another way.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use super::relay::{Behaviour, Relay};
use super::site::{Access, Site, engine, on_site};
use crate::{EngineHost, Pull, SheepError};

/// Another way to the engine, which can be cut.
struct Way {
    host: EngineHost,
    serving: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(site: &Site) -> Self {
        let EngineHost::Unix(path) = site.host.clone() else { unreachable!("it is found by its socket") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = EngineHost::Tcp { authority: listener.local_addr().unwrap().to_string(), tls: None };
        let path = Arc::new(path);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let path = Arc::clone(&path);
                connections.spawn(async move {
                    let mut engine = UnixStream::connect(path.as_path()).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut engine).await;
                });
            }
        });
        Self { host, serving }
    }

    /// Closes the listener and every connection.
    async fn cut(self) {
        self.serving.abort();
        assert!(self.serving.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn an_engine_is_reached_over_tcp_too() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", 1000).await;
        let way = Way::to(site).await;
        let engine = engine(&way.host, &site.registry, |_| {});
        assert!(engine.answers(Duration::from_secs(60)).await);
        assert_eq!(engine.get(&name, "1", Pull::Always).await.unwrap().id, id);
        let host = way.host.clone();
        way.cut().await;
        assert!(!engine.answers(Duration::from_secs(60)).await);
        match engine.get(&name, "1", Pull::Never).await {
            Err(SheepError::Unavailable(sentence)) => {
                assert!(sentence.contains(&host.to_string()), "{sentence}");
            }
            other => panic!("{:?}", other.map(|image| image.id)),
        }
    })
    .await;
}

#[tokio::test]
async fn an_engine_lost_in_the_middle_of_a_pull_is_no_fault_of_the_image_s() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        site.publish(&name, "1", 3_000_000).await;
        let relay = Relay::start(&site.registry, Behaviour::HoldAfter(1_000_000)).await;
        let way = Way::to(site).await;
        let engine = engine(&way.host, &relay.authority, |_| {});
        let cut = async {
            relay.passed(1_000_000).await;
            way.cut().await;
        };
        let (outcome, ()) = futures::future::join(engine.get(&name, "1", Pull::Always), cut).await;
        assert!(matches!(outcome, Err(SheepError::Unavailable(_))));
    })
    .await;
}
