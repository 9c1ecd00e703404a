//! Who may: one pair of keys, and only what was signed with it.
//!
//! s3s computes signatures. What it leaves open is closed here: which headers must
//! be among the signed ones, for how long a presigned URL may hold, and whether a
//! body that becomes no object is what its headers say. Version 2
//! signatures, which it would take, never reach it (`endpoint`).

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::checks::{self, Checks};
use crate::error::faulty;
use crate::intake::Held;

/// The longest that a presigned URL may hold: a week, as everywhere.
const MAX_PRESIGNED_SECONDS: u64 = 7 * 24 * 3600;

/// The largest body that becomes no object: an XML document of a thousand keys of a
/// thousand bytes, each of which may be escaped.
pub(crate) const MAX_DOCUMENT: usize = 8 << 20;

/// The keys that clients sign with.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: SecretKey,
}

impl Credentials {
    /// A pair of keys.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: SecretKey::from(secret_key.into()) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

#[async_trait]
impl S3Auth for Credentials {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            Ok(self.secret_key.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "The access key you gave is not known here"))
        }
    }
}

/// What holds for every request whose signature is right.
pub(crate) struct Signed;

#[async_trait]
impl S3Access for Signed {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "The request must be signed"));
        }
        let signed = signed_headers(cx.headers(), cx.uri())?;
        let is_signed = |name: &str| signed.split(';').any(|signed| signed == name);
        if !is_signed("host") {
            return Err(s3_error!(AccessDenied, "The header `host` must be signed"));
        }
        for name in cx.headers().keys().map(http::HeaderName::as_str) {
            // The digest is part of what is signed in any case, or verified against
            // the body; the agent means nothing.
            let must =
                name.starts_with("x-amz-") && !matches!(name, "x-amz-content-sha256" | "x-amz-user-agent");
            if must && !is_signed(name) {
                return Err(S3Error::with_message(
                    S3ErrorCode::AccessDenied,
                    format!("There is a header in the request that was not signed: `{name}`"),
                ));
            }
        }
        if let Some(expires) = query(cx.uri(), "X-Amz-Expires")
            && !expires.parse::<u64>().is_ok_and(|seconds| (1..=MAX_PRESIGNED_SECONDS).contains(&seconds))
        {
            return Err(s3_error!(
                AuthorizationQueryParametersError,
                "X-Amz-Expires must be 1 to 604800 seconds"
            ));
        }
        supported(cx.headers())?;
        let held = cx.extensions_mut().get::<Held>().cloned().ok_or_else(|| s3_error!(InternalError))?;
        let operation = cx.s3_op().name();
        if matches!(operation, "PutObject" | "UploadPart") {
            held.open();
            return Ok(());
        }
        if held.is_chunked() {
            return Err(s3_error!(NotImplemented, "Only objects and parts may come as `aws-chunked`"));
        }
        let checks = Checks::of_document(cx.headers(), operation)?;
        checks.hold(&held.read(MAX_DOCUMENT).await.map_err(faulty)?, cx.headers())
    }
}

/// The signed headers' names, lower-case and separated by `;`.
fn signed_headers(headers: &HeaderMap, uri: &Uri) -> S3Result<String> {
    // In the order in which s3s looks.
    if query(uri, "X-Amz-Signature").is_some() {
        return Ok(query(uri, "X-Amz-SignedHeaders").unwrap_or_default());
    }
    let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let signed = authorization.and_then(|text| {
        let fields = text.split_once(' ')?.1;
        fields.split(',').find_map(|field| field.trim().strip_prefix("SignedHeaders="))
    });
    signed.map(str::to_owned).ok_or_else(|| s3_error!(AuthorizationHeaderMalformed))
}

/// The decoded value of a query parameter.
pub(crate) fn query(uri: &Uri, wanted: &str) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode_str(name).decode_utf8().ok()?;
        (name == wanted).then(|| percent_decode_str(value).decode_utf8_lossy().into_owned())
    })
}

/// Refuses what a client asks for beyond storing bytes: it must not believe that it
/// was done.
fn supported(headers: &HeaderMap) -> S3Result<()> {
    for (name, value) in headers {
        checks::supported(name.as_str())?;
        let refused = match name.as_str() {
            "x-amz-acl" => !matches!(value.as_bytes(), b"" | b"private" | b"bucket-owner-full-control"),
            // Every object is kept in the one class there is, which is told of it.
            "x-amz-storage-class" => {
                if !matches!(value.as_bytes(), b"" | b"STANDARD" | b"REDUCED_REDUNDANCY") {
                    return Err(s3_error!(InvalidStorageClass));
                }
                false
            }
            "x-amz-bucket-object-lock-enabled" => !value.as_bytes().eq_ignore_ascii_case(b"false"),
            "x-amz-tagging"
            | "x-amz-website-redirect-location"
            | "x-amz-write-offset-bytes"
            | "x-amz-mfa" => !value.is_empty(),
            name => {
                name.starts_with("x-amz-server-side-encryption")
                    || name.starts_with("x-amz-copy-source-server-side-encryption")
                    || name.starts_with("x-amz-object-lock-")
                    || name.starts_with("x-amz-grant-")
            }
        };
        if refused {
            return Err(S3Error::with_message(
                S3ErrorCode::NotImplemented,
                format!("The header `{name}` asks for something that is not implemented"),
            ));
        }
    }
    Ok(())
}
