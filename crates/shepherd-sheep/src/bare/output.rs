//! What a runner writes: to a file of its own, or line by line to the daemon's log.
//!
//! What comes through pipes is read by the thread that minds the runner, and by whoever
//! wants to know at once what has been printed.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::OFlags;
use shepherd_job::SheepId;

use crate::lines::{AtWork, Lines, Printed, TAIL, open_log, text};

/// Both streams of a runner.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    printed: Printed,
}

impl Output {
    pub(super) fn new(stdout: Stream, mut stderr: Stream) -> Self {
        // One file for both is read once.
        if let (Stream::File(one), Stream::File(other)) = (&stdout, &mut stderr) {
            other.is_read_elsewhere = one.is_same(other);
        }
        Self { stdout, stderr, printed: Printed::default() }
    }

    /// Reads what has come, at most about so many bytes of each stream. Returns whether
    /// more may come on each.
    pub(super) fn pump(&mut self, most: usize) -> [bool; 2] {
        let Self { stdout, stderr, printed } = self;
        [stdout, stderr].map(|stream| {
            let mut count = 0;
            while count < most {
                match stream.pump(printed) {
                    0 => break,
                    more => count += more,
                }
            }
            stream.is_open()
        })
    }

    /// Takes what was printed since this was called last, and is in the pipes and files.
    pub(super) fn printed(&mut self) -> String {
        self.pump(PRINTED_AT_ONCE);
        self.printed.take()
    }

    /// The end of what the runner wrote: of its standard error, unless that is empty.
    pub(super) fn tail(&mut self) -> String {
        Some(self.stderr.tail()).filter(|tail| !tail.is_empty()).unwrap_or_else(|| self.stdout.tail())
    }
}

/// How much of a stream is read when it is asked what was printed. A runner that prints
/// faster than it is read must not hold up who asks.
const PRINTED_AT_ONCE: usize = 256 << 10;

/// One of the runner's two streams.
#[derive(Debug)]
pub(super) enum Stream {
    /// The runner itself appends to a file.
    File(Appended),
    /// The runner writes to a pipe; `None` once nobody does any more.
    Log { pipe: Option<PipeReader>, lines: Lines },
}

/// A file that a runner appends to.
#[derive(Debug)]
pub(super) struct Appended {
    /// To read what came; none where it cannot be read, or is no regular file, which has no end
    /// to read, or blocks.
    file: Option<File>,
    /// How long it was when the runner began.
    start: u64,
    /// How much of it was taken for printed.
    taken: u64,
    /// Whether it is the other stream's file as well, and read as that.
    is_read_elsewhere: bool,
}

impl Appended {
    /// The file at `path`, which is open for appending as `writer`.
    fn new(path: &Path, writer: &File) -> io::Result<Self> {
        let meta = writer.metadata()?;
        let file = if meta.is_file() { File::open(path).ok() } else { None };
        Ok(Self { file, start: meta.len(), taken: meta.len(), is_read_elsewhere: false })
    }

    fn is_same(&self, other: &Self) -> bool {
        let id = |file: &Option<File>| {
            let meta = file.as_ref()?.metadata().ok()?;
            Some((meta.dev(), meta.ino()))
        };
        id(&self.file).is_some_and(|own| Some(own) == id(&other.file))
    }

    fn pump(&mut self, printed: &mut Printed) -> io::Result<usize> {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_read_elsewhere) else { return Ok(0) };
        // Another may have cut it: what it holds then came after that.
        if file.metadata()?.len() < self.taken {
            self.taken = 0;
        }
        let mut buffer = [0; 16 * 1024];
        let count = file.read_at(&mut buffer, self.taken)?;
        self.taken += count as u64;
        printed.push(&buffer[..count]);
        Ok(count)
    }

    fn tail(&self) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let length = file.metadata()?.len();
        // A file that was cut meanwhile holds nothing from before.
        let start = if length < self.start { 0 } else { self.start };
        // One more than is kept tells that there was more.
        let from = start.max(length.saturating_sub(TAIL as u64 + 1));
        let mut tail = vec![0; TAIL + 1];
        let count = file.read_at(&mut tail, from)?;
        tail.truncate(count);
        Ok(tail)
    }
}

