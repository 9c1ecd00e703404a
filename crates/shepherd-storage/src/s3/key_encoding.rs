//! How a server spells keys in listings.
//!
//! Listings are asked for URL-encoded, because keys hold what XML does not. Some
//! servers say that they encode, and do not: there `a%20b` is `a%20b`, and not
//! `a b`. Where it matters, and once for a storage, the objects themselves decide.

use std::sync::atomic::{AtomicU8, Ordering};

use http::Method;

use super::fault::{Fault, Kind};
use super::http::Call;
use super::layout::{Home, decoded};
use super::store::Store;

const UNKNOWN: u8 = 0;
const ENCODED: u8 = 1;
const RAW: u8 = 2;

/// What is known of a server that says that it encodes.
#[derive(Default)]
pub(super) struct KeyEncoding(AtomicU8);

impl KeyEncoding {
    /// The keys that a listing means by these.
    pub(super) async fn read(
        &self,
        store: &Store,
        home: &Home,
        keys: Vec<String>,
    ) -> std::result::Result<Vec<String>, Fault> {
        let means = |key: &String| decoded(key).filter(|meant| meant != key);
        let mut known = self.0.load(Ordering::Relaxed);
        if known == UNKNOWN {
            if keys.iter().any(|key| cannot_be_encoded(key)) {
                known = RAW;
            } else {
                // Most pages have no key that could mean another one, and few have
                // many.
                let doubtful: Vec<_> =
                    keys.iter().filter_map(|key| Some((key, means(key)?))).take(3).collect();
                for (key, meant) in doubtful {
                    known = match (exists(store, home, &meant).await?, exists(store, home, key).await?) {
                        (true, false) => ENCODED,
                        (false, true) => RAW,
                        (true, true) | (false, false) => continue,
                    };
                    break;
                }
            }
            self.0.store(known, Ordering::Relaxed);
        }
        if known == RAW {
            return Ok(keys);
        }
        Ok(keys.into_iter().map(|key| means(&key).unwrap_or(key)).collect())
    }
}

/// Whether no encoder would have left this.
fn cannot_be_encoded(key: &str) -> bool {
    decoded(key).is_none()
        || key.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'<' | b'>' | b'"' | b'&'))
}

async fn exists(store: &Store, home: &Home, key: &str) -> std::result::Result<bool, Fault> {
    if !home.can_request(key) {
        return Ok(false);
    }
    let call = Call::object(Method::HEAD, &home.bucket, key);
    match store.open_body(home, &call, &mut store.tries()).await {
        Ok(_) => Ok(true),
        Err(fault) if matches!(fault.kind, Kind::NoObject | Kind::NoBucket | Kind::Refused) => Ok(false),
        Err(fault) => Err(fault),
    }
}
