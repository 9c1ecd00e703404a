//! What is seen in a job's directory when its runner has left it.

use std::ffi::CStr;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use shepherd_storage::Trust;

use super::{DIR, is_dot, isolation};

/// An input that is larger than this, in bytes, is removed rather than written over.
const MAX_KEPT_INPUT: i64 = 64 * 1024;
/// A stranger's directory that holds more inputs than this is not tidied but thrown away.
const MAX_TIDIED: usize = 256;

/// What became of a directory that a job has left.
#[derive(Clone, Copy)]
pub(super) enum Tidied {
    Empty,
    /// But for a file `inputs/input` that is nobody else's.
    WithInput,
    Unusable,
}

/// Removes plain inputs from a job's directory, and sees whether it is as good as
/// new then.
pub(super) fn tidy(dir: &OwnedFd, trust: Trust) -> io::Result<Tidied> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_dot(name) && name != c"inputs" && name != c"outputs" {
            return Ok(Tidied::Unusable);
        }
    }
    let open = |name| rustix::fs::openat(dir, name, DIR, Mode::empty());
    let mut tidied = Tidied::Empty;
    let inputs = open(c"inputs")?;
    let mut removed = 0;
    for entry in Dir::read_from(&inputs)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        if entry.file_type() != FileType::RegularFile {
            return Ok(Tidied::Unusable);
        }
        match trust {
            Trust::Trusted if is_to_be_kept(&inputs, name)? => {
                tidied = Tidied::WithInput;
                continue;
            }
            Trust::Trusted => {}
            Trust::Untrusted if removed == MAX_TIDIED => return Ok(Tidied::Unusable),
            Trust::Untrusted => removed += 1,
        }
        rustix::fs::unlinkat(&inputs, name, AtFlags::empty())?;
    }
    match (open(c"outputs"), trust) {
        (Ok(outputs), _) => {
            for entry in Dir::read_from(&outputs)? {
                if !is_dot(entry?.file_name()) {
                    return Ok(Tidied::Unusable);
                }
            }
            if trust == Trust::Untrusted {
                for dir in [dir, &inputs, &outputs] {
                    if !isolation::is_as_made(dir)? {
                        return Ok(Tidied::Unusable);
                    }
                }
            }
        }
        // Publishing took the whole directory away.
        (Err(Errno::NOENT), Trust::Trusted) => {
            rustix::fs::mkdirat(dir, c"outputs", Mode::from_raw_mode(0o777))?;
        }
        (Err(e), _) => return Err(e.into()),
    }
    Ok(tidied)
}

/// Whether an input may be written over for the next job. One with another name is
/// the storage's: writing over it would change the object.
fn is_to_be_kept(inputs: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(inputs, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_writable = Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR);
    Ok(name == c"input" && stat.st_nlink == 1 && is_writable && stat.st_size <= MAX_KEPT_INPUT)
}

/// Reads a regular file of at most `max_bytes`; `None` for anything else.
pub(super) fn read_small(
    dir: BorrowedFd<'_>,
    name: &CStr,
    max_bytes: usize,
    trust: Trust,
) -> io::Result<Option<Bytes>> {
    // A FIFO that took the file's place must not hold us, nor a link lead us out.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match trust {
        Trust::Trusted => rustix::fs::openat(dir, name, flags, Mode::empty()),
        Trust::Untrusted => open_regular(dir, name, flags),
    };
    let file = match opened {
        Ok(file) => file,
        // Not readable, or another thing than was listed: the storage says what is wrong.
        Err(Errno::LOOP | Errno::ACCESS | Errno::NXIO | Errno::NOENT | Errno::INVAL) => return Ok(None),
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

/// Opens a file that is known to be a regular one: to open a device is to use it.
fn open_regular(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let at = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let same = format!("/proc/self/fd/{}", at.as_raw_fd());
    rustix::fs::open(same, flags.difference(OFlags::NOFOLLOW), Mode::empty())
}
