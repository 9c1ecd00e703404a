//! Waiting for what shows no event of its own: files that others write, and
//! processes that are nobody's children.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives it up. Long, because a test on a
/// busy machine should be slow and not red.
pub const PATIENCE: Duration = Duration::from_secs(90);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
///
/// # Panics
/// When [`PATIENCE`] is over first.
pub async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    eventually_async(what, || std::future::ready(ask())).await
}

/// Asks until there is an answer, one question after the other.
///
/// # Panics
/// When [`PATIENCE`] is over first.
pub async fn eventually_async<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
