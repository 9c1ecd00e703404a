//! What a runner left: looked through before it is published, and read file by
//! file by a storage that cannot take the directory as a whole.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use shepherd_job::ObjectPath;

use super::disk::{is_file, size};
use super::fault::{failed, failed_io};
use super::resolve::{Entry, LIST, READ, Resolve, WalkError, join};
use super::temp::empty;
use crate::{Result, StorageError};

const OUTPUTS: &str = "outputs";

/// An open directory of a runner.
pub(crate) struct Outputs {
    dir: OwnedFd,
    resolve: Resolve,
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

fn refused(path: &str, why: &str) -> StorageError {
    StorageError::Invalid(format!("the output {path:?} {why}"))
}

/// Opens a runner's directory.
///
/// # Errors
/// [`StorageError::NotFound`] when there is none, [`StorageError::Invalid`] when it
/// is none or may not be read.
pub(super) fn open(from: &Path) -> Result<OwnedFd> {
    let flags = LIST | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(from, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => StorageError::NotFound,
        Errno::NOTDIR | Errno::LOOP => {
            StorageError::Invalid(format!("{} is not a directory", from.display()))
        }
        Errno::ACCESS | Errno::PERM => StorageError::Invalid(format!("{} may not be read", from.display())),
        errno => failed(format_args!("open {}", from.display()), errno),
    })
}

/// Looks through a runner's directory.
///
/// # Errors
/// [`StorageError::Invalid`] for what cannot become an object, with its path.
pub(super) fn each_file(resolve: Resolve, dir: &OwnedFd, mut found: impl FnMut(Output, &Stat)) -> Result<()> {
    let walked = resolve.walk(dir, ".", |entry: &Entry<'_>| {
        let refuse = |why: &str| {
            let path = join(entry.parent, &entry.name.to_string_lossy());
            Err(Stop(refused(&path, why)))
        };
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
        let access = rustix::fs::accessat(entry.dir, entry.name, Access::READ_OK, AtFlags::EACCESS);
        if access == Err(Errno::ACCESS) {
            return refuse("may not be read");
        }
        match rustix::fs::statat(entry.dir, entry.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_file(&stat) => found(Output { path, key }, &stat),
            Ok(_) => return refuse("is not a regular file"),
            Err(errno) => return Err(Stop(failed(format_args!("look at the output {path:?}"), errno))),
        }
        Ok(())
    });
    walked.map_err(|Stop(error)| error)
}

impl Outputs {
    /// Opens the directory `from`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none.
    pub(crate) fn open(from: &Path) -> Result<Self> {
        let dir = open(from)?;
        let resolve = Resolve::probe(&dir);
        Ok(Self { dir, resolve })
    }

    /// All files.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] for what cannot become an object.
    pub(crate) fn survey(&self) -> Result<Vec<Output>> {
        let mut found = Vec::new();
        each_file(self.resolve, &self.dir, |output, _| found.push(output))?;
        Ok(found)
    }

    /// Opens one of the files that the survey found, and gives its size.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] when it is another thing by now.
    pub(crate) fn file(&self, output: &Output) -> Result<(File, u64)> {
        let path = &output.path;
        let opened = self
            .resolve
            .open(&self.dir, path, READ)
            .and_then(|file| rustix::fs::fstat(&file).map(|stat| (file, stat)));
        match opened {
            Ok((file, stat)) if is_file(&stat) => Ok((File::from(file), size(&stat))),
            Ok(_) => Err(refused(path, "is not a regular file")),
            Err(errno) => Err(unreadable(path, errno)),
        }
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

    /// Removes everything in the directory.
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
