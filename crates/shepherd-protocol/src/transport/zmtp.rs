//! The wire of ZeroMQ (ZMTP 3), as far as a DEALER needs it that talks to one
//! ROUTER: runners of the first shepherd bind one.
//!
//! Each side begins with 64 bytes: a signature, the version, the mechanism (`NULL`:
//! no authentication) and padding. Then each sends the command `READY` with the type
//! of its socket. A frame is a byte of flags, its length in 8 or 64 bits, and the
//! body; a message is one or more frames. From version 3.1 on, the command `PING` is
//! answered by the library's own thread, also while the runner computes: it tells
//! that the process is there and not stopped, which is all that can be told of such
//! a runner. Format: <https://rfc.zeromq.org/spec/37/>.

use super::buffer::Buffer;
use super::parser::{Dialect, Malformed, Piece};
use crate::MAX_FRAME;

/// What a ZeroMQ peer says first; nng's first byte is 0.
pub(super) const FIRST_BYTE: u8 = 0xff;

const GREETING_LEN: usize = 64;
const SIGNATURE_END: (usize, u8) = (9, 0x7f);
const VERSION: (usize, [u8; 2]) = (10, [3, 1]);
const MECHANISM: (usize, [u8; 20]) = (12, *b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

const READY: &[u8] = b"\x05READY";
const PING: &[u8] = b"\x04PING";
const PONG: &[u8] = b"\x04PONG";
/// A ping carries after how many tenths of a second of silence the peer should give
/// up; 0 is never.
const NO_TTL: [u8; 2] = [0, 0];
/// A pong repeats at most so much of its ping.
const MAX_CONTEXT: usize = 16;

/// What we say first.
pub(super) fn greeting() -> Vec<u8> {
    let mut bytes = vec![0; GREETING_LEN];
    bytes[0] = FIRST_BYTE;
    bytes[SIGNATURE_END.0] = SIGNATURE_END.1;
    bytes[VERSION.0..][..2].copy_from_slice(&VERSION.1);
    bytes[MECHANISM.0..][..20].copy_from_slice(&MECHANISM.1);
    bytes
}

/// What we say when the peer has greeted.
pub(super) fn ready() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, COMMAND, |to| {
        to.extend_from_slice(READY);
        to.extend_from_slice(b"\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0");
    });
    bytes
}

/// Appends a message of one frame whose body `write` appends.
pub(super) fn message(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    frame(to, 0, write);
}

/// Appends a ping.
pub(super) fn ping(to: &mut Vec<u8>, nonce: u64) {
    frame(to, COMMAND, |to| to.extend([PING, &NO_TTL, &nonce.to_be_bytes()].concat()));
}

fn frame(to: &mut Vec<u8>, flags: u8, write: impl FnOnce(&mut Vec<u8>)) {
    // The long form is legal for any length.
    to.push(flags | LONG);
    let length_at = to.len();
    to.extend_from_slice(&[0; 8]);
    write(to);
    let length = (to.len() - length_at - 8) as u64;
    to[length_at..length_at + 8].copy_from_slice(&length.to_be_bytes());
}

/// How long the frame that begins `bytes` is with its header, as far as that is
/// known.
pub(super) fn frame_len(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(flags) = bytes.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 {
        return Err(Malformed::Zmq);
    }
    let Some(length) = bytes.get(1..header_len(*flags)) else { return Ok(None) };
    let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    if length > MAX_FRAME as u64 {
        return Err(Malformed::TooLong);
    }
    Ok(Some(header_len(*flags) + length as usize))
}

fn header_len(flags: u8) -> usize {
    if flags & LONG == 0 { 2 } else { 9 }
}

/// How far the peer's side of the handshake is.
pub(super) enum Stage {
    Greeting,
    Handshake { pings: bool },
    Open,
}

impl Stage {
    /// The next piece in the buffer, if it is complete; it is taken out.
    pub(super) fn take<'a>(&mut self, buffer: &'a mut Buffer) -> Result<Option<Piece<'a>>, Malformed> {
        if let Self::Greeting = self {
            let Some(greeting) = buffer.take(GREETING_LEN) else { return Ok(None) };
            *self = Self::Handshake { pings: pings(greeting)? };
            return Ok(Some(Piece::Reply(ready())));
        }
        let Some(length) = frame_len(buffer.bytes())? else { return Ok(None) };
        let Some(frame) = buffer.take(length) else { return Ok(None) };
        let flags = frame[0];
        let body = &frame[header_len(flags)..];
        let piece = match self {
            _ if flags & COMMAND != 0 => self.command(body)?,
            // An empty frame is what request sockets put before a message, if anything.
            Self::Open if body.is_empty() => Piece::Reply(Vec::new()),
            Self::Open => Piece::Body(body),
            Self::Greeting | Self::Handshake { .. } => return Err(Malformed::Zmq),
        };
        Ok(Some(piece))
    }

    fn command(&mut self, body: &[u8]) -> Result<Piece<'static>, Malformed> {
        if let Self::Handshake { pings } = *self {
            let properties = body.strip_prefix(READY).ok_or(Malformed::Version)?;
            if socket_type(properties) != Some(b"ROUTER") {
                return Err(Malformed::Socket);
            }
            *self = Self::Open;
            return Ok(Piece::Greeting(Dialect::Zmq { pings }));
        }
        if let Some(ping) = body.strip_prefix(PING) {
            let context = ping.get(NO_TTL.len()..).ok_or(Malformed::Zmq)?;
            let mut pong = Vec::new();
            frame(&mut pong, COMMAND, |to| {
                to.extend_from_slice(PONG);
                to.extend_from_slice(&context[..context.len().min(MAX_CONTEXT)]);
            });
            return Ok(Piece::Reply(pong));
        }
        if let Some(context) = body.strip_prefix(PONG) {
            let nonce = context.try_into().map_err(|_| Malformed::Zmq)?;
            return Ok(Piece::Pong(u64::from_be_bytes(nonce)));
        }
        // Others may be added to the wire, and mean nothing to us.
        Ok(Piece::Reply(Vec::new()))
    }
}

