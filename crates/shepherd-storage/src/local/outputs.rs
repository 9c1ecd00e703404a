//! What a runner left: looked through before it is published, and read file by
//! file by a storage that cannot take the directory as a whole.
//!
//! A runner may still be at work in it. Every file is opened by descriptor from the
//! directory it was found in, and only what is then seen to be a regular file is
//! read.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};

use bytes::Bytes;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use shepherd_job::ObjectPath;

use super::disk::{is_file, size};
use super::fault::{failed, failed_io};
use super::removal::empty;
use super::resolve::{Entry, LIST, READ, Resolve, WalkError, join};
use crate::{Result, RunnerDir, StorageError, Trust};

const OUTPUTS: &str = "outputs";

/// More than so many names of a stranger's are not looked at: it may make them as
/// fast as they are read.
const MOST_NAMES: usize = 1_000_000;

/// An open directory of a runner.
pub(crate) struct Outputs {
    dir: OwnedFd,
    resolve: Resolve,
    trust: Trust,
}

/// A file in it.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Its path there.
    pub(crate) path: String,
    /// The key of the object that it becomes.
    pub(crate) key: ObjectPath,
}

/// Ends a walk.
struct Stop(StorageError);

impl From<WalkError> for Stop {
    fn from(WalkError { path, errno }: WalkError) -> Self {
        Self(match errno {
            // The runner made it so, and will not mend it: no matter for another try.
            Errno::ACCESS | Errno::PERM => refused(&path, "may not be read"),
            errno => failed(format_args!("read the directory {path:?}"), errno),
        })
    }
}

pub(super) fn refused(path: &str, why: &str) -> StorageError {
    StorageError::Invalid(format!("the output {path:?} {why}"))
}

/// Opens a runner's directory.
///
/// # Errors
/// [`StorageError::NotFound`] when there is none, [`StorageError::Invalid`] when it
/// is none or may not be read.
pub(super) fn open(from: &RunnerDir) -> Result<OwnedFd> {
    from.open(LIST).map_err(|errno| match errno {
        Errno::NOENT => StorageError::NotFound,
        Errno::NOTDIR | Errno::LOOP => StorageError::Invalid(format!("{} is not a directory", from.shown())),
        Errno::ACCESS | Errno::PERM => StorageError::Invalid(format!("{} may not be read", from.shown())),
        errno => failed(format_args!("open {}", from.shown()), errno),
    })
}

/// A file that was found in a runner's directory.
pub(super) struct Found<'a> {
    pub(super) output: Output,
    pub(super) stat: Stat,
    pub(super) entry: &'a Entry<'a>,
}

impl Found<'_> {
    /// Opens the file.
    ///
    /// # Errors
    /// As [`Outputs::file`].
    pub(super) fn open(&self, trust: Trust) -> Result<(File, Stat)> {
        let open = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(self.entry.dir, self.entry.name, flags, Mode::empty())
        };
        read_regular(trust, &self.output.path, open)
    }

    /// Takes from the file what lets whoever runs it act as its owner or group.
    ///
    /// # Errors
    /// As [`Outputs::file`].
    pub(super) fn clear_set_id(&self) -> Result<()> {
        const SET_ID: u32 = 0o6000;
        if self.stat.st_mode & SET_ID == 0 {
            return Ok(());
        }
        let (file, stat) = self.open(Trust::Trusted)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777 & !SET_ID)).map_err(|_| {
            refused(&self.output.path, "has set-user-id or set-group-id, which it does not let go of")
        })
    }
}

