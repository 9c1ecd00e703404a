//! Submits.

use serde_json::json;
use shepherd_core::ShepherdError;
use shepherd_job::JobState;

use crate::fake::{Got, Server, record};

const MODEL: &str = r#""model":{"name":"m","version":"1"}"#;

fn body(members: &str) -> String {
    format!(r#"{{"job_id":"job-1",{MODEL}{members}}}"#)
}

/// What the shepherd got from a submit that was accepted.
async fn accepted(server: &Server, body: &str) -> (shepherd_job::JobSpec, Got) {
    let reply = server.client().await.start_job(body).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"success": true})), "{body}");
    server.fake.with(|world| world.submits.pop().unwrap())
}

#[tokio::test]
async fn a_submit_reaches_the_shepherd_as_it_was_meant() {
    let server = Server::start().await;
    let (spec, got) =
        accepted(&server, &body(r#","payload":"text","sheep_id":"sheep-1","priority":7"#)).await;
    assert_eq!((spec.id.as_str(), spec.model.to_string().as_str(), spec.priority), ("job-1", "m:1", 7));
    assert_eq!(spec.sheep.unwrap().as_str(), "sheep-1");
    assert_eq!(got, Got::Payload("text".into()));
    for (members, payload) in [
        ("", ""),
        (r#","payload":null"#, ""),
        (r#","payload":"""#, ""),
        (r#","payload":12.50"#, "12.50"),
        (r#","payload":"žluťoučký 😀 \ud83d\ude00\n""#, "žluťoučký 😀 😀\n"),
    ] {
        let (spec, got) = accepted(&server, &body(members)).await;
        assert_eq!((spec.sheep, spec.priority), (None, 0));
        let expected = if payload.is_empty() { Got::Stored } else { Got::Payload(payload.into()) };
        assert_eq!(got, expected, "{members}");
    }
    let (spec, _) = accepted(&server, &format!(r#"{{"job_id":12345,{MODEL},"sheep_id":null}}"#)).await;
    assert_eq!(spec.id.as_str(), "12345");
    for (model, shown) in [
        (r#"{"name":1,"version":1.50}"#, "1:1.50"),
        (r#"{"name":"a b","version":"1.0+cu11"}"#, "a b:1.0+cu11"),
        (r#"{"name":"a@b","version":"1~rc"}"#, "a@b:1~rc"),
    ] {
        let (spec, _) = accepted(&server, &format!(r#"{{"job_id":"job-1","model":{model}}}"#)).await;
        assert_eq!(spec.model.to_string(), shown);
    }
}

#[tokio::test]
async fn an_empty_payload_is_an_input_where_there_is_none() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let empty = body(r#","payload":"""#);
    server.fake.with(|world| world.failure = Some(ShepherdError::NoData));
    assert_eq!(client.start_job(&empty).await.status, 200);
    let (_, got) = server.fake.with(|world| world.submits.pop().unwrap());
    assert_eq!(got, Got::Payload("".into()));
    for without in [body(""), body(r#","payload":null"#)] {
        server.fake.with(|world| world.failure = Some(ShepherdError::NoData));
        let reply = client.start_job(&without).await;
        assert_eq!(reply.error(), (400, "Data for job `job-1` does not exist".into()));
    }
    server.fake.was_not_submitted_to();
}

#[tokio::test]
async fn a_submit_that_differs_from_the_live_job_is_told_so() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (model, members, differs) in [
        ("ocr", "", None),
        ("other", "", Some("the model `ocr:latest`")),
        ("ocr", r#","priority":1"#, Some("another sheep or priority")),
    ] {
        server.fake.with(|world| world.live = Some(record("job-1", 1, JobState::new()).into()));
        let model = format!(r#""model":{{"name":"{model}","version":"latest"}}"#);
        let reply = client.start_job(&format!(r#"{{"job_id":"job-1",{model}{members}}}"#)).await;
        assert_eq!((reply.status, &reply.json()["success"]), (200, &json!(true)));
        match (reply.json().get("conflict"), differs) {
            (None, None) => {}
            (Some(conflict), Some(differs)) => {
                assert!(conflict.as_str().unwrap().contains(differs), "{conflict}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_json_is_taken_and_why_not_is_said() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let good = body("");
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
        assert_eq!(client.post("/start-job", Some(content_type), good.as_bytes()).await.status, 200);
    }
    server.fake.with(|world| world.submits.clear());
    for content_type in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")]
    {
        let (status, message) = client.post("/start-job", content_type, good.as_bytes()).await.error();
        assert_eq!(status, 400);
        assert!(message.contains("Content-Type") && message.contains("application/json"), "{message}");
    }
    for text in ["", "[]", "\"text\"", "1", "null", "{", "{\"job_id\":}", "\u{feff}{}"] {
        let reply = client.start_job(text).await;
        assert_eq!(reply.error(), (400, "The request body must be a JSON object".into()), "{text}");
    }
    server.fake.was_not_submitted_to();
}

#[tokio::test]
async fn a_wrong_field_is_named_and_nothing_is_left_behind() {
    let server = Server::start().await;
    // One connection for all: what is wrong with a request does not end it.
    let mut client = server.client().await;
    for (text, named) in [
        ("{}".into(), "`job_id`"),
        (format!("{{{MODEL}}}"), "`job_id`"),
        (r#"{"job_id":"job-1"}"#.into(), "`model`"),
        (r#"{"job_id":"job-1","model":{"name":"m"}}"#.into(), "`model.version`"),
        (r#"{"job_id":"job-1","model":{"name":"m","version":"1","tag":"x"}}"#.into(), "`model.tag`"),
        (format!(r#"{{"job_id":null,{MODEL}}}"#), "`job_id`"),
        (format!(r#"{{"job_id":true,{MODEL}}}"#), "`job_id`"),
        (body(r#","payload":[1]"#), "`payload`"),
        (body(r#","payload":{}"#), "`payload`"),
        (body(r#","payload":false"#), "`payload`"),
        (body(r#","sheep_id":5"#), "`sheep_id`"),
        (body(r#","priority":"high""#), "`priority`"),
        (body(r#","other":1"#), "`other`"),
        (body(r#","job_id":"job-2""#), "`job_id`"),
    ] {
        let (status, message) = client.start_job(&text).await.error();
        assert_eq!(status, 400, "{text}");
        assert!(message.starts_with("Invalid input: ") && message.contains(named), "{text}: {message}");
    }
    for (sheep, shown) in [("\"sheep-2\"", "sheep-2"), ("\"\"", ""), ("\"../x\"", "../x")] {
        let reply = client.start_job(&body(&format!(r#","payload":"x","sheep_id":{sheep}"#))).await;
        assert_eq!(reply.error(), (400, format!("Unknown sheep id `{shown}`")));
    }
    for id in ["ABC", "a_b", "a/b", "..", "a b", "ab", "", "žlu", "192.168.0.1", "a..b", &"a".repeat(64)] {
        let (status, message) = client.start_job(&format!(r#"{{"job_id":"{id}",{MODEL}}}"#)).await.error();
        assert_eq!(status, 400, "{id}");
        assert!(message.starts_with("Invalid input: `job_id` must "), "{message}");
    }
    server.fake.was_not_submitted_to();
}

#[tokio::test]
async fn a_payload_of_20_mb_is_streamed_wherever_it_is_in_the_object() {
    let server = Server::start().await;
    let text = "žluťoučký kůň\\n\\ud83d\\ude00 ".repeat(700_000);
    let plain = "žluťoučký kůň\n😀 ".repeat(700_000);
    let sum = plain.bytes().map(u64::from).sum::<u64>();
    let expected = Got::Stream { bytes: plain.len(), sum };
    assert!(plain.len() > 16_000_000);
    for text in [
        format!(r#"{{"payload":"{text}","job_id":"job-1",{MODEL}}}"#),
        format!(r#"{{"job_id":"job-1","payload":"{text}",{MODEL}}}"#),
    ] {
        assert_eq!(accepted(&server, &text).await.1, expected);
    }
    assert!(server.spool_is_empty());
}

#[tokio::test]
async fn a_chunked_body_is_taken_however_it_is_cut() {
    let server = Server::start().await;
    let text = body(r#","payload":"žluťoučký 😀""#);
    for size in [1, 3, 7, 1_000] {
        let mut client = server.client().await;
        client
            .send("POST /start-job HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        for piece in text.as_bytes().chunks(size) {
            client.send(format!("{:x}\r\n", piece.len())).await;
            client.send(piece).await;
            client.send("\r\n").await;
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 200);
        let (_, got) = server.fake.with(|world| world.submits.pop().unwrap());
        assert_eq!(got, Got::Payload("žluťoučký 😀".into()));
        assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
    }
}

#[tokio::test]
async fn a_packed_body_is_taken_and_its_limit_is_that_of_the_unpacked_one() {
    let server = Server::with(|api, _| api.max_body_bytes = 1_000_000).await;
    let mut client = server.client().await;
    let text = body(&format!(r#","payload":"{}""#, "sheep ".repeat(100_000)));
    assert_eq!(client.post_encoded("gzip", &gzip(text.as_bytes())).await.status, 200);
    let (_, got) = server.fake.with(|world| world.submits.pop().unwrap());
    assert_eq!(got, Got::Payload("sheep ".repeat(100_000).into()));
    let text = body(&format!(r#","payload":"{}""#, "x".repeat(1_000_001)));
    let packed = gzip(text.as_bytes());
    assert!(packed.len() < 10_000, "{}", packed.len());
    let (status, message) = client.post_encoded("gzip", &packed).await.error();
    assert_eq!((status, message.as_str()), (413, "The request body exceeds the limit of 1000000 bytes"));
    for (encoding, named) in [("br", "`br`"), ("gzip", "not valid gzip")] {
        let (status, message) = client.post_encoded(encoding, body("").as_bytes()).await.error();
        assert_eq!(status, 400);
        assert!(message.contains(named), "{message}");
    }
    server.fake.was_not_submitted_to();
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, text).unwrap();
    encoder.finish().unwrap()
}