/// Whether a peer with this greeting answers pings.
fn pings(greeting: &[u8]) -> Result<bool, Malformed> {
    if greeting[SIGNATURE_END.0] != SIGNATURE_END.1 {
        return Err(Malformed::Greeting);
    }
    let (version, mechanism) = (&greeting[VERSION.0..][..2], &greeting[MECHANISM.0..][..20]);
    if version[0] < 3 || mechanism != MECHANISM.1 {
        return Err(Malformed::Version);
    }
    Ok(version >= VERSION.1.as_slice())
}

/// The value of `Socket-Type` among a `READY`'s properties: each a name after its
/// length in 8 bits, and a value after its length in 32.
fn socket_type(mut properties: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = properties.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (length, rest) = rest.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let (value, rest) = rest.split_at_checked(length as usize)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return Some(value);
        }
        properties = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces that come out of what follows a greeting.
    fn after_greeting(frames: &[u8]) -> Result<Vec<String>, Malformed> {
        let (mut stage, mut buffer) = (Stage::Greeting, Buffer::default());
        let bytes = [&greeting(), frames].concat();
        buffer.space(bytes.len())[..bytes.len()].copy_from_slice(&bytes);
        buffer.filled(bytes.len());
        let mut pieces = Vec::new();
        while let Some(piece) = stage.take(&mut buffer)? {
            pieces.push(match piece {
                Piece::Body(body) => String::from_utf8_lossy(body).into_owned(),
                other => format!("{other:?}"),
            });
        }
        Ok(pieces)
    }

    /// As libzmq 4.3 sends it.
    const ROUTER: &[u8] = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0";

    #[test]
    fn what_we_say_has_these_bytes() {
        let greeting = greeting();
        assert_eq!(greeting[..16], *b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL");
        assert_eq!(greeting[16..], [0; 48]);
        assert_eq!(
            ready(),
            b"\x06\0\0\0\0\0\0\0\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0"
        );
        let mut bytes = Vec::new();
        message(&mut bytes, |to| to.extend_from_slice(b"hi"));
        ping(&mut bytes, 7);
        assert_eq!(bytes, b"\x02\0\0\0\0\0\0\0\x02hi\x06\0\0\0\0\0\0\0\x0f\x04PING\0\0\0\0\0\0\0\0\0\x07");
    }

    #[test]
    fn a_router_is_greeted_heard_and_answered() {
        let frames = [
            ROUTER,
            b"\x00\x02hi",
            b"\x01\x00\x00\x03you",
            b"\x04\x0d\x04PONG\0\0\0\0\0\0\0\x07",
            b"\x04\x08\x04PING\0\x01x",
            b"\x04\x04\x03NEW",
        ]
        .concat();
        let pieces = after_greeting(&frames).unwrap();
        let pong = Piece::Reply(b"\x06\0\0\0\0\0\0\0\x06\x04PONGx".to_vec());
        let nothing = Piece::Reply(Vec::new());
        let expected = [
            format!("{:?}", Piece::Reply(ready())),
            format!("{:?}", Piece::Greeting(Dialect::Zmq { pings: true })),
            "hi".to_owned(),
            format!("{nothing:?}"),
            "you".to_owned(),
            format!("{:?}", Piece::Pong(7)),
            format!("{pong:?}"),
            format!("{nothing:?}"),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn other_peers_are_told_apart() {
        let dealer = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
        assert_eq!(after_greeting(dealer), Err(Malformed::Socket));
        assert_eq!(after_greeting(b"\x04\x06\x05READY"), Err(Malformed::Socket));
        assert_eq!(after_greeting(b"\x04\x09\x05ERROR\x02no"), Err(Malformed::Version));
        assert_eq!(after_greeting(b"\x00\x02hi"), Err(Malformed::Zmq));
        assert_eq!(after_greeting(b"\x10\x02hi"), Err(Malformed::Zmq));
        let mut old = greeting();
        old[10..12].copy_from_slice(&[3, 0]);
        assert_eq!(pings(&old), Ok(false));
        old[10] = 1;
        assert_eq!(pings(&old), Err(Malformed::Version));
        let mut curve = greeting();
        curve[12..17].copy_from_slice(b"CURVE");
        assert_eq!(pings(&curve), Err(Malformed::Version));
    }
}
