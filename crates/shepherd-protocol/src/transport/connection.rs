//! The shepherd's side: a tokio stream without a task of its own.
//!
//! The receiver does the work of the connection (dialling, reading, writing what
//! the kernel did not take at once) within its own `recv`; all of its state is in
//! the receiver, so that dropping that future loses nothing. The sender writes
//! straight to the kernel. What it cannot get rid of it leaves in the outgoing
//! buffer, and wakes the receiver to see to it.
//!
//! The outgoing buffer belongs to one connection and is dropped with it.
//!
//! A runner decides how fast it talks, and not how much memory or time that costs. Reading
//! goes in turns: each takes a bounded number of bytes and messages, and the next begins once
//! the owner has taken all events of the one before and the runtime has had a turn of its own.
//! What is not read yet waits in the kernel's buffers, which hold the runner up. Of several
//! progress messages of an attempt that come in a row, only the last one counts.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shepherd_job::Attempt;
use tokio::time::{Sleep, sleep};

use super::parser::{Dialect, Malformed, Parser, Piece};
use super::stream::{Dialling, Stream, dial};
use super::url::{self, Address};
use super::zmtp;
#[cfg(doc)]
use crate::MAX_BATCH;
use crate::codec::{self, Wire, envelope};
use crate::handshake::Awaited;
use crate::{Error, Event, FromRunner, Garbage, Peer, Ready, SendError, ToRunner, Token};

/// How long after an attempt that failed the next one is made, first and at most.
const RECONNECT_DELAY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// How many bytes may wait for a runner that does not read.
const MAX_OUTGOING: usize = 4 << 20;
/// A turn of reading ends after as many events, pieces of the wire, or bytes of messages. The
/// frame that exceeds them is still decoded, so a turn gives at most [`MAX_BATCH`] events more.
const MAX_TURN_EVENTS: usize = 1024;
const MAX_TURN_BYTES: usize = 256 << 10;
/// After as many refusals of a good proof it is clear that the peer has another token: a runner
/// that ends, or is too busy to take the proof in time, has not so often.
const MAX_REFUSALS: u32 = 3;
/// How far back a progress message that is out of date is looked for: more than a runner has
/// jobs at work, and few enough to compare with each.
const MAX_MERGED: usize = 64;
/// How many inputs a runner of the first shepherd gets ahead. It takes any number;
/// but to cancel one it has to be ended, and all of them then go elsewhere.
const LEGACY_AHEAD: u32 = 32;

/// A connection to one runner, which comes and goes by itself: it is dialled
/// until somebody listens, and again after every end. Dropping it (when split:
/// dropping the [`Receiver`]) ends it for good.
///
/// It lives in a tokio runtime with time and I/O, and makes progress while its
/// owner waits in [`recv`](Receiver::recv).
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
}

/// The half that sends. Clones send on the same connection.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// The half that receives.
pub struct Receiver {
    shared: Arc<Shared>,
    address: Address,
    stage: Stage,
    retry: Duration,
    events: VecDeque<Event<FromRunner>>,
    turn: Turn,
    token: Option<Token>,
    proof: Proof,
    /// How many times in a row a peer asked for a proof and went when it had it.
    refusals: u32,
}

/// What the peer has to say before it is listened to.
enum Proof {
    /// Its first message: it may ask for a proof.
    Unknown,
    /// Its own proof.
    Awaited(Awaited),
    /// Nothing more.
    Settled(Peer),
}

/// How the reading goes on once the events are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// When there is something to read.
    Idle,
    /// The last turn took as much as it may: the runtime goes first.
    Over,
    /// At once: more may have been read than was decoded.
    Next,
}

enum Stage {
    Waiting(Pin<Box<Sleep>>),
    Dialling(Dialling),
    /// Connected, and greeted once the peer's greeting was read.
    Open {
        stream: Arc<Stream>,
        parser: Parser,
        greeted: bool,
    },
}

#[derive(Default)]
struct Shared {
    outgoing: Mutex<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    /// There while a peer is known to listen.
    stream: Option<Arc<Stream>>,
    bytes: Vec<u8>,
    written: usize,
    batch: usize,
    /// What the peer speaks; known when it greeted.
    dialect: Option<Dialect>,
    /// Pings that are answered on behalf of a peer that answers none.
    pongs: Vec<u64>,
    /// The receiver, when it waits.
    waker: Option<Waker>,
}

