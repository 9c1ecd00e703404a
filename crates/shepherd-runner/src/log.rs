//! What one job printed, on its way to the shepherd.
//!
//! Text waits here and leaves in pieces: every [`FLUSH_DELAY`] while the job runs, and all
//! of it before the job's answer. Where a job prints faster than that, or the shepherd
//! does not read, the end is kept, and the text says how much was left out. So a job
//! that prints without end costs neither memory nor the heartbeats' way.

mod noted;
mod utf8;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use noted::Noted;
pub(crate) use utf8::Utf8;
pub use writer::LogWriter;

/// How long text waits for more while its job runs.
const FLUSH_DELAY: Duration = Duration::from_millis(50);
/// How many bytes of a job are kept; up to twice as many wait before that is seen to.
const MAX_KEPT_BYTES: usize = 128 << 10;
/// The most bytes of a message. Less than the 32 KiB that a message may hold, so that
/// it is this module that cuts.
const PIECE: usize = (32 << 10) - 16;

/// The log of a job in work.
#[derive(Default)]
pub(crate) struct JobLog {
    /// Held from taking text until it is on its way, so that the order is kept. Taken
    /// before `text`.
    order: Mutex<()>,
    text: Mutex<Text>,
}

#[derive(Default)]
struct Text {
    waiting: String,
    left_out: usize,
    /// What was taken last does not end with its line.
    in_line: bool,
    /// Whoever sends it knows that there is something.
    noted: bool,
    closed: bool,
}

impl JobLog {
    /// Adds text. What comes after the job's end is no concern of its log. Returns
    /// whether somebody has to be told that there is something to send.
    #[must_use]
    pub(crate) fn push(&self, text: &str) -> bool {
        let mut own = lock(&self.text);
        if own.closed || text.is_empty() {
            return false;
        }
        own.push(text);
        !std::mem::replace(&mut own.noted, true)
    }

    /// Gives what waits to `give`, in pieces.
    pub(crate) fn pass_on(&self, give: impl FnOnce(Vec<String>)) {
        let _order = lock(&self.order);
        let mut text = lock(&self.text);
        text.noted = false;
        let taken = text.take();
        drop(text);
        if !taken.is_empty() {
            give(pieces(&taken));
        }
    }

    /// The job is over. Returns what is left, which goes ahead of the answer.
    pub(crate) fn close(&self) -> Vec<String> {
        // Whatever is being passed on goes first.
        let _order = lock(&self.order);
        let mut text = lock(&self.text);
        text.closed = true;
        let taken = text.take();
        drop(text);
        pieces(&taken)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Text {
    fn push(&mut self, text: &str) {
        if text.len() >= MAX_KEPT_BYTES {
            self.left_out += std::mem::take(&mut self.waiting).len();
        }
        let cut = text.ceil_char_boundary(text.len().saturating_sub(MAX_KEPT_BYTES));
        self.left_out += cut;
        self.waiting.push_str(&text[cut..]);
        // Not at each excess: moving the rest takes its time.
        if self.waiting.len() > 2 * MAX_KEPT_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let excess = self.waiting.ceil_char_boundary(self.waiting.len().saturating_sub(MAX_KEPT_BYTES));
        self.waiting.drain(..excess);
        self.left_out += excess;
    }

    fn take(&mut self) -> String {
        self.cut();
        let mut taken = std::mem::take(&mut self.waiting);
        if self.left_out > 0 {
            let line = if self.in_line { "\n" } else { "" };
            taken.insert_str(0, &format!("{line}[{} bytes were left out here]\n", self.left_out));
            self.left_out = 0;
        }
        if !taken.is_empty() {
            self.in_line = !taken.ends_with('\n');
        }
        taken
    }
}

fn pieces(mut text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.floor_char_boundary(PIECE));
        pieces.push(piece.to_owned());
        text = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(log: &JobLog) -> String {
        let mut text = String::new();
        log.pass_on(|pieces| text = pieces.concat());
        text
    }

    #[test]
    fn text_is_passed_on_once_and_the_rest_at_the_end() {
        let log = JobLog::default();
        assert!(log.push("one "));
        assert!(!log.push("line\n") && !log.push(""));
        assert_eq!(passed_on(&log), "one line\n");
        assert_eq!(passed_on(&log), "");
        assert!(log.push("another"));
        assert_eq!(log.close(), ["another"]);
        assert!(!log.push("late"));
        assert!(log.close().is_empty());
    }

    #[test]
    fn of_too_much_text_the_end_is_kept_and_the_rest_is_counted() {
        for step in [1, 1000, MAX_KEPT_BYTES - 1, MAX_KEPT_BYTES, 3 * MAX_KEPT_BYTES] {
            let log = JobLog::default();
            let _ = log.push("ž");
            assert_eq!(passed_on(&log), "ž");
            let letters = "ž".repeat(step);
            let mut given = 0;
            while given < 5 * MAX_KEPT_BYTES {
                let _ = log.push(&letters);
                given += letters.len();
                assert!(lock(&log.text).waiting.len() <= 2 * MAX_KEPT_BYTES);
            }
            let _ = log.push("end");
            given += 3;
            let text = passed_on(&log);
            let (note, rest) = text.split_once(" bytes were left out here]\n").unwrap();
            let left_out: usize = note.strip_prefix("\n[").unwrap().parse().unwrap();
            assert_eq!(left_out + rest.len(), given);
            assert!(
                rest.len() <= MAX_KEPT_BYTES && rest.len() > MAX_KEPT_BYTES - 4 && rest.ends_with("žend")
            );
        }
    }

    #[test]
    fn pieces_are_small_and_cut_no_letter() {
        let text = format!("x{}", "ž".repeat(PIECE));
        let pieces = pieces(&text);
        assert!(
            pieces.iter().all(|piece| piece.len() <= PIECE && piece.len() >= PIECE - 1 || piece.len() < 4)
        );
        assert_eq!(pieces.concat(), text);
    }
}
