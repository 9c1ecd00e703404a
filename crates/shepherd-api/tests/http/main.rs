//! The API through real sockets, over a shepherd that is a fake.
#![allow(clippy::unwrap_used, reason = "all of this crate is tests, its helpers included")]

mod client;
mod fake;
mod files;
mod limits;
mod live;
mod routes;
mod server;
mod submit;
