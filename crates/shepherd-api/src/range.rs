//! The `Range` header (RFC 9110, section 14).

use std::ops::Range;

/// What part of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: no range, several, another unit, or one that is no range and is
    /// to be ignored.
    Whole,
    /// From this byte to before that one, which may lie beyond the end.
    Slice {
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// This many bytes from the end.
    Last(u64),
}

impl Wanted {
    /// Reads the value of a `Range` header.
    pub(crate) fn parse(header: &[u8]) -> Self {
        Self::of(header).unwrap_or(Self::Whole)
    }

    fn of(header: &[u8]) -> Option<Self> {
        let (unit, set) = std::str::from_utf8(header).ok()?.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::Slice { from: number(first)?, to: u64::MAX }),
            (first, last) => {
                let (from, last) = (number(first)?, number(last)?);
                (from <= last).then_some(Self::Slice { from, to: last.saturating_add(1) })
            }
        }
    }

    /// The bytes of a file of `size` that are meant; none when there are none.
    pub(crate) fn within(self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::Whole => Some(0..size),
            Self::Slice { from, to } => (from < size).then_some(from..to.min(size)),
            Self::Last(count) => (count > 0 && size > 0).then_some(size.saturating_sub(count)..size),
        }
    }
}

/// Digits only: `parse` alone would take a sign. A number too large to hold
/// means beyond any file's end.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let slice = |from, to| Wanted::Slice { from, to };
        for (header, wanted) in [
            ("bytes=0-0", slice(0, 1)),
            ("bytes=2-5", slice(2, 6)),
            ("Bytes = 2-", slice(2, u64::MAX)),
            ("bytes=-3", Wanted::Last(3)),
            ("bytes=-0", Wanted::Last(0)),
            ("bytes=99999999999999999999999-", slice(u64::MAX, u64::MAX)),
            ("bytes=0-18446744073709551615", slice(0, u64::MAX)),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(Wanted::parse(header.as_bytes()), wanted, "{header}");
        }
        assert_eq!(Wanted::parse(b"bytes=\xff-"), Wanted::Whole);
    }

    #[test]
    fn ranges_are_clipped_to_the_file() {
        let slice = |from, to| Wanted::Slice { from, to };
        for (wanted, size, part) in [
            (Wanted::Whole, 0, Some(0..0)),
            (slice(0, 1), 0, None),
            (slice(2, u64::MAX), 10, Some(2..10)),
            (slice(9, 10), 10, Some(9..10)),
            (slice(10, 11), 10, None),
            (slice(u64::MAX, u64::MAX), 10, None),
            (Wanted::Last(3), 10, Some(7..10)),
            (Wanted::Last(30), 10, Some(0..10)),
            (Wanted::Last(0), 10, None),
            (Wanted::Last(3), 0, None),
        ] {
            assert_eq!(wanted.within(size), part, "{wanted:?} of {size}");
        }
    }
}
