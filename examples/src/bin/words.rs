//! A runner of one's own: counts the words of a text. It has its settings loaded once,
//! works on several jobs at a time, says how far each of them is and what it found, and
//! ends a job that nobody wants any more.
//!
//! `cargo build -p shepherd-examples`, and in the configuration of a sheep:
//! `runner_command: [target/debug/words]`, `working_directory: examples/models`. Then
//! jobs for the model `words` have a payload that is a text.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde::Deserialize;
use shepherd_runner::{Job, Options, ParallelRunner, RunError, serve_parallel};

/// What a sheep calls its runners with.
#[derive(Parser)]
struct Arguments {
    #[arg(short, long, default_value_t = 9999)]
    port: u16,
    config: PathBuf,
}

/// The model's `config.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    slots: u32,
    top: usize,
    common: Vec<String>,
    /// How long to rest after each line, in milliseconds.
    #[serde(default)]
    rest: u64,
}

impl ParallelRunner for Words {
    fn process(&self, job: &Job) -> Result<(), RunError> {
        let path = job.inputs().join("input");
        let mut text = BufReader::new(File::open(&path)?);
        let size = fs::metadata(&path)?.len();
        let (mut counts, mut line, mut read, mut lines) = (HashMap::<String, u64>::new(), Vec::new(), 0, 0);
        while text.read_until(b'\n', &mut line)? > 0 {
            job.checkpoint()?;
            read += line.len();
            lines += 1;
            for word in words(&String::from_utf8_lossy(&line)) {
                *counts.entry(word).or_default() += 1;
            }
            job.progress(read as f64 / size as f64, "counting");
            std::thread::sleep(Duration::from_millis(self.rest));
            line.clear();
        }
        job.log(format!("{lines} lines, {} different words", counts.len()));
        counts.retain(|word, _| !self.common.contains(word));
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by(|(a, most), (b, more)| more.cmp(most).then_with(|| a.cmp(b)));
        let table: String =
            counts.iter().take(self.top).map(|(word, count)| format!("{count}\t{word}\n")).collect();
        fs::write(job.outputs().join("output"), table)?;
        Ok(())
    }
}

fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let path = arguments.config;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let words: Words = serde_saphyr::from_str(&text).with_context(|| format!("in `{}`", path.display()))?;
    let options = Options::from_env(arguments.port).slots(words.slots).logs(true);
    Ok(serve_parallel(words, options)?)
}
