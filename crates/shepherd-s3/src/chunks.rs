//! The `aws-chunked` framing, looked at on the way to s3s.
//!
//! ```text
//! SIZE[;chunk-signature=...]\r\n  DATA  \r\n  ...  0[;chunk-signature=...]\r\n  TRAILERS
//! ```
//! s3s holds a chunk whole before it gives its bytes on, and some clients send a
//! body as one chunk. An unsigned chunk is therefore cut: what arrives of it becomes
//! a chunk of its own. A signed one cannot be, and may not be larger than
//! [`LARGEST`].

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

/// The largest signed chunk.
const LARGEST: u64 = 16 << 20;
/// The longest line before a chunk, as in s3s.
const LINE: usize = 1024;

/// Where in the framing the body is.
#[derive(Debug)]
enum At {
    /// In the line before a chunk.
    Line(BytesMut),
    /// In a chunk, of which so much is left, and which is cut or not.
    Data { left: u64, cut: bool },
    /// Behind a chunk, before so many bytes of the line's end.
    End { left: u8, cut: bool },
    /// Behind the last chunk.
    Trailers,
}

/// What is wrong with the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadChunk {
    /// It is none.
    Framing,
    /// A signed chunk is too large.
    TooLarge,
}

/// Follows the framing of one body.
#[derive(Debug)]
pub(crate) struct Chunks {
    at: At,
    ready: VecDeque<Bytes>,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self { at: At::Line(BytesMut::new()), ready: VecDeque::new() }
    }

    /// The next bytes for s3s.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// The next bytes from the client.
    pub(crate) fn push(&mut self, mut bytes: Bytes) -> Result<(), BadChunk> {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Line(line) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let taken = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
                    if line.len() + taken.len() > LINE {
                        return Err(BadChunk::Framing);
                    }
                    line.extend_from_slice(&taken);
                    if end.is_some() {
                        let line = std::mem::take(line).freeze();
                        self.at = self.chunk(line)?;
                    }
                }
                At::Data { left, cut } => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = bytes.split_to(bytes.len().min(most));
                    *left -= data.len() as u64;
                    let (left, cut) = (*left, *cut);
                    if cut {
                        self.ready.push_back(format!("{:x}\r\n", data.len()).into());
                        self.ready.push_back(data);
                        self.ready.push_back(Bytes::from_static(b"\r\n"));
                    } else {
                        self.ready.push_back(data);
                    }
                    if left == 0 {
                        self.at = At::End { left: 2, cut };
                    }
                }
                At::End { left, cut } => {
                    let expected = if *left == 2 { b'\r' } else { b'\n' };
                    if bytes[0] != expected {
                        return Err(BadChunk::Framing);
                    }
                    if !*cut {
                        self.ready.push_back(bytes.slice(..1));
                    }
                    bytes.advance(1);
                    *left -= 1;
                    if *left == 0 {
                        self.at = At::Line(BytesMut::new());
                    }
                }
                At::Trailers => self.ready.push_back(std::mem::take(&mut bytes)),
            }
        }
        Ok(())
    }

    /// Whether the last chunk came.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.at, At::Trailers)
    }

    fn chunk(&mut self, line: Bytes) -> Result<At, BadChunk> {
        let text = line.strip_suffix(b"\r\n").ok_or(BadChunk::Framing)?;
        let end = text.iter().position(|byte| *byte == b';');
        let digits =
            std::str::from_utf8(&text[..end.unwrap_or(text.len())]).map_err(|_| BadChunk::Framing)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadChunk::Framing);
        }
        let left = u64::from_str_radix(digits, 16).map_err(|_| BadChunk::Framing)?;
        let cut = end.is_none();
        if left == 0 {
            self.ready.push_back(line);
            return Ok(At::Trailers);
        }
        if !cut {
            if left > LARGEST {
                return Err(BadChunk::TooLarge);
            }
            self.ready.push_back(line);
        }
        Ok(At::Data { left, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), BadChunk> {
        let mut chunks = Chunks::new();
        let mut out = Vec::new();
        for piece in pieces {
            chunks.push(Bytes::copy_from_slice(piece))?;
            while let Some(bytes) = chunks.pop() {
                out.extend_from_slice(&bytes);
            }
        }
        Ok((out, chunks.is_whole()))
    }

    #[test]
    fn an_unsigned_chunk_is_cut_where_its_bytes_arrive() {
        let (out, whole) =
            through(&[b"6\r\nab", b"cdef\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"]).unwrap();
        let expected = "2\r\nab\r\n4\r\ncdef\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(whole);
    }

    #[test]
    fn a_signed_body_passes_byte_for_byte() {
        let body = format!("3;chunk-signature={0}\r\nabc\r\n0;chunk-signature={0}\r\n\r\n", "f".repeat(64));
        for size in 1..body.len() {
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            assert_eq!(through(&pieces), Ok((body.clone().into_bytes(), true)), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_framing_is_told_from_a_chunk_that_is_too_large() {
        for bad in ["\r\n", "x\r\n", "+3\r\nabc\r\n", "3\nabc", "3\r\nabcd\r\n", "11111111111111111\r\n"] {
            assert_eq!(through(&[bad.as_bytes()]), Err(BadChunk::Framing), "{bad:?}");
        }
        assert_eq!(through(&[&[b'1'; 2000]]), Err(BadChunk::Framing));
        assert_eq!(through(&[b"1000001;chunk-signature=0\r\n"]), Err(BadChunk::TooLarge));
        assert!(through(&[b"ffffffff\r\nab"]).is_ok(), "an unsigned chunk may be large");
        assert_eq!(through(&[b"3\r\nabc\r\n"]), Ok((b"3\r\nabc\r\n".to_vec(), false)));
    }
}
