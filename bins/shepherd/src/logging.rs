//! Where the log goes: standard error, for a person or for a machine.

use std::io::IsTerminal as _;

use shepherd_config::{LogFormat, LoggingConfig};
use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG`, when it is set, says what is logged in place of the
/// configured level.
pub(crate) fn start(config: &LoggingConfig) {
    let filter = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| config.level.as_str().to_owned());
    let filter = EnvFilter::try_new(guarded(&filter))
        .unwrap_or_else(|_| EnvFilter::new(guarded(config.level.as_str())));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Pretty => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// What is logged by a filter. Never what s3s says: it calls every request that a
/// client got wrong an error of its own, and shows signatures. Nor what bollard says: it
/// shows what containers are given, their environment among it.
fn guarded(filter: &str) -> String {
    format!("{filter},s3s=off,bollard=off")
}
