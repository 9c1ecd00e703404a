//! Docker sheep with a real engine: shell scripts in containers stand for runners.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests too

mod engine;
mod faults;
mod fence;
mod life;
mod output;
mod private;
mod refusals;
mod site;
