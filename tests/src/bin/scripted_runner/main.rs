//! A runner that does what its jobs tell it, for the end-to-end tests.
//!
//! It takes the original's arguments, `[--journal FILE] -p PORT CONFIG_PATH`, and
//! listens at `SHEPHERD_LISTEN`. The model's `config.yaml` says how it serves, see
//! [`Manner`]; a job's input says what the job does, see [`shepherd_tests::Script`].
//!
//! With `--job ID --journal FILE INPUTS` it is no runner but a command that does one
//! job, for `shepherd-runner` to run.

mod command;
mod raw;
mod sdk;
mod work;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use shepherd_tests::{Journal, Manner};

/// What the command line says.
struct Arguments {
    journal: Option<Journal>,
    port: u16,
    config: PathBuf,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let (mut journal, mut port, mut config) = (None, 9999, None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--journal" => {
                    journal = Some(Journal::at(words.next().context("--journal needs a file")?.as_ref()));
                }
                "-p" => port = words.next().context("-p needs a port")?.parse()?,
                path if config.is_none() && !path.starts_with('-') => config = Some(PathBuf::from(path)),
                other => bail!("unexpected argument `{other}`"),
            }
        }
        Ok(Self { journal, port, config: config.context("the config's path is missing")? })
    }

    /// The URL to listen at.
    fn url(&self) -> String {
        std::env::var("SHEPHERD_LISTEN").unwrap_or_else(|_| format!("tcp://0.0.0.0:{}", self.port))
    }
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == "--job").is_some() {
        return command::run(words);
    }
    let arguments = Arguments::parse(words)?;
    let config = arguments.config.display().to_string();
    if let Some(journal) = &arguments.journal {
        journal.note_start(&config)?;
    }
    println!("serving {config}");
    eprintln!("this is the standard error of {config}");
    match Manner::read(&arguments.config)? {
        Manner::Sdk => sdk::serve(&arguments.url(), arguments.journal),
        Manner::Raw => raw::serve(&arguments.url(), arguments.journal),
        Manner::Babble => raw::babble(&arguments.url()),
        Manner::Exit(code) => std::process::exit(code),
        Manner::Deaf => work::sleep_for_ever(),
    }
}