/// Looks through a runner's directory.
///
/// # Errors
/// [`StorageError::Invalid`] for what cannot become an object, with its path; what
/// `visit` fails with.
pub(super) fn each_file(
    resolve: Resolve,
    dir: &OwnedFd,
    trust: Trust,
    mut visit: impl FnMut(&Found<'_>) -> Result<()>,
) -> Result<()> {
    let mut names = 0;
    let walked = resolve.walk(dir, ".", |entry: &Entry<'_>| {
        let refuse = |why: &str| {
            let path = join(entry.parent, &entry.name.to_string_lossy());
            Err(Stop(refused(&path, why)))
        };
        names += 1;
        if trust == Trust::Untrusted && names > MOST_NAMES {
            return refuse("is one of more than a million");
        }
        let Some(path) = entry.path() else { return refuse("has a name that is not UTF-8") };
        let Ok(key) = ObjectPath::parse(&format!("{OUTPUTS}/{path}")) else {
            return refuse("has a path of more than 1,024 bytes");
        };
        match entry.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(()),
            FileType::Symlink => return refuse("is a symbolic link"),
            _ => return refuse("is not a regular file"),
        }
        let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
        if rustix::fs::accessat(entry.dir, entry.name, Access::READ_OK, flags) == Err(Errno::ACCESS) {
            return refuse("may not be read");
        }
        match rustix::fs::statat(entry.dir, entry.name, AtFlags::SYMLINK_NOFOLLOW) {
            // A runner of ours is this user. What another user's runner owns is copied in any case.
            Ok(stat)
                if trust == Trust::Trusted
                    && stat.st_nlink > 1
                    && stat.st_uid != rustix::process::geteuid().as_raw() =>
            {
                refuse("is a hard link to a file of another user")
            }
            Ok(stat) if is_file(&stat) => {
                visit(&Found { output: Output { path, key }, stat, entry }).map_err(Stop)
            }
            Ok(_) => refuse("is not a regular file"),
            Err(errno) => Err(Stop(unreadable(&path, errno))),
        }
    });
    walked.map_err(|Stop(error)| error)
}

/// Opens a regular file and looks at it.
fn read_regular(
    trust: Trust,
    path: &str,
    open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
) -> Result<(File, Stat)> {
    let opened = match trust {
        Trust::Trusted => open(READ).and_then(|file| rustix::fs::fstat(&file).map(|stat| (file, stat))),
        // To open a device is to use it: what this is must be known before.
        Trust::Untrusted => open(OFlags::PATH).and_then(|at| {
            let stat = rustix::fs::fstat(&at)?;
            if !is_file(&stat) {
                return Ok((at, stat));
            }
            let same = format!("/proc/self/fd/{}", at.as_raw_fd());
            match rustix::fs::open(same, READ | OFlags::CLOEXEC, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let file = open(READ)?;
                    rustix::fs::fstat(&file).map(|stat| (file, stat))
                }
                outcome => outcome.map(|file| (file, stat)),
            }
        }),
    };
    match opened {
        Ok((file, stat)) if is_file(&stat) => Ok((File::from(file), stat)),
        Ok(_) => Err(refused(path, "is not a regular file")),
        Err(errno) => Err(unreadable(path, errno)),
    }
}

impl Outputs {
    /// Opens the directory `from`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none.
    pub(crate) fn open(from: &RunnerDir) -> Result<Self> {
        let dir = open(from)?;
        let resolve = Resolve::probe(&dir);
        Ok(Self { dir, resolve, trust: from.trust() })
    }

    /// All files.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] for what cannot become an object.
    pub(crate) fn survey(&self) -> Result<Vec<Output>> {
        let mut found = Vec::new();
        each_file(self.resolve, &self.dir, self.trust, |file| {
            found.push(file.output.clone());
            Ok(())
        })?;
        Ok(found)
    }

    /// Opens one of the files that the survey found, and gives its size.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] when it is another thing by now.
    pub(crate) fn file(&self, output: &Output) -> Result<(File, u64)> {
        let open = |flags| self.resolve.open(&self.dir, &output.path, flags);
        let (file, stat) = read_regular(self.trust, &output.path, open)?;
        Ok((file, size(&stat)))
    }

    /// The bytes of a file that has at most `most`; `None` for a larger one.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub(crate) fn read_small(&self, output: &Output, most: usize) -> Result<Option<Bytes>> {
        let (file, len) = self.file(output)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > most {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(len + 1);
        // It may grow while it is read.
        match file.take(most as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() <= most => Ok(Some(bytes.into())),
            Ok(_) => Ok(None),
            Err(error) => Err(failed_io(format_args!("read the output {:?}", output.path), &error)),
        }
    }

    /// Removes everything in the directory, as far as that can be had.
    pub(crate) fn clear(&self) -> Result<()> {
        empty(&self.dir).map_err(|errno| failed("remove published outputs", errno))
    }
}

fn unreadable(path: &str, errno: Errno) -> StorageError {
    match errno {
        Errno::ACCESS | Errno::PERM => refused(path, "may not be read"),
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::XDEV => {
            refused(path, "was removed or replaced while it was published")
        }
        errno => failed(format_args!("open the output {path:?}"), errno),
    }
}
