//! What a runner's process printed since it has worked on its present job and on no other:
//! what may be quoted to that job's client.

use shepherd_job::{Attempt, JobId};

use super::hand::Job;

/// How much of the end is quoted.
const QUOTED: usize = 4096;

/// The end of what was printed for one attempt.
#[derive(Debug, Default)]
pub(super) struct OwnWords {
    /// Whose words these are, where one alone is at work.
    of: Option<(JobId, Attempt)>,
    text: String,
}

impl OwnWords {
    /// The process printed this while it worked on `job` alone; on none or several without it.
    pub(super) fn add(&mut self, job: Option<&Job>, text: &str) {
        let is_same = match (&self.of, job) {
            (Some((id, attempt)), Some(job)) => id == job.id() && *attempt == job.attempt,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            self.of = job.map(|job| (job.id().clone(), job.attempt));
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

    /// The end of what this attempt printed, from the beginning of a line where that is among
    /// it; empty where that is not known.
    pub(super) fn of(&self, job: &Job) -> &str {
        if self.of.as_ref().is_none_or(|(id, attempt)| id != job.id() || *attempt != job.attempt) {
            return "";
        }
        let from = self.text.ceil_char_boundary(self.text.len().saturating_sub(QUOTED));
        let end = &self.text[from..];
        match end.find('\n').filter(|at| from > 0 && at + 1 < end.len()) {
            Some(at) => &end[at + 1..],
            None => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hand::tests::job;
    use super::*;

    #[test]
    fn only_what_one_job_printed_alone_is_its_own() {
        let (mut words, first, second) = (OwnWords::default(), job(1, 0), job(2, 0));
        words.add(None, "loading\n");
        words.add(Some(&first), "one\n");
        words.add(Some(&first), "two\n");
        assert_eq!((words.of(&first), words.of(&second)), ("one\ntwo\n", ""));
        // Both are at work.
        words.add(None, "mixed\n");
        assert_eq!(words.of(&first), "");
        words.add(Some(&second), "three\n");
        assert_eq!((words.of(&first), words.of(&second)), ("", "three\n"));
    }

    #[test]
    fn of_much_the_end_is_kept_in_whole_lines() {
        let (mut words, job) = (OwnWords::default(), job(1, 0));
        for number in 0..10_000 {
            words.add(Some(&job), &format!("žluť {number}\n"));
            assert!(words.text.len() <= 4 * QUOTED + 32);
        }
        let own = words.of(&job);
        assert!(own.len() <= QUOTED && own.len() > QUOTED - 32, "{}", own.len());
        assert!(own.starts_with("žluť ") && own.ends_with("žluť 9999\n"));
    }
}
