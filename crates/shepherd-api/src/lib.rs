//! The HTTP API of the shepherd, on hyper and tower.
//!
//! ```text
//!  socket ── shepherd_serve (accept, drain, timeouts) ── hyper ── Api (tower Service)
//!                                                              │ route: path → Route
//!                    ┌────────────┬────────────┬───────────┼───────────┬────────┐
//!                 submit         jobs        files    events, logs   status    docs
//!              (scan, spool)  (wait, list)  (ranges)    (streams)           (spec, UI)
//!                    └────────────┴────────────┴─ Backend ─┴───────────┘
//!                                                   │ ShepherdError
//!                                              error: the one map to status codes
//! ```
//!
//! Every JSON shape is here, and `error` is the only place that turns an error
//! into a status code. There are no business decisions: what a request means is
//! checked, handed to a [`Backend`] (the shepherd, or a fake in tests), and its
//! answer is written down.
//!
//! It refuses to know configuration files and the command line, to touch jobs'
//! data other than by streaming it, and to hold more of a body in memory than a
//! fixed amount: what is larger passes through an unlinked file or is read as
//! fast as the client takes it.
//!
//! A client may also watch a job: its events as they happen, which it can resume
//! where it lost them, and what it prints. Nothing is queued for one who reads
//! slowly; what it watches is asked again when it has taken what there was. Both
//! end when the client leaves and when the daemon drains.
//!
//! Times on the wire are naive UTC with microseconds, as existing clients expect:
//!
//! ```
//! use shepherd_api::status_document;
//! use shepherd_core::JobRecord;
//! use shepherd_job::{JobId, JobIdRule, JobSpec, JobState, ModelRef, Timestamp};
//!
//! let record = JobRecord {
//!     seq: 1,
//!     spec: JobSpec {
//!         id: JobId::parse("job-1", JobIdRule::Bucket)?,
//!         model: ModelRef::parse("ocr", "latest")?,
//!         sheep: None,
//!         priority: 0,
//!     },
//!     submitted_at: Timestamp::from_micros(1_795_383_059_336_682),
//!     state: JobState::new(),
//! };
//! let status = String::from_utf8(status_document(&record).to_vec())?;
//! assert!(status.starts_with(r#"{"status":"queued","#));
//! assert!(status.contains(r#""enqueued_at":"2026-11-22T21:30:59.336682""#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod api;
mod backend;
mod body;
mod cors;
mod docs;
mod error;
mod events;
mod files;
mod jobs;
mod json;
mod logs;
mod query;
mod range;
mod route;
mod serve;
mod stored;
mod submit;
mod time;
mod unread;

pub use access::Hosts;
pub use api::{Api, ApiFuture, ApiOptions};
pub use backend::Backend;
pub use body::ApiBody;
pub use cors::Cors;
pub use json::status_document;
pub use serve::serve;
pub use shepherd_serve::BodyPace;
pub use shepherd_serve::{Drained, ServeOptions};
