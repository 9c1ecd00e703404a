//! The status documents of jobs that only the storage knows: those of the first
//! shepherd, or of a queue that was lost.
//!
//! A client may have written the document, so nothing is taken from it but what it
//! has to hold, and nothing in it names a file.

use bytes::Bytes;
use serde_json::{Map, Value};
use shepherd_core::MAX_STATUS_DOCUMENT;

use crate::jobs::Outcome;
use crate::json;

/// The longest time in ISO 8601 that is passed on, in bytes.
const MAX_TIME: usize = 40;

/// What a status document says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredStatus {
    pub(crate) outcome: Outcome,
    /// The body of `GET /jobs/ID/status`.
    pub(crate) body: Bytes,
}

impl StoredStatus {
    /// Reads a document; nothing when it is none.
    pub(crate) fn parse(document: &[u8]) -> Option<Self> {
        if document.len() > MAX_STATUS_DOCUMENT {
            return None;
        }
        let Value::Object(given) = serde_json::from_slice(document).ok()? else { return None };
        let error = match given.get("error_details") {
            None | Some(Value::Null) => None,
            Some(Value::Object(error)) => {
                Some(texts(error, ["message", "exception_type", "exception_traceback"])?)
            }
            Some(_) => return None,
        };
        let Some(Value::Object(model)) = given.get("model") else { return None };
        let model = texts(model, ["name", "version"])?;
        let [enqueued, started, finished] =
            ["enqueued_at", "processing_started_at", "finished_at"].map(|name| time(&given, name));
        let status = given.get("status")?.as_str()?;
        let outcome = match status {
            "accepted" | "queued" | "processing" => Outcome::Unfinished,
            "done" => Outcome::Done,
            "failed" => {
                let message = error.as_ref().and_then(|error| error["message"].as_str());
                Outcome::Failed(message.unwrap_or_default().to_owned())
            }
            _ => return None,
        };
        let body = json::stored_status(&[
            ("status", &Value::from(status)),
            ("error_details", &error.map_or(Value::Null, Value::Object)),
            ("model", &Value::Object(model)),
            ("enqueued_at", &enqueued?),
            ("processing_started_at", &started?),
            ("finished_at", &finished?),
        ]);
        Some(Self { outcome, body })
    }
}

/// The members of these names, each a text or null.
fn texts<const N: usize>(given: &Map<String, Value>, names: [&str; N]) -> Option<Map<String, Value>> {
    let text = |name: &str| match given.get(name) {
        None | Some(Value::Null) => Some((name.to_owned(), Value::Null)),
        Some(Value::String(text)) => Some((name.to_owned(), Value::from(&**text))),
        Some(_) => None,
    };
    names.into_iter().map(text).collect()
}

/// A time in ISO 8601, or null. It is passed on as it was written: the first
/// shepherd left out a fraction of zero.
fn time(given: &Map<String, Value>, name: &str) -> Option<Value> {
    let is_of_time = |byte: u8| byte.is_ascii_digit() || b"-:.+TZ".contains(&byte);
    match given.get(name) {
        None | Some(Value::Null) => Some(Value::Null),
        Some(Value::String(text)) if text.len() <= MAX_TIME && text.bytes().all(is_of_time) => {
            Some(Value::from(&**text))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = r#"{"status": "done", "error_details": null,
        "model": {"name": "a b", "version": "1"}, "enqueued_at": "2018-11-22T21:30:59.336682",
        "processing_started_at": "2018-11-22T21:31:00", "finished_at": "2018-11-22T21:31:01.000001"}"#;

    fn parse(document: &str) -> Option<StoredStatus> {
        StoredStatus::parse(document.as_bytes())
    }

    #[test]
    fn a_document_of_the_first_shepherd_is_passed_on() {
        let status = parse(DONE).unwrap();
        assert_eq!(status.outcome, Outcome::Done);
        let same = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(same(&status.body), same(DONE.as_bytes()));
    }

    #[test]
    fn a_failed_job_says_why() {
        let error = r#"{"message": "no luck", "exception_type": null, "exception_traceback": null}"#;
        let document = DONE.replace(r#""error_details": null"#, &format!(r#""error_details": {error}"#));
        let status = parse(&document.replace(r#""done""#, r#""failed""#)).unwrap();
        assert_eq!(status.outcome, Outcome::Failed("no luck".to_owned()));
    }

    #[test]
    fn what_a_document_need_not_hold_is_not_passed_on() {
        let status = parse(&DONE.replace(r#""status""#, r#""path": "../../etc/passwd", "status""#)).unwrap();
        assert_eq!(status, parse(DONE).unwrap());
    }

    #[test]
    fn what_is_no_status_document_is_none() {
        for (was, is) in [
            (r#""done""#, r#""DONE""#),
            (r#""done""#, "7"),
            (r#""error_details": null"#, r#""error_details": "x""#),
            (r#""error_details": null"#, r#""error_details": {"message": 1}"#),
            (r#"{"name": "a b", "version": "1"}"#, "null"),
            (r#""a b""#, "[]"),
            ("2018-11-22T21:31:00", "<script>"),
            (r#"{"status""#, r#"["status""#),
        ] {
            let document = DONE.replace(was, is);
            assert_ne!(document, DONE, "{was} is in the document");
            assert_eq!(parse(&document), None, "{document}");
        }
        let long = DONE.replace("a b", &"x".repeat(MAX_STATUS_DOCUMENT));
        assert_eq!(parse(&long), None);
        assert_eq!(parse(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))), None);
    }
}
