//! Headers that are kept with an object, and given back with it.

use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::{S3Result, s3_error};
use shepherd_storage::buckets::{Attributes, Described};

/// What the names of checksums begin with.
pub(crate) const CHECKSUM: &str = "x-amz-checksum-";
/// The header and attribute that says of what an object's checksum is.
pub(crate) const CHECKSUM_TYPE: &str = "x-amz-checksum-type";
/// Its value where nothing else was kept: of all bytes.
pub(crate) const FULL_OBJECT: &str = "FULL_OBJECT";

const META: &str = "x-amz-meta-";
/// S3's bound on the names and values of a client's own metadata.
const MAX_METADATA_BYTES: usize = 2048;

/// The headers of a client's request that travel with the object.
pub(crate) fn kept(headers: &HeaderMap) -> S3Result<Attributes> {
    let mut pairs = Vec::new();
    let mut own = 0;
    for (name, value) in headers {
        let name = name.as_str();
        let is_own = name.starts_with(META);
        let is_kept = is_own
            || matches!(
                name,
                "content-type"
                    | "content-encoding"
                    | "content-language"
                    | "content-disposition"
                    | "cache-control"
                    | "expires"
            );
        if !is_kept {
            continue;
        }
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else {
            return Err(s3_error!(InvalidArgument, "The header `{name}` is not UTF-8"));
        };
        // How the body travels is no property of the object.
        let value = match name {
            "content-encoding" => without_framing(value),
            _ => value.to_owned(),
        };
        if value.is_empty() && !is_own {
            continue;
        }
        if is_own {
            own += name.len() - META.len() + value.len();
        }
        pairs.push((name.to_owned(), value));
    }
    if own > MAX_METADATA_BYTES {
        return Err(s3_error!(MetadataTooLarge));
    }
    Attributes::new(pairs).map_err(|name| s3_error!(InvalidArgument, "The header `{name}` cannot be kept"))
}

fn without_framing(encoding: &str) -> String {
    let left: Vec<_> = encoding.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    left.join(",")
}

/// The headers of an answer about an object; checksums only when they are `wanted`
/// and true of all that is answered.
pub(crate) fn given(described: &Described, wanted: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in described.attributes.iter() {
        if name.starts_with(CHECKSUM) && !(wanted && described.trusted) {
            continue;
        }
        let known = matches!(
            name,
            "content-type"
                | "content-encoding"
                | "content-language"
                | "content-disposition"
                | "cache-control"
                | "expires"
        );
        // Who may write the file may write there what it likes.
        if !known && !name.starts_with(META) && !name.starts_with(CHECKSUM) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.insert(name, value);
        }
    }
    if headers.keys().any(|name| name.as_str().starts_with(CHECKSUM)) {
        headers.entry(CHECKSUM_TYPE).or_insert(HeaderValue::from_static(FULL_OBJECT));
    }
    headers.entry(http::header::CONTENT_TYPE).or_insert_with(|| guessed(described.meta.path.as_str()));
    headers
}

fn guessed(key: &str) -> HeaderValue {
    let guess = mime_guess::from_path(key).first_raw();
    HeaderValue::from_static(guess.unwrap_or("application/octet-stream"))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
