//! Which resource a path names.
//!
//! Routing is a few comparisons of text: the routes are fixed, and the busiest of
//! them are answered some hundred thousand times a second. Parameters are
//! percent-decoded here, once; what they mean is checked by who uses them.

use std::borrow::Cow;

use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// The flock.
    Status,
    /// Submits.
    StartJob,
    /// The list of jobs.
    Jobs,
    /// Something of one job.
    Job(Cow<'a, str>, OfJob<'a>),
    /// Liveness.
    Healthz,
    /// Readiness.
    Readyz,
    /// The API's description.
    Spec,
    /// The page that shows the description; `assets` leads from it to its files.
    Ui {
        /// The relative path to `/ui/` from the address of the page.
        assets: &'static str,
    },
    /// A file of that page.
    UiAsset(&'a str),
}

/// What of a job is asked for. Files are whole object keys, or none when the
/// text is no UTF-8 and so can name no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OfJob<'a> {
    Status,
    Ready,
    WaitReady,
    Events,
    Logs,
    Cancel,
    Result(File<'a>),
    Input(File<'a>),
}

/// A file of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum File<'a> {
    /// The one that is meant when none is named.
    Default,
    /// By name; none when the name is no UTF-8.
    Named(Option<Cow<'a, str>>),
}

/// Every method and path, as the description writes them; `/ui` and its twins
/// are for people and are left out there.
#[cfg(test)]
pub(crate) const DESCRIBED: [(&str, &str); 17] = [
    ("get", "/status"),
    ("post", "/start-job"),
    ("get", "/jobs"),
    ("get", "/jobs/{job_id}/status"),
    ("get", "/jobs/{job_id}/ready"),
    ("get", "/jobs/{job_id}/wait_ready"),
    ("get", "/jobs/{job_id}/events"),
    ("get", "/jobs/{job_id}/logs"),
    ("post", "/jobs/{job_id}/cancel"),
    ("get", "/jobs/{job_id}/result"),
    ("get", "/jobs/{job_id}/result/{file}"),
    ("get", "/jobs/{job_id}/input"),
    ("get", "/jobs/{job_id}/input/{file}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/spec.json"),
    ("get", "/ui"),
];

impl<'a> Route<'a> {
    /// The resource that `path` names, if there is one.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix("/jobs/") {
            let (id, rest) = rest.split_once('/')?;
            let of_job = OfJob::parse(rest)?;
            // An id that is no UTF-8 is legal nowhere; what replaces the stray
            // bytes is neither, and makes it an unknown job.
            return Some(Self::Job(percent_decode_str(id).decode_utf8_lossy(), of_job));
        }
        Some(match path {
            "/status" => Self::Status,
            "/start-job" => Self::StartJob,
            "/jobs" => Self::Jobs,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/spec.json" => Self::Spec,
            "/ui" | "/apidocs" => Self::Ui { assets: "ui/" },
            "/ui/" => Self::Ui { assets: "" },
            "/apidocs/" => Self::Ui { assets: "../ui/" },
            other => Self::UiAsset(other.strip_prefix("/ui/")?),
        })
    }

    /// The methods it answers.
    pub(crate) const fn methods(&self) -> Methods {
        match self {
            Self::StartJob | Self::Job(_, OfJob::Cancel) => Methods::Post,
            Self::Status
            | Self::Jobs
            | Self::Job(..)
            | Self::Healthz
            | Self::Readyz
            | Self::Spec
            | Self::Ui { .. }
            | Self::UiAsset(_) => Methods::Get,
        }
    }
}

impl<'a> OfJob<'a> {
    fn parse(rest: &'a str) -> Option<Self> {
        Some(match rest {
            "status" => Self::Status,
            "ready" => Self::Ready,
            "wait_ready" => Self::WaitReady,
            "events" => Self::Events,
            "logs" => Self::Logs,
            "cancel" => Self::Cancel,
            "result" => Self::Result(File::Default),
            "input" => Self::Input(File::Default),
            other => {
                let named = |name| File::Named(percent_decode_str(name).decode_utf8().ok());
                match other.strip_prefix("result/") {
                    Some(name) => Self::Result(named(name)),
                    None => Self::Input(named(other.strip_prefix("input/")?)),
                }
            }
        })
    }
}

/// The methods of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Methods {
    /// To be read.
    Get,
    /// To be posted to.
    Post,
}

impl Methods {
    /// Whether `method` is among them. OPTIONS is answered before this is asked.
    pub(crate) fn allow(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
        }
    }

    /// The value of the `Allow` header.
    pub(crate) const fn header(self) -> HeaderValue {
        match self {
            Self::Get => HeaderValue::from_static("GET, HEAD, OPTIONS"),
            Self::Post => HeaderValue::from_static("POST, OPTIONS"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(id: &'a str, of_job: OfJob<'a>) -> Option<Route<'a>> {
        Some(Route::Job(id.into(), of_job))
    }

    fn named(name: &str) -> File<'_> {
        File::Named(Some(name.into()))
    }

    #[test]
    fn paths_name_resources() {
        for (path, route) in [
            ("/status", Some(Route::Status)),
            ("/ui/swagger-ui.css", Some(Route::UiAsset("swagger-ui.css"))),
            ("/jobs/a/status", job("a", OfJob::Status)),
            ("/jobs//status", job("", OfJob::Status)),
            ("/jobs/%C5%BElu/ready", job("žlu", OfJob::Ready)),
            ("/jobs/%FF/ready", job("\u{fffd}", OfJob::Ready)),
            ("/jobs/a%2Fb/ready", job("a/b", OfJob::Ready)),
            ("/jobs/a/events", job("a", OfJob::Events)),
            ("/jobs/a/logs", job("a", OfJob::Logs)),
            ("/jobs/a/logs/", None),
            ("/jobs/a/result", job("a", OfJob::Result(File::Default))),
            ("/jobs/a/result/", job("a", OfJob::Result(named("")))),
            ("/jobs/a/result/b/c", job("a", OfJob::Result(named("b/c")))),
            ("/jobs/a/input/b%2Fc%20d", job("a", OfJob::Input(named("b/c d")))),
            ("/jobs/a/input/%FF", job("a", OfJob::Input(File::Named(None)))),
            ("/jobs/a", None),
            ("/jobs/", None),
            ("/jobs/a/status/", None),
            ("/jobs/a/results", None),
            ("/", None),
            ("*", None),
            ("/status/", None),
            ("/Status", None),
        ] {
            assert_eq!(Route::parse(path), route, "{path}");
        }
    }

    #[test]
    fn described_paths_are_routes() {
        for (method, path) in DESCRIBED {
            let route = Route::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert!(route.methods().allow(&method.to_uppercase().parse().unwrap()), "{method} {path}");
        }
    }
}
