//! What the shepherd and a runner say to each other, and how it travels.
//!
//! - [`ToRunner`] and [`FromRunner`] are the messages of protocol version 1.
//! - The codec turns them into JSON frames. Version 1 extends the shapes of the
//!   first shepherd: `{"message": {..., "message_type": "InputMessage"}}`, and
//!   `{"messages": [...]}` for several at once. Unknown keys are ignored; what
//!   cannot be understood becomes [`Garbage`], never a panic and never the end of
//!   the connection.
//! - The transport is nng's Pair1 over `ipc://` or `tcp://`. A runner listens
//!   ([`RunnerSocket`], blocking) and the shepherd dials ([`Connection`], on tokio).
//!   Over `tcp://` the shepherd also understands the ZeroMQ of runners that were
//!   made for the first shepherd, and finds out by itself which it is.
//!
//! A message is for whoever is connected when it is sent. One that was not
//! delivered when the peer went away is dropped, so nothing ever reaches a later
//! peer. A connection proves nothing: only a [`FromRunner::Ready`] says that a
//! runner is there, and only a [`Token`] that both sides were given proves that it is the one
//! that was launched, and that nobody else is its shepherd.
//!
//! The crate knows no processes and no containers, starts nothing, keeps no
//! account of jobs, and takes a runner's word for nothing: a job's id in a message
//! from a runner is a plain string, to be looked up among the jobs it was given.
//!
//! ```
//! use std::time::Duration;
//!
//! use shepherd_protocol::{Connection, Event, FromRunner, Ready, RunnerSocket, ToRunner};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The runner's side, on a port that the system picks.
//! let (url, answers, mut inputs) = RunnerSocket::bind("tcp://127.0.0.1:0")?.split();
//! let runner = std::thread::spawn(move || {
//!     loop {
//!         match inputs.recv(Duration::from_secs(10)) {
//!             Ok(Event::Connected) => answers.send(&[FromRunner::Ready(Ready::new("example"))]).unwrap(),
//!             Ok(Event::Message(ToRunner::Ping { nonce })) => answers.send(&[FromRunner::Pong { nonce }]).unwrap(),
//!             Ok(Event::Garbage(_)) => {}
//!             Ok(Event::Message(_) | Event::Disconnected) | Err(_) => break,
//!         }
//!     }
//! });
//!
//! // The shepherd's side.
//! let mut connection = Connection::dial(&url)?;
//! loop {
//!     match connection.recv().await {
//!         Event::Message(FromRunner::Ready(_)) => connection.send(&[ToRunner::Ping { nonce: 7 }])?,
//!         Event::Message(FromRunner::Pong { nonce }) => break assert_eq!(nonce, 7),
//!         Event::Message(_) | Event::Connected | Event::Garbage(_) | Event::Disconnected => {}
//!     }
//! }
//! drop(connection);
//! runner.join().unwrap();
//! # Ok(())
//! # }
//! ```

mod codec;
mod error;
mod handshake;
mod message;
mod transport;

pub use error::{Error, Garbage, RecvError, SendError};
pub use handshake::{Peer, TOKEN_VARIABLE, Token};
pub use message::{CANCELLED, Event, FromRunner, Input, PROTOCOL_VERSION, Ready, ToRunner};
pub use transport::{Connection, Receiver, RunnerReceiver, RunnerSender, RunnerSocket, Sender};

/// The most messages that one frame may hold; one with more is refused whole.
pub const MAX_BATCH: u32 = 1024;
/// The largest frame that is accepted, in bytes. A peer that sends a larger one is
/// disconnected.
pub const MAX_FRAME: usize = 4 << 20;
