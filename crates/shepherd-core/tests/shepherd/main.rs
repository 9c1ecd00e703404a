//! A whole shepherd, with a flock whose runners are threads that follow a script.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]
#![allow(clippy::disallowed_methods, reason = "scripts run in threads that may wait")]

mod fake;
mod faults;
mod jobs;
mod logs;
mod placement;
mod runners;
mod store;
mod strangers;
mod write_back;
