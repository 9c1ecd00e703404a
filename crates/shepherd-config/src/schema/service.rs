//! The keys of the daemon itself: `logging`, `limits`, `scheduler`, `shutdown`, `api`, `umask`.

use std::time::Duration;

use crate::read::{Section, Value};
use crate::url::{HttpUrl, is_host_name};

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingConfig {
    /// The least that is logged; `info` unless told.
    pub level: LogLevel,
    /// How a line looks; `pretty` unless told.
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And how.
    Trace,
}

impl LogLevel {
    /// The level's name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Bounds on what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The largest body of a request, in bytes; 1 GiB unless told.
    pub max_body_bytes: u64,
    /// How often a job is run again after its runner died under it; 0 unless told.
    pub crash_retries: u32,
    /// How much is kept of what a job prints, in bytes, at most 1 MiB: the end. 64 KiB
    /// unless told; nothing with 0.
    pub job_log: usize,
    /// How long a client may take to send the head of a request; 30 s unless told.
    pub request_header_timeout: Duration,
    /// How long a request body may take; an hour unless told.
    pub request_body_timeout: Duration,
    /// How many bytes a second of a request body must come at the least; 500 unless told,
    /// and any number with 0.
    pub request_body_min_rate: u64,
    /// How many connections are served at once; 10,000 unless told.
    pub max_connections: u32,
    /// How many of them may come from one address; half of them, or 64,
    /// unless told.
    pub max_connections_per_address: Option<u32>,
}

/// How jobs and sheep come together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How long jobs may wait because sheep keep to the models they have, or because jobs
    /// of a higher priority keep coming; 5 minutes unless told.
    pub max_wait: Duration,
    /// What becomes of a job whose model no sheep has; refused unless told.
    pub unknown_models: UnknownModels,
    /// What becomes of a job that is for a sheep that is not configured; it waits unless
    /// told.
    pub removed_sheep: RemovedSheep,
}

/// What becomes of a job that is for a sheep that is not configured any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedSheep {
    /// It waits until the sheep is configured again.
    Wait,
    /// It fails.
    Fail,
    /// Any sheep may take it.
    Unpin,
}

/// What becomes of a job whose model no sheep has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownModels {
    /// Its submit is refused.
    Refuse,
    /// It waits until a sheep has the model.
    Wait,
}

/// How the shepherd ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long draining may take in all; 10 s unless told.
    pub grace: Duration,
}

/// Where the API listens. Arguments of the command line come before these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// A host name or address; `0.0.0.0` unless told.
    pub host: String,
    /// A port, 0 for any free one; 5000 unless told.
    pub port: u16,
    /// Which origins a browser may call from; none unless told.
    pub cors_origins: CorsOrigins,
    /// Host names that requests may be sent to, beside those of this machine; `*` means all.
    pub hosts: Vec<String>,
}

/// Which origins may call the API from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Every origin (`*`).
    Any,
    /// These, as `http(s)://HOST[:PORT]`; none where the list is empty.
    Only(Vec<String>),
}

type Service = (LoggingConfig, LimitsConfig, SchedulerConfig, ShutdownConfig, ApiConfig, u32);

/// Files and directories are their owner's alone.
const DEFAULT_UMASK: u32 = 0o077;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn read(top: &Section<'_>) -> Option<Service> {
    // All are read before any failure ends this.
    let logging = read_section(top, "logging", read_logging);
    let limits = read_section(top, "limits", read_limits);
    let scheduler = read_section(top, "scheduler", read_scheduler);
    let shutdown = read_section(top, "shutdown", read_shutdown);
    let api = read_section(top, "api", read_api);
    let umask = top.value_or("umask", DEFAULT_UMASK, read_umask);
    let mut logging = logging?;
    if wants_debug(top) {
        logging.level = match logging.level {
            LogLevel::Error | LogLevel::Warn | LogLevel::Info | LogLevel::Debug => LogLevel::Debug,
            LogLevel::Trace => LogLevel::Trace,
        };
    }
    Some((logging, limits?, scheduler?, shutdown?, api?, umask?))
}

/// Whether the environment asks for it as it asked the original, and says nothing of a level.
fn wants_debug(top: &Section<'_>) -> bool {
    let is_set = top.variable("DEBUG").is_some_and(|value| !matches!(value, "0" | "false"));
    is_set && top.variable("SHEPHERD__LOGGING__LEVEL").is_none()
}

/// Three octal digits, of which the owner's is 0; they may follow others that are 0.
fn read_umask(value: &Value<'_>) -> Option<u32> {
    let expected = "an octal umask such as 0077 or 0027, which leaves the owner all rights";
    let text = value.text_as(expected)?;
    let is_octal = text.len() <= 4 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let umask = u32::from_str_radix(text, 8).ok().filter(|umask| is_octal && *umask <= 0o077);
    if umask.is_none() {
        value.wrong(expected);
    }
    umask
}

