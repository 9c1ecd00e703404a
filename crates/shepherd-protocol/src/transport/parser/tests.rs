use proptest::prelude::*;

use super::super::buffer::CHUNK;
use super::*;

/// The bodies that come out, and what is to be sent back.
fn feed(parser: &mut Parser, mut bytes: &[u8], step: usize) -> Result<(Vec<Vec<u8>>, Vec<u8>), Malformed> {
    let (mut bodies, mut replies) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let space = parser.space();
        assert!(!space.is_empty());
        let taken = bytes.len().min(step).min(space.len());
        space[..taken].copy_from_slice(&bytes[..taken]);
        parser.filled(taken);
        bytes = &bytes[taken..];
        while let Some(piece) = parser.next()? {
            match piece {
                Piece::Body(body) => bodies.push(body.to_vec()),
                Piece::Reply(bytes) => replies.extend(bytes),
                Piece::Greeting(_) | Piece::Pong(_) => {}
            }
        }
    }
    Ok((bodies, replies))
}

fn parser(mapping: Mapping) -> Parser {
    Parser::new(mapping).0
}

fn nng(mapping: Mapping, bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = GREETING.to_vec();
    for body in bodies {
        mapping.frame(&mut bytes, |to| to.extend_from_slice(body));
    }
    bytes
}

/// What a ROUTER sends: its greeting, `READY`, and messages of one part.
fn router(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = zmtp::greeting();
    bytes.extend(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER");
    for body in bodies {
        zmtp::message(&mut bytes, |to| to.extend_from_slice(body));
    }
    bytes
}

#[test]
fn the_first_byte_tells_the_wire() {
    let (mut silent, first) = Parser::new(Mapping::Tcp);
    assert!(first.is_empty() && silent.next() == Ok(None));
    let (_, replies) = feed(&mut silent, &nng(Mapping::Tcp, &[]), 1).unwrap();
    assert_eq!(replies, GREETING);
    let (_, replies) = feed(&mut parser(Mapping::Tcp), &router(&[]), 1).unwrap();
    assert_eq!(replies, [zmtp::greeting(), zmtp::ready()].concat());
    assert_eq!(Parser::new(Mapping::Ipc).1, GREETING);
}

#[test]
fn what_is_too_long_or_nonsense_is_refused_before_it_is_read() {
    let too_long = (MAX_FRAME as u64 + 5).to_be_bytes();
    for (mapping, bytes, wanted) in [
        (Mapping::Tcp, &too_long[..], Malformed::TooLong),
        (Mapping::Tcp, &[0xff; 8], Malformed::TooLong),
        (Mapping::Tcp, &[0, 0, 0, 0, 0, 0, 0, 3], Malformed::Nng),
        (Mapping::Ipc, &[2, 0, 0, 0, 0, 0, 0, 0, 8], Malformed::Nng),
        (Mapping::Tcp, &[0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 1, b'x'], Malformed::Nng),
    ] {
        let bytes = [&GREETING[..], bytes].concat();
        assert_eq!(feed(&mut parser(mapping), &bytes, 7), Err(wanted));
    }
    // Pair0, and something that is not nng at all.
    for greeting in [&[0, b'S', b'P', 0, 0, 0x10, 0, 0], b"HTTP/1.1"] {
        for mapping in [Mapping::Ipc, Mapping::Tcp] {
            assert_eq!(feed(&mut parser(mapping), greeting, 8), Err(Malformed::Greeting));
        }
    }
    let mut long = router(&[]);
    long.extend([2, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(feed(&mut parser(Mapping::Tcp), &long, 7), Err(Malformed::TooLong));
}

#[test]
fn a_large_message_does_not_keep_its_memory() {
    let large = [vec![7; MAX_FRAME], vec![1]];
    for (mapping, bytes) in [(Mapping::Ipc, nng(Mapping::Ipc, &large)), (Mapping::Tcp, router(&large))] {
        let mut parser = parser(mapping);
        assert_eq!(feed(&mut parser, &bytes, CHUNK).unwrap().0, large);
        parser.space();
        assert!(parser.buffer.capacity() <= 2 * CHUNK);
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ipc,
    Tcp,
    Zmq,
}

impl Kind {
    fn parser(self) -> Parser {
        parser(match self {
            Self::Ipc => Mapping::Ipc,
            Self::Tcp | Self::Zmq => Mapping::Tcp,
        })
    }

    fn wire(self, bodies: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Self::Ipc => nng(Mapping::Ipc, bodies),
            Self::Tcp => nng(Mapping::Tcp, bodies),
            Self::Zmq => router(bodies),
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Ipc), Just(Kind::Tcp), Just(Kind::Zmq)]
}

proptest! {
    #[test]
    fn messages_come_out_however_the_bytes_come_in(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), step in 1_usize..700, kind in kind()
    ) {
        let (out, _) = feed(&mut kind.parser(), &kind.wire(&bodies), step).unwrap();
        prop_assert_eq!(out, bodies);
    }

    #[test]
    fn flipped_bytes_never_panic(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..4), at: prop::sample::Index, bits: u8, kind in kind()
    ) {
        let mut bytes = kind.wire(&bodies);
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let _ = feed(&mut kind.parser(), &bytes, 11);
    }
}
