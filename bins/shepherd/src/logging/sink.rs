//! The log's way to standard error: a bounded queue and a thread that writes.
//!
//! Whoever reads the log may go away, stop reading, or run out of disk. None of that may
//! stop the daemon, so an entry that cannot be queued or written is dropped and counted,
//! and the count is logged once entries can be written again.
//!
//! What clients and runners say is logged, too. So that it cannot look like an entry of its
//! own, or reach a terminal, what follows a line feed within an entry is indented, and other
//! control characters are written as `\u00XX`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written. Later ones are dropped.
const MAX_WAITING_LINES: usize = 8192;
/// How long the end of the process waits for lines that are still to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Acknowledged when all lines before it have been written or dropped.
    Flush(SyncSender<()>),
}

/// Where the log's lines are put. Writing to it never blocks and never fails.
#[derive(Clone)]
pub(crate) struct Sink {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    colours: Colours,
}

/// Whether entries are coloured, by escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    Yes,
    No,
}

impl Sink {
    /// Starts the thread that writes to `output`. `report_lost` is called on it with the
    /// number of lines that were dropped, once one could be written again.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(
        output: impl Write + Send + 'static,
        colours: Colours,
        report_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, waiting) = sync_channel(MAX_WAITING_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { output, lost: Arc::clone(&lost), is_in_line: false };
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&waiting, report_lost))?;
        Ok(Self { messages, lost, colours })
    }

    /// Waits until the lines so far have been written, though not for ever.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        // A full queue means that nobody reads the log.
        if self.messages.try_send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.messages.try_send(Message::Line(harmless(line, self.colours))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// An entry without what could be taken for another one, or for a terminal's command. The
/// escape sequences of colours stay: those of others were escaped when the entry was made.
fn harmless(entry: &[u8], colours: Colours) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.len());
    let mut rest = entry.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\n' if rest.peek().is_some() => out.extend_from_slice(b"\n    | "),
            b'\n' | b'\t' => out.push(byte),
            0x1b if colours == Colours::Yes => out.push(byte),
            0..0x20 | 0x7f => escape(byte, &mut out),
            // U+0080 to U+009F.
            0xc2 => match rest.next_if(|next| (0x80..0xa0).contains(next)) {
                Some(control) => escape(control, &mut out),
                None => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    out
}

fn escape(control: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\\u{control:04x}").as_bytes());
}

struct Writer<W> {
    output: W,
    lost: Arc<AtomicU64>,
    /// Whether a write broke off within a line.
    is_in_line: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self, waiting: &Receiver<Message>, report_lost: impl Fn(u64)) {
        while let Ok(message) = waiting.recv() {
            match message {
                Message::Line(line) => match self.write(&line) {
                    Ok(()) => {
                        let lost = self.lost.swap(0, Ordering::Relaxed);
                        if lost > 0 {
                            report_lost(lost);
                        }
                    }
                    Err(_) => {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                },
                Message::Flush(done) => {
                    let _ = done.try_send(());
                }
            }
        }
    }

    /// Writes a line that ends with a line feed.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_in_line {
            self.output.write_all(b"\n")?;
            self.is_in_line = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.is_in_line = !rest.is_empty();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An output that takes so many bytes and then fails until it is given more room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().unwrap().0 += bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= taken;
            text.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_come_whole() {
        let disk = Disk::default();
        disk.make_room(8);
        let counts = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&counts);
        let mut sink =
            Sink::start(disk.clone(), Colours::No, move |lost| told.lock().unwrap().push(lost)).unwrap();
        for line in ["one\n", "two and more\n", "three\n"] {
            sink.write_all(line.as_bytes()).unwrap();
        }
        Sink::flush(&sink);
        assert_eq!(disk.text(), "one\ntwo ");
        assert_eq!(*counts.lock().unwrap(), [0; 0]);
        disk.make_room(100);
        for line in ["four\n", "five\n"] {
            sink.write_all(line.as_bytes()).unwrap();
        }
        Sink::flush(&sink);
        assert_eq!(disk.text(), "one\ntwo \nfour\nfive\n");
        assert_eq!(*counts.lock().unwrap(), [2]);
    }

    #[test]
    fn an_entry_cannot_look_like_two_or_command_a_terminal() {
        let entry = "a\r\u{1b}[2Jb\tc\u{7f}\u{9b}ä\nERROR forged\n";
        let plain = harmless(entry.as_bytes(), Colours::No);
        let expected = "a\\u000d\\u001b[2Jb\tc\\u007f\\u009bä\n    | ERROR forged\n";
        assert_eq!(String::from_utf8(plain).unwrap(), expected);
        let coloured = harmless(b"\x1b[31mred\x1b[0m\n", Colours::Yes);
        assert_eq!(coloured, b"\x1b[31mred\x1b[0m\n");
    }

    #[test]
    fn an_output_that_blocks_for_ever_holds_up_nobody() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (free, is_free) = sync_channel(0);
        let (told, lost) = sync_channel(2);
        let mut sink = Sink::start(Stuck(is_free), Colours::No, move |lost| {
            let _ = told.try_send(lost);
        })
        .unwrap();
        for _ in 0..MAX_WAITING_LINES + 10 {
            sink.write_all(b"line\n").unwrap();
        }
        Sink::flush(&sink);
        drop(free);
        // The one being written may have left its place before the queue was full.
        assert!([9, 10].contains(&lost.recv().unwrap()));
    }
}
