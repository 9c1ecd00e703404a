//! A whole shepherd, with a flock whose runners are threads that follow a script.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod fake;
mod faults;
mod jobs;
mod logs;
mod placement;
mod runners;
mod store;
mod strangers;
