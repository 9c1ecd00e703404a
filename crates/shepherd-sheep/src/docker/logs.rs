//! What a container writes: from the engine's record of it to the daemon's log, line by
//! line, or to files.
//!
//! The record is read rather than the container itself: whoever is attached to a
//! container and does not keep up blocks it. The record is bounded, so a reader that
//! falls far behind loses output, and nobody waits for him. A reader that lost the
//! engine begins again a little before what he has, which the times in the record tell
//! from what is new.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Mutex, watch};

use super::DockerOptions;
use super::backoff::Backoff;
use super::container::Container;
use super::engine::Trouble;
use super::rotate::RotatedFile;
use crate::SheepError;
use crate::lines::{AtWork, Lines, Printed, Tail, unopened};

/// Maximum number of pieces in one write.
const BATCH: usize = 64;
/// The kind of a frame that holds an error of the engine's, after 0 to 2 for the streams.
const ERROR: u8 = 3;
/// Number of lines that is more than is kept of the end.
const END: &str = "1000";

/// What came of both streams and nobody has taken yet.
pub(super) type SharedPrinted = Arc<std::sync::Mutex<Printed>>;

/// Both streams of one container.
pub(super) struct Logs {
    stdout: Stream,
    stderr: Stream,
    /// Locked by what writes, which goes on when nobody waits for it.
    files: Arc<Mutex<Vec<RotatedFile>>>,
    printed: SharedPrinted,
    /// The last words, where they were read out of turn.
    end: Option<Tail>,
}

struct Stream {
    sink: Sink,
    /// The time of the last piece, and how many of that time there were: the pieces of
    /// a long line have the same.
    last: Option<(String, usize)>,
    /// The last whole line, as it was in the record.
    line: Bytes,
    /// What a reader that began again has already.
    known: Option<(String, usize)>,
}

enum Sink {
    Log(Lines),
    /// The number of the file.
    File(usize, Tail),
}

impl Logs {
    /// Opens the files. All that comes is to be had from `printed`, too.
    ///
    /// # Errors
    /// [`SheepError::Model`] when one cannot be written to.
    pub(super) fn open(
        options: &DockerOptions,
        printed: SharedPrinted,
        at_work: &AtWork,
    ) -> Result<Self, SheepError> {
        let mut files: Vec<RotatedFile> = Vec::new();
        let mut sink = |path: Option<&Path>, name| {
            let Some(path) = path else { return Ok(Sink::Log(Lines::new(&options.id, at_work, name))) };
            // Both streams may go to one.
            let number = match files.iter().position(|file| file.path() == path) {
                Some(number) => number,
                None => {
                    let mut file = RotatedFile::new(path, options.log_max_bytes, options.log_files);
                    file.open().map_err(|error| unopened(&options.id, name, path, &error))?;
                    files.push(file);
                    files.len() - 1
                }
            };
            Ok(Sink::File(number, Tail::default()))
        };
        let stdout = Stream::new(sink(options.stdout_file.as_deref(), "stdout")?);
        let stderr = Stream::new(sink(options.stderr_file.as_deref(), "stderr")?);
        Ok(Self { stdout, stderr, files: Arc::new(Mutex::new(files)), printed, end: None })
    }

