//! How a runner ended, for the error text of the jobs that it had.

use std::fmt;

/// Why a runner is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel killed it, or something that it started, for want of memory.
    OutOfMemory {
        /// The bytes that it may use, where that is limited.
        limit: Option<u64>,
    },
    /// It ended with the engine that ran it. The runner is not to blame, nor is a job.
    EngineStopped,
    /// It is gone, and how was not to be learnt.
    Unknown,
}

impl ExitCause {
    /// The cause that a container's code stands for: engines and their init process say
    /// 128 + N of a death by signal N.
    pub(crate) fn of_container(code: i64) -> Self {
        let Ok(code) = i32::try_from(code) else { return Self::Unknown };
        match signal_name(code - 128) {
            Some(_) => Self::Signal(code - 128),
            None => Self::Code(code),
        }
    }
}

/// The end of a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why it ended.
    pub cause: ExitCause,
    /// The last few kilobytes that it wrote to stderr, or to stdout when stderr has
    /// nothing; without the white space around them, and possibly empty.
    pub log_tail: String,
}

impl Exit {
    pub(crate) fn unknown() -> Self {
        Self { cause: ExitCause::Unknown, log_tail: String::new() }
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "was killed with signal {number} ({name})"),
                None => write!(f, "was killed with signal {number}"),
            },
            Self::OutOfMemory { limit } => {
                f.write_str("was killed by the kernel for want of memory")?;
                limit.map_or(Ok(()), |limit| write!(f, " (limit {})", Size(limit)))
            }
            Self::EngineStopped => f.write_str("ended with the container engine"),
            Self::Unknown => f.write_str("ended for an unknown reason"),
        }
    }
}

impl fmt::Display for Exit {
    /// Reads after the runner's name: "exited with code 3; it last wrote: ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if !self.log_tail.is_empty() {
            write!(f, "; it last wrote: {}", self.log_tail)?;
        }
        Ok(())
    }
}

/// A number of bytes, in the largest unit that leaves it whole.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", bytes >> shift);
            }
        }
        write!(f, "{bytes} bytes")
    }
}

/// Names of the signals that runners die of.
fn signal_name(number: i32) -> Option<&'static str> {
    let name = match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    };
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::{Exit, ExitCause};

    #[test]
    fn an_exit_reads_as_a_sentence() {
        let exit = |cause, tail: &str| Exit { cause, log_tail: tail.to_owned() }.to_string();
        assert_eq!(exit(ExitCause::Code(3), ""), "exited with code 3");
        assert_eq!(
            exit(ExitCause::Signal(9), "out of memory"),
            "was killed with signal 9 (SIGKILL); it last wrote: out of memory"
        );
        assert_eq!(exit(ExitCause::Signal(64), ""), "was killed with signal 64");
        for (limit, text) in [
            (None, "was killed by the kernel for want of memory"),
            (Some(64 << 20), "was killed by the kernel for want of memory (limit 64 MiB)"),
            (Some(3 << 29), "was killed by the kernel for want of memory (limit 1536 MiB)"),
            (Some(1_000_000), "was killed by the kernel for want of memory (limit 1000000 bytes)"),
        ] {
            assert_eq!(exit(ExitCause::OutOfMemory { limit }, ""), text);
        }
    }

    #[test]
    fn a_containers_code_tells_of_signals_that_kill() {
        for (code, cause) in [
            (0, ExitCause::Code(0)),
            (127, ExitCause::Code(127)),
            (128, ExitCause::Code(128)),
            (137, ExitCause::Signal(9)),
            (143, ExitCause::Signal(15)),
            (200, ExitCause::Code(200)),
            (255, ExitCause::Code(255)),
            (i64::MAX, ExitCause::Unknown),
        ] {
            assert_eq!(ExitCause::of_container(code), cause, "{code}");
        }
    }
}
