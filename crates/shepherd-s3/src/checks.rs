//! What a client says of its bytes, held against them.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::Checksum;
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use shepherd_storage::Body;
use shepherd_storage::buckets::{Attributes, Content, Inspect};

use crate::attributes::{self, CHECKSUM, CHECKSUM_TYPE, FULL_OBJECT};
use crate::error::digest_mismatch;

/// The names of checksums behind [`CHECKSUM`].
pub(crate) const NAMES: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

/// What is to be verified, and what is to be kept with the object.
pub(crate) struct Checks {
    length: Option<u64>,
    md5: Option<String>,
    /// Names, and values unless they come behind the body.
    expected: Vec<(&'static str, Option<String>)>,
    trailers: Option<TrailingHeaders>,
    hasher: ChecksumHasher,
    attributes: Attributes,
}

impl Checks {
    /// What the headers of a request say, whose body has `length` bytes.
    pub(crate) fn new(
        headers: &HeaderMap,
        trailers: Option<TrailingHeaders>,
        length: Option<i64>,
        attributes: Attributes,
    ) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let md5 = match text("content-md5") {
            None => None,
            Some(text) => {
                let bytes = STANDARD.decode(text).unwrap_or_default();
                if bytes.len() != 16 {
                    return Err(s3_error!(InvalidDigest));
                }
                Some(attributes::hex(&bytes))
            }
        };
        let announced = text("x-amz-trailer").unwrap_or_default().to_ascii_lowercase();
        for trailer in announced.split(',').map(str::trim) {
            supported(trailer)?;
        }
        let asked = text("x-amz-sdk-checksum-algorithm").unwrap_or_default().to_ascii_lowercase();
        let mut expected = Vec::new();
        let mut hasher = ChecksumHasher::default();
        for name in NAMES {
            let header = format!("{CHECKSUM}{name}");
            let value = text(&header).map(str::to_owned);
            let trails = announced.split(',').any(|trailer| trailer.trim() == header);
            if value.is_none() && !trails && asked != name {
                continue;
            }
            if trails && trailers.is_none() {
                return Err(s3_error!(InvalidRequest, "A trailer is announced for a body that has none"));
            }
            begin(&mut hasher, name);
            // One that is only asked for is made and kept, and has nothing to match.
            if value.is_some() || trails {
                expected.push((name, value));
            }
        }
        // A body that is sent in chunks of HTTP has no other length.
        let decoded = || text("x-amz-decoded-content-length")?.parse().ok();
        let length = length.map(|length| u64::try_from(length).unwrap_or(0)).or_else(decoded);
        Ok(Self { length, md5, expected, trailers, hasher, attributes })
    }

    /// Makes checksums of what is shown to it, and refuses nothing.
    pub(crate) fn sums(names: &[&str]) -> Self {
        let mut hasher = ChecksumHasher::default();
        names.iter().for_each(|name| begin(&mut hasher, name));
        Self {
            length: None,
            md5: None,
            expected: Vec::new(),
            trailers: None,
            hasher,
            attributes: Attributes::default(),
        }
    }

    /// The checksums of some bytes.
    #[cfg(test)]
    pub(crate) fn sums_of(bytes: &[u8], names: &[&str]) -> S3Result<Attributes> {
        let mut checks = Self::sums(names);
        checks.hasher.update(bytes);
        checks.verify("", bytes.len() as u64)
    }

    /// What the headers of a request say of a body that becomes no object; the
    /// checksums of a `CompleteMultipartUpload` are those of the object.
    pub(crate) fn of_document(headers: &HeaderMap, operation: &str) -> S3Result<Self> {
        let mut checks = Self::new(headers, None, None, Attributes::default())?;
        if operation == "CompleteMultipartUpload" {
            checks.expected.clear();
            checks.hasher = ChecksumHasher::default();
        }
        Ok(checks)
    }

    /// Holds a whole body against them and against `x-amz-content-sha256`.
    pub(crate) fn hold(mut self, body: &[u8], headers: &HeaderMap) -> S3Result<()> {
        let digest = headers.get("x-amz-content-sha256").map(http::HeaderValue::as_bytes);
        // Other values are names for how the body is signed.
        if let Some(digest) = digest.filter(|digest| digest.len() == 64)
            && attributes::hex(&Sha256::checksum(body)).as_bytes() != digest
        {
            return Err(digest_mismatch());
        }
        self.hasher.update(body);
        let md5 = attributes::hex(&Md5::checksum(body));
        self.verify(&md5, body.len() as u64).map(drop)
    }

