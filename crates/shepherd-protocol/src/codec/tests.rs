use proptest::prelude::*;
use shepherd_job::{Attempt, JobError};

use super::*;
use crate::{Garbage, MAX_BATCH, Ready};

pub(super) fn all<M: Wire>(frame: &[u8]) -> Vec<Result<M, Garbage>> {
    let mut found = Vec::new();
    decode::<M>(frame, |message| found.push(message));
    found
}

pub(super) fn frame<M: Wire>(messages: &[M]) -> Vec<u8> {
    let envelope = envelope(messages.len());
    let written: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            bytes
        })
        .collect();
    [envelope.head, &written.join(&b','), envelope.tail].concat()
}

#[test]
fn several_messages_travel_in_one_frame_in_order() {
    let messages: Vec<_> = (0..40).map(|nonce| ToRunner::Ping { nonce }).collect();
    let found: Result<Vec<_>, _> = all(&frame(&messages)).into_iter().collect();
    assert_eq!(found, Ok(messages));
}

#[test]
fn unknown_keys_and_nulls_are_ignored() {
    let text = r#"{"v": [1, {}], "message": {"extra": {"a": [null]}, "nonce": 7, "attempt": null, "job_id": null, "message_type": "PongMessage"}}"#;
    assert_eq!(all::<FromRunner>(text.as_bytes()), [Ok(FromRunner::Pong { nonce: 7 })]);
}

#[test]
fn a_bad_message_does_not_spoil_its_neighbours() {
    let text = r#"{"messages": [{"nonce": 1, "message_type": "PongMessage"}, {"message_type": "FutureMessage", "message": {"a": 1}},
        {"message_type": "PongMessage"}, 5, {"nonce": 2, "message_type": "PongMessage"}]}"#;
    let found = all::<FromRunner>(text.as_bytes());
    assert_eq!(found.len(), 5);
    assert_eq!(found[0], Ok(FromRunner::Pong { nonce: 1 }));
    assert_eq!(found[4], Ok(FromRunner::Pong { nonce: 2 }));
    assert_eq!(found[2].as_ref().unwrap_err().reason(), "`nonce` is missing");
    assert!(found[1].is_err() && found[3].is_err());
}

#[test]
fn an_error_whose_text_is_no_unicode_still_reaches_its_job() {
    for text in [
        br#"{"message": {"job_id": "x", "message": "caf\udce9", "message_type": "ErrorMessage"}}"#.to_vec(),
        b"{\"message\": {\"job_id\": \"x\", \"message\": \"caf\xe9\", \"message_type\": \"ErrorMessage\"}}"
            .to_vec(),
    ] {
        let wanted =
            FromRunner::Error { job: "x".into(), attempt: None, error: JobError::new("caf\u{fffd}") };
        assert_eq!(all::<FromRunner>(&text), [Ok(wanted)]);
    }
}

