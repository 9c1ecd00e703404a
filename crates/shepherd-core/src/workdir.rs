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
//! - Outputs that were read are renamed to the output pool, where the storage finds them
//!   when it wants a file of that content.
//!
//! What a runner leaves behind is not trusted: everything is opened below the
//! root's descriptor without following symbolic links, so a link that points out
//! of the directory is refused and never read. What cannot be removed is tried
//! again when the runner has ended.
//!
//! Of a runner that is a stranger, which may run as anybody, nothing is taken over:
//! no input is written over, no output goes to the output pool, and its jobs' directories
//! are out of its sight whenever it is not to work on them ([`isolation`] says how).

use std::ffi::{CStr, CString};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use shepherd_job::{DEFAULT_INPUT, JobId, ObjectPath};
use shepherd_queue::SmallObject;
use shepherd_storage::{RunnerDir, Trust};

use inspect::{Tidied, read_small, tidy};
use isolation::{Handed, Isolation};
use trash::Trash;

use crate::data_root::{self, is_same};

pub(crate) use output_pool::{OUTPUT_POOL, OutputPool};

mod inspect;
mod isolation;
mod output_pool;
mod trash;

/// How many directories of a kind stand ready at most.
const MAX_READY_DIRS: usize = 256;
/// More outputs than this are not small, whatever their size.
const MAX_SMALL_OUTPUTS: usize = 16;
/// How often a job's place is cleared of what a stranger puts there.
const MAX_PLACE_TRIES: usize = 8;

/// How often sheep are asked for what is other users': each time, a part of what is nested
/// too deep comes within reach.
pub(crate) const RECLAIMS: usize = 8;

/// To open a directory as that.
const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The working directories of one sheep. All methods block, but for
/// [`change_model`](Self::change_model).
#[derive(Debug)]
pub(crate) struct WorkDirs {
    path: PathBuf,
    root: OwnedFd,
    output_pool: Arc<OutputPool>,
    /// Where the sheep's runners are strangers.
    isolation: Option<Isolation>,
    ready: Mutex<Ready>,
    /// What could not be removed.
    trash: Mutex<Vec<Trash>>,
    counter: AtomicU64,
}

