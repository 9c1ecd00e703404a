//! The working directories of one sheep's jobs: `ROOT/<job_id>/{inputs,outputs}`.
//!
//! Making and removing files and directories is the dearest thing a file system
//! does, and ext4 takes longer to make a file the more were removed in the last
//! minutes. So as little as possible is made or removed:
//!
//! - A job's directory is renamed into place from a few that stand ready, and
//!   renamed back when it was left as it was found. One that was not is thrown
//!   away whole.
//! - The file of an input that came with its job is written over for the next one.
//! - Outputs that were read are renamed to the attic, where the storage finds them
//!   when it wants a file of that content.
//!
//! What a runner leaves behind is not trusted: everything is opened below the
//! root's descriptor without following symbolic links, so a link that points out
//! of the directory is refused and never read.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use shepherd_job::{DEFAULT_INPUT, JobId, ObjectPath};
use shepherd_queue::SmallObject;

/// An input that is larger than this, in bytes, is removed rather than written over.
const MAX_KEPT_INPUT: i64 = 64 * 1024;
/// The attic's name in the data root; no sheep's id begins with a dot.
pub(crate) const ATTIC: &str = ".attic";
/// How many directories of a kind stand ready at most.
const KEPT: usize = 256;
/// More outputs than this are not small, whatever their size.
const MAX_SMALL_OUTPUTS: usize = 16;

/// The working directories of one sheep. All methods block.
#[derive(Debug)]
pub(crate) struct WorkDirs {
    path: PathBuf,
    root: OwnedFd,
    attic: Arc<Attic>,
    ready: Mutex<Ready>,
    counter: AtomicU64,
}

/// Directories that stand ready.
#[derive(Debug, Default)]
struct Ready {
    empty: Vec<CString>,
    /// With a file `inputs/input` to be written over.
    with_input: Vec<CString>,
}

/// Where outputs go that were read: the flock's common place for files that the
/// storage may take.
#[derive(Debug)]
pub(crate) struct Attic {
    path: PathBuf,
    dir: OwnedFd,
}

impl Attic {
    /// Makes the attic of a data root.
    pub(crate) fn open(data_root: &Path) -> io::Result<Self> {
        let path = data_root.join(ATTIC);
        std::fs::create_dir_all(&path)?;
        let dir = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path, dir })
    }

    /// Where the file of this output would be, if it was put here.
    pub(crate) fn path_of(&self, job: &JobId, output: &ObjectPath) -> Option<PathBuf> {
        let name = output.as_str().strip_prefix("outputs/").filter(|name| is_plain(name))?;
        Self::name(job, name.as_bytes()).map(|name| self.path.join(OsStr::from_bytes(&name)))
    }

    /// No job id holds a `~`, so no two outputs share a name.
    fn name(job: &JobId, output: &[u8]) -> Option<Vec<u8>> {
        let name = [job.as_str().as_bytes(), b"~", output].concat();
        (name.len() <= 255).then_some(name)
    }

    /// Takes the file, or removes it.
    fn store(&self, job: &JobId, dir: &OwnedFd, output: &CStr) -> io::Result<()> {
        if let Some(name) = Self::name(job, output.to_bytes())
            && rustix::fs::renameat(dir, output, &self.dir, name.as_slice()).is_ok()
        {
            return Ok(());
        }
        Ok(rustix::fs::unlinkat(dir, output, AtFlags::empty())?)
    }
}

/// What became of a directory that a job has left.
#[derive(Clone, Copy)]
enum Tidied {
    Empty,
    /// But for a file `inputs/input` that is nobody else's.
    WithInput,
    Unusable,
}

/// What a job left in its `outputs`.
#[derive(Debug)]
pub(crate) enum Outputs {
    /// Few small plain files; taken out of the directory.
    Small(Vec<SmallObject>),
    /// Anything else; still there.
    Files,
}

