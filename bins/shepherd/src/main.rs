//! The shepherd daemon: parses, builds, runs and drains. What it does is in the
//! library crates.

mod args;
mod check;
mod compose;
mod logging;
mod servers;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use args::{Cli, Command, RunArgs};
use clap::Parser as _;
use compose::Started;
use rustix::fs::Mode;
use rustix::process::DumpableBehavior;
use servers::Servers;
use shepherd_api::Api;
use shepherd_config::{Config, Environment};
use shepherd_core::Shepherd;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code for a configuration or command line that cannot be used.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    // Neither a core dump nor another process of this user is to show secrets.
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let cli = Cli::parse();
    let (path, run) = match (&cli.command, &cli.run) {
        (Some(Command::Check { config, .. }), _) => (config, None),
        (None, Some(run)) => (&run.config, Some(run)),
        (None, None) => unreachable!("clap requires one of the two"),
    };
    let config = match load(path) {
        Ok(config) => config,
        Err(message) => {
            say(std::io::stderr(), &message);
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let Some(run) = run else {
        for warning in &config.warnings {
            say(std::io::stderr(), &format!("warning: {warning}"));
        }
        let problems = match &cli.command {
            Some(Command::Check { offline: true, .. }) => Vec::new(),
            Some(Command::Check { offline: false, .. }) | None => check::problems(&config),
        };
        for problem in &problems {
            say(std::io::stderr(), &format!("{}: {problem}", path.display()));
        }
        if !problems.is_empty() {
            return ExitCode::from(BAD_CONFIGURATION);
        }
        say(std::io::stdout(), &format!("{}: the configuration is valid", path.display()));
        return ExitCode::SUCCESS;
    };
    let _log = match logging::start(&config.logging) {
        Ok(log) => log,
        Err(error) => {
            say(std::io::stderr(), &format!("cannot start logging: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = hidden {
        tracing::warn!(%error, "other processes of this user may read the daemon's memory");
    }
    rustix::process::umask(Mode::from_raw_mode(config.umask));
    match start_runtime(&config, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. The exit code says the same to a caller who does not read it.
fn say(mut to: impl std::io::Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn load(path: &Path) -> Result<Config, String> {
    let cwd = std::env::current_dir().map_err(|e| format!("cannot tell the current directory: {e}"))?;
    Config::load(path, &Environment::from_process(), &cwd).map_err(|e| e.to_string())
}

fn start_runtime(config: &Config, run: &RunArgs) -> anyhow::Result<()> {
    let descriptors = shepherd_sheep::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve_until_told(config, run, descriptors));
    // What still blocks a thread is work that is done again at the next start.
    runtime.shutdown_background();
    outcome
}

async fn serve_until_told(config: &Config, run: &RunArgs, descriptors: Option<u64>) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let host = run.host.as_deref().unwrap_or(&config.api.host);
    let port = run.port.unwrap_or(config.api.port);
    let listener =
        servers::listen(host, port).await.with_context(|| format!("cannot listen at {host}, port {port}"))?;
    let address = listener.local_addr()?;

    let api_options = compose::api_options(config, host)?;
    if !run.new_queue {
        compose::refuse_lost_queue(config)?;
    }
    let Started { shepherd, endpoint, prefetch } = compose::start(config).await?;
    let mut servers = Servers::new();
    let options = compose::serve_options(config, descriptors);
    if let Some((listener, endpoint)) = endpoint {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                "The S3 endpoint is open to everybody who can reach {address} and has the keys, and what goes \
                 over it is not encrypted. Let storage.serve_s3 listen at 127.0.0.1 unless this network is trusted"
            );
        }
        tracing::info!("The storage is available over S3 at http://{address}");
        let options = options.clone();
        servers.start("the S3 endpoint", |enough| {
            shepherd_s3::serve(listener, endpoint, options, enough.wait())
        });
    }
    if let Some(prefetch) = prefetch {
        servers.start("the pulling of images", |enough| prefetch.until(enough.wait()));
    }
    if !address.ip().is_loopback() {
        tracing::warn!(
            "The API is open to everybody who can reach {address}: it asks for no password. \
             Listen at 127.0.0.1 (-h 127.0.0.1, or api.host) unless this network is trusted"
        );
    }
    tracing::info!("Shepherd API is available at http://{address}");
    let api = Api::new(shepherd.clone(), api_options);
    servers.start("the API", |enough| shepherd_api::serve(listener, api, options, enough.wait()));

    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name} received, draining for at most {:?}", config.shutdown.grace);
            false
        }
        () = shepherd.failed() => true,
        failure = servers.failed() => {
            tracing::error!("{failure}");
            true
        }
    };
    servers.drain();
    let ended = drain(&shepherd, config, &mut signals).await;
    // They drain beside the shepherd, in the same time; answers that are on their way may arrive. What is left
    // when this returns is aborted.
    match ended {
        Drain::InTime => tokio::select! {
            () = servers.ended() => {}
            _ = signals.next_to_force() => {}
        },
        Drain::Forced => {}
    }
    if failed {
        anyhow::bail!("a part of the shepherd failed; start it again, nothing that was accepted is lost");
    }
    tracing::info!("The shepherd has ended");
    Ok(())
}

/// How the shepherd ended.
enum Drain {
    InTime,
    Forced,
}

/// Ends the shepherd within the grace; a second signal cuts it short.
async fn drain(shepherd: &Shepherd, config: &Config, signals: &mut Signals) -> Drain {
    let shutdown = shepherd.shutdown(config.shutdown.grace);
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => return Drain::InTime,
        name = signals.next_to_force() => tracing::warn!("{name} received, ending at once"),
    }
    shepherd.force_shutdown();
    shutdown.await;
    Drain::Forced
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            // Whoever started the daemon to outlive his terminal wants it ignored.
            hangup: if is_hangup_ignored() { None } else { Some(listen(SignalKind::hangup())?) },
        })
    }

    /// The name of the next signal that asks for the end. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = hangup => "SIGHUP",
        }
    }

    /// The name of the next signal that says not to wait any longer. A closing terminal
    /// may hang up more than once, so SIGHUP does not say it. Cancel-safe.
    async fn next_to_force(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Whether this process was started with SIGHUP ignored, as by nohup(1).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
