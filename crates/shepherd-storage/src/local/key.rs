//! Keys as paths.
//!
//! A key is the path of its file, byte for byte, wherever a file system can hold
//! that. What it cannot hold lies below [`AREA`] in the job's directory, encoded as
//! [`shepherd_job::encode_key`] says. Only a key whose *first* segment is the area's
//! own name needs the encoding for its own sake: further down that name is a name
//! like any other.

pub(super) use shepherd_job::{ENCODED_KEYS as AREA, decode_key as decoded, encode_key as encoded};

/// Whether `key` could be the path of a file. The file system has the last word:
/// it may refuse a name as too long, or hold a file where a directory is needed.
pub(super) fn is_plain(key: &str) -> bool {
    let mut segments = key.split('/');
    !key.as_bytes().contains(&0)
        && segments.clone().next() != Some(AREA)
        && segments.all(|segment| !matches!(segment, "" | "." | ".."))
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

    proptest::proptest! {
        #[test]
        fn every_key_comes_back(key in proptest::prop_oneof!["[a-zA-Z./%\0 ]{1,1024}", "\\PC{1,256}", "[/]{1000,1024}"]) {
            let Ok(key) = shepherd_job::ObjectPath::parse(&key) else { return Ok(()) };
            let path = encoded(key.as_str());
            proptest::prop_assert!(path.len() <= 3400);
            proptest::prop_assert!(path.split('/').all(|name| name.len() <= 128 && name != "." && name != ".."));
            proptest::prop_assert_eq!(decoded(&path), Some(key));
        }
    }
}
