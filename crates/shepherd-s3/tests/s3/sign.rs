//! Signatures of version 4, written from their specification.

use std::fmt::Write as _;

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

pub(crate) const REGION: &str = "us-east-1";
pub(crate) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20261122T213059Z`, from the system's clock and so many seconds.
pub(crate) fn date(offset: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap() + offset;
    let (days, seconds) = (now.div_euclid(86400), now.rem_euclid(86400));
    // Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

pub(crate) fn scope(date: &str) -> String {
    format!("{}/{REGION}/s3/aws4_request", &date[..8])
}

fn key(secret: &str, date: &str) -> Vec<u8> {
    let key = hmac(format!("AWS4{secret}").as_bytes(), &date[..8]);
    let key = hmac(&hmac(&key, REGION), "s3");
    hmac(&key, "aws4_request")
}

/// The signature of a request. Headers are lower-case and sorted, the query sorted
/// and encoded, the path encoded.
pub(crate) fn request(
    secret: &str,
    date: &str,
    (method, path, query): (&str, &str, &str),
    headers: &[(String, String)],
    payload: &str,
) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{}\n{payload}", names.join(";"));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", scope(date), sha256(canonical.as_bytes()));
    hex(&hmac(&key(secret, date), &text))
}

/// The signature of a chunk.
pub(crate) fn chunk(secret: &str, date: &str, previous: &str, data: &[u8]) -> String {
    let text =
        format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{}\n{previous}\n{EMPTY}\n{}", scope(date), sha256(data));
    hex(&hmac(&key(secret, date), &text))
}

/// The signature of trailers.
pub(crate) fn trailer(secret: &str, date: &str, previous: &str, lines: &str) -> String {
    let text = format!(
        "AWS4-HMAC-SHA256-TRAILER\n{date}\n{}\n{previous}\n{}",
        scope(date),
        sha256(lines.as_bytes())
    );
    hex(&hmac(&key(secret, date), &text))
}
