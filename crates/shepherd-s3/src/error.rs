//! The one map from what went wrong to S3's codes.

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode, s3_error};
use shepherd_storage::StorageError;
use shepherd_storage::buckets::BucketError;

use crate::intake::{Fault, Noted};

/// The answer to what the buckets said.
pub(crate) fn answer(error: BucketError) -> S3Error {
    match error {
        BucketError::NoBucket => s3_error!(NoSuchBucket),
        BucketError::NoObject => s3_error!(NoSuchKey),
        BucketError::NoUpload => s3_error!(NoSuchUpload),
        BucketError::Exists => s3_error!(BucketAlreadyOwnedByYou),
        BucketError::NotEmpty => s3_error!(BucketNotEmpty),
        BucketError::Unmet => s3_error!(PreconditionFailed),
        BucketError::NoPart(number) => {
            s3_error!(InvalidPart, "Part {number} is not there, or has another tag")
        }
        BucketError::PartOrder(number) => s3_error!(InvalidPartOrder, "Part {number} is out of order"),
        BucketError::PartTooSmall(number) => {
            s3_error!(EntityTooSmall, "Part {number} is smaller than 5 MiB and not the last")
        }
        BucketError::Range(size) => out_of_range(size),
        BucketError::Refused(error) => match error.downcast::<S3Error>() {
            Ok(error) => *error,
            Err(error) => s3_error!(InvalidRequest, "{error}"),
        },
        BucketError::Storage(error) => storage(&error),
        // Ours to add to; until then, it is our fault.
        error => internal(&error),
    }
}

/// The answer to what the storage said.
pub(crate) fn storage(error: &StorageError) -> S3Error {
    match error {
        StorageError::NotFound => s3_error!(NoSuchKey),
        StorageError::Range { size } => out_of_range(*size),
        StorageError::Full => {
            let code = S3ErrorCode::Custom("InsufficientStorage".into());
            let mut full = S3Error::with_message(code, "The storage is full");
            full.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
            full
        }
        StorageError::Unavailable(_) => {
            tracing::warn!(%error, "a request could not be served");
            s3_error!(ServiceUnavailable, "The storage is unavailable; try again later")
        }
        StorageError::Throttled(_) => s3_error!(SlowDown),
        StorageError::Invalid(message) => s3_error!(InvalidRequest, "{message}"),
        StorageError::Denied(_) => internal(error),
        error => internal(error),
    }
}

/// The same for an operation that read a body: what the body's reader noted says
/// more than the storage, to which every failing body broke off.
pub(crate) fn of_body(error: BucketError, noted: Option<&Noted>) -> S3Error {
    let broke_off = matches!(error, BucketError::Storage(StorageError::Invalid(_)));
    match noted {
        Some(noted) if broke_off && noted.was_failed() => match noted.fault() {
            Some(fault) => faulty(fault),
            // The body was whole: what s3s verifies of it was wrong.
            None if noted.is_chunked() => {
                s3_error!(SignatureDoesNotMatch, "The signature of a chunk is wrong")
            }
            None => digest_mismatch(),
        },
        Some(_) | None => answer(error),
    }
}

/// The answer to a body that did not come as it should.
pub(crate) fn faulty(fault: Fault) -> S3Error {
    match fault {
        Fault::Broken => s3_error!(IncompleteBody),
        Fault::Stalled => s3_error!(RequestTimeout),
        Fault::Framing => s3_error!(InvalidRequest, "The body is not encoded as `aws-chunked`"),
        Fault::Chunk => s3_error!(EntityTooLarge, "A signed chunk may have 16 MiB at most"),
        Fault::Large => s3_error!(
            MaxMessageLengthExceeded,
            "The body of a request that stores no object may have 8 MiB at most"
        ),
    }
}

pub(crate) fn digest_mismatch() -> S3Error {
    let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
    let mut error =
        S3Error::with_message(code, "The x-amz-content-sha256 you gave is not that of the body that came");
    error.set_status_code(StatusCode::BAD_REQUEST);
    error
}

fn out_of_range(size: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange);
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::CONTENT_RANGE, format!("bytes */{size}").parse().expect("digits"));
    error.set_headers(headers);
    error
}

fn internal(error: &dyn std::error::Error) -> S3Error {
    tracing::error!(%error, "a request failed");
    s3_error!(InternalError)
}

/// What a code means, for errors that say no more.
pub(crate) fn meaning(code: &str) -> &'static str {
    match code {
        "AccessDenied" => "Access is denied",
        "AuthorizationHeaderMalformed" => "The authorization header is malformed",
        "BucketAlreadyOwnedByYou" => "The bucket exists already, and it is yours",
        "BucketNotEmpty" => "The bucket is not empty",
        "EntityTooLarge" => "The body is larger than is allowed",
        "IncompleteBody" => "The body has not as many bytes as its headers say",
        "InternalError" => "Something went wrong here; the log of the daemon says what",
        "InvalidBucketName" => {
            "A bucket's name has 3 to 63 lower-case letters, digits, hyphens and dots, and begins and ends with a letter or a digit"
        }
        "InvalidDigest" => "The Content-MD5 is not the base64 of an MD5",
        "InvalidRange" => "The range is outside the object",
        "InvalidStorageClass" => "There is only the storage class STANDARD",
        "InvalidURI" => "The URI cannot be parsed",
        "KeyTooLongError" => "A key has 1,024 bytes at most",
        "MalformedXML" => "The XML of the request is not as it must be",
        "MetadataTooLarge" => "An object has 2 KiB of metadata of its own at most",
        "MethodNotAllowed" => "The method is not allowed here",
        "MissingContentLength" => "The length of the body must be given",
        "NoSuchBucket" => "There is no such bucket",
        "NoSuchBucketPolicy" => "The bucket has no policy",
        "NoSuchCORSConfiguration" => "The bucket has no CORS configuration",
        "NoSuchKey" => "There is no such object",
        "NoSuchLifecycleConfiguration" => "The bucket has no lifecycle configuration",
        "NoSuchTagSet" => "The bucket has no tags",
        "NoSuchUpload" => "There is no such upload; it may have been completed or aborted",
        "NoSuchVersion" => "There are no versions here",
        "NoSuchWebsiteConfiguration" => "The bucket has no website configuration",
        "NotImplemented" => "This is not implemented",
        "ObjectLockConfigurationNotFoundError" => "The bucket has no object lock configuration",
        "PreconditionFailed" => "A condition of the request does not hold",
        "ReplicationConfigurationNotFoundError" => "The bucket has no replication configuration",
        "RequestTimeTooSkewed" => "The time of the request is too far from the time here",
        "RequestTimeout" => "Nothing came of the body for a minute",
        "ServerSideEncryptionConfigurationNotFoundError" => "The bucket has no encryption configuration",
        "SignatureDoesNotMatch" => {
            "The signature is not what it is with the secret key; check the key, and how the request is signed"
        }
        "SlowDown" => "Too many requests; try again later",
        _ => "The request failed",
    }
}
