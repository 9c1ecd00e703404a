//! Reading objects.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, LAST_MODIFIED, RANGE};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use shepherd_job::{ObjectPath, Timestamp};

use super::fault::{Fault, Kind};
use super::http::{Call, header, time_of};
use super::layout::Home;
use super::retry::Tries;
use super::store::Store;
use crate::{Body, Object, ObjectMeta, Result, StorageError};

/// An object that is being read. A body that breaks off is gone on with where it
/// ended, as long as the object is the same.
pub(super) struct Reading {
    store: Arc<Store>,
    home: Home,
    key: String,
    response: Option<Response>,
    /// What was read of the answer already.
    front: Bytes,
    /// What is still to come of the object.
    range: Range<u64>,
    etag: Option<String>,
}

/// What an answer's head says of an object.
struct Head {
    size: u64,
    range: Range<u64>,
    modified: Timestamp,
    etag: Option<String>,
}

impl Head {
    fn of(response: &Response) -> std::result::Result<Self, Fault> {
        let headers = response.headers();
        let length = header(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let modified = header(headers, LAST_MODIFIED.as_str()).and_then(time_of);
        let etag = header(headers, ETAG.as_str()).map(str::to_owned);
        let broken = || Fault::new(Kind::Broken, "the server does not say how long the object is");
        let (range, size) = if response.status() == StatusCode::PARTIAL_CONTENT {
            content_range(headers).ok_or_else(broken)?
        } else {
            let length = length.ok_or_else(broken)?;
            (0..length, length)
        };
        Ok(Self { size, range, modified: modified.unwrap_or_else(|| Timestamp::from_micros(0)), etag })
    }
}

/// `bytes 0-4/10`
fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let (range, size) = header(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, end) = (first.trim().parse().ok()?, last.trim().parse::<u64>().ok()?.checked_add(1)?);
    let size = size.trim().parse().ok()?;
    (first < end && end <= size).then_some((first..end, size))
}

/// What is known of an object.
pub(super) async fn head(store: &Store, home: &Home, path: &ObjectPath) -> Result<ObjectMeta> {
    let key = home.known_key(path)?;
    let call = Call::object(Method::HEAD, &home.bucket, &key);
    let head =
        store.open_body(home, &call, &mut store.ask_tries()).await.and_then(|response| Head::of(&response));
    let head = head.map_err(|fault| fault.of(format_args!("look at {}/{key}", home.bucket)))?;
    Ok(ObjectMeta { path: path.clone(), size: head.size, modified: head.modified })
}

/// [`Storage::get`](crate::Storage::get).
pub(super) async fn get(
    store: &Arc<Store>,
    home: Home,
    path: &ObjectPath,
    range: Option<Range<u64>>,
) -> Result<Object> {
    let key = home.known_key(path)?;
    let whole = range.is_none();
    let asked = range.unwrap_or(0..u64::MAX);
    // No header can ask for these.
    if asked.start > i64::MAX as u64 || asked.is_empty() {
        let meta = head(store, &home, path).await?;
        if asked.start >= meta.size {
            return Err(StorageError::Range { size: meta.size });
        }
        return Ok(Object { meta, range: asked.start..asked.start, body: stream::empty().boxed() });
    }
    let tries = &mut store.ask_tries();
    let opened = Reading::open(store, home.clone(), key.clone(), asked.clone(), whole, tries).await;
    let (reading, size, modified) = match opened {
        Ok(opened) => opened,
        Err(fault) if fault.kind == Kind::Range => {
            let meta = head(store, &home, path).await?;
            return Err(StorageError::Range { size: meta.size });
        }
        Err(fault) => return Err(fault.of(format_args!("get {}/{key}", home.bucket))),
    };
    let meta = ObjectMeta { path: path.clone(), size, modified };
    Ok(Object { meta, range: reading.range.clone(), body: reading.body() })
}

