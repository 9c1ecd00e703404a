//! Whether the engine is there that ran a container which ended.
//!
//! An engine that ends closes its listener first, and what its end ended is nobody's fault.
//! But where a service manager holds the listener, it takes connections on which the engine's
//! successor will answer; and so does an engine that is merely slow, perhaps because of what
//! its containers did to the machine. They are told apart by what they remember: engines keep
//! their latest events in memory only, so one that remembers the container's death was there.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;

use super::container::Container;
use super::engine::Trouble;

/// An engine that does not answer on a new connection so soon has ended, or is slow.
pub(super) const PROMPT: Duration = Duration::from_millis(1500);
/// One that does not answer for so long is not there.
pub(super) const SLOW: Duration = Duration::from_secs(60);
/// For hearing of what happened already, of an engine that is slow.
const RUMOUR: Duration = Duration::from_secs(5);

/// Whether the engine that ran the container is there. Asked as soon as the container has
/// ended.
pub(super) async fn is_there(container: &Container, prompt: Duration, slow: Duration) -> bool {
    if container.engine().answers(prompt).await {
        return true;
    }
    match tokio::time::timeout(slow, answered(container)).await {
        Ok(Ok(())) => remembers_death(container).await,
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Resolves once the engine answers or is lost, however slow it is.
async fn answered(container: &Container) -> Result<(), Trouble> {
    loop {
        match container.engine().answer().await {
            // Each question has a time limit of its own.
            Err(Trouble::Late(_)) => {}
            outcome => return outcome,
        }
    }
}

async fn remembers_death(container: &Container) -> bool {
    let Ok(docker) = container.engine().reached().await else { return false };
    let filters = HashMap::from([("container", vec![container.key()]), ("event", vec!["die"])]);
    // From the beginning, and on: it may hear of the death only now.
    let options = EventsOptionsBuilder::default().since("1").filters(&filters).build();
    let mut events = Box::pin(docker.events(Some(options)));
    matches!(tokio::time::timeout(RUMOUR, events.next()).await, Ok(Some(Ok(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineHost;
    use crate::docker::fixtures::{self, Answer};

    /// Asks an engine that lets the first ping wait for ever, answers the next, and then tells of these events.
    async fn ask(events: &'static str) -> bool {
        let mut asked = false;
        let answer = |request: &str| match request {
            "ping" if !std::mem::replace(&mut asked, true) => Answer::Silence,
            "ping" => Answer::Json(200, ""),
            request if request.starts_with("GET /events") => Answer::Json(200, events),
            other => panic!("{other}"),
        };
        fixtures::with_fake(answer, async |engine| {
            is_there(&Container::known(&engine, "c".to_owned()), PROMPT, SLOW).await
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_slow_is_there() {
        assert!(ask("{\"Type\":\"container\",\"id\":\"c\"}\n").await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_took_another_s_place_is_not_it() {
        assert!(!ask("").await);
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let engine = fixtures::engine(&EngineHost::Unix(dir.path().join("no.sock")), "localhost", |_| {});
        assert!(!is_there(&Container::known(&engine, "c".to_owned()), PROMPT, SLOW).await);
    }
}
