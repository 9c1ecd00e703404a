//! Images that are pulled ahead, beside everything else.

use std::future::Future;

use shepherd_job::ModelRef;
use shepherd_sheep::Engine;
use tokio::task::JoinSet;

/// What is to be pulled ahead.
pub(crate) struct Prefetch {
    engine: Engine,
    models: Vec<ModelRef>,
}

impl Prefetch {
    pub(super) fn new(engine: Engine, models: Vec<ModelRef>) -> Self {
        Self { engine, models }
    }

    /// Pulls, and resolves with `enough`, be the pulls done by then or not.
    pub(crate) async fn until(self, enough: impl Future<Output = ()>) {
        beside(async move { self.engine.prefetch(&self.models).await }, enough).await;
    }
}

/// Does `work` until `enough`, and waits for that. A panic of the work ends nothing but the work.
async fn beside(work: impl Future<Output = ()> + Send + 'static, enough: impl Future<Output = ()>) {
    // Dropped, it aborts the work.
    let mut working = JoinSet::new();
    working.spawn(work);
    tokio::pin!(enough);
    tokio::select! {
        () = &mut enough => return,
        ended = working.join_next() => {
            if let Some(Err(error)) = ended {
                tracing::error!("pulling images ahead has broken off: {error}");
            }
        }
    }
    enough.await;
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_ends_when_it_is_enough_and_not_before() {
        for work in ["ends", "panics"] {
            let (enough, wanted) = oneshot::channel::<()>();
            let (done, is_done) = oneshot::channel::<()>();
            let work = async move {
                drop(done);
                assert_eq!(work, "ends", "on purpose");
            };
            let mut task = tokio::spawn(beside(work, async { drop(wanted.await) }));
            assert!(is_done.await.is_err());
            let early = tokio::time::timeout(std::time::Duration::from_millis(20), &mut task).await;
            assert!(early.is_err(), "{early:?}");
            drop(enough);
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn work_that_is_not_done_is_dropped() {
        let (held, is_dropped) = oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            pending::<()>().await;
        };
        beside(work, async {}).await;
        assert!(is_dropped.await.is_err());
    }
}