impl Reading {
    /// Opens the object, and gives its size and its time.
    pub(super) async fn open(
        store: &Arc<Store>,
        home: Home,
        key: String,
        asked: Range<u64>,
        whole: bool,
        tries: &mut Tries,
    ) -> std::result::Result<(Self, u64, Timestamp), Fault> {
        let mut call = Call::object(Method::GET, &home.bucket, &key);
        if !whole {
            call = call.header(RANGE, &range_header(&asked));
        }
        let response = store.open_body(&home, &call, tries).await?;
        let head = Head::of(&response)?;
        if !whole && asked.start >= head.size {
            return Err(Fault::new(Kind::Range, "the server passed over the range"));
        }
        let mut reading = Self {
            store: Arc::clone(store),
            home,
            key,
            response: None,
            front: Bytes::new(),
            // Some servers give more than was asked for.
            range: asked.start..asked.end.min(head.size),
            etag: head.etag,
        };
        reading.take(response, head.range.start).await?;
        Ok((reading, head.size, head.modified))
    }

    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> std::result::Result<Option<Bytes>, Fault> {
        let mut tries = None;
        loop {
            if self.range.is_empty() {
                return Ok(None);
            }
            if !self.front.is_empty() {
                let front = std::mem::take(&mut self.front);
                return Ok(Some(self.counted(front)));
            }
            let fault = match &mut self.response {
                None => None,
                Some(response) => match self.store.http.piece(response).await {
                    Ok(Some(piece)) if piece.is_empty() => continue,
                    Ok(Some(piece)) => return Ok(Some(self.counted(piece))),
                    Ok(None) => Some(Fault::new(Kind::Away, "the body ended too early")),
                    Err(fault) => Some(fault),
                },
            };
            // The time for tries begins with the first fault: what came before was
            // the server's, or the reader's, own pace.
            let tries = tries.get_or_insert_with(|| self.store.tries());
            if let Some(fault) = fault {
                self.response = None;
                tries.again(fault).await?;
            }
            match self.resume(tries).await {
                Ok(()) => {}
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    fn counted(&mut self, mut piece: Bytes) -> Bytes {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        piece.truncate(left);
        self.range.start += piece.len() as u64;
        piece
    }

    /// Asks for the rest.
    async fn resume(&mut self, tries: &mut Tries) -> std::result::Result<(), Fault> {
        let changed = || Fault::new(Kind::Changed, "the object was replaced while it was read");
        // Without one there is no telling whether it is the same object.
        let Some(etag) = self.etag.clone() else {
            return Err(Fault::new(Kind::Broken, "the body broke off"));
        };
        let call = Call::object(Method::GET, &self.home.bucket, &self.key)
            .header(RANGE, &range_header(&self.range))
            .header(IF_MATCH, &etag);
        let response = match self.store.open_body(&self.home, &call, tries).await {
            Ok(response) => response,
            Err(fault) if fault.kind == Kind::Range => return Err(changed()),
            Err(fault) => return Err(fault),
        };
        let head = Head::of(&response)?;
        if head.etag.as_deref() != Some(&*etag) || head.size < self.range.end {
            return Err(changed());
        }
        self.take(response, head.range.start).await
    }

    /// Reads on from an answer whose first byte is the object's at `from`. What was
    /// not asked for is passed over.
    async fn take(&mut self, mut response: Response, from: u64) -> std::result::Result<(), Fault> {
        let elsewhere = || Fault::new(Kind::Away, "the server gave another part of the object");
        let mut over = self.range.start.checked_sub(from).ok_or_else(elsewhere)?;
        while over > 0 {
            let Some(mut piece) = self.store.http.piece(&mut response).await? else {
                return Err(elsewhere());
            };
            let passed = piece.len().min(usize::try_from(over).unwrap_or(usize::MAX));
            over -= passed as u64;
            self.front = piece.split_off(passed);
        }
        self.response = Some(response);
        Ok(())
    }

    fn body(self) -> Body {
        stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                Ok(None) => None,
                Err(fault) => {
                    let what = format!("get {}/{}: {fault}", reading.home.bucket, reading.key);
                    Some((Err(io::Error::other(what)), None))
                }
            }
        })
        .boxed()
    }
}

/// The last position is the one that is sent.
fn range_header(range: &Range<u64>) -> String {
    match range.end {
        u64::MAX => format!("bytes={}-", range.start),
        end => format!("bytes={}-{}", range.start, end - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sent_and_understood() {
        assert_eq!(range_header(&(3..u64::MAX)), "bytes=3-");
        assert_eq!(range_header(&(3..4)), "bytes=3-3");
        for (text, expected) in [
            ("bytes 0-4/10", Some((0..5, 10))),
            ("bytes 9-9/10", Some((9..10, 10))),
            ("bytes 4-3/10", None),
            ("bytes 0-10/10", None),
            ("bytes */10", None),
            ("bytes 0-18446744073709551615/10", None),
            ("0-4/10", None),
            ("bytes 0-4/*", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(content_range(&headers), expected, "{text}");
        }
    }
}
