//! The endpoint over real connections, spoken to byte by byte.
#![allow(clippy::unwrap_used, reason = "all of this crate is tests, its helpers included")]

mod access;
mod bodies;
mod buckets;
mod client;
mod conditions;
mod contract;
mod files;
mod flusher;
mod keys;
mod lists;
mod objects;
mod server;
mod sign;
mod uploads;
