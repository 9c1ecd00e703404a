//! The name by which the containers and images of this shepherd are known across restarts.
//!
//! `STATE_DIR/instance` holds twelve random hexadecimal digits. It is made once, under the queue's lock, and is on
//! disk before the first container is. Without it nobody would know whose the containers of an earlier life are.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

const DIGITS: usize = 12;

/// The name; it is made where there is none yet, or none that can be one.
pub(super) fn of(state_dir: &Path) -> anyhow::Result<String> {
    let path = state_dir.join("instance");
    let cannot = || format!("cannot use {}", path.display());
    let mut bytes = Vec::new();
    match File::open(&path) {
        Ok(file) => {
            file.take(DIGITS as u64 + 2).read_to_end(&mut bytes).with_context(cannot)?;
            if let Some(name) = parse(&bytes) {
                return Ok(name);
            }
            tracing::warn!(
                "{} does not hold the {DIGITS} digits that mark this shepherd's containers, and is made anew. \
                 Containers of an earlier life are no longer known to be ours: look for those with the label \
                 shepherd.instance, and remove them",
                path.display()
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(cannot),
    }
    // The end of such an id is random.
    let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
    let name = format!("{:0DIGITS$x}", random & ((1 << (4 * DIGITS)) - 1));
    write(state_dir, &path, &name).with_context(cannot)?;
    Ok(name)
}

fn parse(bytes: &[u8]) -> Option<String> {
    let digits = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let legal = digits.len() == DIGITS && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    legal.then(|| String::from_utf8_lossy(digits).into_owned())
}

/// Whole or not at all, and on disk when it returns.
fn write(state_dir: &Path, path: &Path, name: &str) -> std::io::Result<()> {
    // What was left of a write that broke off is overwritten.
    let new = state_dir.join("instance.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{name}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let name = of(dir.path()).unwrap();
        assert!(name.len() == DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        assert_eq!(of(dir.path()).unwrap(), name);
        assert_eq!(fs::read_to_string(dir.path().join("instance")).unwrap(), format!("{name}\n"));
        assert!(!dir.path().join("instance.new").exists());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(of(other.path()).unwrap(), name);
    }

    #[test]
    fn what_cannot_be_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("instance.new"), "left over from a write that broke off").unwrap();
        for broken in
            [&b""[..], b"0123456789a", b"0123456789abc", b"0123456789AB", b"0123456789ab\n\n", b"\xff\0"]
        {
            fs::write(dir.path().join("instance"), broken).unwrap();
            let name = of(dir.path()).unwrap();
            assert_eq!(of(dir.path()).unwrap(), name, "{broken:?}");
            assert_ne!(name.as_bytes(), broken);
        }
        fs::write(dir.path().join("instance"), "0123456789ab").unwrap();
        assert_eq!(of(dir.path()).unwrap(), "0123456789ab");
    }

    #[test]
    fn one_that_cannot_be_kept_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("instance")).unwrap();
        let error = of(dir.path()).unwrap_err();
        assert!(error.to_string().contains("instance"), "{error}");
    }
}
