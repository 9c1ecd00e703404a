//! Objects in parts.
//!
//! A multipart upload that is neither completed nor aborted stays at the server,
//! unseen and paid for. So it runs in a task of its own, which ends it whatever
//! becomes of the caller: dropping the caller's future aborts the upload. Only
//! the end of the whole program leaves one behind; publishing again, and removing
//! the job, abort those.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use http::header::{DATE, ETAG, LAST_MODIFIED};
use shepherd_job::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::fault::{Fault, Kind};
use super::http::{Call, header, time_of};
use super::layout::Home;
use super::payload::Payload;
use super::put::not_stored;
use super::retry::Tries;
use super::source::Source;
use super::store::{Missing, Store};
use super::xml::{Element, escaped};
use crate::{Result, StorageError};

/// The most parts that an object can have.
const MAX_PARTS: u64 = 10_000;

/// How many parts of one object are on their way at most.
const AT_ONCE: usize = 4;

/// How long putting an object together is tried: giving up means to send all of it
/// again.
const COMPLETE: Duration = Duration::from_secs(120);

/// At how many bytes a second a server is expected to do it at least, as it may copy
/// all of them.
const JOINED: u64 = 32 << 20;

/// A part, with its share of memory where it needs one.
type Held = (Payload, Option<OwnedSemaphorePermit>);

struct Upload {
    store: Arc<Store>,
    home: Home,
    key: String,
    id: String,
    /// The server's time when it began.
    begun: Option<Timestamp>,
}

/// The parts that are still to be sent.
struct Parts {
    upload: Arc<Upload>,
    source: Source,
    /// Size of the whole object, where it is known.
    size: Option<u64>,
    first: Option<Held>,
    number: u64,
}

/// Stores an object in parts, the first of which may be in memory, and gives its
/// size.
pub(super) async fn upload(
    store: &Arc<Store>,
    home: Home,
    key: String,
    first: Option<Held>,
    source: Source,
) -> Result<u64> {
    let (mut tell, told) = oneshot::channel();
    let task = Arc::clone(store);
    store.uploads.spawn(async move {
        let outcome = run(&task, home, key, first, source, &mut tell).await;
        // Nobody may be there to hear it any more.
        let _ = tell.send(outcome);
    });
    told.await.unwrap_or_else(|_| Err(StorageError::Unavailable("an upload ended unexpectedly".to_owned())))
}

