//! The wire of nng's Pair1, as far as it is needed.
//!
//! Each side begins with 8 bytes: NUL, `SP`, NUL, the protocol's number in 16 bits
//! (0x11 for Pair1) and 16 bits of zero. A message is its length in 64 bits (over
//! ipc: after a byte 1), a hop count in 32 bits, which the length includes, and
//! the body. All numbers are big-endian.

use super::buffer::Buffer;
use super::parser::Malformed;
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
    /// How long a message of this length is with what comes before it.
    pub(super) fn frame_len(self, length: usize) -> usize {
        self.header_len() + length
    }

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

/// How long the message that begins `bytes` is, without its header, as far as that
/// is known.
pub(super) fn length(mapping: Mapping, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(header) = bytes.get(..mapping.header_len()) else { return Ok(None) };
    let length = match mapping {
        Mapping::Ipc => header.strip_prefix(&[IPC_MESSAGE]).ok_or(Malformed::Nng)?,
        Mapping::Tcp => header,
    };
    let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    if length < HOPS_LEN as u64 {
        return Err(Malformed::Nng);
    }
    if length > (MAX_FRAME + HOPS_LEN) as u64 {
        return Err(Malformed::TooLong);
    }
    Ok(Some(length as usize))
}

/// The body of the message that begins the buffer, if it is complete; it is taken
/// out.
pub(super) fn take(mapping: Mapping, buffer: &mut Buffer) -> Result<Option<&[u8]>, Malformed> {
    let header = mapping.header_len();
    let Some(length) = length(mapping, buffer.bytes())? else { return Ok(None) };
    let Some(message) = buffer.take(header + length) else { return Ok(None) };
    let (hops, body) = message[header..].split_at(HOPS_LEN);
    // A hop count fits a byte; there is no device here that would raise it.
    if hops[..3] != [0; 3] {
        return Err(Malformed::Nng);
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_these_bytes() {
        let wire = |mapping: Mapping| {
            let mut bytes = Vec::new();
            mapping.frame(&mut bytes, |to| to.extend_from_slice(b"hi"));
            bytes
        };
        assert_eq!(wire(Mapping::Ipc), [1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, b'h', b'i']);
        assert_eq!(wire(Mapping::Tcp), [0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, b'h', b'i']);
        assert_eq!(GREETING, *b"\0SP\0\0\x11\0\0");
    }
}
