//! Taking a runner's files over as outputs.
//!
//! What a runner left is looked through first, so that nothing is stored of what
//! is refused. Files are removed when all of them are stored: until then the same
//! call may be repeated.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::fault::Kind;
use super::layout::Home;
use super::list::Pages;
use super::payload::{Payload, Section};
use super::source::Source;
use super::store::Store;
use super::{multipart, put, remove};
use crate::local::{Output, Outputs};
use crate::{Replaces, Result, RunnerDir, Transfer};

const OUTPUTS: &str = "outputs/";

/// How many files of one job are stored at once.
const AT_ONCE: usize = 16;

/// Up to how many bytes of a job's files are read while they are looked through:
/// small outputs are what most jobs have, and another thread costs more than they do.
const READ_AT_ONCE: usize = 16 << 10;

/// [`Storage::publish`](crate::Storage::publish).
pub(super) async fn publish(
    store: &Arc<Store>,
    home: Home,
    from: &RunnerDir,
    replaces: Replaces,
) -> Result<Transfer> {
    let dir = from.clone();
    let (outputs, found) = super::joined(tokio::task::spawn_blocking(move || {
        let outputs = Outputs::open(&dir)?;
        let mut left = READ_AT_ONCE;
        let mut found = Vec::new();
        for output in outputs.survey()? {
            let few = found.len() < AT_ONCE;
            let bytes = if few { outputs.read_small(&output, left)? } else { None };
            left -= bytes.as_ref().map_or(0, Bytes::len);
            found.push((output, bytes));
        }
        Ok((Arc::new(outputs), found))
    }))
    .await?;
    let mut keys = HashSet::new();
    for (output, _) in &found {
        keys.insert(home.key(&output.key)?);
    }
    match replaces {
        Replaces::Nothing => {}
        Replaces::Earlier => multipart::abort_all(store, &home, OUTPUTS)
            .await
            .map_err(|fault| fault.of(format_args!("abort earlier uploads to bucket {}", home.bucket)))?,
    }
    let stored = stream::iter(found).map(|(output, bytes)| {
        let (outputs, home) = (Arc::clone(&outputs), home.clone());
        async move {
            let _turn = store.turn().await?;
            match bytes {
                Some(bytes) => {
                    put::put_one(store, &home, &home.key(&output.key)?, Payload::Bytes(bytes)).await
                }
                None => store_file(store, home, outputs, output).await,
            }
        }
    });
    let bytes: Vec<u64> = stored.buffer_unordered(AT_ONCE).try_collect().await?;
    match replaces {
        Replaces::Nothing => {}
        Replaces::Earlier => remove_others(store, &home, &keys).await?,
    }
    let cleared = super::joined(tokio::task::spawn_blocking(move || outputs.clear())).await;
    if let Err(error) = cleared {
        // Only the leftovers are at stake when the outputs are stored.
        tracing::warn!(dir = %from.shown(), %error, "published outputs cannot be removed");
    }
    Ok(Transfer { objects: bytes.len() as u64, bytes: bytes.iter().sum() })
}

async fn store_file(store: &Arc<Store>, home: Home, outputs: Arc<Outputs>, output: Output) -> Result<u64> {
    let key = home.key(&output.key)?;
    let name: Arc<str> = output.path.as_str().into();
    let (file, len) = super::joined(tokio::task::spawn_blocking(move || outputs.file(&output))).await?;
    let section = Section { file: Arc::new(file), at: 0, len, name };
    if len > store.http.limits.part as u64 {
        return multipart::upload(store, home, key, None, Source::File(section)).await;
    }
    put::put_one(store, &home, &key, Payload::File(section)).await
}

/// Removes the outputs that are none of `keys`.
async fn remove_others(store: &Store, home: &Home, keys: &HashSet<String>) -> Result<()> {
    let what = || format!("replace the outputs in bucket {}", home.bucket);
    let mut pages = Pages::new(home, OUTPUTS);
    loop {
        let page = match pages.next(store, usize::MAX, &mut store.tries()).await {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(()),
            Err(fault) if fault.kind == Kind::NoBucket => return Ok(()),
            Err(fault) => return Err(fault.of(what())),
        };
        let others = page.into_iter().map(|one| one.key).filter(|key| !keys.contains(key)).collect();
        remove::objects(store, home, others).await.map_err(|fault| fault.of(what()))?;
    }
}
