//! When the registry is asked, and by how many.

use std::time::Duration;

use futures::FutureExt;

use super::relay::{Behaviour, Relay};
use super::site::{Access, model, on_site};
use crate::Pull;
use crate::docker::activity::Activity;

/// A layer that is not through at once, and where it is held up.
const LARGE: usize = 3_000_000;
const HELD: Behaviour = Behaviour::HoldAfter(1_000_000);

#[tokio::test]
async fn always_follows_a_tag_that_moved_and_missing_does_not() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let first = site.publish(&name, "latest", 1000).await;
        let engine = site.engine(|_| {});
        assert_eq!(engine.get(&name, "", Pull::Missing).await.unwrap().id, first);
        site.tag(&first, &name, "kept").await;
        // Publishing takes the name from the first.
        let second = site.publish(&name, "latest", 1000).await;
        site.tag(&first, &name, "latest").await;
        assert_eq!(engine.get(&name, "", Pull::Missing).await.unwrap().id, first);
        assert_eq!(engine.get(&name, "", Pull::Never).await.unwrap().id, first);
        assert_eq!(engine.get(&name, "", Pull::Always).await.unwrap().id, second);
    })
    .await;
}

#[tokio::test]
async fn never_asks_the_registry_for_nothing() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        site.publish(&name, "1", 1000).await;
        let relay = Relay::start(&site.registry, Behaviour::Pass).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        let refused = engine.refusal(&name, "1", Pull::Never).await;
        assert!(refused.contains("is not here, and this sheep pulls none"), "{refused}");
        assert_eq!(relay.count(""), 0);
    })
    .await;
}

#[tokio::test]
async fn missing_asks_once_and_always_each_time() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        site.publish(&name, "1", 1000).await;
        let relay = Relay::start(&site.registry, Behaviour::Pass).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        engine.get(&name, "1", Pull::Missing).await.unwrap();
        let once = relay.count("/manifests/1");
        engine.get(&name, "1", Pull::Missing).await.unwrap();
        assert_eq!(relay.count("/manifests/1"), once);
        engine.get(&name, "1", Pull::Always).await.unwrap();
        assert!(relay.count("/manifests/1") > once);
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_here_does_while_the_registry_is_away() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", 1000).await;
        let relay = Relay::start(&site.registry, Behaviour::Pass).await;
        let engine =
            site.engine_at(&relay.authority, |options| options.registry_patience = Duration::from_secs(1));
        site.engine_at(&relay.authority, |_| {}).get(&name, "1", Pull::Always).await.unwrap();
        relay.set(Behaviour::Fail { times: usize::MAX, status: "502 Bad Gateway" });
        assert_eq!(engine.get(&name, "1", Pull::Always).await.unwrap().id, id);
        relay.set(Behaviour::Silent);
        assert_eq!(engine.get(&name, "1", Pull::Always).await.unwrap().id, id);
        // What the registry does answer is believed.
        relay.set(Behaviour::Pass);
        site.engine(|_| {}).refusal(&name, "2", Pull::Always).await;
    })
    .await;
}

#[tokio::test]
async fn two_that_want_an_image_pull_it_once_and_both_see_how_far_it_is() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", LARGE).await;
        let relay = Relay::start(&site.registry, HELD).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        let wanted = model(&name, "1");
        let (one, two) = (Activity::default(), Activity::default());
        let mut both = futures::future::join(
            engine.images().obtain(&wanted, Pull::Always, &one),
            engine.images().obtain(&wanted, Pull::Missing, &two),
        )
        .boxed();
        tokio::select! {
            _ = &mut both => panic!("the registry holds it up"),
            () = relay.passed(1_000_000) => {}
        }
        // The engine tells of its progress now and then.
        let seen = |activity: &Activity| activity.get().is_some_and(|phrase| phrase.contains(" of 4 MB"));
        while !(seen(&one) && seen(&two)) {
            assert!(futures::poll!(&mut both).is_pending());
            tokio::task::yield_now().await;
        }
        assert!(one.get().unwrap().starts_with(&format!("pulling {wanted}, ")), "{:?}", one.get());
        relay.set(Behaviour::Pass);
        let (first, second) = both.await;
        assert_eq!((first.unwrap().id, second.unwrap().id), (id.clone(), id));
        assert_eq!((one.get(), two.get()), (None, None));
        // Its configuration and its layer.
        assert_eq!(relay.count("/blobs/"), 2);
    })
    .await;
}

#[tokio::test]
async fn when_one_that_waits_goes_away_the_others_get_the_image() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", LARGE).await;
        let relay = Relay::start(&site.registry, HELD).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        let wanted = model(&name, "1");
        let (one, two) = (Activity::default(), Activity::default());
        let mut first = engine.images().obtain(&wanted, Pull::Always, &one).boxed();
        let mut second = engine.images().obtain(&wanted, Pull::Always, &two).boxed();
        tokio::select! {
            _ = &mut first => panic!("the registry holds it up"),
            () = relay.passed(1_000_000) => {}
        }
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(one.get(), None);
        relay.set(Behaviour::Pass);
        assert_eq!(second.await.unwrap().id, id);
        assert_eq!(relay.count("/blobs/"), 2);
    })
    .await;
}

#[tokio::test]
async fn when_nobody_waits_any_more_the_engine_gives_the_pull_up() {
    on_site(Access::Open, async |site| {
        let name = site.name("probe");
        let id = site.publish(&name, "1", LARGE).await;
        let relay = Relay::start(&site.registry, HELD).await;
        let engine = site.engine_at(&relay.authority, |_| {});
        tokio::select! {
            _ = engine.get(&name, "1", Pull::Always) => panic!("the registry holds it up"),
            () = relay.passed(1_000_000) => {}
        }
        relay.given_up().await;
        relay.set(Behaviour::Pass);
        assert_eq!(engine.get(&name, "1", Pull::Always).await.unwrap().id, id);
    })
    .await;
}

#[tokio::test]
async fn images_are_pulled_ahead_and_those_that_fail_passed_over() {
    on_site(Access::Open, async |site| {
        let (one, two) = (site.name("one"), site.name("two"));
        site.publish(&one, "1", 1000).await;
        site.publish(&two, "1", 1000).await;
        let engine = site.engine(|_| {});
        engine
            .prefetch(&[model(&one, "1"), model("Not/an-image", "1"), model(&one, "none"), model(&two, "1")])
            .await;
        engine.get(&one, "1", Pull::Never).await.unwrap();
        engine.get(&two, "1", Pull::Never).await.unwrap();
    })
    .await;
}
