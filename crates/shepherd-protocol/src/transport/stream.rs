//! A stream of bytes to a runner.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::{TcpStream, UnixStream};

use super::sp::Mapping;
use super::url::Address;

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// An attempt to connect.
pub(super) type Dialling = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send + Sync>>;

/// Begins an attempt to connect.
pub(super) fn dial(address: Address) -> Dialling {
    Box::pin(async move {
        match address {
            Address::Ipc(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    })
}

impl Stream {
    pub(super) fn mapping(&self) -> Mapping {
        match self {
            Self::Unix(_) => Mapping::Ipc,
            Self::Tcp(_) => Mapping::Tcp,
        }
    }

    /// Both ends of a connection over TCP, ours first.
    pub(super) fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(stream) => Some((stream.local_addr().ok()?, stream.peer_addr().ok()?)),
        }
    }

    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_read(into),
            Self::Tcp(stream) => stream.try_read(into),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
        }
    }

    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Tcp(stream) => stream.poll_read_ready(context),
        }
    }

    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => stream.poll_write_ready(context),
            Self::Tcp(stream) => stream.poll_write_ready(context),
        }
    }
}