    /// A body that is held against them.
    pub(crate) fn over(self, body: Body) -> Content {
        Content { body, size: self.length, inspect: Box::new(self) }
    }

    fn verify(self, md5: &str, size: u64) -> S3Result<Attributes> {
        if self.length.is_some_and(|length| length != size) {
            return Err(s3_error!(IncompleteBody));
        }
        if self.md5.is_some_and(|expected| expected != md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you gave is not that of the body that came"));
        }
        let computed = self.hasher.finalize();
        for (name, value) in self.expected {
            let header = format!("{CHECKSUM}{name}");
            let given = value.or_else(|| {
                let read = |trailers: &HeaderMap| Some(trailers.get(&header)?.to_str().ok()?.to_owned());
                self.trailers.as_ref()?.read(read)?
            });
            let Some(given) = given else {
                return Err(s3_error!(InvalidRequest, "The announced trailer `{header}` did not come"));
            };
            if value_of(&computed, name) != Some(&given) {
                return Err(s3_error!(BadDigest, "The {header} you gave is not that of the body that came"));
            }
        }
        let kept = self.attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sums = NAMES.into_iter().filter_map(|name| {
            value_of(&computed, name).map(|value| (format!("{CHECKSUM}{name}"), value.to_owned()))
        });
        Attributes::new(kept.chain(sums)).map_err(|name| s3_error!(InvalidRequest, "`{name}` cannot be kept"))
    }
}

impl Inspect for Checks {
    fn update(&mut self, part: &[u8]) {
        self.hasher.update(part);
    }

    fn finish(self: Box<Self>, md5: &str, size: u64) -> Result<Attributes, Box<dyn Error + Send + Sync>> {
        self.verify(md5, size).map_err(|error: S3Error| Box::new(error) as _)
    }
}

pub(crate) fn begin(hasher: &mut ChecksumHasher, name: &str) {
    match name {
        "crc32" => hasher.crc32 = Some(Crc32::new()),
        "crc32c" => hasher.crc32c = Some(Crc32c::new()),
        "crc64nvme" => hasher.crc64nvme = Some(Crc64Nvme::new()),
        "sha1" => hasher.sha1 = Some(Sha1::new()),
        _ => hasher.sha256 = Some(Sha256::new()),
    }
}

pub(crate) fn value_of<'a>(checksum: &'a Checksum, name: &str) -> Option<&'a String> {
    match name {
        "crc32" => checksum.checksum_crc32.as_ref(),
        "crc32c" => checksum.checksum_crc32c.as_ref(),
        "crc64nvme" => checksum.checksum_crc64nvme.as_ref(),
        "sha1" => checksum.checksum_sha1.as_ref(),
        _ => checksum.checksum_sha256.as_ref(),
    }
}

/// Refuses a checksum that cannot be verified.
pub(crate) fn supported(header: &str) -> S3Result<()> {
    match header.strip_prefix(CHECKSUM) {
        Some(name) if !NAMES.contains(&name) && !matches!(name, "algorithm" | "mode" | "type") => {
            Err(s3_error!(
                NotImplemented,
                "The checksum `{header}` is not implemented; there are CRC32, CRC32C, CRC64NVME, SHA1 and SHA256"
            ))
        }
        _ => Ok(()),
    }
}

/// The checksums that were kept, for a document.
pub(crate) fn kept(attributes: &Attributes) -> Checksum {
    let sum = |name: &str| attributes.get(&format!("{CHECKSUM}{name}")).map(str::to_owned);
    let sums = NAMES.map(sum);
    let kind = attributes.get(CHECKSUM_TYPE).unwrap_or(FULL_OBJECT).to_owned();
    let checksum_type = sums.iter().any(Option::is_some).then(|| kind.into());
    let [checksum_crc32, checksum_crc32c, checksum_crc64nvme, checksum_sha1, checksum_sha256] = sums;
    Checksum {
        checksum_crc32,
        checksum_crc32c,
        checksum_crc64nvme,
        checksum_sha1,
        checksum_sha256,
        checksum_type,
    }
}

/// A shape of s3s with the checksums that were kept; they share fields and no trait.
macro_rules! with_sums {
    ($attributes:expr, $shape:expr) => {{
        let sums = $crate::checks::kept($attributes);
        let mut shape = $shape;
        shape.checksum_crc32 = sums.checksum_crc32;
        shape.checksum_crc32c = sums.checksum_crc32c;
        shape.checksum_crc64nvme = sums.checksum_crc64nvme;
        shape.checksum_sha1 = sums.checksum_sha1;
        shape.checksum_sha256 = sums.checksum_sha256;
        shape
    }};
}

pub(crate) use with_sums;