/// Reads a mapping that may be absent, and then has only defaults.
fn read_section<T>(
    top: &Section<'_>,
    key: &'static str,
    read: fn(Option<&Section<'_>>) -> Option<T>,
) -> Option<T> {
    let Some(value) = top.get(key) else { return read(None) };
    let section = value.section()?;
    let found = read(Some(&section));
    section.finish(&[]);
    found
}

/// A key with a default.
fn value_or<T>(
    section: Option<&Section<'_>>,
    key: &'static str,
    default: T,
    read: impl FnOnce(&Value<'_>) -> Option<T>,
) -> Option<T> {
    match section.and_then(|section| section.get(key)) {
        None => Some(default),
        Some(value) => read(&value),
    }
}

fn read_logging(section: Option<&Section<'_>>) -> Option<LoggingConfig> {
    let level = value_or(section, "level", LogLevel::Info, read_level);
    let formats = [("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    let format = value_or(section, "format", LogFormat::Pretty, |value| value.choice(&formats));
    Some(LoggingConfig { level: level?, format: format? })
}

/// Also the names that the original's configurations use, which are Python's.
fn read_level(value: &Value<'_>) -> Option<LogLevel> {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let pythons = [
        ("critical", LogLevel::Error),
        ("fatal", LogLevel::Error),
        ("warning", LogLevel::Warn),
        ("notset", LogLevel::Trace),
    ];
    value.choice_or(&levels, &pythons)
}

fn read_limits(section: Option<&Section<'_>>) -> Option<LimitsConfig> {
    const GIB: u64 = 1 << 30;
    // It lies in memory while the job runs, and then in the queue's commit.
    const MOST_LOG: u64 = 1 << 20;
    let header_range = Duration::from_millis(100)..=DAY;
    let body = value_or(section, "max_body_bytes", GIB, |value| value.size(1..=i64::MAX as u64));
    let retries = value_or(section, "crash_retries", 0, |value| value.number(0..=1_000));
    let job_log = value_or(section, "job_log", 64 << 10, |value| {
        value.size(0..=MOST_LOG).and_then(|size| usize::try_from(size).ok())
    });
    let header = value_or(section, "request_header_timeout", Duration::from_secs(30), |value| {
        value.duration(header_range)
    });
    let hour = Duration::from_secs(60 * 60);
    let body_time =
        value_or(section, "request_body_timeout", hour, |value| value.duration(Duration::from_secs(1)..=DAY));
    let body_rate = value_or(section, "request_body_min_rate", 500, |value| value.size(0..=1 << 30));
    let connections = value_or(section, "max_connections", 10_000, |value| value.number(1..=1_000_000));
    let of_address =
        value_or(section, "max_connections_per_address", None, |value| value.number(1..=1_000_000).map(Some));
    Some(LimitsConfig {
        max_body_bytes: body?,
        crash_retries: retries?,
        job_log: job_log?,
        request_header_timeout: header?,
        request_body_timeout: body_time?,
        request_body_min_rate: body_rate?,
        max_connections: connections?,
        max_connections_per_address: of_address?,
    })
}

fn read_scheduler(section: Option<&Section<'_>>) -> Option<SchedulerConfig> {
    let max_wait = value_or(section, "max_wait", Duration::from_secs(300), |value| {
        value.duration(Duration::from_secs(1)..=DAY)
    });
    let choices = [("refuse", UnknownModels::Refuse), ("wait", UnknownModels::Wait)];
    let unknown = value_or(section, "unknown_models", UnknownModels::Refuse, |value| value.choice(&choices));
    let choices =
        [("wait", RemovedSheep::Wait), ("fail", RemovedSheep::Fail), ("unpin", RemovedSheep::Unpin)];
    let removed = value_or(section, "removed_sheep", RemovedSheep::Wait, |value| value.choice(&choices));
    Some(SchedulerConfig { max_wait: max_wait?, unknown_models: unknown?, removed_sheep: removed? })
}

fn read_shutdown(section: Option<&Section<'_>>) -> Option<ShutdownConfig> {
    let default = Duration::from_secs(10);
    let grace = value_or(section, "grace", default, |value| value.duration(Duration::ZERO..=DAY));
    Some(ShutdownConfig { grace: grace? })
}

fn read_api(section: Option<&Section<'_>>) -> Option<ApiConfig> {
    let host = value_or(section, "host", "0.0.0.0".to_owned(), |value| {
        let text = value.text()?;
        let address = text.trim_start_matches('[').trim_end_matches(']');
        if address.parse::<std::net::Ipv6Addr>().is_ok() {
            return Some(address.to_owned());
        }
        if !is_host_name(text) {
            value.wrong("a host name or an IP address, without a port");
            return None;
        }
        Some(text.to_owned())
    });
    let port = value_or(section, "port", 5000, |value| value.number(0..=u16::MAX));
    let origins = value_or(section, "cors_origins", CorsOrigins::Only(Vec::new()), read_origins);
    let hosts = value_or(section, "hosts", Vec::new(), read_hosts);
    Some(ApiConfig { host: host?, port: port?, cors_origins: origins?, hosts: hosts? })
}

fn read_hosts(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(|item| {
        let text = item.text()?;
        if text == "*" || is_host_name(text) {
            return Some(text.to_owned());
        }
        item.wrong("a host name such as shepherd.example.org, without a port, or `*`");
        None
    })
}

fn read_origins(value: &Value<'_>) -> Option<CorsOrigins> {
    let origins = value.list(|item| {
        let text = item.text()?;
        match HttpUrl::parse(text) {
            _ if text == "*" => Some("*".to_owned()),
            // Browsers send it in lower case and without a slash at the end.
            Ok(url) if url.path().is_empty() => Some(url.to_string()),
            Ok(_) | Err(_) => {
                item.wrong("an origin such as https://example.org, or `*`");
                None
            }
        }
    })?;
    if !origins.iter().any(|origin| origin == "*") {
        return Some(CorsOrigins::Only(origins));
    }
    if origins.len() > 1 {
        value.fail("names `*` beside other origins, expected `*` alone");
        return None;
    }
    Some(CorsOrigins::Any)
}
