//! A thread with a runtime for one server.

use std::future::Future;

use tokio::sync::oneshot;

/// Ends what it runs when it is dropped, and waits for the end.
#[derive(Debug)]
pub(super) struct Thread {
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Thread {
    /// Runs what `make` makes until it ends or this is dropped.
    pub(super) fn run<F: Future<Output = ()>>(make: impl FnOnce() -> F + Send + 'static) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            runtime.block_on(async {
                tokio::select! {
                    () = make() => {}
                    // An error says that the owner is gone, which is the same.
                    _ = ended => {}
                }
            });
            // Blocking work, such as a file that is being read, ends by itself.
            runtime.shutdown_background();
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked with was printed there.
            let _ = thread.join();
        }
    }
}
