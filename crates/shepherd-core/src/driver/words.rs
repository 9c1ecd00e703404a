//! What a runner's process printed since it has worked on its present job and on no other:
//! what may be quoted to that job's client.

use crate::engine::AttemptKey;

/// How much of the end is quoted.
const QUOTED: usize = 4096;

/// The end of what was printed for one attempt.
#[derive(Debug, Default)]
pub(super) struct OwnWords {
    /// Whose words these are, where one alone is at work.
    of: Option<AttemptKey>,
    text: String,
}

impl OwnWords {
    /// The process printed this while it worked on `job` alone; on none or several without it.
    pub(super) fn add(&mut self, job: Option<AttemptKey>, text: &str) {
        if self.of != job {
            self.of = job;
            self.text.clear();
        }
        if job.is_none() {
            return;
        }
        self.text.push_str(text);
        // Cut only now and then.
        if self.text.len() > 4 * QUOTED {
            let cut = self.text.ceil_char_boundary(self.text.len() - 2 * QUOTED);
            self.text.drain(..cut);
        }
    }

    /// The attempt that alone is at work, and the end of what it printed, from the beginning of a
    /// line where that is among it.
    pub(super) fn own(&self) -> Option<(AttemptKey, &str)> {
        let from = self.text.ceil_char_boundary(self.text.len().saturating_sub(QUOTED));
        let end = &self.text[from..];
        let end = match end.find('\n').filter(|at| from > 0 && at + 1 < end.len()) {
            Some(at) => &end[at + 1..],
            None => end,
        };
        Some((self.of?, end))
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    fn keys() -> [AttemptKey; 2] {
        let mut keys = SlotMap::with_key();
        [keys.insert(()), keys.insert(())]
    }

    #[test]
    fn only_what_one_job_printed_alone_is_its_own() {
        let (mut words, [first, second]) = (OwnWords::default(), keys());
        words.add(None, "loading\n");
        assert_eq!(words.own(), None);
        words.add(Some(first), "one\n");
        words.add(Some(first), "two\n");
        assert_eq!(words.own(), Some((first, "one\ntwo\n")));
        // Both are at work.
        words.add(None, "mixed\n");
        assert_eq!(words.own(), None);
        words.add(Some(second), "three\n");
        assert_eq!(words.own(), Some((second, "three\n")));
    }

    #[test]
    fn of_much_the_end_is_kept_in_whole_lines() {
        let (mut words, [job, _]) = (OwnWords::default(), keys());
        for number in 0..10_000 {
            words.add(Some(job), &format!("žluť {number}\n"));
            assert!(words.text.len() <= 4 * QUOTED + 32);
        }
        let (_, own) = words.own().unwrap();
        assert!(own.len() <= QUOTED && own.len() > QUOTED - 32, "{}", own.len());
        assert!(own.starts_with("žluť ") && own.ends_with("žluť 9999\n"));
    }
}
