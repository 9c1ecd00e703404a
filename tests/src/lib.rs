//! The harness of the end-to-end tests: real daemons, real runners, real
//! directories, HTTP over real sockets.
//!
//! A [`Harness`] is what outlives a daemon: its directories, its configuration and
//! its models. [`Harness::start`] starts the daemon's binary on it, and a [`Daemon`]
//! that is dropped takes every process of its own with it. What a job does is
//! written in its input, as a [`Script`] that the scripted runner carries out;
//! what ran is read from the harness's [`Journal`].
//!
//! Nothing here knows the daemon's insides: it sees what a client, a runner and an
//! operator see. A wait ends with what it waits for, never with a time; when
//! [`PATIENCE`] is over the test fails with the daemon's log.
//!
//! ```no_run
//! # async fn example() {
//! use shepherd_tests::{Script, Harness, ids::SCRIPTED};
//!
//! let harness = Harness::new();
//! let daemon = harness.start().await;
//! let client = daemon.client();
//! client.submit("first-job", SCRIPTED, &Script::Say("hello".into())).await.expect_status(200);
//! assert_eq!(client.finished("first-job").await["status"], "done");
//! assert_eq!(client.result("first-job").await.text(), "hello");
//! # }
//! ```

mod client;
mod daemon;
pub mod docker;
mod harness;
mod journal;
mod log;
mod mount;
mod port;
pub mod process;
mod programs;
mod python;
mod random;
pub mod runners;
pub mod s3;
mod script;
mod skip;
mod stream;
mod wait;

pub use client::{Client, Model, Reply, start_body};
pub use daemon::{Daemon, Ended};
pub use harness::Harness;
pub use journal::{Journal, Run, Start};
pub use log::Log;
pub use mount::SmallDisk;
pub use port::free_port;
pub use programs::built;
pub use python::{python, run_python, run_script, script};
pub use random::Random;
pub use script::{Manner, SPARSE_PIECE, Script, Step, big_byte, sparse_piece};
pub use skip::skip;
pub use stream::{Event, Stream};
pub use wait::{PATIENCE, eventually, eventually_async};

/// Names that every [`Harness`] has from the start.
pub mod ids {
    use crate::Model;

    /// The sheep of a new harness.
    pub const SHEEP: &str = "dolly";
    /// A model whose runner uses the SDK and behaves well on the wire.
    pub const SCRIPTED: Model = Model { name: "scripted", version: "latest" };
    /// A model whose runner speaks the wire by itself and can misbehave on it.
    pub const RAW: Model = Model { name: "raw", version: "latest" };
}
