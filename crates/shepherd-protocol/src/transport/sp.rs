//! The wire of nng's Pair1, as far as it is needed.
//!
//! Each side begins with 8 bytes: NUL, `SP`, NUL, the protocol's number in 16 bits
//! (0x11 for Pair1) and 16 bits of zero. A message is its length in 64 bits (over
//! ipc: after a byte 1), a hop count in 32 bits, which the length includes, and
//! the body. All numbers are big-endian.

use crate::MAX_FRAME;

/// What both sides say first.
pub(super) const GREETING: [u8; 8] = [0, b'S', b'P', 0, 0, 0x11, 0, 0];

/// Which of the two mappings is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    Ipc,
    Tcp,
}

/// A message's hop count: it passed no device, only its sender.
const HOPS: u32 = 1;
const HOPS_LEN: usize = 4;
/// What comes before a message over ipc, and only there.
const IPC_MESSAGE: u8 = 1;

impl Mapping {
    fn header_len(self) -> usize {
        match self {
            Self::Ipc => 9,
            Self::Tcp => 8,
        }
    }

    /// Appends a message whose body `write` appends.
    pub(super) fn frame(self, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self == Self::Ipc {
            to.push(IPC_MESSAGE);
        }
        let length_at = to.len();
        to.extend_from_slice(&[0; 8]);
        to.extend_from_slice(&HOPS.to_be_bytes());
        write(to);
        let length = (to.len() - length_at - 8) as u64;
        to[length_at..length_at + 8].copy_from_slice(&length.to_be_bytes());
    }
}

/// What a peer did wrong; it cannot be understood from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the peer does not speak nng's Pair1")]
    Greeting,
    #[error("the peer sent something that is no nng message")]
    Header,
    #[error("the peer sent a message of more than {MAX_FRAME} bytes")]
    TooLong,
}

/// How much is read at once, at least.
const CHUNK: usize = 64 << 10;

/// Takes the bytes of a connection apart.
pub(super) struct Parser {
    mapping: Mapping,
    greeted: bool,
    buffer: Vec<u8>,
    /// The bytes of the buffer that hold something.
    start: usize,
    end: usize,
}

/// What the bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Greeting,
    Body(&'a [u8]),
}

