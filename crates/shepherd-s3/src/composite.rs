//! Checksums of objects that come in parts.
//!
//! A client says when it begins an upload which checksum the object is to have, and
//! of which kind. The composite one is the checksum of the parts' checksums, one after
//! another, and a hyphen and the number of parts follow it. That of the full object
//! exists for the CRCs only: it is combined from those of the parts, none of which is
//! read again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum_combine};
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::{S3Result, s3_error};
use shepherd_storage::buckets::Attributes;

use crate::attributes::{CHECKSUM, CHECKSUM_TYPE, FULL_OBJECT};
use crate::checks::{NAMES, begin, value_of};

/// The header and attribute that names the checksum of an upload.
const ALGORITHM: &str = "x-amz-checksum-algorithm";
/// The value of [`CHECKSUM_TYPE`] for checksums of checksums.
const COMPOSITE: &str = "COMPOSITE";

/// What a checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Composite,
    Full,
}

impl Kind {
    fn of(text: &str) -> S3Result<Self> {
        match text {
            COMPOSITE => Ok(Self::Composite),
            FULL_OBJECT => Ok(Self::Full),
            _ => Err(s3_error!(InvalidRequest, "A checksum's type is COMPOSITE or FULL_OBJECT")),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Composite => COMPOSITE,
            Self::Full => FULL_OBJECT,
        }
    }
}

/// Which checksum an object is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    name: &'static str,
    kind: Kind,
}

impl Declared {
    /// What the request that begins an upload says.
    pub(crate) fn asked(headers: &HeaderMap) -> S3Result<Option<Self>> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = text(CHECKSUM_TYPE).map(Kind::of).transpose()?;
        let algorithm = text(ALGORITHM).or_else(|| text("x-amz-sdk-checksum-algorithm"));
        let Some(algorithm) = algorithm.filter(|algorithm| !algorithm.is_empty()) else {
            return match kind {
                None => Ok(None),
                Some(_) => Err(s3_error!(InvalidRequest, "A checksum's type is given without `{ALGORITHM}`")),
            };
        };
        let Some(name) = NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(algorithm)) else {
            return Err(s3_error!(
                InvalidRequest,
                "The checksum algorithm is not supported; there are CRC32, CRC32C, CRC64NVME, SHA1 and SHA256"
            ));
        };
        let usual = if name == "crc64nvme" { Kind::Full } else { Kind::Composite };
        let declared = Self { name, kind: kind.unwrap_or(usual) };
        match (name, declared.kind) {
            ("crc64nvme", Kind::Composite) | ("sha1" | "sha256", Kind::Full) => Err(s3_error!(
                InvalidRequest,
                "The checksum {algorithm} of an object in parts cannot be of the type {}",
                declared.kind.text()
            )),
            (_, _) => Ok(Some(declared)),
        }
    }

    /// What was kept with an upload.
    pub(crate) fn of(attributes: &Attributes) -> Option<Self> {
        let name = attributes.get(ALGORITHM)?;
        let name = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
        Some(Self { name, kind: Kind::of(attributes.get(CHECKSUM_TYPE)?).ok()? })
    }

    /// What is kept with an upload.
    pub(crate) fn attributes(self) -> [(String, String); 2] {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        [pair(ALGORITHM, &self.algorithm()), pair(CHECKSUM_TYPE, self.kind.text())]
    }

    /// The algorithm, as clients name it.
    pub(crate) fn algorithm(self) -> String {
        self.name.to_ascii_uppercase()
    }

    /// The type, as clients name it.
    pub(crate) fn kind(self) -> &'static str {
        self.kind.text()
    }
}

/// What is to be held against the whole of an upload.
pub(crate) struct Whole {
    declared: Option<Declared>,
    kind: Option<Kind>,
    /// Names and values.
    said: Vec<(&'static str, String)>,
}

/// A part's size and checksums.
pub(crate) type Piece = (u64, Attributes);

impl Whole {
    /// What the request that completes an upload says.
    pub(crate) fn said(declared: Option<Declared>, headers: &HeaderMap) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = text(CHECKSUM_TYPE).map(Kind::of).transpose()?;
        if let (Some(declared), Some(kind)) = (declared, kind)
            && declared.kind != kind
        {
            return Err(s3_error!(
                InvalidRequest,
                "The upload was begun for a checksum of the type {}",
                declared.kind.text()
            ));
        }
        let value = |name: &'static str| Some((name, text(&format!("{CHECKSUM}{name}"))?.to_owned()));
        Ok(Self { declared, kind, said: NAMES.into_iter().filter_map(value).collect() })
    }

