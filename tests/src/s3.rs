//! S3 servers that others wrote, a plain client for them, and a proxy that breaks
//! what goes between a server and who asks it.
//!
//! - [`S3Server`]: `s3s-fs` in this process, new for each test, which records what
//!   it is asked. It checks signatures. It is a server for experiments: a bucket
//!   that is missing is made by a put, a bucket that is deleted may be full, and
//!   keys are paths, so `a` and `a/b` cannot both be there.
//! - [`Moto`]: `moto` in a process of its own, slower to start and shared by the
//!   tests of a program, so each uses names of its own. It keeps any key, and checks
//!   no signature.
//! - [`Proxy`]: goes in front of either; [`TlsFront`] does so with TLS.
//!
//! All of them run on threads of their own: they go on while a test blocks.

mod client;
mod layout;
mod proxy;
mod requests;
mod scripts;
mod server;
mod thread;

pub use client::S3Client;
pub use layout::Layout;
pub use proxy::{Fault, Head, Injected, Proxy};
pub use requests::{Request, Requests};
pub use scripts::{Moto, TlsFront};
pub use server::S3Server;

/// The key that every server here knows.
pub const ACCESS_KEY: &str = "AUTOTEST";
/// Its secret.
pub const SECRET_KEY: &str = "a-secret-of-the-tests";
/// The region that every server here is in.
pub const REGION: &str = "us-east-1";

#[cfg(test)]
mod tests;
