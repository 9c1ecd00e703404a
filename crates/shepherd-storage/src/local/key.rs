//! Keys as paths.
//!
//! A key is the path of its file, byte for byte, wherever a file system can hold
//! that. What it cannot hold lies below [`AREA`] in the job's directory, under the
//! whole key percent-encoded and cut into names of at most [`CHUNK`] bytes:
//! `inputs//x` is `.shepherd-keys/=inputs%2F%2Fx`. The last name of such a path
//! begins with `=` and the others with `+`, so that no encoded key is a directory
//! of another. Only a key whose *first* segment is the area's own name needs the
//! encoding for its own sake: further down that name is a name like any other.

use shepherd_job::ObjectPath;

/// The directory, in a job's own, of the keys that are no paths.
pub(super) const AREA: &str = ".shepherd-keys";

/// How many bytes of an encoded key one name holds at most. With it, the longest
/// key is a path of 3,300 bytes, and every name is short enough for the file
/// systems that allow less than 255.
const CHUNK: usize = 126;

/// Whether `key` could be the path of a file. The file system has the last word:
/// it may refuse a name as too long, or hold a file where a directory is needed.
pub(super) fn is_plain(key: &str) -> bool {
    let mut segments = key.split('/');
    !key.as_bytes().contains(&0)
        && segments.clone().next() != Some(AREA)
        && segments.all(|segment| !matches!(segment, "" | "." | ".."))
}

/// The path of `key` in the area, which begins with [`AREA`].
pub(super) fn encoded(key: &str) -> String {
    let mut path = String::with_capacity(AREA.len() + 2 + key.len() * 2);
    path.push_str(AREA);
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

/// The key whose path in the area is `path`; none for a file that somebody else
/// put there.
pub(super) fn decoded(path: &str) -> Option<ObjectPath> {
    let mut key = Vec::new();
    for name in path.strip_prefix(AREA)?.strip_prefix('/')?.split('/') {
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
    (encoded(key.as_str()) == path).then_some(key)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A path's directory and its last name.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_keys_are_paths() {
        for key in
            ["inputs/input", "a b", "100%", "%2F", ".hidden/x", "...", "žluť/kůň", "a/.shepherd-keys/b"]
        {
            assert!(is_plain(key), "{key}");
        }
        for key in
            ["", "/", "a//b", "/a", "a/", ".", "a/../b", "./a", "a\0b", ".shepherd-keys", ".shepherd-keys/a"]
        {
            assert!(!is_plain(key), "{key}");
        }
    }

    #[test]
    fn the_encoding_is_readable_and_one_to_one() {
        assert_eq!(encoded("inputs//x.txt"), ".shepherd-keys/=inputs%2F%2Fx.txt");
        assert_eq!(encoded(".."), ".shepherd-keys/=..");
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
            assert_eq!(decoded(foreign), None, "{foreign}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_key_comes_back(key in proptest::prop_oneof!["[a-zA-Z./%\0 ]{1,1024}", "\\PC{1,256}", "[/]{1000,1024}"]) {
            let Ok(key) = ObjectPath::parse(&key) else { return Ok(()) };
            let path = encoded(key.as_str());
            proptest::prop_assert!(path.len() <= 3400);
            proptest::prop_assert!(path.split('/').all(|name| name.len() <= 128 && name != "." && name != ".."));
            proptest::prop_assert_eq!(decoded(&path), Some(key));
        }
    }
}