/// Directories that stand ready.
#[derive(Debug, Default)]
struct Ready {
    empty: Vec<CString>,
    /// With a file `inputs/input` to be written over.
    with_input: Vec<CString>,
    /// How many times the model has changed. Counted where the runners are strangers.
    model: u64,
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
    pub(crate) fn open(path: &Path, output_pool: Arc<OutputPool>, trust: Trust) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let isolation = match trust {
            Trust::Trusted => None,
            Trust::Untrusted => Some(Isolation::open(path, &root, &output_pool)?),
        };
        let (path, counter) = (path.to_owned(), AtomicU64::new(0));
        Ok(Self {
            path,
            root,
            output_pool,
            isolation,
            ready: Mutex::default(),
            trash: Mutex::default(),
            counter,
        })
    }

    /// Makes all of it again, when what was here is no longer [in its place](Self::is_in_place)
    /// and no job uses it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn reopen(&self) -> io::Result<Self> {
        // A runner that ended after the removal may have made a job's directory again, by its path.
        data_root::empty_home(&self.path)?;
        let output_pool = OutputPool::open(self.output_pool.path.parent().unwrap_or(&self.path))?;
        Self::open(&self.path, Arc::new(output_pool), self.trust())
    }

    /// Whether the directory is still at its path, where runners look for it.
    pub(crate) fn is_in_place(&self) -> bool {
        let back = self.isolation.as_ref().is_none_or(|isolation| is_same(&isolation.back, &isolation.path));
        is_same(&self.root, &self.path) && back
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
        let (used, empty, model) = {
            let mut ready = self.lock_ready();
            let used = default_input.and_then(|data| Some((ready.with_input.pop()?, data)));
            let empty = if used.is_none() { ready.empty.pop() } else { None };
            (used, empty, ready.model)
        };
        let is_fresh = used.is_none() && empty.is_none();
        let (skeleton, filled) = match (used, empty) {
            (Some((used, data)), _) => {
                let filled = self.write_over_input(&used, data);
                (used, filled)
            }
            (None, Some(empty)) => {
                let filled = self.write_inputs(&empty, objects);
                (empty, filled)
            }
            (None, None) => {
                let made = self.make_skeleton()?;
                let filled = self.write_inputs(&made, objects);
                (made, filled)
            }
        };
        let placed = filled.and_then(|()| self.place(&skeleton, job, model)).inspect_err(|_| {
            self.throw_away(self.back(), &*skeleton);
            self.forget(job);
        });
        match placed {
            // A cleaner of old files took a part of one that stood ready; there are only so many.
            Err(error) if !is_fresh && error.kind() == io::ErrorKind::NotFound => self.prepare(job, objects),
            placed => placed,
        }
    }

    /// Renames a directory to the job's place.
    fn place(&self, skeleton: &CStr, job: &JobId, model: u64) -> io::Result<()> {
        let rename = || rustix::fs::renameat(self.back(), skeleton, &self.root, job.as_str());
        let Some(isolation) = &self.isolation else { return Ok(rename()?) };
        let mut jobs = isolation.jobs();
        for _ in 0..MAX_PLACE_TRIES {
            match rename() {
                Ok(()) => {
                    jobs.insert(job.clone(), Handed { model, is_back: false });
                    return Ok(());
                }
                // A stranger made something where the job is to be.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {
                    self.bury(&self.root, job.as_str())?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("the runner occupies the place of {job}")))
    }

    fn write_over_input(&self, skeleton: &CStr, data: &[u8]) -> io::Result<()> {
        let inputs = open_below(self.back(), skeleton, c"inputs")?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(rustix::fs::openat(&inputs, c"input", flags, Mode::empty())?);
        file.write_all(data)?;
        // Not emptied first: ext4 takes that for the making of a new file, and writes it out at once.
        file.set_len(data.len() as u64)
    }

    fn write_inputs(&self, skeleton: &CStr, objects: &[SmallObject]) -> io::Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        let inputs = open_below(self.back(), skeleton, c"inputs")?;
        for (path, data) in objects {
            let name =
                path.as_str().strip_prefix("inputs/").filter(|name| is_plain(name)).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` is no plain input"))
                })?;
            let file = match self.trust() {
                Trust::Trusted => {
                    let flags =
                        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&inputs, name, flags, Mode::from_raw_mode(0o644))?
                }
                Trust::Untrusted => isolation::make_file(&inputs, name)?,
            };
            std::fs::File::from(file).write_all(data)?;
        }
        Ok(())
    }

    /// The job's `inputs`, to be filled.
    ///
    /// # Errors
    /// When the job's directory is not there.
    pub(crate) fn inputs(&self, job: &JobId) -> io::Result<RunnerDir> {
        self.runner_dir(&self.root, job, "inputs")
    }

    /// The job's `outputs`, once its runner is to work there no more.
    ///
    /// # Errors
    /// When the job's directory is gone, or another thing.
    pub(crate) fn outputs(&self, job: &JobId) -> io::Result<RunnerDir> {
        self.take_back(job);
        self.runner_dir(self.back(), job, "outputs")
    }

    fn runner_dir(&self, home: &OwnedFd, job: &JobId, name: &str) -> io::Result<RunnerDir> {
        let dir = rustix::fs::openat(home, job.as_str(), DIR, Mode::empty())?;
        Ok(RunnerDir::new(dir, name, self.path.join(job.as_str()).join(name), self.trust()))
    }

    /// Takes the job's outputs out of its directory when they are few and plain
    /// and at most `max_bytes` together; otherwise leaves them for the storage.
    ///
    /// # Errors
    /// When `outputs` is gone, is no directory, or cannot be read. All of it is still there.
    pub(crate) fn collect(&self, job: &JobId, max_bytes: usize) -> io::Result<Outputs> {
        self.take_back(job);
        let trust = self.trust();
        let outputs = open_below(self.back(), job.as_str(), c"outputs")?;
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
            let Some(data) = read_small(outputs.as_fd(), name, max_bytes - total, trust)? else {
                return Ok(Outputs::Files);
            };
            total += data.len();
            small.push((path, name.to_owned(), data));
        }
        // What stays is thrown away with its directory.
        for (_, name, _) in &small {
            match trust {
                Trust::Trusted => self.output_pool.store(job, &outputs, name),
                // It may have this open, and other names for it.
                Trust::Untrusted => drop(rustix::fs::unlinkat(&outputs, &**name, AtFlags::empty())),
            }
        }
        Ok(Outputs::Small(small.into_iter().map(|(path, _, data)| (path, data)).collect()))
    }

    /// Gives the job's directory up. It is kept for another job when that takes no
    /// more than removing plain inputs.
    pub(crate) fn release(&self, job: &JobId) {
        self.take_back(job);
        let back = self.back();
        let dir = rustix::fs::openat(back, job.as_str(), DIR, Mode::empty());
        let kind = dir.map_err(io::Error::from).and_then(|dir| tidy(&dir, self.trust()));
        let kind = kind.unwrap_or(Tidied::Unusable);
        let model = self.isolation.as_ref().and_then(|isolation| Some(isolation.jobs().get(job)?.model));
        let skeleton = self.name("ready");
        let mut ready = self.lock_ready();
        let is_fresh = self.isolation.is_none() || model == Some(ready.model);
        let kept = match kind {
            Tidied::Empty if is_fresh => &mut ready.empty,
            Tidied::WithInput if is_fresh => &mut ready.with_input,
            Tidied::Empty | Tidied::WithInput | Tidied::Unusable => {
                drop(ready);
                return self.discard(job);
            }
        };
        let fits = kept.len() < MAX_READY_DIRS;
        if fits && rustix::fs::renameat(back, job.as_str(), back, &skeleton).is_ok() {
            kept.push(skeleton);
            drop(ready);
            self.forget(job);
            return;
        }
        drop(ready);
        self.discard(job);
    }

    /// Removes the job's directory with all that is in it.
    pub(crate) fn discard(&self, job: &JobId) {
        self.take_back(job);
        // Out of the way first: the job may come again before the removal ends.
        self.throw_away(self.back(), job.as_str());
        self.forget(job);
    }

    /// Why no job should be worked on here now, if the disk has no room for it.
    pub(crate) fn shortage(&self) -> Option<String> {
        data_root::shortage(&self.root)
    }

    /// Whether the runners are strangers.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolation.is_some()
    }

    fn make_skeleton(&self) -> io::Result<CString> {
        let name = self.name("ready");
        self.make_dirs(&name).inspect_err(|_| self.throw_away(self.back(), &*name))?;
        Ok(name)
    }

    fn make_dirs(&self, name: &CStr) -> io::Result<()> {
        match self.trust() {
            Trust::Trusted => {
                let mode = Mode::from_raw_mode(0o777);
                rustix::fs::mkdirat(&self.root, name, mode)?;
                let dir = rustix::fs::openat(&self.root, name, DIR, Mode::empty())?;
                rustix::fs::mkdirat(&dir, c"inputs", mode)?;
                rustix::fs::mkdirat(&dir, c"outputs", mode)?;
            }
            Trust::Untrusted => {
                let dir = isolation::make_dir(self.back(), name)?;
                isolation::make_dir(&dir, c"inputs")?;
                isolation::make_dir(&dir, c"outputs")?;
            }
        }
        Ok(())
    }

    /// A name that no job id can have: those never begin with a dot.
    fn name(&self, kind: &str) -> CString {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        CString::new(format!(".{kind}-{number}")).expect("the name holds no NUL")
    }

    fn trust(&self) -> Trust {
        if self.is_isolated() { Trust::Untrusted } else { Trust::Trusted }
    }

    /// Where directories are that no runner is to work in.
    fn back(&self) -> &OwnedFd {
        self.isolation.as_ref().map_or(&self.root, |isolation| &isolation.back)
    }

    /// Where that is.
    fn back_path(&self) -> PathBuf {
        self.isolation.as_ref().map_or_else(|| self.path.clone(), |isolation| isolation.path.clone())
    }

    fn lock_ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_trash(&self) -> MutexGuard<'_, Vec<Trash>> {
        self.trash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a directory of a directory.
fn open_below(home: &OwnedFd, dir: impl Arg, name: &CStr) -> io::Result<OwnedFd> {
    let dir = rustix::fs::openat(home, dir, DIR, Mode::empty())?;
    Ok(rustix::fs::openat(dir, name, DIR, Mode::empty())?)
}

fn is_dot(name: &CStr) -> bool {
    name == c"." || name == c".."
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name.len() <= 255 && !name.contains(['/', '\0'])
}

#[cfg(test)]
pub(crate) mod tests;
