//! What a runner writes, cut into the lines of the daemon's log, and its end kept for
//! the text of an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use shepherd_job::{JobId, SheepId};

use crate::SheepError;

/// How much of the end is kept.
pub(crate) const TAIL: usize = 4096;
/// How much of what was printed is kept for who takes it.
const MAX_PRINTED: usize = 64 << 10;
/// A longer line is logged in pieces.
const MAX_LINE: usize = 8192;

/// Opens a file that output is appended to, and makes the directory that it is to be in.
/// The file does not block: a named pipe that nobody reads is an error.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    let open = || File::options().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            open()
        }
        opened => opened,
    }
}

/// What to say of a stream's log file that cannot be opened. It fails jobs: whoever waits for
/// them is to hear of it. The path is for the log only.
pub(crate) fn unopened(sheep: &SheepId, stream: &str, path: &Path, error: &io::Error) -> SheepError {
    tracing::error!(%sheep, path = %path.display(), %error, "cannot open a log file of a runner");
    SheepError::Model(format!("cannot open the `{stream}_file` of sheep `{sheep}`: {error}"))
}

/// The end of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Cut only now and then, and to one more than is kept: it tells that there was more.
        if self.0.len() > 4 * TAIL {
            self.0.drain(..self.0.len() - TAIL - 1);
        }
    }

    /// From the beginning of a line where that is among it, without white space around it.
    pub(crate) fn text(&self) -> String {
        text(&self.0)
    }
}

/// See [`Tail::text`]; of `tail`, which holds more than [`TAIL`] bytes if there were more.
pub(crate) fn text(tail: &[u8]) -> String {
    let mut tail = tail;
    if tail.len() > TAIL {
        tail = &tail[tail.len() - TAIL..];
        if let Some(end) = tail.iter().position(|b| *b == b'\n').filter(|end| end + 1 < tail.len()) {
            tail = &tail[end + 1..];
        }
    }
    String::from_utf8_lossy(tail).trim().to_owned()
}

/// What was printed since it was taken last; of much of it the end.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    bytes: Vec<u8>,
    /// How many bytes before these are gone.
    lost: u64,
    /// Whether anybody takes it.
    is_wanted: bool,
}

impl Printed {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.is_wanted {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * MAX_PRINTED {
            let cut = self.bytes.len() - MAX_PRINTED;
            self.bytes.drain(..cut);
            self.lost += cut as u64;
        }
    }

    /// Takes it, but for a letter of which only a part has come. Nothing is kept before
    /// this is asked for the first time.
    pub(crate) fn take(&mut self) -> String {
        self.is_wanted = true;
        let whole = match std::str::from_utf8(&self.bytes) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            // What is no text at all is taken as it is.
            Ok(_) | Err(_) => self.bytes.len(),
        };
        let rest = self.bytes.split_off(whole);
        let taken = std::mem::replace(&mut self.bytes, rest);
        let text = String::from_utf8_lossy(&taken);
        match std::mem::take(&mut self.lost) {
            0 => text.into_owned(),
            lost => format!("[{lost} bytes are left out here]\n{text}"),
        }
    }
}

/// The job that a runner works on, which the lines that it prints are of.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtWork(Arc<Mutex<Option<JobId>>>);

impl AtWork {
    pub(crate) fn set(&self, job: Option<JobId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }

    fn get(&self) -> Option<JobId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Cuts a stream into the lines of the log.
#[derive(Debug)]
pub(crate) struct Lines {
    sheep: SheepId,
    at_work: AtWork,
    stream: &'static str,
    line: Vec<u8>,
    tail: Tail,
}

impl Lines {
    pub(crate) fn new(sheep: &SheepId, at_work: &AtWork, stream: &'static str) -> Self {
        let (sheep, at_work) = (sheep.clone(), at_work.clone());
        Self { sheep, at_work, stream, line: Vec::new(), tail: Tail::default() }
    }

    pub(crate) fn sheep(&self) -> &SheepId {
        &self.sheep
    }

