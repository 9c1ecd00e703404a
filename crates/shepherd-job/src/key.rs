//! Keys as names of files.

use crate::ObjectPath;

/// The directory, in a job's own and in its inputs, of the files whose keys are no
/// paths.
pub const ENCODED_KEYS: &str = ".shepherd-keys";

/// How many bytes of an encoded key one name holds at most. With it, the longest
/// key is a path of 3,300 bytes, and every name is short enough for the file
/// systems that allow less than 255.
const CHUNK: usize = 126;

/// The path of the file whose key is `key`, which begins with [`ENCODED_KEYS`]. The
/// whole key is percent-encoded and cut into names of at most 126 bytes: `inputs//x` is
/// `.shepherd-keys/=inputs%2F%2Fx`. The last name begins with `=` and the others with
/// `+`, so that no encoded key is a directory of another.
pub fn encode_key(key: &str) -> String {
    let mut path = String::with_capacity(ENCODED_KEYS.len() + 2 + key.len() * 2);
    path.push_str(ENCODED_KEYS);
    let mut chunk = String::with_capacity(CHUNK);
    for byte in key.bytes() {
        let kept = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if chunk.len() + if kept { 1 } else { 3 } > CHUNK {
            path.push_str("/+");
            path.push_str(&chunk);
            chunk.clear();
        }
        if kept {
            chunk.push(char::from(byte));
        } else {
            chunk.push('%');
            for nibble in [byte >> 4, byte & 15] {
                chunk.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
    path.push_str("/=");
    path.push_str(&chunk);
    path
}

/// The key whose file is at `path`, which begins with [`ENCODED_KEYS`]; none for a file
/// that somebody else put there.
pub fn decode_key(path: &str) -> Option<ObjectPath> {
    let mut key = Vec::new();
    for name in path.strip_prefix(ENCODED_KEYS)?.strip_prefix('/')?.split('/') {
        let mut rest = name.as_bytes().get(1..)?;
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first == b'%' {
                let [high, low, tail @ ..] = rest else { return None };
                key.push(nibble(*high)? << 4 | nibble(*low)?);
                rest = tail;
            } else {
                key.push(*first);
            }
        }
    }
    let key = ObjectPath::parse(&String::from_utf8(key).ok()?).ok()?;
    // One key has one path: another spelling of it is not ours.
    (encode_key(key.as_str()) == path).then_some(key)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_readable_and_one_to_one() {
        assert_eq!(encode_key("inputs//x.txt"), ".shepherd-keys/=inputs%2F%2Fx.txt");
        assert_eq!(encode_key(".."), ".shepherd-keys/=..");
        for foreign in [
            ".shepherd-keys",
            ".shepherd-keys/",
            ".shepherd-keys/x",
            ".shepherd-keys/=",
            ".shepherd-keys/=%2f",
            ".shepherd-keys/=%41",
            ".shepherd-keys/=%",
            ".shepherd-keys/=%FF",
            ".shepherd-keys/+a/=b",
            ".shepherd-keys/=a b",
            "x/=a",
        ] {
            assert_eq!(decode_key(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn every_key_comes_back() {
        let long = ["/".repeat(1024), "ž".repeat(512), "a".repeat(1024), "%".repeat(300)];
        for key in ["/", "a//b", "d/", ".", "../x", "a\0b", "\u{1}\n"]
            .into_iter()
            .chain(long.iter().map(|key| &**key))
        {
            let path = encode_key(key);
            assert!(path.len() <= 3400, "{key}");
            assert!(path.split('/').all(|name| name.len() <= 128 && name != "." && name != ".."), "{key}");
            assert_eq!(decode_key(&path).as_ref().map(ObjectPath::as_str), Some(key));
        }
    }
}
