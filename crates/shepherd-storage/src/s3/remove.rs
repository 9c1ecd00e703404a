//! Removing objects, and whole jobs.

use std::fmt::Write as _;

use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use http::header::HeaderName;
use md5::{Digest as _, Md5};

use super::fault::{Fault, Kind};
use super::http::Call;
use super::layout::Home;
use super::list::Pages;
use super::multipart;
use super::payload::Payload;
use super::store::Store;
use super::xml::{Element, escaped};
use crate::Result;

const MD5: HeaderName = HeaderName::from_static("content-md5");

/// How often a bucket is emptied that others fill meanwhile.
const MAX_ROUNDS: usize = 3;

/// [`Storage::remove`](crate::Storage::remove).
pub(super) async fn job(store: &Store, home: &Home) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match once(store, home).await {
            Ok(()) => return Ok(()),
            Err(fault) if fault.kind == Kind::NotEmpty && tries < MAX_ROUNDS => {}
            Err(fault) => {
                return Err(fault.of(format_args!("remove {}/{}", home.bucket, home.prefix)));
            }
        }
    }
}

async fn once(store: &Store, home: &Home) -> std::result::Result<(), Fault> {
    let mut pages = Pages::new(home, "");
    loop {
        let page = match pages.next(store, usize::MAX, &mut store.tries()).await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(fault) if fault.kind == Kind::NoBucket => return Ok(()),
            Err(fault) => return Err(fault),
        };
        objects(store, home, page.into_iter().map(|one| one.key).collect()).await?;
    }
    multipart::abort_all(store, home, "").await?;
    if !home.own {
        return Ok(());
    }
    let call = Call::bucket(Method::DELETE, &home.bucket);
    let removed = store.ask(home, &call, &mut store.tries()).await;
    match removed {
        Ok(_) => {}
        Err(fault) if fault.kind == Kind::NoBucket => {}
        Err(fault) => return Err(fault),
    }
    store.hints.set(&home.bucket, super::hints::Hint::Missing);
    Ok(())
}

/// Removes the objects with these whole keys, a thousand at most.
pub(super) async fn objects(store: &Store, home: &Home, keys: Vec<String>) -> std::result::Result<(), Fault> {
    if keys.len() == 1 && keys.iter().all(|key| home.can_request(key)) {
        return each(store, home, keys).await;
    }
    // Some keys cannot be in XML, others not in a URL.
    let (many, single): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| escaped(key).is_some());
    if !many.is_empty() {
        match batch(store, home, &many).await {
            Err(fault) if fault.kind == Kind::Unknown => each(store, home, many).await?,
            outcome => outcome?,
        }
    }
    each(store, home, single).await
}

async fn each(store: &Store, home: &Home, keys: Vec<String>) -> std::result::Result<(), Fault> {
    let removed = stream::iter(keys).map(|key| async move { object(store, home, &key).await });
    removed.buffer_unordered(16).try_collect::<Vec<()>>().await.map(drop)
}

async fn object(store: &Store, home: &Home, key: &str) -> std::result::Result<(), Fault> {
    let call = Call::object(Method::DELETE, &home.bucket, key);
    match store.ask(home, &call, &mut store.tries()).await {
        Ok(_) => Ok(()),
        Err(fault) if matches!(fault.kind, Kind::NoObject | Kind::NoBucket) => Ok(()),
        Err(fault) => Err(fault),
    }
}

async fn batch(store: &Store, home: &Home, keys: &[String]) -> std::result::Result<(), Fault> {
    let mut body = String::from("<Delete><Quiet>true</Quiet>");
    for key in keys.iter().filter_map(|key| escaped(key)) {
        let _ = write!(body, "<Object><Key>{key}</Key></Object>");
    }
    body.push_str("</Delete>");
    // Servers insist on it for this request.
    let sum = base64::engine::general_purpose::STANDARD.encode(Md5::digest(&body));
    let call = Call::bucket(Method::POST, &home.bucket)
        .query("delete", "")
        .header(MD5, &sum)
        .body(Payload::Bytes(Bytes::from(body)));
    let text = store.ask(home, &call, &mut store.tries()).await?;
    let root = Element::parse(&text).unwrap_or_default();
    if root.name != "DeleteResult" {
        return Err(Fault::new(Kind::Broken, "the server does not say what it removed"));
    }
    match root.all("Error").next() {
        None => Ok(()),
        Some(error) => {
            let (key, code, message) = (error.get("Key"), error.get("Code"), error.get("Message"));
            let kind = if code == "AccessDenied" { Kind::Denied } else { Kind::Broken };
            Err(Fault::new(kind, format!("{key:?} cannot be removed: {code} {message}")))
        }
    }
}