    pub(crate) fn stream(&self) -> &'static str {
        self.stream
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let mut rest = piece;
            while self.line.len() + rest.len() > MAX_LINE {
                let (now, later) = rest.split_at(MAX_LINE - self.line.len());
                self.line.extend_from_slice(now);
                self.finish();
                rest = later;
            }
            self.line.extend_from_slice(rest);
            if self.line.last() == Some(&b'\n') {
                self.finish();
            }
        }
    }

    /// Logs the line as far as it has come.
    pub(crate) fn finish(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        // What a terminal would show: the text after the last return to the line's start.
        if let Some(line) = line.trim_end().rsplit('\r').find(|line| !line.is_empty()) {
            let job = self.at_work.get();
            let job = job.as_ref().map(tracing::field::display);
            tracing::info!(target: "runner", job, sheep = %self.sheep, stream = self.stream, "{line}");
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use shepherd_job::{JobId, JobIdRule, SheepId};

    use super::{AtWork, Lines, MAX_LINE, MAX_PRINTED, Printed, TAIL};

    fn lines() -> Lines {
        Lines::new(&SheepId::parse("dolly").unwrap(), &AtWork::default(), "stderr")
    }

    fn logged(write: impl FnOnce()) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, write);
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_logged_whole_and_named() {
        let log = logged(|| {
            let mut lines = lines();
            lines.push(b"load");
            lines.push(b"ing\r\n\n10%\r50%\r100%\nlast");
            lines.finish();
            lines.finish();
        });
        let line = |text: &str| format!(" INFO runner: {text} sheep=dolly stream=\"stderr\"");
        assert_eq!(log, ["loading", "100%", "last"].map(line));
    }

    #[test]
    fn lines_carry_the_job_that_the_runner_works_on() {
        let log = logged(|| {
            let mut lines = lines();
            lines.push(b"before\n");
            lines.at_work.set(Some(JobId::parse("job-1", JobIdRule::Bucket).unwrap()));
            lines.push(b"within\n");
            lines.at_work.set(None);
            lines.push(b"after\n");
        });
        assert_eq!(
            log,
            [
                " INFO runner: before sheep=dolly stream=\"stderr\"",
                " INFO runner: within job=job-1 sheep=dolly stream=\"stderr\"",
                " INFO runner: after sheep=dolly stream=\"stderr\"",
            ]
        );
    }

    #[test]
    fn a_line_without_end_is_logged_in_pieces() {
        let log = logged(|| {
            let mut lines = lines();
            for _ in 0..5 {
                lines.push(&[b'x'; MAX_LINE / 2]);
            }
            assert!(lines.line.len() <= MAX_LINE);
            lines.finish();
        });
        assert_eq!(log.len(), 3);
    }

    #[test]
    fn what_was_printed_is_taken_once_and_in_whole_letters() {
        let mut printed = Printed::default();
        printed.push(b"before");
        assert_eq!(printed.take(), "", "nobody had asked yet");
        printed.push("až".as_bytes().split_last().unwrap().1);
        assert_eq!(printed.take(), "a");
        printed.push(&"ž".as_bytes()[1..]);
        printed.push(b"\xff!");
        assert_eq!(printed.take(), "ž\u{fffd}!");
        assert_eq!(printed.take(), "");
    }

    #[test]
    fn of_much_that_was_printed_the_end_is_kept() {
        let mut printed = Printed::default();
        printed.take();
        for _ in 0..100 {
            printed.push(&[b'x'; MAX_PRINTED / 10]);
        }
        let text = printed.take();
        assert!(text.len() < 2 * MAX_PRINTED + 64 && text.starts_with('['), "{}", &text[..64]);
        assert_eq!(printed.take(), "");
    }

    #[test]
    fn the_tail_is_bounded_and_begins_with_a_line() {
        let mut lines = lines();
        for number in 0..10_000 {
            lines.push(format!("line {number}\n").as_bytes());
            assert!(lines.tail.0.len() <= 4 * TAIL + 16);
        }
        let tail = lines.tail().text();
        assert!(tail.len() <= TAIL && tail.len() > TAIL - 16);
        assert!(tail.starts_with("line ") && tail.ends_with("line 9999"));
    }
}
