//! Taking permissions from what earlier versions, or other umasks, have left in the state
//! directory. What is made from now on gets none: the umask of the process sees to that.

use std::fs::{self, DirEntry, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Takes the permissions in `mask` from a directory and from what lies directly in it.
pub(super) fn close(dir: &Path, mask: u32) -> anyhow::Result<()> {
    let cannot = || format!("cannot look through {}", dir.display());
    close_one(dir, mask);
    for entry in fs::read_dir(dir).with_context(cannot)? {
        let entry: DirEntry = entry.with_context(cannot)?;
        // The permissions of a link are those of something else.
        if !entry.file_type().with_context(cannot)?.is_symlink() {
            close_one(&entry.path(), mask);
        }
    }
    Ok(())
}

fn close_one(path: &Path, mask: u32) {
    let closed = || -> io::Result<()> {
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & mask == 0 {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !mask))
    };
    if let Err(error) = closed()
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot take permissions from what others must not read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_closed_but_for_what_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (state, outside) = (dir.path().join("state"), dir.path().join("outside"));
        fs::create_dir(&state).unwrap();
        fs::create_dir(state.join("storage")).unwrap();
        fs::write(state.join("queue"), "").unwrap();
        fs::write(&outside, "").unwrap();
        for path in [&state, &state.join("storage"), &state.join("queue"), &outside] {
            fs::set_permissions(path, Permissions::from_mode(0o775)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, state.join("link")).unwrap();
        close(&state, 0o027).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for path in [&state, &state.join("storage"), &state.join("queue")] {
            assert_eq!(mode(path), 0o750, "{path:?}");
        }
        assert_eq!(mode(&outside), 0o775);
    }
}
