//! HTTP/1.1 on one kept connection, for as little work as possible: one write a
//! request, one read an answer, and no allocation once the buffers have grown.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A connection that has at most one request under way.
pub(crate) struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    filled: usize,
}

/// An answer, in the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: vec![0; 4096], filled: 0 })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request. The socket blocks while its buffer is full, which the small
    /// requests of a measurement never fill.
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Reads once, which does not block after the socket was said to be readable.
    /// `handle` gets the answer when it is complete.
    pub(crate) fn receive<T>(&mut self, handle: impl FnOnce(Answer<'_>) -> T) -> io::Result<Option<T>> {
        if self.filled == self.inbox.len() {
            self.inbox.resize(self.inbox.len() * 2, 0);
        }
        match self.stream.read(&mut self.inbox[self.filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => self.filled += read,
        }
        let Some((answer, length)) = parse(&self.inbox[..self.filled])? else { return Ok(None) };
        if length != self.filled {
            return Err(broken("there is more than the answer to the one request"));
        }
        let value = handle(answer);
        self.filled = 0;
        Ok(Some(value))
    }
}

/// The answer at the beginning of `bytes` and its length, once it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer<'_>, usize)>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = bytes[..head].split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12)).and_then(number);
    let status = status.ok_or_else(|| broken("there is no status"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
        name.eq_ignore_ascii_case(b"content-length").then(|| number(value[1..].trim_ascii()))?
    });
    let length = length.ok_or_else(|| broken("the length of the body is not given"))?;
    let end = head + 4 + length;
    if bytes.len() < end {
        return Ok(None);
    }
    let status = u16::try_from(status).map_err(|_| broken("there is no status"))?;
    Ok(Some((Answer { status, body: &bytes[head + 4..end] }, end)))
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let bytes = b"HTTP/1.1 202 Accepted\r\ncontent-type: x\r\nContent-Length:  5\r\n\r\nhello";
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).unwrap().is_none(), "{end}");
        }
        let (answer, length) = parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.body, length), (202, b"hello".as_slice(), bytes.len()));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
