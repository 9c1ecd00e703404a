use shepherd_job::ModelRef;
use tokio::sync::oneshot;

use super::*;

fn name(version: &str) -> ImageName {
    ImageName::of("reg.example", &ModelRef::parse("mnist", version).unwrap()).unwrap()
}

/// A pull that ends when told, and keeps `tell` until then.
fn until(
    told: oneshot::Receiver<()>,
    id: &str,
) -> impl FnOnce(watch::Sender<String>) -> BoxFuture<'static, Outcome> {
    let id = id.to_owned();
    move |tell| {
        async move {
            tell.send_replace("halfway".to_owned());
            told.await.unwrap();
            Ok(id)
        }
        .boxed()
    }
}

fn nobody(_: watch::Sender<String>) -> BoxFuture<'static, Outcome> {
    panic!("there is one to join")
}

#[tokio::test]
async fn whoever_comes_while_a_pull_is_under_way_joins_it() {
    let pulls = Pulls::default();
    let (tell, told) = oneshot::channel();
    let (mut first, _) = pulls.join(&name("1"), until(told, "one"));
    let (mut second, phrase) = pulls.join(&name("1"), nobody);
    assert_eq!(*phrase.borrow(), "pulling mnist:1");
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(*phrase.borrow(), "halfway");
    // The one that drove it goes away.
    drop(first);
    tell.send(()).unwrap();
    assert_eq!(second.await, Ok("one".to_owned()));
}

#[tokio::test]
async fn other_images_are_pulled_meanwhile() {
    let pulls = Pulls::default();
    let (_tell, told) = oneshot::channel();
    let (_first, _) = pulls.join(&name("1"), until(told, "one"));
    let (other, _) = pulls.join(&name("2"), |_| futures::future::ready(Ok("two".to_owned())));
    assert_eq!(other.await, Ok("two".to_owned()));
}

#[tokio::test]
async fn a_pull_that_is_over_or_that_nobody_waits_for_is_not_joined() {
    let pulls = Pulls::default();
    let answer = |id: &str| {
        let id = id.to_owned();
        |_: watch::Sender<String>| futures::future::ready(Ok(id))
    };
    let (over, _) = pulls.join(&name("1"), answer("one"));
    assert_eq!(over.clone().await, Ok("one".to_owned()));
    let (_tell, told) = oneshot::channel();
    let (abandoned, _) = pulls.join(&name("1"), until(told, "two"));
    drop((over, abandoned));
    let (fresh, _) = pulls.join(&name("1"), answer("three"));
    assert_eq!(fresh.await, Ok("three".to_owned()));
}
