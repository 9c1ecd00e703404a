//! What a runner writes: to a file of its own, or line by line to the daemon's log.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use shepherd_job::SheepId;

use crate::lines::{Lines, TAIL, text};

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
        let lines = Lines::new(sheep, name);
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
            Self::File { path, start } => text(&read_tail(path, *start).unwrap_or_default()),
            Self::Log { lines, .. } => {
                lines.finish();
                lines.tail().text()
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use shepherd_job::SheepId;

    use super::Stream;
    use crate::lines::TAIL;

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