impl WorkDirs {
    /// Opens `path`, made when it is missing.
    pub(crate) fn open(path: &Path, attic: Arc<Attic>) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let (path, counter) = (path.to_owned(), AtomicU64::new(0));
        Ok(Self { path, root, attic, ready: Mutex::default(), counter })
    }

    /// Where the job's directory is while it has one.
    pub(crate) fn path(&self, job: &JobId) -> PathBuf {
        self.path.join(job.as_str())
    }

    /// Makes the job's directory, with `inputs` (holding `objects`) and an empty
    /// `outputs`.
    ///
    /// # Errors
    /// When the file system fails, or an object is not a plain name below
    /// `inputs/`. Nothing is left behind.
    pub(crate) fn prepare(&self, job: &JobId, objects: &[SmallObject]) -> io::Result<()> {
        let default_input = match objects {
            [(path, data)] if path.as_str() == DEFAULT_INPUT => Some(data),
            _ => None,
        };
        if let Some(data) = default_input {
            let used = self.lock_ready().with_input.pop();
            if let Some(used) = used {
                if let Err(e) = rustix::fs::renameat(&self.root, &used, &self.root, job.as_str()) {
                    self.lock_ready().with_input.push(used);
                    return Err(e.into());
                }
                return self.or_discard(job, self.write_over_input(job, data));
            }
        }
        let empty = self.lock_ready().empty.pop();
        let skeleton = match empty {
            Some(skeleton) => skeleton,
            None => self.make_skeleton()?,
        };
        if let Err(e) = rustix::fs::renameat(&self.root, &skeleton, &self.root, job.as_str()) {
            self.lock_ready().empty.push(skeleton);
            return Err(e.into());
        }
        self.or_discard(job, self.write_inputs(job, objects))
    }

    fn or_discard(&self, job: &JobId, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() {
            self.discard(job);
        }
        written
    }

    fn write_over_input(&self, job: &JobId, data: &[u8]) -> io::Result<()> {
        let inputs = self.open_dir(job, c"inputs")?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(rustix::fs::openat(&inputs, c"input", flags, Mode::empty())?);
        file.write_all(data)?;
        // Not emptied first: ext4 takes that for the making of a new file, and writes it out at once.
        file.set_len(data.len() as u64)
    }

    fn write_inputs(&self, job: &JobId, objects: &[SmallObject]) -> io::Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        let inputs = self.open_dir(job, c"inputs")?;
        for (path, data) in objects {
            let name =
                path.as_str().strip_prefix("inputs/").filter(|name| is_plain(name)).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` is no plain input"))
                })?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&inputs, name, flags, Mode::from_raw_mode(0o644))?;
            std::fs::File::from(file).write_all(data)?;
        }
        Ok(())
    }

    /// Takes the job's outputs out of its directory when they are few and plain
    /// and at most `max_bytes` together; otherwise leaves them for the storage.
    ///
    /// # Errors
    /// When `outputs` is gone, is no directory, or cannot be read.
    pub(crate) fn collect(&self, job: &JobId, max_bytes: usize) -> io::Result<Outputs> {
        let outputs = self.open_dir(job, c"outputs")?;
        let mut small = Vec::new();
        let mut total = 0;
        for entry in Dir::read_from(&outputs)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            let path = name.to_str().ok().and_then(|name| ObjectPath::parse(&format!("outputs/{name}")).ok());
            let Some(path) = path else { return Ok(Outputs::Files) };
            if small.len() == MAX_SMALL_OUTPUTS || entry.file_type() != FileType::RegularFile {
                return Ok(Outputs::Files);
            }
            let Some(data) = read_small(outputs.as_fd(), name, max_bytes - total)? else {
                return Ok(Outputs::Files);
            };
            total += data.len();
            small.push((path, name.to_owned(), data));
        }
        for (_, name, _) in &small {
            self.attic.store(job, &outputs, name)?;
        }
        Ok(Outputs::Small(small.into_iter().map(|(path, _, data)| (path, data)).collect()))
    }

    /// Gives the job's directory up. It is kept for another job when that takes no
    /// more than removing plain inputs.
    pub(crate) fn release(&self, job: &JobId) {
        let kind = self.tidy(job).unwrap_or(Tidied::Unusable);
        let skeleton = self.name("ready");
        let mut ready = self.lock_ready();
        let kept = match kind {
            Tidied::Empty => &mut ready.empty,
            Tidied::WithInput => &mut ready.with_input,
            Tidied::Unusable => {
                drop(ready);
                return self.discard(job);
            }
        };
        let fits = kept.len() < KEPT;
        if fits && rustix::fs::renameat(&self.root, job.as_str(), &self.root, &skeleton).is_ok() {
            kept.push(skeleton);
            return;
        }
        drop(ready);
        self.discard(job);
    }

    fn tidy(&self, job: &JobId) -> io::Result<Tidied> {
        let dir = self.open_root_dir(job)?;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_dot(name) && name != c"inputs" && name != c"outputs" {
                return Ok(Tidied::Unusable);
            }
        }
        let mut tidied = Tidied::Empty;
        let inputs = self.open_dir(job, c"inputs")?;
        for entry in Dir::read_from(&inputs)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            if entry.file_type() != FileType::RegularFile {
                return Ok(Tidied::Unusable);
            }
            // A file with another name is the storage's: writing over it would change the object.
            let stat = rustix::fs::statat(&inputs, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_writable = Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR);
            if name == c"input" && stat.st_nlink == 1 && is_writable && stat.st_size <= MAX_KEPT_INPUT {
                tidied = Tidied::WithInput;
            } else {
                rustix::fs::unlinkat(&inputs, name, AtFlags::empty())?;
            }
        }
        match self.open_dir(job, c"outputs") {
            Ok(outputs) => {
                for entry in Dir::read_from(&outputs)? {
                    if !is_dot(entry?.file_name()) {
                        return Ok(Tidied::Unusable);
                    }
                }
            }
            // Publishing took the whole directory away.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                rustix::fs::mkdirat(&dir, c"outputs", Mode::from_raw_mode(0o777))?;
            }
            Err(e) => return Err(e),
        }
        Ok(tidied)
    }

    /// Removes the job's directory with all that is in it.
    pub(crate) fn discard(&self, job: &JobId) {
        // Out of the way first: the job may come again before the removal ends.
        let trash = self.name("trash");
        match rustix::fs::renameat(&self.root, job.as_str(), &self.root, &trash) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return,
            Err(e) => {
                tracing::warn!(job = %job, error = %io::Error::from(e), "cannot move a working directory away");
                return;
            }
        }
        let path = self.path.join(trash.to_string_lossy().as_ref());
        let removed = crate::data_root::remove(&path);
        if let Err(e) = removed {
            tracing::warn!(path = %path.display(), error = %e, "cannot remove a working directory");
        }
    }

    fn make_skeleton(&self) -> io::Result<CString> {
        let name = self.name("ready");
        let mode = Mode::from_raw_mode(0o777);
        rustix::fs::mkdirat(&self.root, &name, mode)?;
        let dir = rustix::fs::openat(
            &self.root,
            &name,
            OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::mkdirat(&dir, c"inputs", mode)?;
        rustix::fs::mkdirat(&dir, c"outputs", mode)?;
        Ok(name)
    }

    /// A name that no job id can have: those never begin with a dot.
    fn name(&self, kind: &str) -> CString {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        CString::new(format!(".{kind}-{number}")).expect("the name holds no NUL")
    }

    fn open_root_dir(&self, job: &JobId) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, job.as_str(), flags, Mode::empty())?)
    }

    fn open_dir(&self, job: &JobId, name: &CStr) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.open_root_dir(job)?, name, flags, Mode::empty())?)
    }

    fn lock_ready(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_dot(name: &CStr) -> bool {
    name == c"." || name == c".."
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name.len() <= 255 && !name.contains(['/', '\0'])
}

/// Reads a regular file of at most `max_bytes`; `None` for anything else.
fn read_small(dir: BorrowedFd<'_>, name: &CStr, max_bytes: usize) -> io::Result<Option<Bytes>> {
    // A FIFO that took the file's place must not hold us, nor a link lead us out.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::ACCESS) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > max_bytes {
        return Ok(None);
    }
    let mut data = Vec::with_capacity(size + 1);
    std::fs::File::from(file).take(max_bytes as u64 + 1).read_to_end(&mut data)?;
    Ok((data.len() <= max_bytes).then(|| data.into()))
}

#[cfg(test)]
mod tests;