impl Connection {
    /// Dials `url`, `ipc:///PATH` or `tcp://HOST:PORT`, where nobody need listen
    /// yet. Behind a port may also be a ROUTER of ZeroMQ.
    ///
    /// # Errors
    /// The URL is not usable.
    pub fn dial(url: &str) -> Result<Self, Error> {
        let address = url::parse(url)?;
        let shared = Arc::<Shared>::default();
        Ok(Self {
            sender: Sender { shared: Arc::clone(&shared) },
            receiver: Receiver {
                shared,
                stage: Stage::Dialling(dial(address.clone())),
                address,
                retry: RECONNECT_DELAY.0,
                events: VecDeque::new(),
                turn: Turn::Idle,
                token: None,
                proof: Proof::Unknown,
                refusals: 0,
            },
        })
    }

    /// The same with the token that the runner was launched with. Before anything of a runner
    /// that knows tokens is heard, the two prove to each other that they have the same;
    /// [`peer`](Self::peer) tells the outcome.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.receiver.token = Some(token);
        self
    }

    /// What is known of whoever listens: of the connection that the latest event was of.
    pub fn peer(&self) -> Peer {
        match &self.receiver.proof {
            Proof::Unknown | Proof::Awaited(_) => Peer::Unknown,
            Proof::Settled(peer) => *peer,
        }
    }

    /// The two ends of the present connection, ours first, where it is one over TCP.
    pub fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.receiver.stage {
            Stage::Open { stream, .. } => stream.tcp_ends(),
            Stage::Waiting(_) | Stage::Dialling(_) => None,
        }
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// None of the messages was taken.
    pub fn send(&self, messages: &[ToRunner]) -> Result<(), SendError> {
        self.sender.send(messages)
    }

    /// See [`Receiver::recv`].
    pub async fn recv(&mut self) -> Event<FromRunner> {
        self.receiver.recv().await
    }

    /// See [`Receiver::try_recv`].
    pub fn try_recv(&mut self) -> Option<Event<FromRunner>> {
        self.receiver.try_recv()
    }

    /// Whether the peer knows [`ToRunner::Cancel`]: a runner of the first shepherd
    /// does not, and is not told.
    pub fn can_cancel(&self) -> bool {
        matches!(self.sender.shared.lock().dialect, Some(Dialect::Nng(_)))
    }

    /// The two halves, for two owners.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Sends messages to the runner that is connected now, in order, in frames of
    /// as many as it declared to take. It never waits: what the runner does not
    /// read is kept, up to a few megabytes, and dropped when the runner goes.
    ///
    /// # Errors
    /// None of the messages was taken.
    pub fn send(&self, messages: &[ToRunner]) -> Result<(), SendError> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut outgoing = self.shared.lock();
        let Some(stream) = outgoing.stream.clone() else { return Err(SendError::NotConnected) };
        let before = outgoing.bytes.len();
        outgoing.write_messages(messages);
        if outgoing.waiting() > MAX_OUTGOING {
            outgoing.bytes.truncate(before);
            return Err(SendError::Full);
        }
        if before == 0 && !outgoing.bytes.is_empty() {
            outgoing.write(&stream);
        }
        if !(outgoing.bytes.is_empty() && outgoing.pongs.is_empty())
            && let Some(waker) = outgoing.waker.take()
        {
            drop(outgoing);
            waker.wake();
        }
        Ok(())
    }
}

impl Outgoing {
    fn write_messages(&mut self, messages: &[ToRunner]) {
        match self.dialect {
            None => {}
            Some(Dialect::Nng(mapping)) => {
                for frame in messages.chunks(self.batch) {
                    let envelope = envelope(frame.len());
                    mapping.frame(&mut self.bytes, |bytes| {
                        bytes.extend_from_slice(envelope.head);
                        for (index, message) in frame.iter().enumerate() {
                            if index > 0 {
                                bytes.push(b',');
                            }
                            message.write(bytes);
                        }
                        bytes.extend_from_slice(envelope.tail);
                    });
                }
            }
            Some(Dialect::Zmq { pings }) => {
                for message in messages {
                    match message {
                        ToRunner::Input(input) => {
                            zmtp::message(&mut self.bytes, |bytes| codec::legacy_input(input, bytes));
                        }
                        ToRunner::Ping { nonce } if pings => zmtp::ping(&mut self.bytes, *nonce),
                        ToRunner::Ping { nonce } => self.pongs.push(*nonce),
                        // Not known to it: it is ended by its process.
                        ToRunner::Cancel { .. } | ToRunner::Shutdown { .. } => {}
                    }
                }
            }
        }
    }

    /// Appends a message of the handshake, which only nng's wire has.
    fn write_proof(&mut self, message: &[u8]) {
        if let Some(Dialect::Nng(mapping)) = self.dialect {
            let envelope = envelope(1);
            mapping.frame(&mut self.bytes, |bytes| {
                bytes.extend([envelope.head, message, envelope.tail].concat());
            });
        }
    }

