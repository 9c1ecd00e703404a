//! Bringing inputs to a sheep: listed page by page, fetched several at once.
//!
//! Files are made in the order of the listing, whatever order their bytes come in:
//! which of two keys gets a path that both want does not depend on the network.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};
use tokio::task::JoinHandle;

use super::fault::{Fault, Kind};
use super::get::Reading;
use super::layout::Home;
use super::list::{Listed, Pages};
use super::store::Store;
use crate::local::Places;
use crate::{Result, RunnerDir, StorageError, Transfer};

const INPUTS: &str = "inputs/";

/// How much of a body is gathered before it is written. At most twice that is
/// held: one part is written while the next one arrives.
const GATHER: usize = 256 << 10;

/// Inputs on their way.
struct Staging {
    store: Arc<Store>,
    home: Home,
    /// It is with the thread that works in it, or here.
    places: Option<Places>,
    pages: Pages,
    page: std::vec::IntoIter<Listed>,
}

/// An input with the file that it comes to.
struct Placed {
    key: String,
    /// None where nothing is to be written.
    file: Option<File>,
}

/// [`Storage::stage`](crate::Storage::stage).
pub(super) async fn stage(store: &Arc<Store>, home: Home, to: &RunnerDir) -> Result<Transfer> {
    let to = to.clone();
    let places = super::joined(tokio::task::spawn_blocking(move || Places::open(&to))).await?;
    let staging = Staging {
        store: Arc::clone(store),
        pages: Pages::new(&home, INPUTS),
        home: home.clone(),
        places: Some(places),
        page: Vec::new().into_iter(),
    };
    let placed = stream::try_unfold(staging, |mut staging| async move {
        Ok(staging.next().await?.map(|placed| (placed, staging)))
    });
    let fetched = placed.map_ok(|placed| {
        let home = home.clone();
        async move {
            match placed.file {
                None => Ok(0),
                Some(file) => fetch(store, home, placed.key, file).await,
            }
        }
    });
    fetched
        .try_buffer_unordered(store.http.limits.at_once.max(1))
        .try_fold(Transfer::default(), |sum, bytes| async move {
            Ok(Transfer { objects: sum.objects + 1, bytes: sum.bytes + bytes })
        })
        .await
}

impl Staging {
    /// Makes the file of the next input.
    async fn next(&mut self) -> Result<Option<Placed>> {
        let found = loop {
            if let Some(found) = self.page.next() {
                break found;
            }
            let mut tries = self.store.tries();
            match self.pages.next(&self.store, usize::MAX, &mut tries).await {
                Ok(Some(page)) => self.page = page.into_iter(),
                Ok(None) => return Ok(None),
                Err(fault) if fault.kind == Kind::NoBucket => return Ok(None),
                Err(fault) => {
                    return Err(fault.of(format_args!("list the inputs in bucket {}", self.home.bucket)));
                }
            }
        };
        let lost = || StorageError::Unavailable("the directory for inputs was lost".to_owned());
        let skip = self.home.prefix.len() + INPUTS.len();
        let rest = found.key.get(skip..).ok_or_else(lost)?.to_owned();
        let mut places = self.places.take().ok_or_else(lost)?;
        let empty = found.size == 0;
        let (places, file) = super::joined(tokio::task::spawn_blocking(move || {
            if empty && places.folder(&rest)? {
                return Ok((places, None));
            }
            let file = places.create(&rest)?;
            Ok((places, (!empty).then_some(file)))
        }))
        .await?;
        self.places = Some(places);
        Ok(Some(Placed { key: found.key, file }))
    }
}

/// Streams an object to a file, and gives its size.
async fn fetch(store: &Arc<Store>, home: Home, key: String, file: File) -> Result<u64> {
    let what = format!("get {}/{key}", home.bucket);
    if !home.can_request(&key) {
        return Err(StorageError::Invalid(format!("{what}: the key has a segment `.` or `..`")));
    }
    let fail = |fault: Fault| match fault.kind {
        // The next listing will not have it.
        Kind::NoObject | Kind::NoBucket => {
            StorageError::Unavailable(format!("{what}: it was removed while inputs were fetched"))
        }
        _ => fault.of(&what),
    };
    let _turn = store.turn().await?;
    let tries = &mut store.tries();
    let (mut reading, ..) = Reading::open(store, home, key, 0..u64::MAX, true, tries).await.map_err(&fail)?;
    let mut writing: Option<JoinHandle<Result<File>>> = None;
    let (mut file, mut part, mut held, mut size) = (Some(file), Vec::new(), 0, 0_u64);
    loop {
        let piece = reading.next().await.map_err(&fail)?;
        let ended = piece.is_none();
        if let Some(piece) = piece {
            held += piece.len();
            size += piece.len() as u64;
            part.push(piece);
        }
        if held >= GATHER || (ended && held > 0) {
            if let Some(writing) = writing.take() {
                file = Some(super::joined(writing).await?);
            }
            let lost = || StorageError::Unavailable(format!("{what}: its file was lost"));
            let (to, part) = (file.take().ok_or_else(lost)?, std::mem::take(&mut part));
            writing = Some(tokio::task::spawn_blocking(move || write(to, &part)));
            held = 0;
        }
        if ended {
            if let Some(writing) = writing.take() {
                super::joined(writing).await?;
            }
            return Ok(size);
        }
    }
}

fn write(mut file: File, part: &[Bytes]) -> Result<File> {
    use std::io::Write as _;

    let written = match part {
        [one] => file.write_all(one),
        many => {
            // Gathers what is small; what is large passes by its buffer.
            let mut file = std::io::BufWriter::with_capacity(64 << 10, &mut file);
            many.iter().try_for_each(|piece| file.write_all(piece)).and_then(|()| file.flush())
        }
    };
    match written {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Err(StorageError::Full),
        Err(error) => Err(StorageError::Unavailable(format!("write an input: {error}"))),
    }
}
