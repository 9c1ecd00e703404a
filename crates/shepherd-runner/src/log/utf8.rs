//! Text out of bytes that come in pieces, which may break off within a letter.

/// The longest beginning of a letter.
const MAX_PARTIAL: usize = 3;

/// One stream of bytes. What is no UTF-8 becomes replacement characters.
#[derive(Default)]
pub(crate) struct Utf8 {
    /// The beginning of a letter.
    partial: Vec<u8>,
}

impl Utf8 {
    /// Gives the text that is complete now.
    pub(crate) fn push(&mut self, bytes: &[u8], mut give: impl FnMut(&str)) {
        let mut rest = bytes;
        // The letter that was broken off is made whole, or turns out to be none.
        while !self.partial.is_empty() {
            let Some((first, others)) = rest.split_first() else { return };
            self.partial.push(*first);
            match std::str::from_utf8(&self.partial) {
                Ok(letter) => give(letter),
                Err(error) if error.error_len().is_none() && self.partial.len() <= MAX_PARTIAL => {
                    rest = others;
                    continue;
                }
                Err(_) => {
                    // The byte that does not belong to it begins something else.
                    self.partial.clear();
                    give("\u{fffd}");
                    break;
                }
            }
            self.partial.clear();
            rest = others;
        }
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return give_some(text, &mut give),
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    // Checked just now: nothing is replaced.
                    give_some(&String::from_utf8_lossy(valid), &mut give);
                    let Some(length) = error.error_len() else {
                        self.partial.extend_from_slice(after);
                        return;
                    };
                    give("\u{fffd}");
                    rest = &after[length..];
                }
            }
        }
    }

    /// The stream is over.
    pub(crate) fn finish(&mut self, give: impl FnOnce(&str)) {
        if !self.partial.is_empty() {
            self.partial.clear();
            give("\u{fffd}");
        }
    }
}

fn give_some(text: &str, give: &mut impl FnMut(&str)) {
    if !text.is_empty() {
        give(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut utf8, mut text) = (Utf8::default(), String::new());
        for piece in pieces {
            utf8.push(piece, |part| text.push_str(part));
            assert!(utf8.partial.len() <= MAX_PARTIAL);
        }
        utf8.finish(|part| text.push_str(part));
        text
    }

    #[test]
    fn it_does_not_matter_where_the_pieces_are_cut() {
        let long = "a ž 漢 🐑 end\n".repeat(3);
        for bytes in [
            long.as_bytes(),
            b"caf\xe9 au \xff\xfe lait \xf0\x9f\x90",
            b"\xe6\xbc\xf0\x9f\x90\x91\xc3\xc3\xa9\x80\x80",
            b"\xe6ab\xe6\xbcc\xf0\x9fd\xc5\n\xed\xa0\x80",
            b"",
            b"\0\x1b[1m",
        ] {
            let wanted = String::from_utf8_lossy(bytes);
            for size in 1..=bytes.len().max(1) {
                assert_eq!(decoded(bytes.chunks(size)), wanted, "{bytes:?} by {size}");
            }
        }
    }
}
