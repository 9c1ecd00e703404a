//! Where the log goes: standard error, for a person or for a machine.

use std::io::IsTerminal as _;

use shepherd_config::{LogFormat, LogLevel, LoggingConfig};
use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG`, when it is set, says what is logged in place of the
/// configured level.
pub(crate) fn start(config: &LoggingConfig) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter(config.level)));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Pretty => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// What is logged at a level. Never what s3s says: it calls every request that a
/// client got wrong an error of its own, and shows signatures. Nor what bollard says: it
/// shows what containers are given, their environment among it.
fn filter(level: LogLevel) -> String {
    format!("{},s3s=off,bollard=off", level.as_str())
}
