//! The command line. `-h` is the host, as it was in the first shepherd.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Asynchronous model serving: files into storage, a job posted, results back.
#[derive(Debug, Parser)]
#[command(name = "shepherd", version, disable_help_flag = true, subcommand_negates_reqs = true)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) run: Option<RunArgs>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
}

/// What running the daemon takes.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The host name or address to listen at; before `api.host` of the file.
    #[arg(short = 'h', long)]
    pub(crate) host: Option<String>,
    /// The port to listen at, 0 for any free one; before `api.port` of the file.
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// Begin with an empty queue although the old one's file is missing.
    #[arg(long)]
    pub(crate) new_queue: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Validate a configuration file and look at what it names on this machine. Changes nothing.
    Check {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Look at the file alone, as on another machine than the shepherd's.
        #[arg(long)]
        offline: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_the_first_shepherd_is_understood() {
        let cli = Cli::try_parse_from(["shepherd", "-c", "a.yml", "-h", "::1", "-p", "5001"]).unwrap();
        let run = cli.run.unwrap();
        assert_eq!((run.config, run.host, run.port), ("a.yml".into(), Some("::1".into()), Some(5001)));
        assert!(Cli::try_parse_from(["shepherd", "check", "-c", "a.yml"]).unwrap().command.is_some());
    }

    #[test]
    fn a_configuration_is_required() {
        assert!(Cli::try_parse_from(["shepherd"]).is_err());
        assert!(Cli::try_parse_from(["shepherd", "check"]).is_err());
    }
}
