//! What a job has printed, of which the end is kept.

use std::collections::HashSet;

/// What a cut needs to say that it is one.
const NOTE: usize = 64;

#[derive(Debug)]
pub(crate) struct Log {
    text: String,
    /// How many bytes came before the text.
    start: u64,
    /// Which attempt printed last.
    attempt: u32,
    /// At most so many bytes are kept in the end.
    max: usize,
}

impl Log {
    pub(crate) const fn new(max: usize) -> Self {
        Self { text: String::new(), start: 0, attempt: 0, max }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn push(&mut self, attempt: u32, text: &str) {
        if attempt != self.attempt {
            if !self.text.is_empty() {
                let line_end = if self.text.ends_with('\n') { "" } else { "\n" };
                self.text.push_str(&format!("{line_end}{}", header(attempt)));
            }
            self.attempt = attempt;
        }
        self.text.push_str(text);
        // Cut only now and then.
        if self.text.len() > 2 * self.max {
            let cut = self.text.ceil_char_boundary(self.text.len() - self.max);
            self.text.drain(..cut);
            self.start += cut as u64;
        }
    }

    /// Adds those lines of `text`, the end of what the attempt printed, that are not here: a
    /// runner that dies has not sent all of them.
    pub(crate) fn complete(&mut self, attempt: u32, text: &str) {
        let own = match attempt == self.attempt {
            true => self.text.rfind(&header(attempt)).unwrap_or(0),
            false => self.text.len(),
        };
        let known: HashSet<&str> = self.text[own..].lines().collect();
        let missing: Vec<&str> = text.lines().filter(|line| !known.contains(line)).collect();
        if missing.is_empty() {
            return;
        }
        let begins_line = self.text.is_empty() || self.text.ends_with('\n') || attempt != self.attempt;
        let line_end = if begins_line { "" } else { "\n" };
        self.push(attempt, &format!("{line_end}{}\n", missing.join("\n")));
    }

    /// What came after the first `offset` bytes and is still here; `offset` becomes
    /// where it ends. What is missing before it is said in its first line.
    pub(super) fn after(&self, offset: &mut u64) -> Option<String> {
        let missing = self.start.saturating_sub(*offset);
        // Every offset that was given out is the end of a piece, or where the text was cut.
        let from = usize::try_from(offset.saturating_sub(self.start)).ok()?;
        let rest = self.text.get(from..).filter(|rest| !rest.is_empty())?;
        *offset = self.start + self.text.len() as u64;
        Some(if missing == 0 { rest.to_owned() } else { format!("{}{rest}", left_out(missing)) })
    }

    /// What is kept, within the bound.
    pub(crate) fn kept(&self) -> String {
        if self.start == 0 && self.text.len() <= self.max {
            return self.text.clone();
        }
        let room = self.max.saturating_sub(NOTE).min(self.text.len());
        let mut from = self.text.ceil_char_boundary(self.text.len() - room);
        // From the beginning of a line, where that does not cost most of it.
        if let Some(end) = self.text[from..].find('\n').filter(|end| *end < room / 2) {
            from += end + 1;
        }
        format!("{}{}", left_out(self.start + from as u64), &self.text[from..])
    }
}

fn header(attempt: u32) -> String {
    format!("[attempt {attempt}]\n")
}

fn left_out(bytes: u64) -> String {
    format!("[{bytes} bytes are left out here]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_log_is_kept_as_it_is() {
        let mut log = Log::new(100);
        log.push(1, "load");
        log.push(1, "ing\n");
        assert_eq!(log.kept(), "loading\n");
        let mut offset = 0;
        assert_eq!(log.after(&mut offset).as_deref(), Some("loading\n"));
        assert_eq!(log.after(&mut offset), None);
        log.push(1, "ž\n");
        assert_eq!(log.after(&mut offset).as_deref(), Some("ž\n"));
    }

    #[test]
    fn a_later_attempt_is_told_from_the_first() {
        let mut log = Log::new(100);
        log.push(1, "half a line");
        log.push(2, "again\n");
        assert_eq!(log.kept(), "half a line\n[attempt 2]\nagain\n");
    }

    #[test]
    fn lines_that_a_dead_runner_did_not_send_are_added() {
        let mut log = Log::new(1000);
        log.complete(1, "");
        assert!(log.is_empty());
        log.push(1, "one\ntwo\nhalf");
        log.complete(1, "two\none\nhalf a line\nlast");
        assert_eq!(log.kept(), "one\ntwo\nhalf\nhalf a line\nlast\n");
        log.complete(1, "last\n");
        log.complete(2, "one\n");
        log.complete(2, "one\nagain\n");
        assert_eq!(log.kept(), "one\ntwo\nhalf\nhalf a line\nlast\n[attempt 2]\none\nagain\n");
    }

    #[test]
    fn of_a_long_log_the_end_is_kept_and_the_rest_counted() {
        let mut log = Log::new(1000);
        let mut offset = 0;
        let mut all = String::new();
        for number in 0..1000 {
            let line = format!("line {number} ž\n");
            all.push_str(&line);
            log.push(1, &line);
            assert!(log.text.len() <= 2000 + line.len());
        }
        let kept = log.kept();
        let (note, rest) = kept.split_once('\n').unwrap();
        assert!(kept.len() <= 1000 && kept.len() > 900, "{}", kept.len());
        assert!(rest.starts_with("line ") && all.ends_with(rest));
        assert_eq!(note, format!("[{} bytes are left out here]", all.len() - rest.len()));
        // One who fell behind goes on with what there is, and is told.
        let followed = log.after(&mut offset).unwrap();
        let (note, rest) = followed.split_once('\n').unwrap();
        assert_eq!(note, format!("[{} bytes are left out here]", all.len() - rest.len()));
        assert_eq!(offset, all.len() as u64);
    }
}
