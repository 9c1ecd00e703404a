//! Serving HTTP/1.1 connections: what every listener of the shepherd does alike.
//!
//! A service answers requests; [`serve`] brings them to it from a listener, with a
//! bound on connections, time limits on what clients do, and an orderly end. It
//! refuses to look into requests: routes, bodies and access are the service's, which
//! holds bodies to a [`BodyPace`].
//!
//! ```
//! use std::convert::Infallible;
//!
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper::service::service_fn;
//! use hyper::{Request, Response, body::Incoming};
//! use shepherd_serve::{Drain, ServeOptions, serve};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let service = service_fn(|_: Request<Incoming>| async {
//!     Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"baa"))))
//! });
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let served = serve(listener, service, Drain::new(), ServeOptions::default(), async move {
//!     let _ = stopped.await;
//! });
//! let client = async move {
//!     let mut stream = TcpStream::connect(address).await?;
//!     stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     let _ = stop.send(());
//!     Ok::<_, std::io::Error>(answer)
//! };
//! let (drained, answer) = tokio::join!(served, client);
//! assert!(answer?.ends_with("baa"));
//! assert_eq!(drained.aborted, 0);
//! # Ok(())
//! # }
//! ```

mod drain;
mod own;
mod pace;
mod peers;
mod serve;
mod socket;

pub use drain::Drain;
pub use pace::BodyPace;
pub use serve::{Drained, ServeOptions, serve};
