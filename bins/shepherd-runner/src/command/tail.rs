//! The end of what a command wrote to stderr: its error's message.

/// How much of it is kept, in bytes.
const MAX_TAIL_BYTES: usize = 4 << 10;

#[derive(Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    /// Something was dropped before what is kept.
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = if bytes.len() > MAX_TAIL_BYTES {
            self.cut = true;
            &bytes[bytes.len() - MAX_TAIL_BYTES..]
        } else {
            bytes
        };
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(MAX_TAIL_BYTES);
        if excess > 0 {
            self.cut = true;
            self.bytes.drain(..excess);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Its text, from the beginning of a line if there is one. None when there is
    /// nothing to read.
    pub(super) fn text(&self) -> Option<String> {
        let mut bytes = self.bytes.trim_ascii_end();
        if self.cut
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
        {
            bytes = &bytes[end + 1..];
        }
        // A character that was cut through would only look like a mistake.
        let whole = bytes.iter().take(3).take_while(|byte| self.cut && **byte & 0xc0 == 0x80).count();
        let text = String::from_utf8_lossy(&bytes[whole..]).into_owned();
        (!text.trim().is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[&[u8]]) -> Option<String> {
        let mut tail = Tail::default();
        for piece in pieces {
            tail.push(piece);
            assert!(tail.bytes.len() <= MAX_TAIL_BYTES);
        }
        tail.text()
    }

    #[test]
    fn the_end_is_kept_from_the_beginning_of_a_line() {
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[b" \n\n"]), None);
        assert_eq!(text(&[b"one\n", b"two\n\n"]).as_deref(), Some("one\ntwo"));
        assert_eq!(text(&[b"caf\xe9"]).as_deref(), Some("caf\u{fffd}"));
        let lines: Vec<u8> = (0..1000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        for pieces in [vec![&lines[..]], lines.chunks(7).collect(), lines.chunks(5000).collect()] {
            let text = text(&pieces).unwrap();
            assert!(text.starts_with("line ") && text.ends_with("line 999"), "{text}");
            assert!(text.len() > MAX_TAIL_BYTES - 20);
        }
        let long = "ž".repeat(MAX_TAIL_BYTES);
        let cut = text(&[long.as_bytes(), b"x"]).unwrap();
        assert!(cut.starts_with('ž') && cut.ends_with('x'));
    }
}
