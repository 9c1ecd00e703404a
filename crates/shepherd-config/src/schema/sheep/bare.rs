//! The keys of bare sheep.
//!
//! | key | |
//! |---|---|
//! | `working_directory` | required; the directory of models |
//! | `runner_command` | list; default `[shepherd-runner]` |
//! | `port` | given to the runner with any transport; without a `transport` it means `tcp` |

use std::path::PathBuf;

use shepherd_job::SheepId;

use super::transport::{self, Transport, Word};
use super::{Flock, PortHolder, argument, read_logs};
use crate::paths::{Located, absolute};
use crate::read::{Context, Section, Value};

/// A sheep whose runner is a process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareSheep {
    /// The directory that holds `NAME/VERSION/config.yaml` of each model.
    pub working_directory: PathBuf,
    /// The program and its first arguments; never empty, nor is the program's name.
    /// A name with a slash is an absolute path.
    pub runner_command: Vec<String>,
    /// Where the runner's standard output is appended.
    pub stdout_file: Option<PathBuf>,
    /// Where the runner's standard error is appended.
    pub stderr_file: Option<PathBuf>,
    /// How the runner is spoken to.
    pub transport: Transport,
    /// The configured port, which is given to the runner with any transport.
    pub port: Option<u16>,
}

/// The keys that only bare sheep have.
pub(super) const OWN: [&str; 2] = ["working_directory", "runner_command"];

pub(super) fn read(
    cx: &Context,
    id: &SheepId,
    section: &Section<'_>,
    flock: &mut Flock,
    kept: &mut Vec<Located>,
) -> Option<BareSheep> {
    let directory = section.require("working_directory", "the directory of the models").and_then(|value| {
        let path = value.path()?;
        let (key, place) = (value.key.clone(), value.place().clone());
        kept.push(Located { key, place, path: path.clone() });
        Some(path)
    });
    let command = match section.get("runner_command") {
        None => Some(vec!["shepherd-runner".to_owned()]),
        Some(value) => runner_command(cx, &value),
    };
    let [stdout_file, stderr_file] = read_logs(id, section, false, flock);
    let leads = |word: &str| format!("a port, as `transport` is `{word}`");
    // The first shepherd's configurations have a port and know no transports.
    let default = if section.get("port").is_some() { Word::Tcp } else { Word::Ipc };
    let spoken = transport::read(section, default, PortHolder::Process, leads, flock);
    let (transport, port) = spoken?;
    Some(BareSheep {
        working_directory: directory?,
        runner_command: command?,
        stdout_file: stdout_file?,
        stderr_file: stderr_file?,
        transport,
        port,
    })
}

fn runner_command(cx: &Context, value: &Value<'_>) -> Option<Vec<String>> {
    let mut command = value.list(argument)?;
    match command.first_mut() {
        Some(program) if !program.is_empty() => {
            if program.contains('/') {
                *program = absolute(&cx.cwd, program.as_ref()).display().to_string();
            }
            Some(command)
        }
        Some(_) | None => {
            value.fail("names no program, expected a list such as `[shepherd-runner]`");
            None
        }
    }
}
