//! Where requests and answers begin and end.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Head;

/// More than any head has.
const MOST: usize = 64 << 10;

/// Bytes that were read and not used yet.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    async fn more(&mut self, from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<bool> {
        Ok(from.read_buf(&mut self.bytes).await? > 0)
    }

    /// Everything up to and with the first `end`; `None` at the end of the stream.
    async fn until(
        &mut self,
        end: &[u8],
        from: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.bytes.windows(end.len()).position(|window| window == end) {
                let rest = self.bytes.split_off(at + end.len());
                return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
            }
            if self.bytes.len() > MOST {
                return Err(std::io::Error::other("a head without end"));
            }
            if !self.more(from).await? {
                return Ok(None);
            }
        }
    }

    /// The next request's head; `None` when the client has no more.
    pub(super) async fn head(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<Option<(Vec<u8>, Head, Length)>> {
        // An engine tries a registry by TLS first, and waits for an answer.
        if (!self.bytes.is_empty() || self.more(from).await?) && !self.bytes[0].is_ascii_uppercase() {
            return Err(std::io::Error::other("what does not begin with a method is no request"));
        }
        let Some(bytes) = self.until(b"\r\n\r\n", from).await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let head = Head { method: word(), target: word() };
        let length = Length::of(lines);
        Ok(Some((bytes, head, length)))
    }

    /// Passes the body of a request on, at most `most` bytes of it; whether that was all.
    pub(super) async fn body(
        &mut self,
        length: Length,
        most: u64,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<bool> {
        match length {
            Length::Known(length) => {
                self.pass(length.min(most), from, to).await?;
                Ok(length <= most)
            }
            Length::Chunked => {
                let mut left = most;
                loop {
                    let Some(line) = self.until(b"\r\n", from).await? else { return Ok(false) };
                    let text = String::from_utf8_lossy(&line);
                    let digits = text.trim_end().split(';').next().unwrap_or_default().to_owned();
                    let size = u64::from_str_radix(&digits, 16).map_err(std::io::Error::other)?;
                    to.write_all(&line).await?;
                    self.pass(size.min(left), from, to).await?;
                    if size > left {
                        return Ok(false);
                    }
                    left -= size;
                    // The end of the chunk's line; after the last chunk nobody we know sends trailers.
                    self.pass(2, from, to).await?;
                    if size == 0 {
                        return Ok(true);
                    }
                }
            }
        }
    }

    async fn pass(
        &mut self,
        mut left: u64,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        while left > 0 {
            if self.bytes.is_empty() && !self.more(from).await? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(self.bytes.len());
            to.write_all(&self.bytes[..now]).await?;
            self.bytes.drain(..now);
            left -= now as u64;
        }
        Ok(())
    }
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
}

impl Length {
    fn of<'l>(lines: impl Iterator<Item = &'l str>) -> Self {
        let mut length = 0;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Self::Chunked;
            }
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        Self::Known(length)
    }
}

/// Finds where the head of an answer ends, and counts what comes after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// How many of `\r\n\r\n` were seen; 4 says that the head is over.
    seen: usize,
    left: u64,
}

impl Cut {
    /// After this many bytes of the body.
    pub(super) fn after(bytes: u64) -> Self {
        Self { seen: 0, left: bytes }
    }

    /// How many of these next bytes may pass, and whether that is the end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        const END: &[u8] = b"\r\n\r\n";
        let mut head = 0;
        while self.seen < END.len() {
            let Some(byte) = bytes.get(head) else { return (bytes.len(), false) };
            head += 1;
            self.seen = if *byte == END[self.seen] { self.seen + 1 } else { usize::from(*byte == b'\r') };
        }
        let body = bytes.len() - head;
        let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(body);
        self.left -= now as u64;
        // With nothing of the body wanted, the head alone passes.
        (head + now, self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_told_apart() {
        let text = b"PUT /b/k HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\nPOST /x?y HTTP/1.1\r\n\
                     Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\nGET /last HTTP/1.1\r\n\r\n";
        // One byte after the other, so that nothing depends on how they arrive.
        let mut from = byte_by_byte(text);
        let mut buffer = Buffer::default();
        let mut seen = Vec::new();
        while let Some((_, head, length)) = buffer.head(&mut from).await.unwrap() {
            let mut body = Vec::new();
            assert!(buffer.body(length, u64::MAX, &mut from, &mut body).await.unwrap());
            seen.push((format!("{} {}", head.method, head.target), String::from_utf8(body).unwrap()));
        }
        let expected = [
            ("PUT /b/k", "hello"),
            ("GET /", ""),
            ("POST /x?y", "3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n"),
            ("GET /last", ""),
        ];
        assert_eq!(seen, expected.map(|(head, body)| (head.to_owned(), body.to_owned())));
    }

    fn byte_by_byte(bytes: &'static [u8]) -> impl AsyncRead + Unpin {
        let (mut to, from) = tokio::io::duplex(1);
        tokio::spawn(async move { to.write_all(bytes).await });
        from
    }

    #[tokio::test]
    async fn a_body_is_cut() {
        let mut buffer = Buffer::default();
        let (mut from, mut to) = (&b"hello and more"[..], Vec::new());
        assert!(!buffer.body(Length::Known(14), 5, &mut from, &mut to).await.unwrap());
        assert_eq!(to, b"hello");
    }

    #[test]
    fn an_answer_is_cut_wherever_its_pieces_end() {
        let answer = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nhello";
        for piece in 1..answer.len() {
            for (most, expected) in [(0, 25), (2, 27), (9, 30)] {
                let mut cut = Cut::after(most);
                let mut passed = 0;
                for bytes in answer.chunks(piece) {
                    let (now, over) = cut.take(bytes);
                    passed += now;
                    if over {
                        break;
                    }
                }
                assert_eq!(passed, expected, "{piece} {most}");
            }
        }
    }
}
