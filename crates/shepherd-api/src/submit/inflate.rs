//! The content encoding of a submit: none, or gzip.
//!
//! A packed body is unpacked in steps of bounded size, so that the caller can stop at
//! its limit before a small body has become a large one in memory.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::error::ApiError;

/// How much is decoded at once where nothing is packed: a large frame must not make the
/// payload's buffer as large.
const PIECE: usize = 64 * 1024;

/// The encoding of one body, with what is known of it so far.
pub(super) enum Encoding {
    Identity,
    /// The text that was unpacked last is in the decoder's buffer.
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Encoding {
    /// The encoding that the headers name.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut named = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(value), None) = (named.next(), named.next()) else {
            return match headers.contains_key(CONTENT_ENCODING) {
                true => Err(ApiError::BadRequest("The Content-Encoding is given more than once".into())),
                false => Ok(Self::Identity),
            };
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
            _ => Err(ApiError::BadRequest(
                format!("The Content-Encoding must be gzip or identity, not `{text}`").into(),
            )),
        }
    }

    /// Decodes a part of `bytes`, which are not empty: how many it took, and the text.
    pub(super) fn decode<'a>(&'a mut self, bytes: &'a [u8]) -> Result<(usize, &'a [u8]), ApiError> {
        match self {
            Self::Identity => {
                let used = bytes.len().min(PIECE);
                Ok((used, &bytes[..used]))
            }
            Self::Gzip(decoder) => {
                decoder.get_mut().clear();
                let used = decoder.write(bytes).map_err(|_| broken())?;
                if used == 0 && decoder.get_ref().is_empty() {
                    return Err(broken());
                }
                Ok((used, decoder.get_ref()))
            }
        }
    }

    /// The rest of the text, once all bytes were decoded.
    pub(super) fn finish(&mut self) -> Result<&[u8], ApiError> {
        match self {
            Self::Identity => Ok(&[]),
            Self::Gzip(decoder) => {
                decoder.get_mut().clear();
                decoder.try_finish().map_err(|_| broken())?;
                Ok(decoder.get_ref())
            }
        }
    }
}

fn broken() -> ApiError {
    ApiError::BadRequest("The request body is not valid gzip, which its Content-Encoding says it is".into())
}

#[cfg(test)]
mod tests;
