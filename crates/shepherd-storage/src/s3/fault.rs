//! What can go wrong with a request, and what that means to a caller.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::StorageError;

use super::xml::Element;

/// What a failed request is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such bucket.
    NoBucket,
    /// There is no such object.
    NoObject,
    /// There is no such multipart upload.
    NoUpload,
    /// The bucket is there already.
    Exists,
    /// The bucket cannot be removed while it holds objects.
    NotEmpty,
    /// The object is another one by now.
    Changed,
    /// The range lies outside the object.
    Range,
    /// Who we are does not suffice.
    Denied,
    /// No space is left.
    Full,
    /// The server does not know this request.
    Unknown,
    /// The server refuses what was asked, and always will.
    Refused,
    /// The server asks for fewer requests.
    Throttled,
    /// The server did not answer, or not with what can be used.
    Away,
    /// The same, where the next try would not end differently.
    Broken,
}

/// A failed request.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// The server's own word for it, where it has one.
    pub(super) code: String,
    message: String,
    /// When the server wants to be asked again.
    pub(super) after: Option<Duration>,
}

impl Fault {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, code: String::new(), message: message.into(), after: None }
    }

    /// The fault that an answer tells of. `about_object` says whether the request
    /// was about an object, for answers without a body.
    pub(super) fn answered(status: u16, body: &str, about_object: bool) -> Self {
        let said = Element::parse(body).filter(|root| root.name == "Error").unwrap_or_default();
        let code = said.get("Code").to_owned();
        let kind = kind(status, &code, about_object);
        let mut message = format!("the server answered {status}");
        let reason = match said.get("Message") {
            "" if code.is_empty() => body,
            said => said,
        };
        // Whole pages of HTML say no more than their beginning.
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(300).collect();
        for (joint, text) in [(" ", code.as_str()), (": ", reason.trim())] {
            if !text.is_empty() {
                message.push_str(joint);
                message.push_str(text);
            }
        }
        if code == "RequestTimeTooSkewed" {
            message.push_str(" (this machine's clock differs from the server's)");
        }
        Self { kind, code, message, after: None }
    }

    /// Nothing usable came back.
    pub(super) fn sent(error: reqwest::Error) -> Self {
        let kind = if error.is_builder() { Kind::Refused } else { Kind::Away };
        let error = error.without_url();
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(kind, message)
    }

    /// The same of a request that went through a proxy.
    pub(super) fn through(mut self, proxy: &str) -> Self {
        self.message.push_str(&format!(" (through the proxy {proxy}, `storage.proxy`)"));
        self
    }

    /// Whether another try may end differently.
    pub(super) fn passes(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Away)
    }

    /// The error of having failed to do `what`.
    pub(super) fn of(self, what: impl Display) -> StorageError {
        let message = format!("{what}: {}", self.message);
        match self.kind {
            Kind::NoObject | Kind::NoBucket => StorageError::NotFound,
            Kind::Denied => StorageError::Denied(message),
            Kind::Full => StorageError::Full,
            Kind::Refused | Kind::Range => StorageError::Invalid(message),
            Kind::Throttled => StorageError::Throttled(message),
            Kind::NoUpload
            | Kind::Exists
            | Kind::NotEmpty
            | Kind::Changed
            | Kind::Unknown
            | Kind::Away
            | Kind::Broken => StorageError::Unavailable(message),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn kind(status: u16, code: &str, about_object: bool) -> Kind {
    match code {
        "NoSuchBucket" => return Kind::NoBucket,
        "NoSuchKey" | "NoSuchVersion" => return Kind::NoObject,
        "NoSuchUpload" => return Kind::NoUpload,
        "BucketAlreadyOwnedByYou" | "BucketAlreadyExists" => return Kind::Exists,
        "BucketNotEmpty" => return Kind::NotEmpty,
        "InvalidRange" => return Kind::Range,
        "PreconditionFailed" => return Kind::Changed,
        "NotImplemented" => return Kind::Unknown,
        // Limits of an account are as a full disk is: somebody makes room, and it goes on.
        "QuotaExceeded"
        | "InsufficientStorage"
        | "XMinioStorageFull"
        | "StorageFull"
        | "TooManyBuckets"
        | "XMinioAdminBucketQuotaExceeded" => return Kind::Full,
        "XMinioServerNotInitialized" => return Kind::Away,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "BandwidthLimitExceeded" => return Kind::Throttled,
        "InternalError"
        | "RequestTimeout"
        | "OperationAborted"
        | "BadDigest"
        | "IncompleteBody"
        | "XAmzContentSHA256Mismatch"
        | "ConditionalRequestConflict" => return Kind::Away,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "AuthorizationHeaderMalformed"
        | "AllAccessDisabled"
        | "AccountProblem" => return Kind::Denied,
        _ => {}
    }
    match status {
        401 | 403 => Kind::Denied,
        404 if about_object => Kind::NoObject,
        // Whoever answers so of a bucket without a word of S3 is no S3 server.
        404 => Kind::Broken,
        412 => Kind::Changed,
        416 => Kind::Range,
        429 | 503 => Kind::Throttled,
        408 | 409 | 425 | 500 | 502 | 504 => Kind::Away,
        501 => Kind::Unknown,
        507 => Kind::Full,
        400..=499 => Kind::Refused,
        // Redirects among them: no server of a region that is ours sends one.
        _ => Kind::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str) -> StorageError {
        let body = format!("<Error><Code>{code}</Code><Message>words</Message></Error>");
        Fault::answered(status, &body, true).of("get a/b")
    }

    #[test]
    fn what_a_server_says_becomes_what_a_caller_can_do() {
        assert!(matches!(error(404, "NoSuchKey"), StorageError::NotFound));
        assert!(matches!(error(404, "NoSuchBucket"), StorageError::NotFound));
        assert!(matches!(error(403, "SignatureDoesNotMatch"), StorageError::Denied(_)));
        assert!(matches!(error(400, "ExpiredToken"), StorageError::Denied(_)));
        assert!(matches!(error(400, "AuthorizationHeaderMalformed"), StorageError::Denied(_)));
        assert!(matches!(error(503, "SlowDown"), StorageError::Throttled(_)));
        assert!(matches!(error(429, ""), StorageError::Throttled(_)));
        assert!(matches!(error(500, "InternalError"), StorageError::Unavailable(_)));
        assert!(matches!(error(200, "InternalError"), StorageError::Unavailable(_)));
        assert!(matches!(error(301, "PermanentRedirect"), StorageError::Unavailable(_)));
        assert!(matches!(error(507, ""), StorageError::Full));
        assert!(matches!(error(403, "QuotaExceeded"), StorageError::Full));
        assert!(matches!(error(400, "KeyTooLongError"), StorageError::Invalid(_)));
        let StorageError::Denied(said) = error(403, "RequestTimeTooSkewed") else { panic!() };
        assert_eq!(
            said,
            "get a/b: the server answered 403 RequestTimeTooSkewed: words \
             (this machine's clock differs from the server's)"
        );
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, code, again) in [
            (500, "InternalError", true),
            (502, "", true),
            (503, "SlowDown", true),
            (504, "", true),
            (429, "", true),
            (400, "RequestTimeout", true),
            (409, "OperationAborted", true),
            (400, "BadDigest", true),
            (400, "InvalidArgument", false),
            (403, "AccessDenied", false),
            (404, "NoSuchKey", false),
            (501, "NotImplemented", false),
            (507, "", false),
            (301, "PermanentRedirect", false),
        ] {
            let body = format!("<Error><Code>{code}</Code></Error>");
            assert_eq!(Fault::answered(status, &body, true).passes(), again, "{status} {code}");
        }
    }

    #[test]
    fn answers_that_are_no_xml_are_understood_by_their_status() {
        let fault = Fault::answered(502, "<html>\nbad gateway</html>", false);
        assert_eq!(
            (fault.kind, fault.to_string().as_str()),
            (Kind::Away, "the server answered 502: <html>bad gateway</html>")
        );
        assert_eq!(Fault::answered(404, "", true).kind, Kind::NoObject);
        assert_eq!(Fault::answered(404, "", false).kind, Kind::Broken);
        assert!(Fault::answered(400, &"x".repeat(100_000), true).to_string().len() < 400);
    }
}