impl Stream {
    /// Opens a stream, and what the child gets for it.
    pub(super) fn open(
        path: Option<&Path>,
        sheep: &SheepId,
        at_work: &AtWork,
        name: &'static str,
    ) -> io::Result<(Self, Stdio)> {
        if let Some(path) = path {
            let file = open_log(path)?;
            // The runner finds its streams as they always are.
            rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
            return Ok((Self::File(Appended::new(path, &file)?), file.into()));
        }
        let (reader, writer) = io::pipe()?;
        // The writer's end is apart: a runner finds its streams as they always are.
        rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        let lines = Lines::new(sheep, at_work, name);
        Ok((Self::Log { pipe: Some(reader), lines }, writer.into()))
    }

    /// What to wait for before it is read; none where nothing comes.
    pub(super) fn readable(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::File(_) => Ok(None),
            Self::Log { pipe, .. } => pipe.as_ref().map(|pipe| Ok(pipe.try_clone()?.into())).transpose(),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Log { pipe: Some(_), .. })
    }

    /// Reads once. Returns how much came; none when nothing has, and at the end.
    fn pump(&mut self, printed: &mut Printed) -> usize {
        let (pipe, lines) = match self {
            Self::File(file) => return file.pump(printed).unwrap_or_default(),
            Self::Log { pipe, lines } => (pipe, lines),
        };
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
                printed.push(&buffer[..count]);
                count
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => 0,
            Err(error) => {
                tracing::warn!(sheep = %lines.sheep(), stream = lines.stream(), %error, "cannot read a runner's output");
                *pipe = None;
                0
            }
        }
    }

    /// The end of what the runner wrote, from the beginning of a line where that is
    /// among it, without white space around it.
    pub(super) fn tail(&mut self) -> String {
        match self {
            Self::File(file) => text(&file.tail().unwrap_or_default()),
            Self::Log { lines, .. } => {
                lines.finish();
                lines.tail().text()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use shepherd_job::SheepId;

    use super::{Output, Stream};
    use crate::lines::{AtWork, TAIL};

    #[test]
    fn what_was_printed_before_a_look_is_seen_by_it() {
        let sheep = SheepId::parse("dolly").unwrap();
        let (stdout, out) = Stream::open(None, &sheep, &AtWork::default(), "stdout").unwrap();
        let (stderr, err) = Stream::open(None, &sheep, &AtWork::default(), "stderr").unwrap();
        let mut output = Output::new(stdout, stderr);
        assert_eq!(output.printed(), "");
        let sh = std::process::Command::new("sh")
            .args(["-c", "echo one; echo two >&2"])
            .stdout(out)
            .stderr(err)
            .status();
        assert!(sh.unwrap().success());
        assert_eq!(output.printed(), "one\ntwo\n");
        assert_eq!(output.printed(), "");
        assert_eq!(output.tail(), "two");
        assert!(!output.stdout.is_open(), "nobody writes any more");
    }

    #[test]
    fn what_goes_to_a_file_is_printed_too_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "of an earlier run\n").unwrap();
        let sheep = SheepId::parse("dolly").unwrap();
        let open = |name| Stream::open(Some(&path), &sheep, &AtWork::default(), name).unwrap().0;
        let mut output = Output::new(open("stdout"), open("stderr"));
        let append =
            |text: &str| File::options().append(true).open(&path).unwrap().write_all(text.as_bytes());
        append("loading\n").unwrap();
        assert_eq!(output.printed(), "", "nobody had asked yet");
        append("one\n").unwrap();
        append("two\n").unwrap();
        assert_eq!(output.printed(), "one\ntwo\n");
        assert_eq!(output.printed(), "");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        append("cut\n").unwrap();
        assert_eq!(output.printed(), "cut\n");
    }

    #[test]
    fn the_tail_of_a_file_is_of_this_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "of an earlier run\n").unwrap();
        let dolly = SheepId::parse("dolly").unwrap();
        let open = || Stream::open(Some(&path), &dolly, &AtWork::default(), "stdout").unwrap().0;
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