    /// How many bytes the kernel did not take yet.
    fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes what the kernel takes.
    fn write(&mut self, stream: &Stream) {
        while self.written < self.bytes.len() {
            match stream.try_write(&self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Keep what is written from piling up before what is not.
                    if self.written >= MAX_OUTGOING / 4 {
                        self.bytes.drain(..self.written);
                        self.written = 0;
                    }
                    return;
                }
                Err(_) => {
                    // The peer is gone. What it said before is still to be read,
                    // and after that the receiver sees its end.
                    self.disconnect();
                    return;
                }
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(MAX_OUTGOING / 16);
        self.written = 0;
    }

    fn disconnect(&mut self) {
        self.stream = None;
        self.dialect = None;
        self.pongs = Vec::new();
        self.bytes = Vec::new();
        self.written = 0;
    }
}

impl Receiver {
    /// The next event. Cancel-safe: an event is lost only with the receiver.
    pub async fn recv(&mut self) -> Event<FromRunner> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// An event that was read already. What came together can be had from one wake-up by
    /// calling this after [`recv`](Self::recv) until it gives none: at most a few thousand
    /// events, however much the runner sends.
    pub fn try_recv(&mut self) -> Option<Event<FromRunner>> {
        self.events.pop_front()
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Event<FromRunner>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            match &mut self.stage {
                Stage::Waiting(sleep) => {
                    if sleep.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.stage = Stage::Dialling(dial(self.address.clone()));
                }
                Stage::Dialling(dialling) => match dialling.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(stream)) => self.open(stream),
                    Poll::Ready(Err(_)) => self.wait(),
                },
                Stage::Open { stream, .. } => {
                    let stream = Arc::clone(stream);
                    self.poll_write(&stream, context);
                    if !self.events.is_empty() {
                        continue;
                    }
                    match self.turn {
                        Turn::Over => {
                            self.turn = Turn::Next;
                            context.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Turn::Next => self.read(),
                        Turn::Idle => match stream.poll_read_ready(context) {
                            Poll::Pending => return Poll::Pending,
                            // An error is found again by the read.
                            Poll::Ready(_) => self.read(),
                        },
                    }
                }
            }
        }
    }

    fn wait(&mut self) {
        self.stage = Stage::Waiting(Box::pin(sleep(self.retry)));
        self.retry = (self.retry * 2).min(RECONNECT_DELAY.1);
    }

    fn open(&mut self, stream: Stream) {
        let stream = Arc::new(stream);
        let (parser, greeting) = Parser::new(stream.mapping());
        let mut outgoing = self.shared.lock();
        outgoing.disconnect();
        outgoing.bytes.extend_from_slice(greeting);
        outgoing.batch = 1;
        drop(outgoing);
        self.proof = Proof::Unknown;
        self.stage = Stage::Open { stream, parser, greeted: false };
    }

    /// Writes what waits, and sees to it that this task is woken for what is left
    /// or comes to be.
    fn poll_write(&mut self, stream: &Stream, context: &mut Context<'_>) {
        let mut outgoing = self.shared.lock();
        let pongs = outgoing.pongs.drain(..).map(|nonce| Event::Message(FromRunner::Pong { nonce }));
        self.events.extend(pongs);
        while !outgoing.bytes.is_empty() && stream.poll_write_ready(context).is_ready() {
            outgoing.write(stream);
        }
        match &mut outgoing.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Takes one turn: decodes and reads what is there, without waiting.
    fn read(&mut self) {
        self.turn = Turn::Idle;
        let (mut pieces, mut bytes, mut is_drained) = (0, 0, false);
        loop {
            match self.decode() {
                Ok(None) => {}
                Ok(Some(taken)) => {
                    pieces += 1;
                    bytes += taken;
                    if pieces.max(self.events.len()) >= MAX_TURN_EVENTS || bytes >= MAX_TURN_BYTES {
                        self.turn = Turn::Over;
                        return;
                    }
                    continue;
                }
                Err(malformed) => {
                    self.events.push_back(Event::Garbage(Garbage::new(malformed.to_string(), b"")));
                    return self.close();
                }
            }
            if is_drained {
                return;
            }
            let Stage::Open { stream, parser, .. } = &mut self.stage else { return };
            let space = parser.space();
            let wanted = space.len();
            match stream.try_read(space) {
                Ok(0) => return self.close(),
                Ok(count) => {
                    parser.filled(count);
                    // Less than asked for: there was no more.
                    is_drained = count < wanted;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(),
            }
        }
    }

    /// Decodes the next piece of what was read, and tells how many bytes of messages it held.
    fn decode(&mut self) -> Result<Option<usize>, Malformed> {
        let Stage::Open { stream, parser, greeted } = &mut self.stage else { return Ok(None) };
        let (shared, events) = (&self.shared, &mut self.events);
        let Some(piece) = parser.next()? else { return Ok(None) };
        match piece {
            Piece::Reply(bytes) => {
                let mut outgoing = shared.lock();
                outgoing.bytes.extend(bytes);
                // The owner may take the next event long after this one.
                outgoing.write(stream);
                if outgoing.waiting() > MAX_OUTGOING {
                    return Err(Malformed::Deaf);
                }
                Ok(Some(0))
            }
            Piece::Greeting(dialect) => {
                *greeted = true;
                let mut outgoing = shared.lock();
                outgoing.stream = Some(Arc::clone(stream));
                outgoing.dialect = Some(dialect);
                events.push_back(Event::Connected);
                if let Dialect::Zmq { .. } = dialect {
                    // It says nothing by itself: that it is there is that it is ready.
                    self.proof = Proof::Settled(Peer::Unproven);
                    let ready = Ready { ahead: LEGACY_AHEAD, ..Ready::new("a ZeroMQ runner") };
                    events.push_back(Event::Message(FromRunner::Ready(ready)));
                }
                Ok(Some(0))
            }
            Piece::Pong(nonce) => {
                events.push_back(Event::Message(FromRunner::Pong { nonce }));
                Ok(Some(0))
            }
            Piece::Body(body) => {
                self.retry = RECONNECT_DELAY.0;
                match &self.proof {
                    Proof::Settled(_) => {}
                    Proof::Unknown => {
                        let asked = self.token.as_ref().and_then(|token| Awaited::of(token, body));
                        let Some((proof, awaited)) = asked else {
                            self.proof = Proof::Settled(Peer::Unproven);
                            return Ok(Some(take(body, shared, events)));
                        };
                        self.proof = Proof::Awaited(awaited);
                        let mut outgoing = shared.lock();
                        outgoing.write_proof(&proof);
                        outgoing.write(stream);
                        return Ok(Some(body.len()));
                    }
                    Proof::Awaited(awaited) if awaited.is(body) => {
                        self.proof = Proof::Settled(Peer::Proven);
                        self.refusals = 0;
                        return Ok(Some(body.len()));
                    }
                    Proof::Awaited(_) => {
                        self.proof = Proof::Settled(Peer::Impostor);
                        return Err(Malformed::Impostor);
                    }
                }
                Ok(Some(take(body, shared, events)))
            }
        }
    }

    fn close(&mut self) {
        self.turn = Turn::Idle;
        self.shared.lock().disconnect();
        if let Proof::Awaited(_) = self.proof {
            self.refusals += 1;
            if self.refusals == MAX_REFUSALS {
                self.proof = Proof::Settled(Peer::Impostor);
                self.events.push_back(Event::Garbage(Garbage::new(Malformed::Impostor.to_string(), b"")));
            }
        }
        if matches!(self.stage, Stage::Open { greeted: true, .. }) {
            self.events.push_back(Event::Disconnected);
        }
        self.wait();
    }
}

/// Takes the messages of a frame; how many bytes it has.
fn take(body: &[u8], shared: &Shared, events: &mut VecDeque<Event<FromRunner>>) -> usize {
    codec::from_runner(body, |message| {
        if let Ok(FromRunner::Ready(ready)) = &message {
            shared.lock().batch = ready.batch.max(1) as usize;
        }
        push(events, message.map_or_else(Event::Garbage, Event::Message));
    });
    body.len()
}

/// Adds an event, in place of the progress of the same attempt that nobody has seen yet.
fn push(events: &mut VecDeque<Event<FromRunner>>, event: Event<FromRunner>) {
    fn attempt(event: &Event<FromRunner>) -> Option<(&str, Option<Attempt>)> {
        match event {
            Event::Message(FromRunner::Progress { job, attempt, .. }) => Some((job, *attempt)),
            Event::Message(_) | Event::Connected | Event::Garbage(_) | Event::Disconnected => None,
        }
    }
    let about = attempt(&event);
    let mut row = events.iter_mut().rev().take(MAX_MERGED).take_while(|before| attempt(before).is_some());
    match row.find(|before| about.is_some() && attempt(before) == about) {
        Some(before) => *before = event,
        None => events.push_back(event),
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.lock().disconnect();
    }
}