impl Parser {
    pub(super) fn new(mapping: Mapping) -> Self {
        Self { mapping, greeted: false, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Where to read to; never empty. Followed by [`filled`](Self::filled).
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // What begins is read to its end: a longer message grows the buffer.
        let wanted = (self.announced() + 1).max(CHUNK);
        if self.buffer.len() < wanted || (self.end == 0 && self.buffer.len() > wanted) {
            self.buffer.resize(wanted, 0);
            self.buffer.shrink_to(wanted);
        }
        &mut self.buffer[self.end..]
    }

    pub(super) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// How long the message that begins the buffer is with its header, as far as
    /// that is known and legal.
    fn announced(&self) -> usize {
        match self.header() {
            Ok(Some(length)) if self.greeted => self.mapping.header_len() + length,
            Ok(_) | Err(_) => 0,
        }
    }

    fn header(&self) -> Result<Option<usize>, Malformed> {
        let bytes = &self.buffer[self.start..self.end];
        let Some(header) = bytes.get(..self.mapping.header_len()) else { return Ok(None) };
        let length = match self.mapping {
            Mapping::Ipc => header.strip_prefix(&[IPC_MESSAGE]).ok_or(Malformed::Header)?,
            Mapping::Tcp => header,
        };
        let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        if length < HOPS_LEN as u64 {
            return Err(Malformed::Header);
        }
        if length > (MAX_FRAME + HOPS_LEN) as u64 {
            return Err(Malformed::TooLong);
        }
        Ok(Some(length as usize))
    }

    /// The next piece, if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, Malformed> {
        if !self.greeted {
            if self.end - self.start < GREETING.len() {
                return Ok(None);
            }
            if self.buffer[self.start..self.start + GREETING.len()] != GREETING {
                return Err(Malformed::Greeting);
            }
            self.greeted = true;
            self.start += GREETING.len();
            return Ok(Some(Piece::Greeting));
        }
        let Some(length) = self.header()? else { return Ok(None) };
        let body = self.start + self.mapping.header_len();
        if self.end < body + length {
            return Ok(None);
        }
        // A hop count fits a byte; there is no device here that would raise it.
        if self.buffer[body..body + 3] != [0; 3] {
            return Err(Malformed::Header);
        }
        self.start = body + length;
        Ok(Some(Piece::Body(&self.buffer[body + HOPS_LEN..body + length])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(parser: &mut Parser, mut bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut bodies = Vec::new();
        while !bytes.is_empty() {
            let space = parser.space();
            assert!(!space.is_empty());
            let taken = bytes.len().min(step).min(space.len());
            space[..taken].copy_from_slice(&bytes[..taken]);
            parser.filled(taken);
            bytes = &bytes[taken..];
            while let Some(piece) = parser.next()? {
                if let Piece::Body(body) = piece {
                    bodies.push(body.to_vec());
                }
            }
        }
        Ok(bodies)
    }

    fn wire(mapping: Mapping, bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = GREETING.to_vec();
        for body in bodies {
            mapping.frame(&mut bytes, |to| to.extend_from_slice(body));
        }
        bytes
    }

    #[test]
    fn a_message_has_these_bytes() {
        let body = [b"hi".to_vec()];
        assert_eq!(wire(Mapping::Ipc, &body)[8..], [1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, b'h', b'i']);
        assert_eq!(wire(Mapping::Tcp, &body)[8..], [0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, b'h', b'i']);
    }

    #[test]
    fn what_is_too_long_or_nonsense_is_refused_before_it_is_read() {
        let too_long = (MAX_FRAME as u64 + 5).to_be_bytes();
        for (mapping, bytes, wanted) in [
            (Mapping::Tcp, &too_long[..], Malformed::TooLong),
            (Mapping::Tcp, &[0xff; 8], Malformed::TooLong),
            (Mapping::Tcp, &[0, 0, 0, 0, 0, 0, 0, 3], Malformed::Header),
            (Mapping::Ipc, &[2, 0, 0, 0, 0, 0, 0, 0, 8], Malformed::Header),
            (Mapping::Tcp, &[0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 1, b'x'], Malformed::Header),
        ] {
            let bytes = [&GREETING[..], bytes].concat();
            assert_eq!(feed(&mut Parser::new(mapping), &bytes, 7), Err(wanted));
        }
        // Pair0, and something that is not nng at all.
        for greeting in [&[0, b'S', b'P', 0, 0, 0x10, 0, 0], b"HTTP/1.1"] {
            assert_eq!(feed(&mut Parser::new(Mapping::Ipc), greeting, 8), Err(Malformed::Greeting));
        }
    }

    #[test]
    fn a_large_message_does_not_keep_its_memory() {
        let mut parser = Parser::new(Mapping::Ipc);
        let large = [vec![7; MAX_FRAME], vec![1]];
        assert_eq!(feed(&mut parser, &wire(Mapping::Ipc, &large), CHUNK).unwrap(), large);
        parser.space();
        assert!(parser.buffer.capacity() <= 2 * CHUNK);
    }

    proptest! {
        #[test]
        fn messages_come_out_however_the_bytes_come_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8), step in 1_usize..700, tcp: bool
        ) {
            let mapping = if tcp { Mapping::Tcp } else { Mapping::Ipc };
            prop_assert_eq!(feed(&mut Parser::new(mapping), &wire(mapping, &bodies), step), Ok(bodies));
        }

        #[test]
        fn flipped_bytes_never_panic(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..4), at: prop::sample::Index, bits: u8, tcp: bool
        ) {
            let mapping = if tcp { Mapping::Tcp } else { Mapping::Ipc };
            let mut bytes = wire(mapping, &bodies);
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            let _ = feed(&mut Parser::new(mapping), &bytes, 11);
        }
    }
}
