//! What a registry refuses, or cannot give: each in a sentence of its own.

use std::time::Duration;

use super::relay::{Behaviour, Relay};
use super::site::{Access, PASSWORD, login, on_site};
use crate::{Pull, SheepError};

#[tokio::test]
async fn a_login_with_any_password_is_understood_and_a_wrong_one_named() {
    on_site(Access::Login, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", 1000).await;
        let with = |password: &str| site.engine(|options| options.login = login(password));

        let wrong = with("wrong?").refusal(&name, "1", Pull::Always).await;
        assert!(wrong.contains("refuses the login of `shep`") && wrong.contains(&name), "{wrong}");
        assert!(!wrong.contains("wrong?"), "{wrong}");
        let none = site.engine(|_| {}).refusal(&name, "1", Pull::Always).await;
        assert!(none.contains("wants a login and none is configured"), "{none}");
        assert_eq!(with(PASSWORD).get(&name, "1", Pull::Always).await.unwrap().id, id);
    })
    .await;
}

#[tokio::test]
async fn an_image_or_version_that_is_not_there_is_said_to_be_missing() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        site.publish(&name, "1", 1000).await;
        let engine = site.engine(|_| {});
        let unknown = engine.refusal(&site.name("other"), "1", Pull::Always).await;
        assert!(unknown.contains("or no such image") && unknown.contains("/other:1"), "{unknown}");
        let version = engine.refusal(&name, "2", Pull::Missing).await;
        assert!(version.contains("no version `2` of it"), "{version}");
        engine.get(&name, "1", Pull::Missing).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn tokens_are_bought_with_the_login() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", 1000).await;
        let tokens = Behaviour::Tokens { login: format!("shep:{PASSWORD}") };
        let relay = Relay::start(&site.registry, tokens).await;
        let wrong = site.engine_at(&relay.authority, |options| options.login = login("wrong"));
        let wrong = wrong.refusal(&name, "1", Pull::Always).await;
        assert!(wrong.contains("refuses the login of `shep`"), "{wrong}");
        let right = site.engine_at(&relay.authority, |options| options.login = login(PASSWORD));
        assert_eq!(right.get(&name, "1", Pull::Always).await.unwrap().id, id);
        assert!(relay.count(" /token") >= 2);
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_said_to_be() {
    on_site(Access::Open, async |site| {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let engine = site.engine_at(&authority, |options| options.registry_patience = Duration::from_secs(5));
        let away = engine.refusal("probe", "1", Pull::Always).await;
        assert!(
            away.contains(&format!("`{authority}/probe:1`")) && away.contains("connection refused"),
            "{away}"
        );

        let nameless = site
            .engine_at("registry.invalid:5000", |options| options.registry_patience = Duration::from_secs(1));
        let nameless = nameless.refusal("probe", "1", Pull::Always).await;
        // A resolver that is away itself answers late or not at all.
        let sayings = ["cannot be resolved", "does not answer", "made no progress"];
        assert!(sayings.iter().any(|saying| nameless.contains(saying)), "{nameless}");
    })
    .await;
}

#[tokio::test]
async fn a_silent_registry_is_waited_for_as_long_as_it_is_worth() {
    on_site(Access::Open, async |site| {
        let relay = Relay::start(&site.registry, Behaviour::Silent).await;
        let engine =
            site.engine_at(&relay.authority, |options| options.registry_patience = Duration::from_secs(1));
        let silent = engine.refusal(&site.name("probe"), "1", Pull::Always).await;
        assert!(silent.contains("made no progress for 1 s"), "{silent}");
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_stops_in_the_middle_is_given_up() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        site.publish(&name, "1", 3_000_000).await;
        let relay = Relay::start(&site.registry, Behaviour::HoldAfter(1_000_000)).await;
        let engine =
            site.engine_at(&relay.authority, |options| options.registry_patience = Duration::from_secs(5));
        let stopped = engine.refusal(&name, "1", Pull::Always).await;
        assert!(stopped.contains("made no progress for 5 s"), "{stopped}");
        relay.given_up().await;
        // Nothing of it is left in the way of the next attempt.
        relay.set(Behaviour::Pass);
        let patient = site.engine_at(&relay.authority, |_| {});
        patient.get(&name, "1", Pull::Always).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", 1000).await;
        let failing = Behaviour::Fail { times: 2, status: "503 Service Unavailable" };
        let relay = Relay::start(&site.registry, failing).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        assert_eq!(engine.get(&name, "1", Pull::Always).await.unwrap().id, id);

        let failing = Behaviour::Fail { times: usize::MAX, status: "503 Service Unavailable" };
        let relay = Relay::start(&site.registry, failing).await;
        let engine =
            site.engine_at(&relay.authority, |options| options.registry_patience = Duration::from_secs(5));
        let unwell = engine.refusal(&name, "1", Pull::Always).await;
        assert!(unwell.contains("the registry answers 503"), "{unwell}");
    })
    .await;
}

#[tokio::test]
async fn a_name_that_no_image_has_asks_nobody() {
    on_site(Access::Open, async |site| {
        let relay = Relay::start(&site.registry, Behaviour::Pass).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        let refused = engine.refusal("Probe", "1", Pull::Always).await;
        assert!(refused.contains("`Probe:1`"), "{refused}");
        assert_eq!(relay.count(""), 0);
    })
    .await;
}

#[tokio::test]
async fn a_registry_with_http_where_https_is_expected_is_told_apart() {
    on_site(Access::Open, async |site| {
        // The engine takes http of the loopback network only.
        let Some(own) = own_address() else { return println!("skipped: this machine has no network") };
        let listener = tokio::net::TcpListener::bind((own, 0)).await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            }
        });
        let engine = site.engine_at(&authority, |_| {});
        let plain = engine.refusal("probe", "1", Pull::Always).await;
        serving.abort();
        assert!(plain.contains("`insecure-registries` must name it"), "{plain}");
    })
    .await;
}

/// An address of this machine that is not of the loopback network.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it only asks by which way one would go there.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn the_next_good_image_is_not_held_up_by_a_bad_one() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        site.publish(&name, "1", 1000).await;
        let engine = site.engine(|_| {});
        for _ in 0..3 {
            assert!(matches!(engine.get(&name, "none", Pull::Always).await, Err(SheepError::Model(_))));
            engine.get(&name, "1", Pull::Always).await.unwrap();
        }
    })
    .await;
}
