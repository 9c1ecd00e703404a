//! `shepherd-runner`: runs a command for each job, or hands over to Python.
//!
//! It takes the arguments of the first shepherd's runner. The `runner.yaml` beside
//! the model's configuration says what to run:
//!
//! ```yaml
//! runner:
//!   command: ["./recognise", "{inputs}", "{outputs}"]
//!   slots: 4    # so many jobs at a time
//! ```
//!
//! Where it names a `class` instead, or is not there, the Python package's runner
//! takes this process over.
//!
//! Exit codes: 0 when it was told to end, 1 when it had to leave a job or cannot
//! serve, 2 when its arguments or `runner.yaml` are wrong.

mod command;
mod python;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use shepherd_runner::{Options, ServeError, serve_parallel};

use command::{CommandRunner, Model, slot_process};
use settings::Serves;

/// Serves a model's jobs by running a command for each of them, or hands over to the
/// Python runner.
///
/// Listens at the URL in SHEPHERD_LISTEN; without it on the given port, of
/// 127.0.0.1 or of the address in SHEPHERD_LISTEN_HOST.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The port to listen on.
    #[arg(short, long, default_value_t = 9999)]
    port: u16,

    /// The stream of the model to run; the command may use it as `{stream}`.
    #[arg(short, long, default_value = "predict")]
    stream: String,

    /// The Python class that serves the model, module.Class, where there is no
    /// runner.yaml.
    #[arg(short, long, value_name = "CLASS")]
    runner: Option<String>,

    /// The model's configuration, or the directory with its config.yaml. What to run is in
    /// the runner.yaml beside it.
    config_path: PathBuf,
}

/// The exit code for wrong arguments or settings.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|argument| argument == slot_process::ARGUMENT) && given.next().is_none() {
        return slot_process::run();
    }
    let arguments = Arguments::parse();
    let port = arguments.port;
    let runner = match prepare(arguments) {
        Ok(runner) => runner,
        Err(error) => {
            eprintln!("shepherd-runner: {error:#}");
            return ExitCode::from(MISUSE);
        }
    };
    match run(runner, port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shepherd-runner: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

fn prepare(arguments: Arguments) -> anyhow::Result<CommandRunner> {
    let mut path = arguments.config_path;
    if path.is_dir() {
        path.push("config.yaml");
    }
    let config = path.canonicalize().with_context(|| format!("cannot find `{}`", path.display()))?;
    anyhow::ensure!(config.is_file(), "`{}` is not a file", path.display());
    match Serves::read_beside(&config)? {
        Serves::Command(settings) => {
            Ok(CommandRunner::new(settings, Model { config, stream: arguments.stream }))
        }
        Serves::Python(python) => {
            let default = arguments.runner.as_deref();
            Err(python.become_runner(arguments.port, &arguments.stream, default, &config))
        }
    }
}

fn run(runner: CommandRunner, port: u16) -> Result<(), ServeError> {
    // Commands take long enough for an input to come in time, and one that waits
    // here cannot run on another sheep.
    let slots = runner.slots();
    let options = Options {
        name: runner.name(),
        slots,
        ahead: slots,
        batch: slots,
        logs: true,
        ..Options::from_env(port)
    };
    serve_parallel(runner, options)
}
