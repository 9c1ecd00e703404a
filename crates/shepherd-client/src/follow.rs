//! A job's log while it runs, over as many connections as it takes: each begins at the log's beginning.

use bytes::Bytes;

use crate::answer::{Answer, Lost, job_path};
use crate::client::pause;
use crate::patience::Patience;
use crate::{Client, Result, stream};

/// How much is remembered to recognise the log by. Past it, only the length counts.
const REMEMBERED: usize = 1 << 20;

/// What a job prints, as it comes. Dropping it closes its connection.
#[derive(Debug)]
pub struct Log {
    client: Client,
    job: String,
    response: Option<reqwest::Response>,
    given: Given,
    patience: Patience,
    over: bool,
}

impl Log {
    pub(crate) fn new(client: Client, job: String) -> Self {
        let patience = client.patience();
        Self { client, job, response: None, given: Given::default(), patience, over: false }
    }

    /// The next piece; none once the job is finished. It may be dropped while it waits, and loses nothing.
    ///
    /// A long log keeps its end only: of one that is asked for again after its connection broke, and has lost its
    /// beginning meanwhile, all is given that there is, and so is that of another attempt.
    ///
    /// # Errors
    /// [`Error::UnknownJob`](crate::Error::UnknownJob), [`Error::Unavailable`](crate::Error::Unavailable).
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.over {
            let Some(response) = &mut self.response else {
                self.open().await?;
                continue;
            };
            let trouble = match response.chunk().await {
                Ok(Some(piece)) => {
                    self.patience.restore();
                    let new = self.given.new_of(&piece);
                    if new.is_empty() {
                        continue;
                    }
                    return Ok(Some(new));
                }
                Ok(None) => {
                    // It ends with the job, and when the shepherd ends. What is asked now may be dropped.
                    if self.client.status(&self.job).await?.is_finished() {
                        self.over = true;
                        continue;
                    }
                    "the log has ended before the job".to_owned().into()
                }
                // A quiet log is no outage.
                Err(error) if error.is_timeout() => {
                    self.response = None;
                    continue;
                }
                Err(error) => self.client.out_of_reach(&Lost::new(error)),
            };
            self.response = None;
            pause(&mut self.patience, trouble).await?;
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<()> {
        let path = job_path(&self.job, "logs")?;
        let refused = |answer: &Answer| answer.refused_of(&self.job);
        let query = [("follow", "true")];
        self.response = stream::open(&self.client, &path, &query, &mut self.patience, refused).await?;
        self.over = self.response.is_none();
        self.given.at = 0;
        Ok(())
    }
}

/// What was given of a log.
#[derive(Debug, Default)]
struct Given {
    /// Its beginning.
    known: Vec<u8>,
    length: usize,
    /// Where this connection is.
    at: usize,
}

impl Given {
    /// What is new in this connection's next piece.
    fn new_of(&mut self, piece: &[u8]) -> Bytes {
        let known = self.known.get(self.at..).unwrap_or_default();
        let known = &known[..known.len().min(piece.len())];
        let mut text = Bytes::copy_from_slice(piece);
        if !piece.starts_with(known) {
            // Up to here it was the same, and was held back.
            let held = self.at.min(self.known.len());
            text = [&self.known[..held], piece].concat().into();
            *self = Self::default();
        }
        let new = text.slice(self.length.saturating_sub(self.at).min(text.len())..);
        self.at += text.len();
        self.length = self.length.max(self.at);
        let room = REMEMBERED - self.known.len();
        self.known.extend_from_slice(&new[..new.len().min(room)]);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &mut Given, log: &[u8], size: usize) -> Vec<u8> {
        given.at = 0;
        log.chunks(size).flat_map(|piece| given.new_of(piece)).collect()
    }

    #[test]
    fn each_connection_gives_what_the_ones_before_did_not() {
        for size in 1..8 {
            let mut given = Given::default();
            assert_eq!(read(&mut given, b"one\n", size), b"one\n");
            assert_eq!(read(&mut given, b"one\ntwo\n", size), b"two\n");
            assert_eq!(read(&mut given, b"one\n", size), b"", "it is behind");
            assert_eq!(read(&mut given, b"one\ntwo\nthree\n", size), b"three\n");
        }
    }

    #[test]
    fn another_log_is_given_whole() {
        for size in 1..8 {
            let mut given = Given::default();
            read(&mut given, b"begun\nfailed\n", size);
            assert_eq!(
                read(&mut given, b"begun\n[attempt 2]\nbegun\n", size),
                b"begun\n[attempt 2]\nbegun\n"
            );
            assert_eq!(read(&mut given, b"begun\n[attempt 2]\nbegun\ndone\n", size), b"done\n");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_given_is_not() {
        let mut given = Given::default();
        let log = vec![b'x'; 3 * REMEMBERED];
        assert_eq!(read(&mut given, &log, 4096).len(), log.len());
        assert_eq!(given.known.len(), REMEMBERED);
        assert_eq!(read(&mut given, &[&log[..], b"end"].concat(), 4096), b"end");
    }
}
