//! Listings.

use std::collections::HashSet;

use http::Method;
use shepherd_job::{ObjectPath, Timestamp};

use super::fault::{Fault, Kind};
use super::http::{Call, time_of};
use super::layout::Home;
use super::retry::Tries;
use super::store::Store;
use super::xml::Element;
use crate::{ObjectMeta, Result};

/// The most keys that a server gives at once.
const PAGE: usize = 1000;

/// An object of a listing.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Its whole key.
    pub(super) key: String,
    pub(super) size: u64,
    modified: Timestamp,
}

/// A listing on its way, page by page.
pub(super) struct Pages {
    home: Home,
    /// Of whole keys.
    prefix: String,
    after: Option<String>,
    token: Option<String>,
    /// A server that gives a token twice would be asked for ever.
    seen: HashSet<String>,
    done: bool,
}

impl Pages {
    /// The objects of a job with keys that begin with `prefix`.
    pub(super) fn new(home: &Home, prefix: &str) -> Self {
        Self {
            prefix: format!("{}{prefix}", home.prefix),
            home: home.clone(),
            after: None,
            token: None,
            seen: HashSet::new(),
            done: false,
        }
    }

    /// Only those after this whole key.
    pub(super) fn after(self, key: Option<String>) -> Self {
        Self { after: key, ..self }
    }

    /// The next page, with at most `most` objects; none after the last. A page may
    /// be empty.
    pub(super) async fn next(
        &mut self,
        store: &Store,
        most: usize,
        tries: &mut Tries,
    ) -> std::result::Result<Option<Vec<Listed>>, Fault> {
        if self.done {
            return Ok(None);
        }
        let mut call = Call::bucket(Method::GET, &self.home.bucket)
            .query("list-type", "2")
            // Keys hold what XML does not.
            .query("encoding-type", "url")
            .query("prefix", &*self.prefix);
        if most < PAGE {
            call = call.query("max-keys", most.to_string());
        }
        if let Some(token) = &self.token {
            call = call.query("continuation-token", &**token);
        } else if let Some(after) = &self.after {
            call = call.query("start-after", &**after);
        }
        let text = store.ask(&self.home, &call, tries).await?;
        let mut page =
            Page::parse(&text).ok_or_else(|| broken("the server's listing cannot be understood"))?;
        if page.encoded {
            let spelled = page.objects.iter_mut().map(|one| std::mem::take(&mut one.key)).collect();
            let keys = store.key_encoding.read(store, &self.home, spelled).await?;
            for (one, key) in page.objects.iter_mut().zip(keys) {
                one.key = key;
            }
        }
        let found: Vec<_> =
            page.objects.into_iter().filter(|one| one.key.starts_with(&self.prefix)).collect();
        if !page.truncated {
            self.done = true;
        } else if let Some(token) = page.next {
            if !self.seen.insert(token.clone()) {
                return Err(broken("the server's listing repeats itself"));
            }
            self.token = Some(token);
        } else {
            // The first version of listings has no tokens.
            let Some(last) =
                found.last().filter(|last| self.after.as_ref().is_none_or(|after| last.key > *after))
            else {
                return Err(broken("the server's listing does not go on"));
            };
            (self.after, self.token) = (Some(last.key.clone()), None);
        }
        Ok(Some(found))
    }
}

struct Page {
    /// With their keys as the server spells them.
    objects: Vec<Listed>,
    /// Whether it says that keys are URL-encoded.
    encoded: bool,
    truncated: bool,
    next: Option<String>,
}

impl Page {
    fn parse(text: &str) -> Option<Self> {
        let root = Element::parse(text).filter(|root| root.name == "ListBucketResult")?;
        let objects = root.all("Contents").map(|item| {
            Some(Listed {
                key: item.get("Key").to_owned(),
                size: item.get("Size").trim().parse().ok()?,
                modified: time_of(item.get("LastModified").trim())
                    .unwrap_or_else(|| Timestamp::from_micros(0)),
            })
        });
        Some(Self {
            objects: objects.collect::<Option<_>>()?,
            encoded: root.get("EncodingType") == "url",
            truncated: root.get("IsTruncated").trim() == "true",
            next: Some(root.get("NextContinuationToken"))
                .filter(|token| !token.is_empty())
                .map(str::to_owned),
        })
    }
}

fn broken(why: &str) -> Fault {
    Fault::new(Kind::Broken, why)
}

/// [`Storage::list`](crate::Storage::list).
pub(super) async fn list(
    store: &Store,
    home: &Home,
    prefix: &str,
    after: Option<&ObjectPath>,
    limit: usize,
) -> Result<Vec<ObjectMeta>> {
    let what = || format!("list the objects of bucket {}", home.bucket);
    let after = after.map(|after| format!("{}{after}", home.prefix));
    let mut pages = Pages::new(home, prefix).after(after.clone());
    let mut found = Vec::new();
    while found.len() < limit {
        let page = match pages.next(store, limit - found.len(), &mut store.tries()).await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(fault) if fault.kind == Kind::NoBucket => break,
            Err(fault) => return Err(fault.of(what())),
        };
        found.extend(page.into_iter().filter_map(|one| {
            if after.as_ref().is_some_and(|after| one.key <= *after) {
                return None;
            }
            let path = ObjectPath::parse(one.key.strip_prefix(&home.prefix)?).ok()?;
            Some(ObjectMeta { path, size: one.size, modified: one.modified })
        }));
    }
    found.truncate(limit);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_to_the_byte() {
        let page = |encoding: &str, key: &str| {
            let text = format!(
                "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{encoding}\
                 <IsTruncated>true</IsTruncated><NextContinuationToken>t/+=</NextContinuationToken>\
                 <Contents><Key>{key}</Key><Size>3</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 </Contents></ListBucketResult>"
            );
            Page::parse(&text).unwrap()
        };
        let encoded = page("<EncodingType>url</EncodingType>", "+a%2Bb%2525%07");
        assert!(encoded.encoded && encoded.truncated);
        assert_eq!(
            (encoded.objects[0].key.as_str(), encoded.next.as_deref()),
            ("+a%2Bb%2525%07", Some("t/+="))
        );
        let plain = page("", " a+b%25&amp; ");
        assert!(!plain.encoded);
        assert_eq!((plain.objects[0].key.as_str(), plain.objects[0].size), (" a+b%25& ", 3));
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for text in
            ["", "<html></html>", "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>"]
        {
            assert!(Page::parse(text).is_none(), "{text}");
        }
    }
}
