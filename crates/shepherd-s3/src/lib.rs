//! The S3 protocol over a local storage directory.
//!
//! ```text
//!  socket ── shepherd_serve ── Endpoint ── s3s (signatures, XML, routes) ── Store ── Buckets
//!                                │ Intake: bounds what a body may cost      │        (files)
//!                                                                           └─ Flusher: the queue
//! ```
//! A client that was written for MinIO makes a bucket, puts inputs, and gets
//! outputs; the shepherd sees ordinary files, and files that others put into the
//! directory are objects at once. A bucket is a job's directory.
//!
//! # What an answer means
//! Nothing is answered with success before it is on disk. A body is verified while
//! it streams to a file aside, against everything the client said of it (length,
//! `Content-MD5`, `x-amz-content-sha256`, `x-amz-checksum-*`, chunk signatures),
//! and becomes visible only when all of that is true. A put that breaks off leaves
//! nothing. A body that becomes no object, such as the list of what to delete, is
//! verified in the same way before anything is done that it asks for.
//!
//! # Which bucket
//! The first segment of the path, or what stands in the `Host` before a name of the
//! endpoint ([`Hosts`]).
//!
//! # Who may
//! One pair of keys. Requests are signed with signature version 4, in the header or
//! in a presigned URL. Everything that a request says in `x-amz-` headers must be
//! signed, so that the holder of a presigned URL cannot add to it.
//!
//! # What it refuses
//! Versions, encryption, tags, policies, lifecycles, locks, and every other request
//! it does not know: `NotImplemented`, rather than to take a setting and ignore it.
//! Questions about them are answered as by a bucket that has none. It refuses to
//! know jobs, queues and configuration files: a [`Flusher`] brings what is not a
//! file yet.
//!
//! ```
//! use std::sync::Arc;
//!
//! use shepherd_s3::{Credentials, Endpoint, Hosts, NoFlusher, ServeOptions, serve};
//! use shepherd_storage::LocalStorage;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! # let dir = tempfile::tempdir()?;
//! let storage = Arc::new(LocalStorage::open(dir.path()).map_err(std::io::Error::other)?);
//! let keys = Credentials::new("shepherd", "a long secret");
//! let endpoint = Endpoint::new(storage, Arc::new(NoFlusher), keys, Hosts::default(), "us-east-1");
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let served = serve(listener, endpoint, ServeOptions::default(), async move {
//!     let _ = stopped.await;
//! });
//! let client = async move {
//!     let mut stream = TcpStream::connect(address).await?;
//!     stream.write_all(b"GET /a-job/inputs/input HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     let _ = stop.send(());
//!     Ok::<_, std::io::Error>(answer)
//! };
//! let (_, answer) = tokio::join!(served, client);
//! assert!(answer?.contains("AccessDenied"), "requests must be signed");
//! # Ok(())
//! # }
//! ```

mod access;
mod attributes;
mod checks;
mod chunks;
mod composite;
mod conditions;
mod endpoint;
mod error;
mod flusher;
mod hosts;
mod intake;
mod listing;
mod store;

pub use access::Credentials;
pub use endpoint::{Endpoint, EndpointFuture, serve};
pub use flusher::{Flusher, NoFlusher};
pub use hosts::Hosts;
pub use shepherd_serve::{Drained, ServeOptions};
