//! A file system small enough to fill.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// A tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a file system of `bytes` at the directory `path`, made when missing.
    ///
    /// # Errors
    /// When this process may not mount: skip the test then.
    pub fn mount(path: &Path, bytes: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let options =
            std::ffi::CString::new(format!("size={bytes},mode=0777")).expect("no NUL in the options");
        rustix::mount::mount(
            "tmpfs",
            path,
            "tmpfs",
            MountFlags::NODEV | MountFlags::NOSUID,
            options.as_c_str(),
        )?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses or allows writes from now on.
    ///
    /// # Errors
    /// When a file is open for writing there, for one.
    pub fn set_read_only(&self, read_only: bool) -> std::io::Result<()> {
        let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
        if read_only {
            flags |= MountFlags::RDONLY;
        }
        Ok(rustix::mount::mount_remount(&self.path, flags, c"")?)
    }

    /// Takes all the space that is left. The file returned gives it back when removed.
    ///
    /// # Panics
    /// When writing fails for another reason than a full disk.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write as _;

        let path = self.path.join("ballast");
        let mut file = std::fs::File::create(&path).expect("the ballast can be made");
        // Smaller pieces once the large ones do not fit.
        for piece in [1 << 20, 1 << 12, 1] {
            let data = vec![0xba; piece];
            loop {
                match file.write(&data) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(e) => panic!("cannot fill {}: {e}", path.display()),
                }
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached: a daemon that is being killed may still have files open there.
        if let Err(e) = rustix::mount::unmount(&self.path, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {e}", self.path.display());
        }
    }
}
