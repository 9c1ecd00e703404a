//! The runner's side: blocking, for programs without an async runtime.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{Item, Link, later};
use crate::codec::{self, Wire};
use crate::handshake::Challenge;
use crate::{Error, Event, FromRunner, MAX_BATCH, RecvError, SendError, ToRunner, Token};

/// How long a peer may take to prove that it is the shepherd: nobody else can connect
/// meanwhile. A shepherd that was too slow connects anew.
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket at which a runner is reached by one shepherd at a time.
pub struct RunnerSocket {
    url: String,
    sender: RunnerSender,
    receiver: RunnerReceiver,
}

/// The half that sends. Clones send to the same shepherd.
#[derive(Clone)]
pub struct RunnerSender {
    link: Arc<Link>,
}

/// The half that receives.
pub struct RunnerReceiver {
    link: Arc<Link>,
    token: Option<Token>,
    peer: Peer,
    connection: u64,
    items: VecDeque<Item>,
    events: VecDeque<Event<ToRunner>>,
}

/// Who is connected, as far as the receiver has read.
enum Peer {
    /// Nobody, or somebody who was told to go.
    None,
    /// Somebody who has until then to prove that it is the shepherd.
    Challenged(Challenge, Instant),
    /// The shepherd.
    Shepherd,
}

impl RunnerSocket {
    /// Listens at `url`, `ipc:///PATH` or `tcp://ADDRESS:PORT`; with port 0 the
    /// system picks one. A socket file that nobody listens at is replaced.
    ///
    /// # Errors
    /// The URL is not usable or in use, or the system refuses.
    pub fn bind(url: &str) -> Result<Self, Error> {
        Self::bind_with(url, None)
    }

    /// As [`bind`](Self::bind). With a token, only a peer that knows it counts as connected;
    /// any other is turned away, unheard.
    ///
    /// # Errors
    /// As those of `bind`.
    pub fn bind_with(url: &str, token: Option<Token>) -> Result<Self, Error> {
        let (link, url) = Link::listen(url, token.is_some())?;
        let link = Arc::new(link);
        Ok(Self {
            url,
            sender: RunnerSender { link: Arc::clone(&link) },
            receiver: RunnerReceiver {
                link,
                token,
                peer: Peer::None,
                connection: 0,
                items: VecDeque::new(),
                events: VecDeque::new(),
            },
        })
    }

    /// Where the shepherd must dial.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL and the two halves, for two threads.
    pub fn split(self) -> (String, RunnerSender, RunnerReceiver) {
        (self.url, self.sender, self.receiver)
    }
}

impl RunnerSender {
    /// Sends messages to the shepherd that is connected now, in order, without
    /// waiting.
    ///
    /// # Errors
    /// None of the messages was taken.
    pub fn send(&self, messages: &[FromRunner]) -> Result<(), SendError> {
        self.link.send(None, encode(messages))
    }

    /// As [`send`](Self::send), but waits while the shepherd does not read what
    /// was sent before.
    ///
    /// # Errors
    /// The shepherd is not connected, or went away meanwhile.
    pub fn send_wait(&self, messages: &[FromRunner]) -> Result<(), SendError> {
        self.link.send_wait(None, encode(messages))
    }

    /// As [`send`](Self::send), to the shepherd of this
    /// [connection](RunnerReceiver::connection) and to no later one.
    ///
    /// # Errors
    /// None of the messages was taken.
    pub fn send_to(&self, connection: u64, messages: &[FromRunner]) -> Result<(), SendError> {
        self.link.send(Some(connection), encode(messages))
    }

    /// As [`send_wait`](Self::send_wait), to the shepherd of this
    /// [connection](RunnerReceiver::connection) and to no later one.
    ///
    /// # Errors
    /// The connection ended, before or meanwhile.
    pub fn send_wait_to(&self, connection: u64, messages: &[FromRunner]) -> Result<(), SendError> {
        self.link.send_wait(Some(connection), encode(messages))
    }

    /// Waits until what was sent will arrive even if this process ends. Returns
    /// whether it will.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.link.flush(timeout)
    }

    /// Ends the connection and the listening; the receiver then gets
    /// [`RecvError::Closed`].
    pub fn close(&self) {
        self.link.close();
    }
}

fn encode(messages: &[FromRunner]) -> Vec<Vec<u8>> {
    let encode = |message: &FromRunner| {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        bytes
    };
    messages.iter().map(encode).collect()
}

impl RunnerReceiver {
    /// The connection that the latest event was of: each has a number above those of
    /// the ones before it.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// The next event within `timeout`.
    ///
    /// # Errors
    /// There was none, or the socket was closed on this side.
    pub fn recv(&mut self, timeout: Duration) -> Result<Event<ToRunner>, RecvError> {
        let until = later(timeout);
        loop {
            if let Some(event) = self.next_decoded() {
                return Ok(event);
            }
            let by = match &self.peer {
                Peer::Challenged(_, by) => until.min(*by),
                Peer::None | Peer::Shepherd => until,
            };
            match self.link.wait_drain(&mut self.items, by.saturating_duration_since(Instant::now())) {
                Err(RecvError::Timeout) if by < until => self.turn_away(),
                outcome => outcome?,
            }
        }
    }

    fn next_decoded(&mut self) -> Option<Event<ToRunner>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.items.pop_front()? {
                Item::Up(connection) => {
                    self.connection = connection;
                    if self.token.is_none() {
                        self.peer = Peer::Shepherd;
                        return Some(Event::Connected);
                    }
                    let challenge = Challenge::new();
                    self.link.greet(connection, challenge.message());
                    self.peer = Peer::Challenged(challenge, later(PROOF_TIMEOUT));
                }
                Item::Down => {
                    if let Peer::Shepherd = std::mem::replace(&mut self.peer, Peer::None) {
                        return Some(Event::Disconnected);
                    }
                }
                Item::Frame(connection, frame) => match &self.peer {
                    Peer::None => {}
                    Peer::Challenged(challenge, _) => {
                        let answer = self.token.as_ref().and_then(|token| challenge.answer(token, &frame));
                        let Some(answer) = answer else {
                            self.turn_away();
                            continue;
                        };
                        self.link.greet(connection, answer);
                        self.link.admit(connection);
                        self.peer = Peer::Shepherd;
                        return Some(Event::Connected);
                    }
                    Peer::Shepherd => {
                        // Every shepherd of this protocol takes full frames.
                        self.link.set_batch(connection, MAX_BATCH);
                        let events = &mut self.events;
                        codec::to_runner(&frame, |message| {
                            events.push_back(message.map_or_else(Event::Garbage, Event::Message));
                        });
                    }
                },
            }
        }
    }

    fn turn_away(&mut self) {
        self.peer = Peer::None;
        self.link.turn_away(self.connection);
    }
}

impl Drop for RunnerReceiver {
    fn drop(&mut self) {
        self.link.close();
    }
}
