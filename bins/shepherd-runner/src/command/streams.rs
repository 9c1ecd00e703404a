//! What a command prints: to this process's own streams, to the job's log, and of
//! stderr the end to the error's message.
//!
//! Nothing here waits. While nobody reads this process's output, what was read last
//! waits in [`Stream::pending`] and no more is read, so that the command is held up as
//! if it wrote there itself; it can still be stopped. A pipe may stay open when its
//! command has ended, in the hands of somebody who is no descendant: what counts is that
//! the command and its descendants are gone, not the end of the pipe.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};
use shepherd_runner::{Job, LogWriter};

use super::tail::Tail;

/// How much is read at a time.
const READ: usize = 64 << 10;
/// How often a stream is read from before others get their turn, and so does a stop.
const MAX_READS_IN_A_ROW: usize = 16;
/// As much as a pipe that can be written to takes without waiting.
const ATOMIC: usize = 4096;
/// The most that is read when the command has ended: no pipe holds more, unless
/// somebody goes on writing.
const MAX_REST: usize = 2 << 20;
/// How long somebody who reads this process's output may pause when the command has
/// ended; then the rest is lost to them.
const READER_TIMEOUT: Duration = Duration::from_secs(1);

/// The output of one command.
pub(super) struct Streams {
    stdout: Stream,
    stderr: Stream,
    tail: Tail,
}

struct Stream {
    /// What the command writes. None after its end.
    pipe: Option<OwnedFd>,
    log: LogWriter,
    own: BorrowedFd<'static>,
    /// Read, and not yet written to `own`.
    pending: Vec<u8>,
}

impl Streams {
    /// The streams of a job's command, and the ends that are for the command: of pipes, or
    /// terminals.
    pub(super) fn open(job: &Job, tty: bool) -> io::Result<(Self, [OwnedFd; 2])> {
        let open = |own| {
            let (pipe, end) = if tty { terminal()? } else { pipe_with(PipeFlags::CLOEXEC)? };
            rustix::io::ioctl_fionbio(&pipe, true)?;
            // This module passes it on.
            let log = job.log_writer().silent();
            rustix::io::Result::Ok((Stream { pipe: Some(pipe), log, own, pending: Vec::new() }, end))
        };
        let (stdout, out_end) = open(rustix::stdio::stdout())?;
        let (stderr, err_end) = open(rustix::stdio::stderr())?;
        Ok((Self { stdout, stderr, tail: Tail::default() }, [out_end, err_end]))
    }

    /// Passes on what is there.
    pub(super) fn pass_on(&mut self) {
        self.stdout.pass_on(READ * MAX_READS_IN_A_ROW, |_| {});
        self.stderr.pass_on(READ * MAX_READS_IN_A_ROW, |bytes| self.tail.push(bytes));
    }

    /// What there is to wait for, for the next [`pass_on`](Self::pass_on).
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        [&self.stdout, &self.stderr].into_iter().filter_map(Stream::poll_fd)
    }

    /// The command and all that it started are gone: passes on the rest.
    pub(super) fn finish(&mut self) {
        let mut left = [MAX_REST; 2];
        let mut until = Instant::now() + READER_TIMEOUT;
        loop {
            let [out, err] = &mut left;
            let before = self.pending();
            *out -= self.stdout.pass_on(*out, |_| {});
            *err -= self.stderr.pass_on(*err, |bytes| self.tail.push(bytes));
            if self.pending() == 0 {
                return;
            }
            let now = Instant::now();
            if self.pending() != before {
                until = now + READER_TIMEOUT;
            } else if now >= until {
                return;
            }
            let own = [&self.stdout, &self.stderr].into_iter().filter(|stream| !stream.pending.is_empty());
            let mut own: Vec<_> = own.map(|stream| PollFd::new(&stream.own, PollFlags::OUT)).collect();
            let timeout = Timespec::try_from(until.saturating_duration_since(now)).ok();
            if !matches!(poll(&mut own, timeout.as_ref()), Ok(_) | Err(Errno::INTR)) {
                return;
            }
        }
    }

    fn pending(&self) -> usize {
        self.stdout.pending.len() + self.stderr.pending.len()
    }

    /// The end of stderr; none when there is nothing to read.
    pub(super) fn last_words(&self) -> Option<String> {
        self.tail.text()
    }
}

/// A pseudo-terminal: what is read from the first was written to the second, as it was
/// written. It controls no process.
fn terminal() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let pipe = openpt(flags)?;
    unlockpt(&pipe)?;
    let end = ioctl_tiocgptpeer(&pipe, flags)?;
    let mut attributes = tcgetattr(&end)?;
    // A line ends as in a pipe, and nothing is echoed.
    attributes.output_modes.remove(OutputModes::OPOST);
    attributes.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&end, OptionalActions::Now, &attributes)?;
    tcsetwinsize(&end, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok((pipe, end))
}

impl Stream {
    /// Passes on what is there, at most about `most` bytes. Returns how many were read.
    fn pass_on(&mut self, most: usize, mut read: impl FnMut(&[u8])) -> usize {
        let mut total = 0;
        self.write();
        while self.pending.is_empty() && total < most {
            let Some(pipe) = &self.pipe else { break };
            self.pending.resize(READ.min(most - total), 0);
            match rustix::io::read(pipe, &mut self.pending[..]) {
                Ok(0) => {
                    self.pending.clear();
                    self.pipe = None;
                }
                Ok(count) => {
                    self.pending.truncate(count);
                    total += count;
                    read(&self.pending);
                    // It never fails.
                    let _ = self.log.write_all(&self.pending);
                    self.write();
                }
                Err(error) => {
                    self.pending.clear();
                    match error {
                        Errno::INTR => {}
                        Errno::AGAIN => break,
                        _ => self.pipe = None,
                    }
                }
            }
        }
        total
    }

    /// Writes what waits, as far as that waits for nobody.
    fn write(&mut self) {
        let mut written = 0;
        while written < self.pending.len() {
            let mut own = [PollFd::new(&self.own, PollFlags::OUT)];
            if !matches!(poll(&mut own, Some(&Timespec::default())), Ok(1..)) {
                break;
            }
            let end = self.pending.len().min(written + ATOMIC);
            match rustix::io::write(self.own, &self.pending[written..end]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody is left to be told that it cannot be passed on.
                Err(_) => written = self.pending.len(),
            }
        }
        self.pending.drain(..written);
    }

    fn poll_fd(&self) -> Option<PollFd<'_>> {
        if !self.pending.is_empty() {
            return Some(PollFd::new(&self.own, PollFlags::OUT));
        }
        Some(PollFd::from_borrowed_fd(self.pipe.as_ref()?.as_fd(), PollFlags::IN))
    }
}
