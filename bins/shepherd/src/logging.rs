//! Where the log goes: standard error, for a person or for a machine.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use shepherd_config::{LogFormat, LoggingConfig};
use tracing_subscriber::EnvFilter;

use sink::{Colours, Sink};

mod sink;

/// The log. Dropping it waits a moment for lines that are still to be written.
pub(crate) struct Log(Sink);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging, of panics too. `RUST_LOG`, when it is set, says what is logged in place
/// of the configured level.
///
/// # Errors
/// When the thread that writes the log cannot be started.
pub(crate) fn start(config: &LoggingConfig) -> std::io::Result<Log> {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| config.level.as_str().to_owned());
    let filter = EnvFilter::try_new(guarded(&filter))
        .unwrap_or_else(|_| EnvFilter::new(guarded(config.level.as_str())));
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let colours = if is_coloured { Colours::Yes } else { Colours::No };
    let sink = Sink::start(std::io::stderr(), colours, |lost| {
        tracing::warn!(lost, "lines of the log were lost: it was not read, or could not be written");
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_coloured)
        // They are printed to standard error, and panic where that fails.
        .log_internal_errors(false)
        .with_writer(sink.clone());
    match config.format {
        LogFormat::Pretty => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    // The default one writes to standard error itself, and waits for its reader.
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(sink))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(place, thread, %backtrace, "panicked: {message}");
    } else {
        tracing::error!(place, thread, "panicked: {message}");
    }
}

/// What is logged by a filter. Never what s3s says: it calls every request that a
/// client got wrong an error of its own, and shows signatures. Nor what bollard says: it
/// shows what containers are given, their environment among it.
fn guarded(filter: &str) -> String {
    format!("{filter},s3s=off,bollard=off")
}
