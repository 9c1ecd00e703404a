//! The same Python code without a shepherd: what reading a picture costs by itself.
//!
//! The model's program reads the pictures that its standard input names, one after the other, and answers each with
//! the seconds that it took, measured within. What lies between two pictures is in no figure.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::pictures::{Picture, Reading};
use crate::Result;

/// A program that has the model loaded; dropping it ends it.
pub(super) struct Plain {
    child: Child,
    /// Its end is the end of the loop.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

/// One picture, read without a shepherd.
pub(super) struct Alone {
    pub(super) reading: Reading,
    pub(super) took: Duration,
}

impl Plain {
    /// Starts the program of the model in `model`, and returns once the model is loaded. Its inputs and outputs will
    /// be below `folder`.
    ///
    /// # Errors
    /// It cannot be started, or cannot load the model.
    pub(super) fn start(python: &Path, model: &Path, folder: &Path) -> Result<Self> {
        // A session of its own, as runners have: the kernel shares a busy processor out by sessions. `setsid` becomes
        // what it starts, because it leads no group here.
        let mut child = Command::new("setsid")
            .arg(python)
            .arg(model.join("recognise.py"))
            .arg(model.join("config.yaml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", python.display()))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the plain loop has no pipes".into());
        };
        let answers = BufReader::new(answers);
        let mut plain = Self { child, requests: Some(requests), answers, folder: folder.to_owned() };
        match plain.answer()?.as_str() {
            "ready" => Ok(plain),
            other => Err(format!("the plain loop began with `{other}`").into()),
        }
    }

    /// Reads a picture, in directories like those of a job.
    ///
    /// # Errors
    /// The program ended, with the reason on its stderr, which is ours.
    pub(super) fn read(&mut self, picture: &Picture) -> Result<Alone> {
        let job = self.folder.join(&picture.stem);
        let (inputs, outputs) = (job.join("inputs"), job.join("outputs"));
        fs::create_dir_all(&inputs)?;
        fs::create_dir_all(&outputs)?;
        fs::copy(&picture.path, inputs.join("input"))?;
        if let Some(requests) = &mut self.requests {
            writeln!(requests, "{}\t{}", inputs.display(), outputs.display())?;
        }
        let took = Duration::try_from_secs_f64(self.answer()?.parse()?)?;
        Ok(Alone { reading: Reading::parse(&fs::read(outputs.join("output"))?)?, took })
    }

    /// Ends the loop.
    ///
    /// # Errors
    /// The program does not end with exit code 0.
    pub(super) fn stop(mut self) -> Result<()> {
        self.requests = None;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the plain loop ended with {status}").into()) }
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("the plain loop ended with {}", self.child.wait()?).into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // After `stop` there is nothing to end any more; before it, an error is on its way up already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
