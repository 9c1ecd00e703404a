//! A connection's socket, with the manners that hyper leaves to it.
//!
//! - A client that takes nothing of its answer for too long loses it.
//! - An answer that hyper gives by itself gets a body.
//! - At the end the socket is closed gently: an answer that was given before the
//!   request was read to its end (413, say) would be lost if the socket were closed
//!   with bytes unread, since the kernel then resets the connection. So our side
//!   is shut down first, and what still comes is thrown away for a while; not
//!   while the daemon drains, which must not wait for idle clients.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::drain::{Drain, Phase};
use crate::own::{self, Shape, Turn};

/// How long a client is listened to after its connection ended, in all and
/// without a byte.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_IDLE: Duration = Duration::from_secs(3);

pub(crate) struct Socket {
    stream: TokioIo<TcpStream>,
    stall: Duration,
    drain: Drain,
    /// When to give up; armed only while the client takes nothing, and while
    /// lingering.
    timer: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    lingers_until: Option<Instant>,
    turn: Turn,
    shape: Shape,
    /// What is written in place of an answer that hyper gave by itself.
    own: Option<Own>,
}

struct Own {
    bytes: Vec<u8>,
    written: usize,
    /// The length of what hyper believes to write.
    replaces: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, stall: Duration, drain: Drain, turn: Turn, shape: Shape) -> Self {
        let stream = TokioIo::new(stream);
        let (timer, stalled, lingers_until, own) = (None, false, None, None);
        Self { stream, stall, drain, timer, stalled, lingers_until, turn, shape, own }
    }

    /// Writes another answer in place of one that hyper gave by itself; none where `head`
    /// is none.
    fn poll_own(
        &mut self,
        cx: &mut Context<'_>,
        head: impl FnOnce() -> Vec<u8>,
    ) -> Option<Poll<io::Result<usize>>> {
        if !self.turn.is_idle() {
            return None;
        }
        if self.own.is_none() {
            let head = head();
            let bytes = own::with_body(&head, self.shape)?;
            self.own = Some(Own { bytes, written: 0, replaces: head.len() });
        }
        let mut own = self.own.take()?;
        while own.written < own.bytes.len() {
            let poll = Pin::new(&mut self.stream).poll_write(cx, &own.bytes[own.written..]);
            match self.bounded(cx, poll) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(more)) => own.written += more,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => {
                    self.own = Some(own);
                    return Some(Poll::Pending);
                }
            }
        }
        Some(Poll::Ready(Ok(own.replaces)))
    }

    /// Passes the outcome of a write on, and gives up when there was none for too
    /// long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            self.arm(self.stall);
        }
        ready!(self.poll_timer(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of the answer")))
    }

    fn arm(&mut self, after: Duration) {
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(Instant::now() + after),
            None => self.timer = Some(Box::pin(sleep(after))),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(cx))
    }

    /// Ready when the client is gone or was listened to for long enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        if self.drain.phase() != Phase::Running {
            return Poll::Ready(());
        }
        let mut waste = [0; 16 * 1024];
        loop {
            match self.stream.inner().poll_read_ready(cx) {
                Poll::Pending => return self.poll_timer(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => match self.stream.inner().try_read(&mut waste) {
                    Ok(0) => return Poll::Ready(()),
                    Ok(_) => {
                        let left = until.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Poll::Ready(());
                        }
                        self.arm(left.min(LINGER_IDLE));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Poll::Ready(()),
                },
            }
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(own) = self.poll_own(cx, || bytes.to_vec()) {
            return own;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes when all that it had is written.
        self.turn.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = match self.lingers_until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                let until = Instant::now() + LINGER;
                self.lingers_until = Some(until);
                self.arm(LINGER_IDLE);
                until
            }
        };
        self.poll_linger(cx, until).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(own) =
            self.poll_own(cx, || slices.iter().flat_map(|slice| slice.iter().copied()).collect())
        {
            return own;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.bounded(cx, written)
    }
}
