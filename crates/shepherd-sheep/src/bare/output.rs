//! What a runner writes: to a file of its own, or line by line to the daemon's log.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use shepherd_job::SheepId;

/// How much of the end is kept for the text of an error.
const TAIL: usize = 4096;
/// A longer line is logged in pieces.
const MAX_LINE: usize = 8192;

/// One of the runner's two streams.
#[derive(Debug)]
pub(super) enum Stream {
    /// The runner itself appends to this file, which was so long when it began.
    File { path: PathBuf, start: u64 },
    /// The runner writes to a pipe; `None` once nobody does any more.
    Log { pipe: Option<PipeReader>, lines: Lines },
}

impl Stream {
    /// Opens a stream, and what the child gets for it.
    pub(super) fn open(
        path: Option<&Path>,
        sheep: &SheepId,
        name: &'static str,
    ) -> io::Result<(Self, Stdio)> {
        if let Some(path) = path {
            let file = File::options().append(true).create(true).open(path)?;
            let start = file.metadata()?.len();
            return Ok((Self::File { path: path.to_owned(), start }, file.into()));
        }
        let (reader, writer) = io::pipe()?;
        let lines = Lines { sheep: sheep.clone(), stream: name, line: Vec::new(), tail: Vec::new() };
        Ok((Self::Log { pipe: Some(reader), lines }, writer.into()))
    }

    /// What to wait for before [`pump`](Self::pump); none when there is nothing more.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File { .. } => None,
            Self::Log { pipe, .. } => pipe.as_ref().map(|pipe| pipe.as_fd()),
        }
    }

    /// Reads once. Returns how much came; none at the end.
    pub(super) fn pump(&mut self) -> usize {
        let Self::Log { pipe, lines } = self else { return 0 };
        let Some(reader) = pipe else { return 0 };
        let mut buffer = [0; 16 * 1024];
        match reader.read(&mut buffer) {
            Ok(0) => {
                *pipe = None;
                lines.finish();
                0
            }
            Ok(count) => {
                lines.push(&buffer[..count]);
                count
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                tracing::warn!(sheep = %lines.sheep, stream = lines.stream, %error, "cannot read a runner's output");
                *pipe = None;
                0
            }
        }
    }

    /// The end of what the runner wrote, from the beginning of a line where that is
    /// among it, without white space around it.
    pub(super) fn tail(&mut self) -> String {
        match self {
            Self::File { path, start } => text(&read_tail(path, *start).unwrap_or_default()),
            Self::Log { lines, .. } => {
                lines.finish();
                text(&lines.tail)
            }
        }
    }
}

fn read_tail(path: &Path, start: u64) -> io::Result<Vec<u8>> {
    // Other than regular files have no end to read, or block.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(Vec::new());
    }
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // A file that was cut meanwhile holds nothing from before.
    let start = if length < start { 0 } else { start };
    // One more than is kept tells that there was more.
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL as u64 + 1))))?;
    let mut tail = Vec::new();
    file.take(TAIL as u64 + 1).read_to_end(&mut tail)?;
    Ok(tail)
}

fn text(tail: &[u8]) -> String {
    let mut tail = tail;
    if tail.len() > TAIL {
        tail = &tail[tail.len() - TAIL..];
        if let Some(end) = tail.iter().position(|b| *b == b'\n').filter(|end| end + 1 < tail.len()) {
            tail = &tail[end + 1..];
        }
    }
    String::from_utf8_lossy(tail).trim().to_owned()
}

/// Cuts a stream into the lines of the log.
#[derive(Debug)]
pub(super) struct Lines {
    sheep: SheepId,
    stream: &'static str,
    line: Vec<u8>,
    tail: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        // Cut only now and then, and to one more than is kept: it tells that there was more.
        if self.tail.len() > 4 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL - 1);
        }
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
    fn finish(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        // What a terminal would show: the text after the last return to the line's start.
        if let Some(line) = line.trim_end().rsplit('\r').find(|line| !line.is_empty()) {
            tracing::info!(target: "runner", sheep = %self.sheep, stream = self.stream, "{line}");
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use shepherd_job::SheepId;

    use super::{Lines, MAX_LINE, Stream, TAIL};

    fn lines() -> Lines {
        let sheep = SheepId::parse("dolly").unwrap();
        Lines { sheep, stream: "stderr", line: Vec::new(), tail: Vec::new() }
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
    fn the_tail_is_bounded_and_begins_with_a_line() {
        let mut lines = lines();
        for number in 0..10_000 {
            lines.push(format!("line {number}\n").as_bytes());
            assert!(lines.tail.len() <= 4 * TAIL + 16);
        }
        let mut stream = Stream::Log { pipe: None, lines };
        let tail = stream.tail();
        assert!(tail.len() <= TAIL && tail.len() > TAIL - 16);
        assert!(tail.starts_with("line ") && tail.ends_with("line 9999"));
    }

    #[test]
    fn the_tail_of_a_file_is_of_this_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "of an earlier run\n").unwrap();
        let open = || Stream::open(Some(&path), &SheepId::parse("dolly").unwrap(), "stdout").unwrap().0;
        let mut stream = open();
        assert_eq!(stream.tail(), "");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"  a word\xff\n\n").unwrap();
        assert_eq!(stream.tail(), "a word\u{fffd}");
        file.write_all(&[b'y'; 3 * TAIL]).unwrap();
        assert_eq!(stream.tail(), "y".repeat(TAIL));
        file.set_len(0).unwrap();
        file.write_all(b"cut").unwrap();
        assert_eq!(stream.tail(), "cut");
    }
}