async fn run(
    store: &Arc<Store>,
    home: Home,
    key: String,
    first: Option<Held>,
    source: Source,
    caller: &mut oneshot::Sender<Result<u64>>,
) -> Result<u64> {
    let upload = Arc::new(Upload::create(store, home, key).await?);
    let outcome = tokio::select! {
        stored = upload.store_parts(first, source) => stored,
        // Nothing but parts is lost by the drop of that future.
        () = caller.closed() => Err(StorageError::Unavailable("nobody waits for the upload".to_owned())),
    };
    match outcome {
        Ok((parts, size)) => match upload.complete(&parts, size).await {
            Ok(()) => Ok(size),
            Err(fault) => {
                upload.abort().await;
                Err(not_stored(&upload.key, fault.of(upload.what())))
            }
        },
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

impl Upload {
    async fn create(store: &Arc<Store>, home: Home, key: String) -> Result<Self> {
        let call = Call::object(Method::POST, &home.bucket, &key).query("uploads", "");
        let created = async {
            let mut response = store.send(&home, &call, Missing::Make).await?;
            let begun = header(response.headers(), DATE.as_str()).and_then(time_of);
            let mut text = Vec::new();
            while let Some(piece) = store.http.piece(&mut response).await? {
                text.extend_from_slice(&piece);
            }
            let root = std::str::from_utf8(&text).ok().and_then(Element::parse);
            match root.map(|root| root.get("UploadId").to_owned()) {
                Some(id) if !id.is_empty() => Ok((id, begun)),
                _ => Err(Fault::new(Kind::Broken, "the server names no upload")),
            }
        };
        match created.await {
            Ok((id, begun)) => Ok(Self { store: Arc::clone(store), home, key, id, begun }),
            Err(fault) => Err(not_stored(&key, fault.of(format_args!("begin to put {}/{key}", home.bucket)))),
        }
    }

    fn what(&self) -> String {
        format!("put {}/{}", self.home.bucket, self.key)
    }

    async fn store_parts(
        self: &Arc<Self>,
        first: Option<Held>,
        source: Source,
    ) -> Result<(Vec<String>, u64)> {
        let size = source.len();
        let parts = Parts { upload: Arc::clone(self), source, size, first, number: 0 };
        let parts = stream::try_unfold(parts, |mut parts| async move {
            Ok(parts.next().await?.map(|part| (part, parts)))
        });
        let upload = Arc::clone(self);
        let sent = parts.map_ok(move |(number, (part, permit))| {
            let upload = Arc::clone(&upload);
            async move {
                let len = part.len();
                let etag = upload.part(number, part).await?;
                drop(permit);
                Ok::<_, StorageError>((number, etag, len))
            }
        });
        let mut sent: Vec<_> = sent.try_buffer_unordered(AT_ONCE).try_collect().await?;
        sent.sort_unstable_by_key(|(number, ..)| *number);
        let size = sent.iter().map(|(.., len)| len).sum();
        Ok((sent.into_iter().map(|(_, etag, _)| etag).collect(), size))
    }

    async fn part(&self, number: u64, part: Payload) -> Result<String> {
        let http = &self.store.http;
        let call = Call::object(Method::PUT, &self.home.bucket, &self.key)
            .query("partNumber", number.to_string())
            .query("uploadId", &*self.id)
            .body(part);
        let sent = async {
            let response = http.call(&call, http.limits.answer, &mut self.store.tries()).await?;
            let etag = header(response.headers(), ETAG.as_str()).map(str::to_owned);
            etag.ok_or_else(|| Fault::new(Kind::Broken, "the server does not acknowledge a part"))
        };
        sent.await.map_err(|fault: Fault| not_stored(&self.key, fault.of(self.what())))
    }

    async fn complete(&self, parts: &[String], size: u64) -> std::result::Result<(), Fault> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for (number, etag) in (1..).zip(parts) {
            let etag = escaped(etag).ok_or_else(|| Fault::new(Kind::Broken, "a part's tag is no text"))?;
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let call = Call::object(Method::POST, &self.home.bucket, &self.key)
            .query("uploadId", &*self.id)
            .body(Payload::Bytes(Bytes::from(body)));
        let limit = self.store.http.limits.answer + Duration::from_secs(size / JOINED);
        match self.store.http.text(&call, limit, &mut Tries::for_(COMPLETE.max(limit * 3))).await {
            // Whatever else says 200 on the way, only this is the server's word.
            Ok(text)
                if Element::parse(&text).is_some_and(|root| root.name == "CompleteMultipartUploadResult") =>
            {
                Ok(())
            }
            Ok(_) if self.is_there(parts.len(), size).await => Ok(()),
            Ok(_) => Err(Fault::new(Kind::Broken, "the server does not say that the object is complete")),
            // A try may have come through whose answer was lost; to the next one there
            // is no such upload, for which servers have many words.
            Err(_) if self.is_there(parts.len(), size).await => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Whether the object at the key is the one of this upload.
    async fn is_there(&self, parts: usize, size: u64) -> bool {
        let call = Call::object(Method::HEAD, &self.home.bucket, &self.key);
        let Ok(response) = self.store.open_body(&self.home, &call, &mut self.store.tries()).await else {
            return false;
        };
        let headers = response.headers();
        let tag = header(headers, ETAG.as_str())
            .is_some_and(|tag| tag.trim_matches('"').ends_with(&format!("-{parts}")));
        let length = header(headers, "content-length").and_then(|length| length.parse().ok()) == Some(size);
        let modified = header(headers, LAST_MODIFIED.as_str()).and_then(time_of);
        let newer = modified.zip(self.begun).is_some_and(|(modified, begun)| modified >= begun);
        tag && length && newer
    }

    async fn abort(&self) {
        match abort(&self.store, &self.home, &self.key, &self.id).await {
            Ok(()) => {}
            Err(fault) => tracing::warn!(
                bucket = self.home.bucket,
                key = self.key,
                %fault,
                "an upload that was given up could not be aborted"
            ),
        }
    }
}

impl Parts {
    /// The next part and its number. Its memory is taken first: no part waits in
    /// memory for more.
    async fn next(&mut self) -> Result<Option<(u64, Held)>> {
        self.number += 1;
        let store = &self.upload.store;
        let held = match self.first.take() {
            Some(first) => Some(first),
            None => {
                let len = part_size(store.http.limits.part as u64, self.size);
                let permit = match &self.source {
                    Source::Body(_) => Some(store.memory.take(len).await?),
                    Source::File(_) => None,
                };
                self.source.part(len).await?.map(|part| (part, permit))
            }
        };
        if held.is_some() && self.number > MAX_PARTS {
            return Err(StorageError::Invalid(format!("{} is too large to be stored", self.upload.key)));
        }
        Ok(held.map(|held| (self.number, held)))
    }
}

/// How large the parts are, but for the last: all alike, as some servers insist.
/// There is a greatest number of them, so a large object has large ones.
fn part_size(smallest: u64, size: Option<u64>) -> u64 {
    smallest.max(size.unwrap_or(0).div_ceil(MAX_PARTS))
}

/// Aborts an upload; none is no error.
pub(super) async fn abort(store: &Store, home: &Home, key: &str, id: &str) -> std::result::Result<(), Fault> {
    let call = Call::object(Method::DELETE, &home.bucket, key).query("uploadId", id);
    match store.ask(home, &call, &mut store.tries()).await {
        Ok(_) => Ok(()),
        Err(fault) if matches!(fault.kind, Kind::NoUpload | Kind::NoBucket | Kind::NoObject) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Aborts all uploads to keys of the job that begin with `prefix`.
pub(super) async fn abort_all(store: &Store, home: &Home, prefix: &str) -> std::result::Result<(), Fault> {
    let whole = format!("{}{prefix}", home.prefix);
    let call = Call::bucket(Method::GET, &home.bucket)
        .query("uploads", "")
        .query("encoding-type", "url")
        .query("prefix", &*whole);
    let mut before = 0;
    loop {
        let text = match store.ask(home, &call, &mut store.tries()).await {
            Ok(text) => text,
            Err(fault) if fault.kind == Kind::NoBucket => return Ok(()),
            // Servers that cannot list uploads, and keys that may not: it is only tidying up.
            Err(fault) if matches!(fault.kind, Kind::Unknown | Kind::Denied | Kind::Refused) => {
                tracing::debug!(bucket = home.bucket, %fault, "uploads that were cut off cannot be looked for");
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        let root = Element::parse(&text).unwrap_or_default();
        let encoded = root.get("EncodingType") == "url";
        let found: Vec<_> = root
            .all("Upload")
            .filter_map(|upload| {
                let key = upload.get("Key");
                let key = if encoded { super::layout::decoded(key)? } else { key.to_owned() };
                Some((key, upload.get("UploadId").to_owned()))
            })
            .filter(|(key, _)| key.starts_with(&whole))
            .collect();
        let listed = found.len();
        let each = stream::iter(found).map(|(key, id)| async move { abort(store, home, &key, &id).await });
        each.buffer_unordered(8).try_collect::<Vec<()>>().await?;
        // What was aborted is no longer listed: the next page is the first again,
        // unless aborting has no effect.
        if root.get("IsTruncated").trim() != "true" || listed == 0 || listed == before {
            return Ok(());
        }
        before = listed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_parts() {
        const MIB: u64 = 1 << 20;
        for size in [8 * MIB + 1, 80_000 * MIB, 80_000 * MIB + 1, 5_000_000 * MIB] {
            let part = part_size(8 * MIB, Some(size));
            assert!(size.div_ceil(part) <= MAX_PARTS, "{size}");
            assert!(part >= 8 * MIB);
        }
        assert_eq!(part_size(8 * MIB, None), 8 * MIB);
    }
}
