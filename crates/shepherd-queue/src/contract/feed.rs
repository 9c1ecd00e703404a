//! The feed of transitions.

use super::*;
use crate::{Feed, FeedItem, Transition};

/// All that the feed has by now, as `job before after`.
fn heard(feed: &mut Feed) -> Vec<String> {
    let mut out = Vec::new();
    // Many at a time: the runtime would have the task give way in between.
    while let Some(item) = now_or_never(tokio::task::unconstrained(feed.next())) {
        match item.expect("the store is open") {
            FeedItem::Transitions(transitions) => {
                out.extend(transitions.iter().map(|Transition { before, job }| {
                    let before = before.map_or("New".to_owned(), |phase| format!("{phase:?}"));
                    format!("{} {before} {:?}", job.spec.id, job.state.phase())
                }));
            }
            FeedItem::Gap => out.push("gap".to_owned()),
        }
    }
    out
}

fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).as_mut().poll(&mut context) {
        std::task::Poll::Ready(out) => Some(out),
        std::task::Poll::Pending => None,
    }
}

pub(crate) async fn the_feed_tells_every_change_in_order(queue: &Node<impl Store>) {
    submit(queue, job("before")).await;
    let mut feed = queue.feed();
    assert_eq!(heard(&mut feed), [""; 0]);
    queue.submit(vec![job("one"), job("two"), job("one")]).await.unwrap();
    assert_eq!(heard(&mut feed), ["one New Queued", "two New Queued"]);
    let claimed = claim(queue, 3).await;
    let all = ["before", "one", "two"].map(|name| format!("{name} Queued Processing"));
    assert_eq!(heard(&mut feed), all);
    let begin = Event::Begin { attempt: claimed[1].attempt, at: at(15) };
    let changes = vec![
        change(&id("one"), begin),
        change(&id("one"), complete(claimed[1].attempt)),
        change(&id("one"), fail(claimed[1].attempt)),
        change(&id("two"), give_back(claimed[2].attempt, None)),
        change(&id("two"), Event::Cancel { at: at(20) }),
    ];
    queue.apply(changes).await.unwrap();
    let all =
        ["one Processing Processing", "one Processing Done", "two Processing Queued", "two Queued Cancelled"];
    assert_eq!(heard(&mut feed), all);
    submit(queue, rerun(job("two"))).await;
    join(&**queue, "ann", 30).await;
    deliver(queue).await;
    assert_eq!(heard(&mut feed), ["two Cancelled Queued", "before Processing Queued"]);
    assert_eq!(heard(&mut queue.feed()), [""; 0], "a feed begins when it is asked for");
}

pub(crate) async fn a_slow_subscriber_is_told_of_a_gap(queue: &Node<impl Store>) {
    let (mut slow, mut gone) = (queue.feed(), queue.feed());
    assert_eq!(heard(&mut gone), [""; 0]);
    drop(gone);
    let jobs: Vec<NewJob> = (0..17_000).map(|n| job(&format!("job-{n}"))).collect();
    queue.submit(jobs).await.unwrap();
    let told = heard(&mut slow);
    assert_eq!(told[0], "gap");
    assert!(told.len() < 17_000);
    assert_eq!(told.iter().filter(|line| *line == "gap").count(), 1);
    assert_eq!(told.last().unwrap(), "job-16999 New Queued");
    submit(queue, job("last")).await;
    assert_eq!(heard(&mut slow), ["last New Queued"]);
}
