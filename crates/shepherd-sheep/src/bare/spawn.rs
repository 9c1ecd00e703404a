//! The one place that needs `unsafe`: what a child does between fork and exec.
#![allow(unsafe_code)] // `pre_exec` and `close_range` have no safe form.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Signal};

use crate::descriptors;

/// Held while a child has copies of this process's descriptors: from its fork to
/// its exec.
static FORKING: Mutex<()> = Mutex::new(());

/// Does something while no runner is forked, so that what it opens and closes is
/// closed, and not still open for a moment in another sheep's runner.
pub(crate) fn between_forks<T>(action: impl FnOnce() -> T) -> T {
    let _none = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    action()
}

/// Starts `command` as the leader of a session of its own that is killed when the
/// calling thread ends, and that inherits no descriptor but the standard three. It enters
/// the control group that `entrance` leads to, where it may.
pub(super) fn spawn(command: &mut Command, entrance: Option<File>) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let descriptors = descriptors::inherited();
    let before_exec = move || {
        if let Some(entrance) = &entrance {
            // Refused, it is found by all else; the parent sees that it is not there.
            let _ = rustix::io::write(entrance, b"0");
        }
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before the line above sends nothing any more.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        if let Some(limit) = descriptors {
            rustix::process::setrlimit(Resource::Nofile, limit)?;
        }
        // Libraries in C do not mark all of theirs. Marked rather than closed, for the
        // standard library still needs one to report a failed exec. Kernels before
        // 5.11 refuse; what is not marked by its owner is then inherited, as ever.
        // SAFETY: a plain system call without pointers.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only. It does not allocate, lock or
    // panic, so it is sound in a child forked from a process with several threads.
    unsafe { command.pre_exec(before_exec) };
    // Returns after the exec.
    between_forks(|| command.spawn())
}
