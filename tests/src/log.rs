//! What a daemon prints.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Everything a daemon wrote to its standard output and error so far.
#[derive(Clone, Debug)]
pub struct Log {
    text: Arc<Mutex<String>>,
    grown: watch::Sender<usize>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { text: Arc::default(), grown: watch::Sender::new(0) }
    }

    /// Reads `from` to its end on a thread of its own.
    pub(crate) fn follow(&self, mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                log.append(&buffer[..read]);
            }
        })
    }

    fn append(&self, bytes: &[u8]) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&String::from_utf8_lossy(bytes));
        let length = text.len();
        drop(text);
        self.grown.send_replace(length);
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first whole line that holds `needle`, when there is one. Searched in the
    /// whole text, so it does not matter how often this is asked.
    pub async fn line_with(&self, needle: &str) -> String {
        let mut grown = self.grown.subscribe();
        loop {
            grown.borrow_and_update();
            let text = self.text();
            if let Some(line) =
                text.split_inclusive('\n').find(|line| line.contains(needle) && line.ends_with('\n'))
            {
                return line.trim_end().to_owned();
            }
            if grown.changed().await.is_err() {
                // This log holds a sender itself, so there may always be more.
                std::future::pending::<()>().await;
            }
        }
    }
}
