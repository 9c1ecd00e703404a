//! Pages of keys, with what has a common prefix rolled up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{CommonPrefix, EncodingType};
use s3s::{S3Error, S3Result, s3_error};
use shepherd_job::{JobId, ObjectPath};
use shepherd_storage::buckets::{Buckets, Described};

use crate::error::answer;

/// The most entries of a page, and how many keys are read at a time.
pub(crate) const MOST: usize = 1000;

/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// A space is `%20` and a plus `%2B`, which clients read alike whether they take a
/// plus for a space or not.
const ENCODED_CHARACTERS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What is asked for.
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: &'a str,
    /// Only what comes after this.
    pub(crate) after: &'a str,
    pub(crate) most: usize,
}

/// A page of it.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Described>,
    pub(crate) prefixes: Vec<String>,
    /// The last entry, when there are more.
    pub(crate) next: Option<String>,
}

impl Page {
    /// The texts that an answer has of it.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let keys = self.objects.iter().map(|object| object.meta.path.as_str());
        keys.chain(self.prefixes.iter().map(String::as_str))
    }
}

/// Reads a page.
pub(crate) async fn page(buckets: &Buckets, bucket: &JobId, query: &Query<'_>) -> S3Result<Page> {
    let rolled = |key: &str| {
        let at = key.get(query.prefix.len()..)?.find(query.delimiter)?;
        (!query.delimiter.is_empty())
            .then(|| key[..query.prefix.len() + at + query.delimiter.len()].to_owned())
    };
    if query.most == 0 {
        buckets.find(bucket).await.map_err(answer)?;
        return Ok(Page::default());
    }
    let mut keys = Vec::new();
    let mut prefixes = Vec::<String>::new();
    let mut last = None;
    let mut next = None;
    let mut after = start(query, rolled)?;
    'reading: loop {
        let batch = buckets.list(bucket, query.prefix, after.as_ref(), MOST + 1).await.map_err(answer)?;
        let done = batch.len() <= MOST;
        for meta in batch {
            let prefix = rolled(meta.path.as_str());
            if prefix.is_some() && prefix.as_ref() == prefixes.last() {
                after = Some(meta.path);
                continue;
            }
            if keys.len() + prefixes.len() == query.most {
                next = last;
                break 'reading;
            }
            after = Some(meta.path.clone());
            match prefix {
                Some(prefix) => {
                    last = Some(prefix.clone());
                    prefixes.push(prefix);
                }
                None => {
                    last = Some(meta.path.as_str().to_owned());
                    keys.push(meta.path);
                }
            }
        }
        if done {
            break;
        }
        // What is left of the last prefix is not looked at.
        if let Some(prefix) = after.as_ref().and_then(|key| rolled(key.as_str())) {
            after = Some(last_below(&prefix)?);
        }
    }
    let objects = buckets.describe_each(bucket, keys).await.map_err(answer)?;
    Ok(Page { objects, prefixes, next })
}

/// A page that ended with a prefix goes on behind all of its keys.
fn start(query: &Query<'_>, rolled: impl Fn(&str) -> Option<String>) -> S3Result<Option<ObjectPath>> {
    if query.after.is_empty() {
        return Ok(None);
    }
    if query.after.starts_with(query.prefix) && rolled(query.after).as_deref() == Some(query.after) {
        return last_below(query.after).map(Some);
    }
    key(query.after).map(Some)
}

/// The last of all possible keys that begin with `prefix`.
fn last_below(prefix: &str) -> S3Result<ObjectPath> {
    let mut last = prefix.to_owned();
    for largest in ['\u{10FFFF}', '\u{FFFF}', '\u{7FF}', '\u{7F}'] {
        while last.len() + largest.len_utf8() <= MAX_KEY_BYTES {
            last.push(largest);
        }
    }
    key(&last)
}

/// A client's key.
pub(crate) fn key(text: &str) -> S3Result<ObjectPath> {
    ObjectPath::parse(text).map_err(|error| {
        if text.len() > MAX_KEY_BYTES {
            s3_error!(KeyTooLongError)
        } else {
            s3_error!(InvalidArgument, "A key {error}")
        }
    })
}

/// The page size that a client asks for.
pub(crate) fn most(asked: Option<i32>) -> S3Result<usize> {
    let asked = usize::try_from(asked.unwrap_or(1000))
        .map_err(|_| s3_error!(InvalidArgument, "The size of a page must not be negative"))?;
    Ok(asked.min(MOST))
}

/// The key of an object that is to be made: one that XML can hold, since others can
/// be neither listed as they are nor named in a document.
pub(crate) fn new_key(text: &str) -> S3Result<ObjectPath> {
    match text.chars().find(|char| !is_xml(*char)) {
        None => key(text),
        Some(char) => Err(s3_error!(
            InvalidArgument,
            "A key must not hold U+{:04X}, which cannot be written in XML",
            u32::from(char)
        )),
    }
}

/// Whether XML 1.0 can hold the text.
pub(crate) fn is_xml_text(text: &str) -> bool {
    text.chars().all(is_xml)
}

/// Whether XML 1.0 can hold the character.
pub(crate) fn is_xml(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// Writes keys as the client asks for.
#[derive(Clone, Copy)]
pub(crate) struct Encoding(bool);

impl Encoding {
    pub(crate) fn new(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some(EncodingType::URL) => Ok(Self(true)),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    /// Encodes all the same where XML cannot hold a text that is to be told: files
    /// that were put into the directory may have any name.
    pub(crate) fn or_needed<'a>(self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self(self.0 || !texts.into_iter().all(is_xml_text))
    }

    /// What the client is told of it.
    pub(crate) fn told(self) -> Option<EncodingType> {
        self.0.then(|| EncodingType::from_static(EncodingType::URL))
    }

    pub(crate) fn text(self, text: &str) -> String {
        if self.0 { utf8_percent_encode(text, ENCODED_CHARACTERS).to_string() } else { text.to_owned() }
    }

    pub(crate) fn prefixes(self, prefixes: &[String]) -> Vec<CommonPrefix> {
        prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(self.text(prefix)) }).collect()
    }
}

/// The token of the page behind `entry`.
pub(crate) fn token(entry: &str) -> String {
    URL_SAFE_NO_PAD.encode(entry)
}

/// The entry that a token is of.
pub(crate) fn entry(token: &str) -> S3Result<String> {
    let wrong = || -> S3Error { s3_error!(InvalidArgument, "The continuation token provided is incorrect") };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    String::from_utf8(bytes).map_err(|_| wrong())
}
