//! The process's descriptors 1 and 2, read by this process itself.
//!
//! Each is a pipe. A thread passes on what comes through it, and at the end of a job
//! whoever worked on it passes on the rest, so that all that was written before counts
//! as the job's. What the process writes in the moment in which it dies may be lost.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};

use super::write_all;
use crate::Job;
use crate::log::Utf8;

/// How often a stream is read from at a time: more than a pipe holds, and not without
/// end where somebody writes without end.
const READS: usize = 16;

/// Stands between the descriptors and where they led.
pub(super) struct Capture {
    /// Of standard output and of standard error.
    streams: [Stream; 2],
    state: Mutex<State>,
}

struct Stream {
    /// What the descriptor led to.
    original: OwnedFd,
    /// What is written to it comes here. Never waits.
    reader: OwnedFd,
}

#[derive(Default)]
struct State {
    /// Whose output it is.
    jobs: Vec<Job>,
    texts: [Utf8; 2],
}

impl Capture {
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let ((out, into_out), (err, into_err)) =
            (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
        let streams = [
            Stream { original: fcntl_dupfd_cloexec(stdout(), 3)?, reader: out },
            Stream { original: fcntl_dupfd_cloexec(stderr(), 3)?, reader: err },
        ];
        for stream in &streams {
            rustix::io::ioctl_fionbio(&stream.reader, true)?;
        }
        let capture = Arc::new(Self { streams, state: Mutex::default() });
        let reads = Arc::clone(&capture);
        // Before anything is written: a thread that does not start leaves all as it was.
        thread::Builder::new().name("output".to_owned()).spawn(move || reads.run())?;
        dup2_stdout(&into_out)?;
        if let Err(error) = dup2_stderr(&into_err) {
            let _ = dup2_stdout(&capture.streams[0].original);
            return Err(error.into());
        }
        Ok(capture)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stderr(&self) -> BorrowedFd<'_> {
        self.streams[1].original.as_fd()
    }

    /// Prints to where standard error led, after what was written before.
    pub(super) fn print(&self, bytes: &[u8]) {
        let mut state = self.lock();
        self.drain(&mut state);
        write_all(&self.streams[1].original, bytes);
    }

    pub(super) fn begin(&self, jobs: &[Job]) {
        let mut state = self.lock();
        // What is there already is nobody's.
        self.drain(&mut state);
        state.jobs = jobs.to_vec();
    }

    pub(super) fn end(&self) {
        let mut state = self.lock();
        self.drain(&mut state);
        let State { jobs, texts } = &mut *state;
        for text in texts {
            text.finish(|text| jobs.iter().for_each(|job| job.print(text)));
        }
        jobs.clear();
    }

    pub(super) fn pass_on(&self) {
        let mut state = self.lock();
        self.drain(&mut state);
    }

    pub(super) fn restore(&self) {
        let mut state = self.lock();
        let _ = (dup2_stdout(&self.streams[0].original), dup2_stderr(&self.streams[1].original));
        self.drain(&mut state);
    }

    /// Passes on what was written. Returns for each stream whether anybody may write
    /// more to it.
    fn drain(&self, state: &mut State) -> [bool; 2] {
        let State { jobs, texts } = state;
        let [out, err] = texts;
        [self.streams[0].drain(jobs, out), self.streams[1].drain(jobs, err)]
    }

    /// The thread: goes on until nobody has the other ends any more.
    fn run(&self) {
        let mut open = [true; 2];
        while open.contains(&true) {
            let streams = self.streams.iter().zip(open).filter(|(_, open)| *open);
            let mut readers: Vec<_> =
                streams.map(|(stream, _)| PollFd::new(&stream.reader, PollFlags::IN)).collect();
            match poll(&mut readers, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            open = self.drain(&mut self.lock());
        }
    }
}

impl Stream {
    fn drain(&self, jobs: &[Job], utf8: &mut Utf8) -> bool {
        let mut buffer = [0; 16 << 10];
        for _ in 0..READS {
            match rustix::io::read(&self.reader, &mut buffer[..]) {
                Ok(0) => return false,
                Ok(count) => {
                    write_all(&self.original, &buffer[..count]);
                    if !jobs.is_empty() {
                        utf8.push(&buffer[..count], |text| jobs.iter().for_each(|job| job.print(text)));
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
