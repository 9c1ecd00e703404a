//! A listening nng socket with at most one peer: frames in, messages out.
//!
//! # Who is connected
//! nng's pipe events say it, and every frame names its pipe. The two come from
//! different threads, so the first frame of a pipe may overtake its event; either
//! makes the peer known. A frame that comes after its pipe was removed is dropped.
//!
//! # In
//! One receive is outstanding at a time, with nng's own buffer at 0, so that the
//! end of a connection is seen only after everything that came before it. When
//! the reader falls behind, no receive is started until it has caught up, and the
//! peer is held up by the kernel's buffers.
//!
//! # Out
//! nng's buffer is 0 here too: it would keep frames for a later peer. A frame is
//! handed over only when the pipe takes it. While it does not, one frame waits in
//! the send Aio and further messages in the outbox, where they are put together.
//! nng announces a removed pipe *before* it lets another one in, and there the
//! waiting frame is cancelled and the outbox dropped.
//!
//! # Locks
//! nng never calls back from within a call that is made here, and never while it
//! holds a lock of its own; so calls to nng are made with the state locked.
//! Closing is the exception: it waits for the callbacks, and may wait for ever
//! when messages come in meanwhile (see [the transport](super)); so it has a
//! thread of its own, and is waited for only for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nng::options::{Options, RecvBufferSize, RecvMaxSize, SendBufferSize, SendFd, transport::tcp::BoundPort};
use nng::{Aio, AioResult, Listener, Pipe, PipeEvent, Protocol, Socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::outbox::Outbox;
use super::url;
use crate::{Error, MAX_FRAME, RecvError, SendError};

/// How much may wait for the reader before receiving is held up.
const MAX_WAITING_FRAMES: usize = 128;
const MAX_WAITING_BYTES: usize = 2 * MAX_FRAME;
/// How long closing is waited for.
const CLOSE: Duration = Duration::from_secs(1);

/// What the reader gets. The number tells the connections of one socket apart.
pub(super) enum Item {
    Up(u64),
    Frame(u64, nng::Message),
    Down,
}

/// See the module's documentation. Closed when it is dropped.
pub(super) struct Link(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// For a blocking reader.
    arrived: Condvar,
    /// For senders that wait for room, or for all to be handed over.
    drained: Condvar,
}

/// What belongs to nng. Taken out when the link is closed.
struct Io {
    socket: Socket,
    receive: Aio,
    send: Aio,
}

#[derive(Default)]
struct State {
    io: Option<Io>,
    connection: u64,
    pipe: Option<Pipe>,
    removed: Option<Pipe>,
    /// Whether a peer is nobody to send to before it was [admitted](Link::admit).
    is_guarded: bool,
    is_admitted: bool,

    inbox: VecDeque<Item>,
    waiting_frames: usize,
    waiting_bytes: usize,
    receiving: bool,
    /// Somebody waits on `arrived`; to notify nobody costs a system call.
    reader_waits: bool,

    outbox: Outbox,
    batch: usize,
    /// The send Aio holds a frame.
    sending: bool,
    /// How many wait on `drained`.
    senders_wait: usize,
}

impl Link {
    /// A socket that others connect to; with the URL at which they can, where a
    /// port 0 was replaced by the one that was given out.
    ///
    /// Where it is guarded, each connection has to be [admitted](Self::admit).
    pub(super) fn listen(url: &str, is_guarded: bool) -> Result<(Self, String), Error> {
        url::parse(url)?;
        let (link, socket) = Self::open(is_guarded).map_err(|error| unusable(url, error))?;
        let listener = Listener::new(&socket, url).map_err(|error| unusable(url, error))?;
        let bound = match url.strip_suffix(":0") {
            Some(host) => {
                let port = listener.get_opt::<BoundPort>().map_err(|error| unusable(url, error))?;
                format!("{host}:{port}")
            }
            None => url.to_owned(),
        };
        Ok((link, bound))
    }

    fn open(is_guarded: bool) -> nng::Result<(Self, Socket)> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { batch: 1, is_guarded, ..State::default() }),
            arrived: Condvar::new(),
            drained: Condvar::new(),
        });
        let io = Io::open(&shared)?;
        let socket = io.socket.clone();
        let mut state = shared.lock();
        state.io = Some(io);
        state.receive();
        drop(state);
        Ok((Self(shared), socket))
    }

    /// Takes messages for the peer of this connection, or without one for the peer that
    /// is connected now: all or none.
    pub(super) fn send(&self, connection: Option<u64>, messages: Vec<Vec<u8>>) -> Result<(), SendError> {
        let mut state = self.0.lock();
        state.check(connection)?;
        state.outbox.push(messages).map_err(|_| SendError::Full)?;
        state.pump();
        Ok(())
    }

    /// Takes a message for the peer of this connection, admitted or not.
    pub(super) fn greet(&self, connection: u64, message: Vec<u8>) {
        let mut state = self.0.lock();
        // Where there is no room for the first message, there never was for one.
        if state.connection == connection && state.outbox.push(vec![message]).is_ok() {
            state.pump();
        }
    }

    /// Others may send to the peer of this connection from now on.
    pub(super) fn admit(&self, connection: u64) {
        let mut state = self.0.lock();
        state.is_admitted |= state.connection == connection && state.pipe.is_some();
    }

    /// Ends this connection, and waits for another.
    pub(super) fn turn_away(&self, connection: u64) {
        let state = self.0.lock();
        if let Some(pipe) = state.pipe.filter(|_| state.connection == connection) {
            pipe.close();
        }
    }

    /// As [`send`](Self::send), and waits for room; what has room goes ahead.
    pub(super) fn send_wait(&self, connection: Option<u64>, messages: Vec<Vec<u8>>) -> Result<(), SendError> {
        let mut messages = VecDeque::from(messages);
        let mut state = self.0.lock();
        let connection = connection.unwrap_or(state.connection);
        loop {
            state.check(Some(connection))?;
            state.outbox.push_some(&mut messages);
            state.pump();
            if messages.is_empty() {
                return Ok(());
            }
            if !state.outbox.is_empty() {
                state = self.0.wait_drained(state, Duration::MAX);
            }
        }
    }

    /// How many messages the peer of this connection takes in a frame.
    pub(super) fn set_batch(&self, connection: u64, batch: u32) {
        let mut state = self.0.lock();
        if state.connection == connection {
            state.batch = batch as usize;
        }
    }

    /// Moves what comes within `timeout` into `items`.
    pub(super) fn wait_drain(&self, items: &mut VecDeque<Item>, timeout: Duration) -> Result<(), RecvError> {
        let until = later(timeout);
        let mut state = self.0.lock();
        loop {
            state.drain(items);
            if !items.is_empty() {
                return Ok(());
            }
            if state.io.is_none() {
                return Err(RecvError::Closed);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecvError::Timeout);
            }
            state.reader_waits = true;
            state = self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.reader_waits = false;
        }
    }

    /// Waits until what was sent is in the kernel's hands, so that it arrives even
    /// if this process ends. Returns whether it is.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let until = later(timeout);
        let mut state = self.0.lock();
        while state.pipe.is_some() && (state.sending || !state.outbox.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.wait_drained(state, left);
        }
        let (Some(io), true) = (&state.io, state.pipe.is_some()) else { return false };
        let socket = io.socket.clone();
        drop(state);
        // The pipe takes another frame once the one before it is written.
        let Ok(writable) = socket.get_opt::<SendFd>() else { return false };
        wait_readable(writable, until.saturating_duration_since(Instant::now()))
    }

    /// Ends the connection and the listening, now or a little later.
    pub(super) fn close(&self) {
        let Some(io) = self.0.lock().io.take() else { return };
        self.0.arrived.notify_all();
        self.0.drained.notify_all();
        let (closed, closing) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("close".to_owned()).spawn(move || {
            io.close();
            drop(closed);
        });
        // Where no thread is to be had, dropping its closure has closed the socket.
        if thread.is_ok() {
            let _ = closing.recv_timeout(CLOSE);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

impl Io {
    fn open(shared: &Arc<Shared>) -> nng::Result<Self> {
        let socket = Socket::new(Protocol::Pair1)?;
        socket.set_opt::<SendBufferSize>(0)?;
        socket.set_opt::<RecvBufferSize>(0)?;
        socket.set_opt::<RecvMaxSize>(MAX_FRAME)?;
        let peer = Arc::clone(shared);
        socket.pipe_notify(move |pipe, event| peer.on_pipe(pipe, event))?;
        let (receiver, sender) = (Arc::clone(shared), Arc::clone(shared));
        Ok(Self {
            socket,
            receive: Aio::new(move |_, result| receiver.on_received(result))?,
            send: Aio::new(move |_, result| sender.on_sent(&result))?,
        })
    }

    fn close(self) {
        self.socket.close();
        // An Aio that is dropped within its own callback waits for itself.
        self.receive.wait();
        self.send.wait();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_drained<'a>(&self, mut state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        state.senders_wait += 1;
        state = self.drained.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
        state.senders_wait -= 1;
        state
    }

    fn on_pipe(&self, pipe: Pipe, event: PipeEvent) {
        let mut state = self.lock();
        match event {
            PipeEvent::AddPost => state.add(pipe),
            PipeEvent::RemovePost => {
                state.remove(pipe);
                self.drained.notify_all();
            }
            PipeEvent::AddPre | PipeEvent::Unknown(_) => return,
        }
        self.wake(&state);
    }

    fn on_received(&self, result: AioResult) {
        let mut state = self.lock();
        state.receiving = false;
        match result {
            AioResult::Recv(Ok(frame)) => state.take(frame),
            AioResult::Recv(Err(nng::Error::Closed)) => return,
            // The frame is lost with its pipe; the next receive is for the next.
            AioResult::Recv(Err(_)) | AioResult::Send(_) | AioResult::Sleep(_) => {}
        }
        state.receive();
        self.wake(&state);
    }

    fn on_sent(&self, result: &AioResult) {
        let mut state = self.lock();
        state.sending = false;
        if matches!(result, AioResult::Send(Err((_, nng::Error::Closed)))) {
            return;
        }
        // A frame that failed was cancelled with its connection.
        state.pump();
        if state.senders_wait > 0 {
            self.drained.notify_all();
        }
    }

    fn wake(&self, state: &State) {
        if state.reader_waits {
            self.arrived.notify_one();
        }
    }
}

impl State {
    fn add(&mut self, pipe: Pipe) {
        if self.pipe == Some(pipe) || self.removed == Some(pipe) {
            return;
        }
        if self.pipe.is_some() {
            self.disconnect();
        }
        self.connection += 1;
        self.pipe = Some(pipe);
        self.is_admitted = !self.is_guarded;
        self.inbox.push_back(Item::Up(self.connection));
    }

    fn remove(&mut self, pipe: Pipe) {
        self.removed = Some(pipe);
        if self.pipe == Some(pipe) {
            self.disconnect();
        }
    }

    fn disconnect(&mut self) {
        self.pipe = None;
        self.is_admitted = false;
        self.connection += 1;
        self.batch = 1;
        self.outbox.clear();
        if let (true, Some(io)) = (self.sending, &self.io) {
            io.send.cancel();
        }
        self.inbox.push_back(Item::Down);
    }

    fn take(&mut self, mut frame: nng::Message) {
        let from = frame.pipe();
        if let Some(pipe) = from {
            self.add(pipe);
        }
        if from.is_some() && from == self.pipe {
            self.waiting_frames += 1;
            self.waiting_bytes += frame.len();
            self.inbox.push_back(Item::Frame(self.connection, frame));
        }
    }

    fn receive(&mut self) {
        let full = self.waiting_frames >= MAX_WAITING_FRAMES || self.waiting_bytes >= MAX_WAITING_BYTES;
        if let (false, false, Some(io)) = (full, self.receiving, &self.io) {
            self.receiving = io.socket.recv_async(&io.receive).is_ok();
        }
    }

    fn drain(&mut self, items: &mut VecDeque<Item>) {
        if self.inbox.is_empty() {
            return;
        }
        if items.is_empty() {
            std::mem::swap(items, &mut self.inbox);
        } else {
            items.append(&mut self.inbox);
        }
        self.waiting_frames = 0;
        self.waiting_bytes = 0;
        self.receive();
    }

    /// Whether this connection, or any, is there.
    fn check(&self, connection: Option<u64>) -> Result<(), SendError> {
        let meant = connection.is_none_or(|connection| connection == self.connection);
        if meant && self.is_admitted && self.io.is_some() { Ok(()) } else { Err(SendError::NotConnected) }
    }

    /// Hands over what the pipe takes, and leaves one frame waiting for it.
    fn pump(&mut self) {
        let (Some(io), Some(pipe)) = (&self.io, self.pipe) else { return };
        while !self.sending {
            let Some(frame) = self.outbox.frame(self.batch) else { return };
            match io.socket.try_send(frame) {
                Ok(()) => {}
                Err((frame, nng::Error::TryAgain)) => {
                    self.sending = io.socket.send_async(&io.send, frame).is_ok();
                }
                Err(_) => {
                    // Nothing but a closed socket is known to do this. Losing a
                    // message and keeping the connection would leave a job in the
                    // air; so the connection ends.
                    pipe.close();
                    self.outbox.clear();
                }
            }
        }
    }
}

/// A time that no clock can hold is as good as a day.
pub(super) fn later(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(86_400))
}

fn unusable(url: &str, error: nng::Error) -> Error {
    let url = url.to_owned();
    match error {
        nng::Error::AddressInUse => Error::InUse { url },
        nng::Error::AddressInvalid => Error::Url { url, reason: "the address is invalid".to_owned() },
        nng::Error::PermissionDenied => Error::Url { url, reason: "permission denied".to_owned() },
        nng::Error::EntryNotFound => Error::Url { url, reason: "no such directory or host".to_owned() },
        other => Error::Unavailable { url, reason: other.to_string() },
    }
}

#[expect(unsafe_code, reason = "nng gives its descriptor as a bare number")]
fn wait_readable(descriptor: std::os::fd::RawFd, timeout: Duration) -> bool {
    // SAFETY: nng keeps the descriptor open as long as the socket, of which the
    // caller holds a handle; nothing here closes it.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    let Ok(timeout) = Timespec::try_from(timeout) else { return false };
    matches!(poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)), Ok(1..))
}
