//! A job's log as something that bytes are written to.

use std::io::{self, Write};

use super::Utf8;
use crate::Job;

/// Writes to a job's log, and unless it is [`silent`](Self::silent) to the process's
/// own standard error. From [`Job::log_writer`]. It may outlive the job; the log takes
/// nothing any more then.
///
/// What is no UTF-8 goes to the log as replacement characters. Each writer is a stream
/// of its own: of a letter whose bytes come one by one nothing is lost when others
/// write meanwhile. Writing never fails.
pub struct LogWriter {
    job: Job,
    utf8: Utf8,
    silent: bool,
}

impl LogWriter {
    pub(crate) fn new(job: Job) -> Self {
        Self { job, utf8: Utf8::default(), silent: false }
    }

    /// Writes to the log alone, what the program passes on by itself.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.silent {
            self.job.echo(bytes);
        }
        if self.job.has_log() {
            let job = &self.job;
            self.utf8.push(bytes, |text| job.print(text));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let job = &self.job;
        self.utf8.finish(|text| job.print(text));
    }
}
