//! What the scripted runners of a harness did, in the order in which they did it.
//!
//! Every line is appended by one write, which other processes' lines cannot split,
//! and nothing is ever removed: it tells of runners that were killed, too.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The journal's file.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

/// A runner that started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its process.
    pub pid: i32,
    /// Its model's config path as it was given, `NAME/VERSION/config.yaml`.
    pub config: String,
}

/// A job that a runner began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which job.
    pub job: String,
    /// The attempt's token.
    pub attempt: String,
    /// The sheep, by the name of its directory.
    pub sheep: String,
    /// The runner's process.
    pub pid: i32,
    /// Where in the journal this is written, in bytes.
    pub offset: u64,
}

impl Journal {
    /// The journal in the file `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that this process started.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_start(&self, config: &str) -> std::io::Result<()> {
        self.append(&format!("start {} {config}\n", std::process::id()))
    }

    /// Notes that this process began a job.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_run(&self, job: &str, attempt: &str, sheep: &str) -> std::io::Result<()> {
        self.note_run_of(std::process::id(), job, attempt, sheep)
    }

    /// Notes that another process, on whose behalf this one works, began a job.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_run_of(&self, pid: u32, job: &str, attempt: &str, sheep: &str) -> std::io::Result<()> {
        self.append(&format!("run {job} {attempt} {sheep} {pid}\n"))
    }

    fn append(&self, line: &str) -> std::io::Result<()> {
        OpenOptions::new().append(true).create(true).open(&self.path)?.write_all(line.as_bytes())
    }

    /// How long it is now, in bytes: what is noted later has an offset from there on.
    pub fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Every job that was begun, in order.
    ///
    /// # Panics
    /// When a line is broken.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        self.each_line(|offset, words| {
            if let ["run", job, attempt, sheep, pid] = words {
                runs.push(Run {
                    job: (*job).to_owned(),
                    attempt: (*attempt).to_owned(),
                    sheep: (*sheep).to_owned(),
                    pid: pid.parse().expect("a process id"),
                    offset,
                });
            }
        });
        runs
    }

    /// The attempts at one job, in order.
    pub fn runs_of(&self, job: &str) -> Vec<Run> {
        self.runs().into_iter().filter(|run| run.job == job).collect()
    }

    /// Every runner that started, in order.
    ///
    /// # Panics
    /// When a line is broken.
    pub fn starts(&self) -> Vec<Start> {
        let mut starts = Vec::new();
        self.each_line(|_, words| {
            if let ["start", pid, config] = words {
                starts.push(Start { pid: pid.parse().expect("a process id"), config: (*config).to_owned() });
            }
        });
        starts
    }

    fn each_line(&self, mut line: impl FnMut(u64, &[&str])) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let mut offset = 0;
        for text in text.split_inclusive('\n') {
            line(offset, &text.split_whitespace().collect::<Vec<_>>());
            offset += text.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(&dir.path().join("journal"));
        assert_eq!((journal.length(), journal.runs()), (0, vec![]));
        journal.note_start("m/v/config.yaml").unwrap();
        let before = journal.length();
        journal.note_run("job-1", "1-1", "dolly").unwrap();
        journal.note_run("job-2", "1-1", "dolly").unwrap();
        assert_eq!(journal.starts()[0].config, "m/v/config.yaml");
        let runs = journal.runs();
        assert_eq!(runs.iter().map(|run| run.job.as_str()).collect::<Vec<_>>(), ["job-1", "job-2"]);
        assert_eq!(runs[0].offset, before);
        assert_eq!(journal.runs_of("job-2"), runs[1..]);
    }
}
