//! Which images go when there are too many, and which never.

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;

use super::site::{Access, Site, on_site};
use crate::{Engine, Pull};

const SIZE: usize = 1_000_000;

/// Publishes `probe` in these versions, each of [`SIZE`].
async fn publish(site: &Site, versions: &[&str]) {
    for version in versions {
        site.publish(&site.name("probe"), version, SIZE).await;
    }
}

async fn get(site: &Site, engine: &Engine, version: &str) -> crate::docker::images::ImageInUse {
    engine.get(&site.name("probe"), version, Pull::Always).await.unwrap()
}

/// Which versions of `probe` the engine has.
async fn present(site: &Site) -> Vec<String> {
    let mut versions = Vec::new();
    for version in 1..=9 {
        let name = format!("{}/{}:{version}", site.registry, site.name("probe"));
        if site.id_of(&name).await.is_some() {
            versions.push(version.to_string());
        }
    }
    versions
}

/// An engine with room for so many images.
fn room_for(site: &Site, images: u64) -> Engine {
    let bytes = images * SIZE as u64 + SIZE as u64 / 2;
    site.engine(|options| options.image_budget = Some(bytes))
}

#[tokio::test]
async fn the_least_recently_used_goes_first_and_the_order_survives_a_restart() {
    on_site(Access::Open, async |site| {
        publish(site, &["1", "2", "3", "4"]).await;
        let engine = room_for(site, 3);
        for version in ["1", "2", "3"] {
            get(site, &engine, version).await;
        }
        get(site, &engine, "1").await;
        get(site, &engine, "4").await;
        assert_eq!(present(site).await, ["1", "3", "4"]);
        drop(engine);
        let smaller = room_for(site, 2);
        publish(site, &["5"]).await;
        get(site, &smaller, "5").await;
        assert_eq!(present(site).await, ["4", "5"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_held_or_has_a_container_stays() {
    on_site(Access::Open, async |site| {
        publish(site, &["1", "2", "3", "4"]).await;
        let engine = room_for(site, 1);
        let held = get(site, &engine, "1").await;
        let used = get(site, &engine, "2").await;
        let container = CreateContainerOptionsBuilder::new().name(&site.container_name()).build();
        let body = ContainerCreateBody {
            image: Some(used.id.clone()),
            cmd: Some(vec!["x".to_owned()]),
            ..Default::default()
        };
        site.docker().create_container(Some(container), body).await.unwrap();
        drop(used);
        get(site, &engine, "3").await;
        get(site, &engine, "4").await;
        assert_eq!(present(site).await, ["1", "2", "4"]);
        assert!(site.id_of(&held.id).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn what_others_made_named_or_pulled_stays() {
    on_site(Access::Open, async |site| {
        publish(site, &["1", "2", "3", "4", "5"]).await;
        let name = format!("{}/{}", site.registry, site.name("probe"));
        // Version 1 was pulled by somebody else, who has no record with us.
        get(site, &site.engine(|options| options.state_dir = "/nowhere".into()), "1").await;
        let engine = room_for(site, 1);
        get(site, &engine, "1").await;
        // Version 2 is ours, but somebody else named it, too: it takes no room of ours.
        let two = get(site, &engine, "2").await.id;
        site.tag(&two, &site.name("probe"), "9").await;
        get(site, &engine, "3").await;
        assert_eq!(present(site).await, ["1", "2", "3", "9"]);
        get(site, &engine, "4").await;
        assert_eq!(present(site).await, ["1", "2", "4", "9"]);
        // Once they do not, it does.
        site.remove(&format!("{name}:9")).await;
        get(site, &engine, "5").await;
        assert_eq!(present(site).await, ["1", "5"]);
    })
    .await;
}

#[tokio::test]
async fn an_image_that_lost_its_name_to_a_newer_one_goes() {
    on_site(Access::Open, async |site| {
        let relay = super::relay::Relay::start(&site.registry, super::relay::Behaviour::Pass).await;
        let engine = site.engine_at(&relay.authority, |options| options.image_budget = Some(SIZE as u64));
        let mut ids = Vec::new();
        for _ in 0..3 {
            publish(site, &["1"]).await;
            ids.push(get(site, &engine, "1").await.id);
        }
        assert!(site.id_of(&ids[0]).await.is_none() && site.id_of(&ids[1]).await.is_none());
        assert!(site.id_of(&ids[2]).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn without_a_budget_or_a_record_nothing_goes() {
    on_site(Access::Open, async |site| {
        publish(site, &["1", "2", "3"]).await;
        let engine = site.engine(|_| {});
        get(site, &engine, "1").await;
        get(site, &engine, "2").await;
        std::fs::write(site.state_dir().join("images.json"), "{").unwrap();
        get(site, &room_for(site, 1), "3").await;
        assert_eq!(present(site).await, ["1", "2", "3"]);
    })
    .await;
}
