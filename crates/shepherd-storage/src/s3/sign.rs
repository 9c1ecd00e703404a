//! Signatures, version 4, by rust-s3.

use std::sync::{PoisonError, RwLock};

use ::s3::error::S3Error;
use ::s3::{Region, signing};
use hmac::Mac as _;
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::{HeaderMap, HeaderValue};
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use url::Url;

use super::options::S3Credentials;
use crate::{Result, StorageError};

const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs requests.
pub(super) struct Signer {
    credentials: S3Credentials,
    token: Option<HeaderValue>,
    region: Region,
    host: HeaderValue,
    /// The key of a day: it takes longer to make than a signature.
    key: RwLock<Option<(Date, Vec<u8>)>>,
}

impl Signer {
    pub(super) fn new(credentials: S3Credentials, region: &str, base: &Url) -> Result<Self> {
        let illegal = |what: &str| StorageError::Invalid(format!("the {what} holds illegal characters"));
        let (Some(host), port) = (base.host_str(), base.port()) else {
            return Err(StorageError::Invalid("the storage's URL has no host".to_owned()));
        };
        let host = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let token = match credentials.session_token.as_deref() {
            None | Some("") => None,
            Some(token) => {
                let mut token = HeaderValue::from_str(token).map_err(|_| illegal("session token"))?;
                token.set_sensitive(true);
                Some(token)
            }
        };
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !visible(&credentials.access_key) || credentials.access_key.contains(['/', ',']) {
            return Err(illegal("access key"));
        }
        if credentials.secret_key.is_empty() {
            return Err(StorageError::Invalid("the secret key is empty".to_owned()));
        }
        if !visible(region) || region.contains(['/', ',']) {
            return Err(illegal("region"));
        }
        Ok(Self {
            token,
            region: Region::Custom { region: region.to_owned(), endpoint: host.clone() },
            host: HeaderValue::from_str(&host).map_err(|_| illegal("storage's host"))?,
            credentials,
            key: RwLock::new(None),
        })
    }

    /// Adds to `headers` what says and proves who asks. Only what every proxy
    /// leaves alone is signed.
    pub(super) fn sign(
        &self,
        method: &str,
        url: &Url,
        content: &str,
        now: OffsetDateTime,
        headers: &mut HeaderMap,
    ) -> std::result::Result<(), S3Error> {
        let stamp = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"))?;
        let mut signed = HeaderMap::with_capacity(5);
        signed.insert(HOST, self.host.clone());
        signed.insert(CONTENT, HeaderValue::from_str(content)?);
        signed.insert(DATE, HeaderValue::from_str(&stamp)?);
        if let Some(token) = &self.token {
            signed.insert(TOKEN, token.clone());
        }
        let request = signing::canonical_request(method, url, &signed, content)?;
        let text = signing::string_to_sign(&now, &self.region, &request)?;
        let mut mac = signing::HmacSha256::new_from_slice(&self.day_key(now)?)?;
        mac.update(text.as_bytes());
        let authorization = signing::authorization_header(
            &self.credentials.access_key,
            &now,
            &self.region,
            &signing::signed_header_string(&signed),
            &hex(&mac.finalize().into_bytes()),
        )?;
        let mut authorization = HeaderValue::from_str(&authorization)?;
        authorization.set_sensitive(true);
        headers.extend(signed);
        headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }

    fn day_key(&self, now: OffsetDateTime) -> std::result::Result<Vec<u8>, S3Error> {
        {
            let held = self.key.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((day, key)) = &*held
                && *day == now.date()
            {
                return Ok(key.clone());
            }
        }
        let key = signing::signing_key(&now, &self.credentials.secret_key, &self.region, "s3")?;
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Some((now.date(), key.clone()));
        Ok(key)
    }
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn credentials(token: Option<&str>) -> S3Credentials {
        S3Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.map(str::to_owned),
        }
    }

    /// The example "GET Bucket (List Objects)" of the S3 API reference.
    #[test]
    fn the_documented_example_is_signed_as_documented() {
        let url = Url::parse("https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J").unwrap();
        let signer = Signer::new(credentials(None), "us-east-1", &url).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for _ in 0..2 {
            let mut headers = HeaderMap::new();
            signer.sign("GET", &url, empty, datetime!(2013-05-24 0:00 UTC), &mut headers).unwrap();
            assert_eq!(
                headers[AUTHORIZATION],
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
                 Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
            );
        }
    }

    #[test]
    fn each_day_has_its_key_and_tokens_are_signed() {
        let url = Url::parse("http://127.0.0.1:7000/b").unwrap();
        let signer = Signer::new(credentials(Some("token")), "eu-1", &url).unwrap();
        let sign = |now| {
            let mut headers = HeaderMap::new();
            signer.sign("PUT", &url, "UNSIGNED-PAYLOAD", now, &mut headers).unwrap();
            assert_eq!(
                (&headers[HOST], &headers[TOKEN]),
                (&"127.0.0.1:7000".parse().unwrap(), &"token".parse().unwrap())
            );
            headers[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        let (first, second) = (sign(datetime!(2020-01-01 23:59 UTC)), sign(datetime!(2020-01-02 0:00 UTC)));
        assert_ne!(first, second);
        assert!(second.contains("/20200102/eu-1/s3/aws4_request"), "{second}");
        assert!(second.contains("x-amz-security-token"), "{second}");
        assert_eq!(sign(datetime!(2020-01-01 23:59 UTC)), first);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_printed() {
        let url = Url::parse("http://host").unwrap();
        for (access, secret, token, region) in [
            ("", "secret", None, "r"),
            ("a/b", "secret", None, "r"),
            ("a\nb", "secret", None, "r"),
            ("a", "", None, "r"),
            ("a", "secret", Some("to\nken"), "r"),
            ("a", "secret", None, ""),
            ("a", "secret", None, "r r"),
        ] {
            let credentials = S3Credentials {
                access_key: access.to_owned(),
                secret_key: secret.to_owned(),
                session_token: token.map(str::to_owned),
            };
            assert_eq!(format!("{credentials:?}"), "S3Credentials(..)");
            let refused = Signer::new(credentials, region, &url).err().unwrap().to_string();
            assert!(!refused.contains("a\nb") && !refused.contains("ken\n"), "{refused}");
        }
    }
}