#[test]
fn garbage_says_what_is_wrong() {
    for (text, reason) in [
        ("", "EOF"),
        ("hello", "expected"),
        ("[]", "invalid length"),
        ("{}", "without a message"),
        (r#"{"messages": []}"#, "without a message"),
        (r#"{"message": {"message_type": "PongMessage"}}"#, "`nonce` is missing"),
        (
            r#"{"message": {"job_id": "x", "attempt": "one", "message_type": "DoneMessage"}}"#,
            "`attempt` must be",
        ),
        (r#"{"message": {"job_id": "x", "message_type": "InputMessage"}}"#, "unknown message type"),
        (r#"{"message": {"job_id": 5, "message_type": "DoneMessage"}}"#, "expected a string"),
    ] {
        let found = all::<FromRunner>(text.as_bytes());
        assert_eq!(found.len(), 1, "{text}");
        let garbage = found[0].as_ref().unwrap_err();
        assert!(garbage.to_string().contains(reason), "{text}: {garbage}");
    }
    let long =
        format!(r#"{{"message": {{"job_id": "{}", "message_type": "DoneMessage"}}}}"#, "x".repeat(256));
    assert!(all::<FromRunner>(long.as_bytes())[0].is_err());
}

#[test]
fn a_runner_never_sees_an_id_that_leaves_its_directory() {
    for id in ["..", "a/b", "", "/etc", "a\\u0000"] {
        let text = format!(
            r#"{{"message": {{"job_id": "{id}", "attempt": "1-1", "io_data_root": "/d", "message_type": "InputMessage"}}}}"#
        );
        assert!(all::<ToRunner>(text.as_bytes())[0].is_err(), "{id}");
    }
}

#[test]
fn a_frame_of_too_many_messages_is_refused_as_a_whole() {
    let messages: Vec<_> = (0..=u64::from(MAX_BATCH)).map(|nonce| FromRunner::Pong { nonce }).collect();
    let found = all::<FromRunner>(&frame(&messages));
    assert!(matches!(&found[..], [Err(garbage)] if garbage.reason().contains("more than 1024")));
}

#[test]
fn long_texts_of_an_error_are_cut() {
    let error = JobError {
        message: "ž".repeat(MAX_MESSAGE),
        exception_type: "T".repeat(1000),
        exception_traceback: format!("{}end", "ž".repeat(MAX_TRACEBACK)),
    };
    let written = frame(&[FromRunner::Error { job: "x".into(), attempt: None, error }]);
    assert!(written.len() < crate::MAX_FRAME / 8);
    match all::<FromRunner>(&written).remove(0) {
        Ok(FromRunner::Error { error, .. }) => {
            assert!(error.message.len() <= MAX_MESSAGE && error.message.ends_with("ž…"));
            assert!(error.exception_traceback.len() <= MAX_TRACEBACK);
            assert!(
                error.exception_traceback.starts_with("…ž") && error.exception_traceback.ends_with("end")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_a_long_log_the_end_is_sent() {
    let text = format!("{}end", "ž".repeat(MAX_LOG));
    let written = frame(&[FromRunner::Log { job: "x".into(), attempt: None, text }]);
    match all::<FromRunner>(&written).remove(0) {
        Ok(FromRunner::Log { text, .. }) => {
            assert!(text.len() <= MAX_LOG && text.starts_with("…ž") && text.ends_with("end"));
        }
        other => panic!("{other:?}"),
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let text = ".{0,40}";
    let message = prop_oneof![
        (text, any::<u64>())
            .prop_map(|(job, epoch)| FromRunner::Done { job, attempt: Some(Attempt { epoch, number: 1 }) }),
        (text, text, text).prop_map(|(job, message, exception_type)| FromRunner::Error {
            job,
            attempt: None,
            error: JobError { message, exception_type, exception_traceback: String::new() }
        }),
        any::<u64>().prop_map(|nonce| FromRunner::Pong { nonce }),
        text.prop_map(|name| FromRunner::Ready(Ready::new(name))),
    ];
    prop::collection::vec(message, 1..5).prop_map(|messages| frame(&messages))
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were(frame in any_frame()) {
        let found: Result<Vec<FromRunner>, _> = all(&frame).into_iter().collect();
        prop_assert_eq!(super::tests::frame(&found.unwrap()), frame);
    }

    #[test]
    fn truncated_and_flipped_frames_never_panic(
        mut frame in any_frame(), cut in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
    ) {
        for (at, bits) in flips {
            let at = at.index(frame.len());
            frame[at] ^= bits;
        }
        frame.truncate(cut.index(frame.len()) + 1);
        prop_assert!(!all::<FromRunner>(&frame).is_empty());
        prop_assert!(!all::<ToRunner>(&frame).is_empty());
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!all::<FromRunner>(&bytes).is_empty());
    }
}

#[test]
fn a_long_progress_message_is_cut_before_it_is_sent() {
    let mut bytes = Vec::new();
    let message = Some("ž".repeat(4 << 20));
    FromRunner::Progress { job: "j".to_owned(), attempt: None, fraction: None, message }.write(&mut bytes);
    assert!(bytes.len() < 2 * MAX_PROGRESS, "{}", bytes.len());
}