    /// Reads until the container is `over` and all it wrote was read, or cannot be.
    pub(super) async fn follow(&mut self, container: &Container, mut over: watch::Receiver<bool>) {
        let mut backoff = Backoff::new();
        loop {
            let is_over = *over.borrow_and_update();
            match self.read(container, !is_over).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(container = container.key(), %error, "a container's output stopped coming");
                }
            }
            if is_over {
                return;
            }
            // Ended before its container is known to be over, or lost the engine.
            tokio::select! {
                _ = over.wait_for(|over| *over) => {}
                () = backoff.pause() => {}
            }
        }
    }

    async fn read(&mut self, container: &Container, follow: bool) -> Result<(), Trouble> {
        self.stdout.known.clone_from(&self.stdout.last);
        self.stderr.known.clone_from(&self.stderr.last);
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true);
        let options = options.follow(follow).since(self.since()).build();
        let docker = container.engine().reached().await?;
        let mut pieces = docker.logs(container.key(), Some(options)).ready_chunks(BATCH);
        while let Some(batch) = pieces.next().await {
            let mut writes = Vec::new();
            let mut failure = None;
            for piece in batch {
                match piece {
                    Ok(LogOutput::StdErr { message }) => {
                        writes.extend(self.stderr.take(&message, &self.printed));
                    }
                    Ok(LogOutput::StdOut { message }) => {
                        writes.extend(self.stdout.take(&message, &self.printed));
                    }
                    Ok(LogOutput::Console { message }) => {
                        if let Some(complaint) = complaint(&message) {
                            let container = container.key();
                            tracing::warn!(
                                container,
                                complaint,
                                "the engine cannot read a container's output"
                            );
                        }
                    }
                    Ok(LogOutput::StdIn { .. }) => {}
                    Err(error) => failure = Some(error),
                }
            }
            self.write(writes).await;
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn write(&self, writes: Vec<(usize, Bytes)>) {
        if writes.is_empty() {
            return;
        }
        let files = Arc::clone(&self.files);
        let writing = tokio::task::spawn_blocking(move || {
            let mut files = files.blocking_lock();
            for (number, bytes) in writes {
                if let Some(file) = files.get_mut(number) {
                    file.append(&bytes);
                }
            }
        });
        if let Err(error) = writing.await {
            tracing::error!(%error, "writing a runner's output broke off");
        }
    }

    /// From when on the record is asked for: a second before what is known, for the two
    /// streams come a little out of order.
    fn since(&self) -> i32 {
        let last = [&self.stdout, &self.stderr].into_iter().filter_map(|stream| stream.last.as_ref());
        let seconds = last.filter_map(|(stamp, _)| OffsetDateTime::parse(stamp, &Rfc3339).ok());
        let latest = seconds.map(OffsetDateTime::unix_timestamp).max();
        latest.and_then(|seconds| i32::try_from(seconds - 1).ok()).unwrap_or(0)
    }

    /// Reads the end of what a container wrote that is over, passing over what was not read
    /// before it.
    pub(super) async fn skip_to_end(&mut self, container: &Container) -> Result<(), Trouble> {
        let docker = container.engine().reached().await?;
        let end = self.end.insert(Tail::default());
        // The whole of stderr: while stdout is written without end, its last words are
        // anywhere in the record.
        let of_stderr = LogsOptionsBuilder::default().stderr(true).build();
        let of_stdout = LogsOptionsBuilder::default().stdout(true).tail(END).build();
        for options in [of_stderr, of_stdout] {
            let mut pieces = docker.logs(container.key(), Some(options));
            while let Some(piece) = pieces.next().await {
                if let LogOutput::StdErr { message } | LogOutput::StdOut { message } = piece? {
                    end.push(&message);
                }
            }
            if !end.text().is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The end of what was written to stderr, or to stdout when that is nothing.
    pub(super) fn tail(&mut self) -> String {
        if let Some(text) = self.end.as_ref().map(Tail::text).filter(|text| !text.is_empty()) {
            return text;
        }
        Some(self.stderr.tail()).filter(|tail| !tail.is_empty()).unwrap_or_else(|| self.stdout.tail())
    }
}

impl Stream {
    fn new(sink: Sink) -> Self {
        Self { sink, last: None, line: Bytes::new(), known: None }
    }

    /// Takes a piece of the record; what is to be written to a file of it.
    fn take(&mut self, piece: &Bytes, printed: &SharedPrinted) -> Option<(usize, Bytes)> {
        let text = self.new_of(piece)?;
        printed.lock().unwrap_or_else(PoisonError::into_inner).push(&text);
        match &mut self.sink {
            Sink::Log(lines) => {
                lines.push(&text);
                None
            }
            Sink::File(number, tail) => {
                tail.push(&text);
                Some((*number, text))
            }
        }
    }

    /// The text of a piece that is not known yet.
    fn new_of(&mut self, piece: &Bytes) -> Option<Bytes> {
        let Some((stamp, text)) = split(piece) else { return Some(piece.clone()) };
        if let Some((last, count)) = &mut self.known {
            match stamp.cmp(last.as_str()) {
                std::cmp::Ordering::Less => return None,
                std::cmp::Ordering::Equal if *count > 0 => {
                    *count -= 1;
                    return None;
                }
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => self.known = None,
            }
        }
        // An engine that begins a new file of the record may say again what ended the old one. No two lines have
        // one time; pieces of a line do.
        if text.ends_with(b"\n") {
            if self.line == piece {
                return None;
            }
            self.line = piece.clone();
        }
        match &mut self.last {
            Some((last, count)) if last == stamp => *count += 1,
            last => *last = Some((stamp.to_owned(), 1)),
        }
        Some(text)
    }

    fn tail(&mut self) -> String {
        match &mut self.sink {
            Sink::Log(lines) => {
                lines.finish();
                lines.tail().text()
            }
            Sink::File(_, tail) => tail.text(),
        }
    }
}

/// What the engine says of the record itself, in what is neither stream. Without a terminal,
/// the rest is what a broken answer ends with: a part of a frame.
fn complaint(piece: &[u8]) -> Option<String> {
    let text = match piece {
        // The frames of errors, which bollard does not know, are pieces with their headers.
        [ERROR, 0, 0, 0, _, _, _, _, text @ ..] => text,
        // A length whose bytes hold a line's end.
        [ERROR, 0, ..] => return None,
        [first, ..] if *first > ERROR => piece,
        _ => return None,
    };
    Some(String::from_utf8_lossy(text).trim().to_owned()).filter(|text| !text.is_empty())
}

/// A piece's time, in letters that sort as the times do, and its text.
fn split(piece: &Bytes) -> Option<(&str, Bytes)> {
    let end = piece.iter().take(40).position(|byte| *byte == b' ')?;
    let stamp = std::str::from_utf8(&piece[..end]).ok()?;
    let is_time = stamp.len() >= 20 && stamp.as_bytes()[0].is_ascii_digit() && stamp.as_bytes()[10] == b'T';
    is_time.then(|| (stamp, piece.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use shepherd_job::SheepId;

    use super::*;

    fn stream() -> Stream {
        Stream::new(Sink::Log(Lines::new(&SheepId::parse("dolly").unwrap(), &AtWork::default(), "stdout")))
    }

    fn piece(stamp: u32, text: &str) -> Bytes {
        format!("2026-11-23T06:09:30.{stamp:09}Z {text}").into()
    }

    #[test]
    fn what_is_read_again_is_known() {
        let mut stream = stream();
        let record =
            [piece(1, "a\n"), piece(2, "long "), piece(2, "line\n"), piece(2, "more\n"), piece(5, "\n")];
        for piece in &record[..3] {
            assert!(stream.new_of(piece).is_some());
        }
        stream.known.clone_from(&stream.last);
        let new: Vec<_> = record.iter().filter_map(|piece| stream.new_of(piece)).collect();
        assert_eq!(new, ["more\n", "\n"]);
        // Nothing new; and then something, after the clock was set back.
        stream.known.clone_from(&stream.last);
        assert_eq!(record.iter().filter_map(|piece| stream.new_of(piece)).count(), 0);
        assert!(stream.new_of(&piece(6, "")).is_some());
        assert!(stream.new_of(&piece(4, "")).is_some());
    }

    #[test]
    fn a_line_that_the_engine_repeats_is_taken_once() {
        let mut stream = stream();
        let record = [piece(1, "a\n"), piece(1, "a\n"), piece(2, "a\n"), piece(3, "xx"), piece(3, "xx")];
        let new: Vec<_> = record.iter().filter_map(|piece| stream.new_of(piece)).collect();
        assert_eq!(new, ["a\n", "a\n", "xx", "xx"]);
    }

    #[test]
    fn what_the_engine_says_of_the_record_is_told_from_broken_frames() {
        for (piece, text) in [
            (&b"\x03\0\0\0\0\0\0\x0funexpected EOF\n"[..], Some("unexpected EOF")),
            // The header of one of ten bytes breaks in two.
            (b"\x03\0\0\0\0\0\0\n", None),
            (b"some text\n", Some("some text")),
            (b"\x03\0\0\0\0\n", None),
            (b"\x01\0\0\0\0\0\0\x30half a lin", None),
            (b"\x02\0", None),
            (b"", None),
        ] {
            assert_eq!(complaint(piece).as_deref(), text, "{piece:?}");
        }
    }

    #[test]
    fn pieces_without_a_time_are_taken_as_they_are() {
        for text in ["", " ", "no time\n", "2026 or so\n", "2026-11-23T06:09:30.000000001Z"] {
            let text = Bytes::from(text);
            assert_eq!(stream().new_of(&text), Some(text));
        }
    }
}
