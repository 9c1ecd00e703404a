//! Takes the bytes of a connection apart, whichever of two wires the peer speaks.
//!
//! Over ipc that is nng's. Over tcp it may be ZeroMQ's: runners of the first
//! shepherd know no other. Both sides of both wires begin at once, so the peer's
//! first byte tells, and we begin when it came.

use super::buffer::Buffer;
use super::sp::{self, GREETING, Mapping};
use super::zmtp;
use crate::MAX_FRAME;

/// What a peer did wrong; it cannot be understood from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the peer speaks neither nng's Pair1 nor ZeroMQ")]
    Greeting,
    #[error("the peer sent something that is no nng message")]
    Nng,
    #[error("the peer speaks ZeroMQ, but none of version 3 without authentication")]
    Version,
    #[error("the peer's ZeroMQ socket is no ROUTER")]
    Socket,
    #[error("the peer sent something that is no ZeroMQ message")]
    Zmq,
    #[error("the peer asks for answers and does not read them")]
    Deaf,
    #[error("the peer does not know the token that the runner was launched with")]
    Impostor,
    #[error("the peer sent a message of more than {MAX_FRAME} bytes")]
    TooLong,
}

/// What the bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Nothing for us; this is to be sent to the peer, before anything else.
    Reply(Vec<u8>),
    /// The peer is there, and speaks this.
    Greeting(Dialect),
    /// A frame.
    Body(&'a [u8]),
    /// The answer to a ping of the wire itself.
    Pong(u64),
}

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Nng(Mapping),
    Zmq {
        /// Whether it answers pings.
        pings: bool,
    },
}

enum Stage {
    /// Not a byte was heard.
    Silent,
    Nng {
        mapping: Mapping,
        greeted: bool,
    },
    Zmq(zmtp::Stage),
}

pub(super) struct Parser {
    stage: Stage,
    buffer: Buffer,
}

impl Parser {
    /// A parser, and what to send first.
    pub(super) fn new(mapping: Mapping) -> (Self, &'static [u8]) {
        let (stage, first): (_, &[u8]) = match mapping {
            Mapping::Ipc => (Stage::Nng { mapping, greeted: false }, &GREETING),
            Mapping::Tcp => (Stage::Silent, &[]),
        };
        (Self { stage, buffer: Buffer::default() }, first)
    }

    /// Where to read to; never empty. Followed by [`filled`](Self::filled).
    pub(super) fn space(&mut self) -> &mut [u8] {
        let announced = match &self.stage {
            Stage::Nng { mapping, greeted: true } => sp::length(*mapping, self.buffer.bytes())
                .ok()
                .flatten()
                .map(|length| mapping.frame_len(length)),
            Stage::Zmq(_) => zmtp::frame_len(self.buffer.bytes()).ok().flatten(),
            Stage::Silent | Stage::Nng { greeted: false, .. } => None,
        };
        self.buffer.space(announced.unwrap_or(0))
    }

    pub(super) fn filled(&mut self, bytes: usize) {
        self.buffer.filled(bytes);
    }

    /// The next piece, if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, Malformed> {
        match &mut self.stage {
            Stage::Silent => {
                let Some(first) = self.buffer.bytes().first() else { return Ok(None) };
                if *first == zmtp::FIRST_BYTE {
                    self.stage = Stage::Zmq(zmtp::Stage::Greeting);
                    return Ok(Some(Piece::Reply(zmtp::greeting())));
                }
                self.stage = Stage::Nng { mapping: Mapping::Tcp, greeted: false };
                Ok(Some(Piece::Reply(GREETING.to_vec())))
            }
            Stage::Nng { mapping, greeted: greeted @ false } => {
                let Some(greeting) = self.buffer.take(GREETING.len()) else { return Ok(None) };
                if greeting != GREETING {
                    return Err(Malformed::Greeting);
                }
                *greeted = true;
                Ok(Some(Piece::Greeting(Dialect::Nng(*mapping))))
            }
            Stage::Nng { mapping, greeted: true } => {
                Ok(sp::take(*mapping, &mut self.buffer)?.map(Piece::Body))
            }
            Stage::Zmq(stage) => stage.take(&mut self.buffer),
        }
    }
}

#[cfg(test)]
mod tests;