    /// The checksums that must be known of every part.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.declared.iter().map(|declared| declared.name).chain(self.said.iter().map(|(name, _)| *name))
    }

    /// Holds it against the parts, and gives the checksum of the whole.
    pub(crate) fn verify(&self, parts: &[Piece], size: Option<i64>) -> S3Result<Attributes> {
        let total: u64 = parts.iter().map(|(size, _)| size).sum();
        if size.is_some_and(|size| u64::try_from(size) != Ok(total)) {
            return Err(s3_error!(IncompleteBody, "The parts have {total} bytes together"));
        }
        let mut kept = None;
        for (name, value) in &self.said {
            let kind = self.kind_of(name, value);
            let sum = sum(name, kind, parts)?;
            let without_count = sum.split_once('-').map(|(sum, _)| sum);
            if sum != *value && without_count != Some(value) {
                return Err(s3_error!(BadDigest, "The {CHECKSUM}{name} you gave is not that of the parts"));
            }
            kept.get_or_insert((*name, kind, sum));
        }
        if let Some(Declared { name, kind }) = self.declared {
            kept = Some((name, kind, sum(name, kind, parts)?));
        }
        let pairs = kept.into_iter().flat_map(|(name, kind, sum)| {
            [(format!("{CHECKSUM}{name}"), sum), (CHECKSUM_TYPE.to_owned(), kind.text().to_owned())]
        });
        Attributes::new(pairs).map_err(|name| s3_error!(InvalidRequest, "`{name}` cannot be kept"))
    }

    fn kind_of(&self, name: &str, value: &str) -> Kind {
        let declared = self.declared.filter(|declared| declared.name == name).map(|declared| declared.kind);
        match declared.or(self.kind) {
            _ if value.contains('-') || name.starts_with("sha") => Kind::Composite,
            Some(kind) => kind,
            None => Kind::Full,
        }
    }
}

/// A checksum of all parts.
fn sum(name: &str, kind: Kind, parts: &[Piece]) -> S3Result<String> {
    let of_part = |(_, sums): &Piece| {
        let sum = sums.get(&format!("{CHECKSUM}{name}"));
        sum.and_then(|sum| STANDARD.decode(sum).ok()).ok_or_else(|| s3_error!(InternalError))
    };
    match (kind, crc(name)) {
        (Kind::Full, Some((algorithm, width))) => {
            let number = |bytes: Vec<u8>| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let mut whole = None;
            for part in parts {
                let next = number(of_part(part)?);
                whole = Some(whole.map_or(next, |whole| checksum_combine(algorithm, whole, next, part.0)));
            }
            let bytes = whole.unwrap_or_default().to_be_bytes();
            Ok(STANDARD.encode(&bytes[bytes.len() - width..]))
        }
        (Kind::Composite, _) | (Kind::Full, None) => {
            let mut hasher = ChecksumHasher::default();
            begin(&mut hasher, name);
            for part in parts {
                hasher.update(&of_part(part)?);
            }
            let sum = hasher.finalize();
            let sum = value_of(&sum, name).ok_or_else(|| s3_error!(InternalError))?;
            Ok(format!("{sum}-{}", parts.len()))
        }
    }
}

/// A CRC that can be combined, and how many bytes it has.
fn crc(name: &str) -> Option<(CrcAlgorithm, usize)> {
    match name {
        "crc32" => Some((CrcAlgorithm::Crc32IsoHdlc, 4)),
        "crc32c" => Some((CrcAlgorithm::Crc32Iscsi, 4)),
        "crc64nvme" => Some((CrcAlgorithm::Crc64Nvme, 8)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Checks;

    fn pieces(texts: &[&str]) -> Vec<Piece> {
        let piece = |text: &&str| (text.len() as u64, Checks::sums_of(text.as_bytes(), &NAMES).unwrap());
        texts.iter().map(piece).collect()
    }

    #[test]
    fn the_checksum_of_a_full_object_is_combined_from_its_parts() {
        for texts in [&["hello, ", "", "world"][..], &["hello, world"], &["h", "ello, worl", "d"]] {
            let whole = Checks::sums_of(texts.concat().as_bytes(), &NAMES).unwrap();
            for name in ["crc32", "crc32c", "crc64nvme"] {
                let combined = sum(name, Kind::Full, &pieces(texts)).unwrap();
                assert_eq!(Some(&*combined), whole.get(&format!("{CHECKSUM}{name}")), "{name} {texts:?}");
            }
        }
    }

    #[test]
    fn a_composite_checksum_is_that_of_the_checksums() {
        // As AWS documents it: SHA256 of the two digests one after another.
        let composite = sum("sha256", Kind::Composite, &pieces(&["a", "b"])).unwrap();
        let digests: Vec<u8> = ["a", "b"]
            .iter()
            .flat_map(|text| <s3s::crypto::Sha256 as s3s::crypto::Checksum>::checksum(text.as_bytes()))
            .collect();
        let whole = <s3s::crypto::Sha256 as s3s::crypto::Checksum>::checksum(&digests);
        assert_eq!(composite, format!("{}-2", STANDARD.encode(whole)));
    }
}
