//! Makes text out of what is almost text.
//!
//! Python writes a byte that it could not decode as a lone surrogate, `\udc80`,
//! which is legal JSON and no Unicode; others send bytes that are no UTF-8. Both
//! become the replacement character.

use std::borrow::Cow;

/// The frame as text without lone surrogates.
pub(super) fn text(frame: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(frame) {
        Cow::Borrowed(text) => surrogates(text),
        Cow::Owned(text) => Cow::Owned(surrogates(&text).into_owned()),
    }
}

fn surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut mended = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at + 1 < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match escaped_unit(&bytes[at..]) {
            Some(0xd800..=0xdbff)
                if matches!(bytes.get(at + 6..).and_then(escaped_unit), Some(0xdc00..=0xdfff)) =>
            {
                at += 12;
            }
            Some(0xd800..=0xdfff) => {
                mended.push_str(&text[copied..at]);
                mended.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            Some(_) => at += 6,
            // Another escape: its second byte must not be taken for the start of one.
            None => at += 2,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    mended.push_str(&text[copied..]);
    Cow::Owned(mended)
}

/// The code unit of the `\uXXXX` at the start of `bytes`.
fn escaped_unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_all_else_is_kept() {
        for (given, wanted) in [
            (r#""plain""#, r#""plain""#),
            (r#""\udc80x""#, r#""\ufffdx""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\udc80""#, r#""\\udc80""#),
            (r#""\\\udc80""#, r#""\\\ufffd""#),
            (r#""\u00e9\uD800""#, r#""\u00e9\ufffd""#),
            (r#""\udc8"#, r#""\udc8"#),
            ("\\", "\\"),
            ("č\\ud800č", "č\\ufffdč"),
        ] {
            assert_eq!(text(given.as_bytes()), wanted, "{given}");
        }
        assert_eq!(text(b"\"\xff\""), "\"\u{fffd}\"");
    }
}
