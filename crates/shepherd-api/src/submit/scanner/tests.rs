use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use shepherd_job::{JobId, ModelRef};

use super::*;

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(StartJob, Vec<u8>), Refused> {
    let mut scanner = Scanner::new(JobIdRule::Prefix);
    let mut payload = Vec::new();
    for piece in pieces {
        scanner.feed(piece, &mut payload)?;
    }
    let job = scanner.finish()?;
    // As who empties the buffer does.
    utf8(&payload)?;
    Ok((job, payload))
}

/// Scans it whole and cut before every byte; both must agree.
#[track_caller]
fn both(body: &[u8]) -> Result<(StartJob, Vec<u8>), Refused> {
    let whole = scan([body]);
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
    assert!(scan(body.chunks(1)) == whole, "cutting {shown} changes what it means");
    whole
}

#[test]
fn a_submit_is_read_whole_and_byte_by_byte() {
    let (job, payload) = both(
        r#" {"payload" : "p\u0041\n\ud83d\ude00ž" , "model":{"version":"" ,"name":"a/b"},
            "priority":-3,"sheep_id":"s","job_id":17.50 } "#
            .as_bytes(),
    )
    .unwrap();
    assert_eq!(job.job_id, JobId::parse("17.50", JobIdRule::Prefix).unwrap());
    assert_eq!(job.model, ModelRef::parse("a/b", "").unwrap());
    assert_eq!((job.sheep_id.as_deref(), job.priority), (Some("s"), -3));
    assert_eq!(payload, "pA\n😀ž".as_bytes());
}

#[test]
fn what_is_no_json_object_is_refused() {
    for body in [
        "",
        " ",
        "null",
        "[]",
        "\"a\"",
        "1",
        "{",
        "{}}",
        "{} x",
        "{,}",
        "{\"job_id\"}",
        "{\"job_id\":}",
        "{\"job_id\":\"a\",}",
        "{\"job_id\":\"a\" \"model\":1}",
        "{\"job_id\":\"a\"",
        "{\"job_id\":\"\u{1}\"}",
        "{\"job_id\":\"\\x\"}",
        "{\"job_id\":\"\\u12g4\"}",
        "{\"payload\":\"\\ud800\"}",
        "{\"payload\":\"\\ud800\\u0041\"}",
        "{\"payload\":\"\\udc00\"}",
        "{\"payload\":\"\\ud800x\"}",
        "{\"payload\":\"\\ud800\\n\"}",
        "{\"payload\":nul}",
        "{\"payload\":01}",
        "{\"payload\":1.}",
        "{\"payload\":.5}",
        "{\"payload\":-}",
        "{\"payload\":1e}",
        "{\"payload\":+1}",
        "{\"payload\":NaN}",
        "{'job_id':1}",
        "{job_id:1}",
        "\u{feff}{}",
    ] {
        assert_eq!(both(body.as_bytes()), Err(Refused::NotAnObject), "{body}");
    }
    let invalid_utf8 =
        b"{\"job_id\":\"a\",\"model\":{\"name\":\"m\",\"version\":\"1\"},\"payload\":\"\xff\"}";
    assert_eq!(both(invalid_utf8), Err(Refused::NotAnObject));
    assert_eq!(both(b"{\"\xff\":1}"), Err(Refused::NotAnObject));
}

#[test]
fn a_wrong_member_is_named_with_what_was_expected() {
    let with = |member: &str| format!(r#"{{"job_id":"a","model":{{"name":"m","version":"1"}},{member}}}"#);
    let without = |members: &str| format!("{{{members}}}");
    let model = r#""model":{"name":"m","version":"1"}"#;
    for (body, why) in [
        (without(""), "`job_id` is missing, expected a string"),
        (without(r#""job_id":"a""#), "`model` is missing, expected an object"),
        (without(r#""job_id":"a","model":{}"#), "`model.name` is missing, expected a string"),
        (without(r#""job_id":"a","model":{"name":"m"}"#), "`model.version` is missing, expected a string"),
        (without(r#""job_id":null"#), "`job_id` must be a string, not null"),
        (without(r#""job_id":true"#), "`job_id` must be a string, not a boolean"),
        (without(r#""job_id":["#), "`job_id` must be a string, not a list"),
        (without(r#""job_id":{"#), "`job_id` must be a string, not an object"),
        (
            without(&format!(r#""job_id":"a/b",{model}"#)),
            "`job_id` must hold only ASCII letters, digits, hyphens, dots and underscores",
        ),
        (without(r#""model":"m""#), "`model` must be an object, not a string"),
        (without(r#""model":null"#), "`model` must be an object, not null"),
        (without(r#""model":{"name":[]}"#), "`model.name` must be a string, not a list"),
        (without(r#""model":{"name":null}"#), "`model.name` must be a string, not null"),
        (without(r#""model":{"name":{}}"#), "`model.name` must be a string, not an object"),
        (without(r#""model":{"tag":1}"#), "unknown field `model.tag`, expected one of `name`, `version`"),
        (
            without(r#""job_id":"a","model":{"name":"../m","version":"1"}"#),
            "`model.name` must be a relative path without control characters, whose segments are neither empty nor `.` nor `..`",
        ),
        (
            without(r#""job_id":"a","model":{"name":"m","version":"a/b"}"#),
            "`model.version` must hold neither `/` nor control characters, and be neither `.` nor `..`",
        ),
        (with(r#""sheep_id":1"#), "`sheep_id` must be a string, not a number"),
        (with(r#""payload":false"#), "`payload` must be a string, not a boolean"),
        (with(r#""payload":[]"#), "`payload` must be a string, not a list"),
        (with(r#""payload":{}"#), "`payload` must be a string, not an object"),
        (
            with(r#""priority":"1""#),
            "`priority` must be an integer from -2147483648 to 2147483647, not a string",
        ),
        (with(r#""priority":1.5"#), "`priority` must be an integer from -2147483648 to 2147483647, not 1.5"),
        (
            with(r#""priority":2147483648"#),
            "`priority` must be an integer from -2147483648 to 2147483647, not 2147483648",
        ),
        (
            with(r#""x":1"#),
            "unknown field `x`, expected one of `job_id`, `model`, `sheep_id`, `payload`, `priority`",
        ),
        (with(r#""job_id":"b""#), "`job_id` is given twice"),
        (with(r#""payload":"","payload":"""#), "`payload` is given twice"),
        (with(model), "`model` is given twice"),
    ] {
        assert_eq!(both(body.as_bytes()), Err(Refused::Invalid(why.to_owned())), "{body}");
    }
}

#[test]
fn absent_null_and_number_mean_what_they_did() {
    let body = |member: &str| format!(r#"{{"job_id":5,"model":{{"name":"m","version":"1"}}{member}}}"#);
    for (member, payload) in [
        ("", ""),
        (r#","payload":null"#, ""),
        (r#","payload":"""#, ""),
        (r#","payload":-0.10e+5"#, "-0.10e+5"),
        (r#","sheep_id":null,"priority":null"#, ""),
    ] {
        let (job, got) = both(body(member).as_bytes()).unwrap();
        assert_eq!((job.job_id.as_str(), job.sheep_id, job.priority), ("5", None, 0));
        assert_eq!(got, payload.as_bytes(), "{member}");
        assert_eq!(job.has_payload, member.contains("payload") && !member.contains("null"), "{member}");
    }
}

#[test]
fn small_fields_are_bounded_and_the_payload_is_not() {
    let long = "1".repeat(MAX_TEXT + 1);
    for (body, field) in [
        (format!(r#"{{"job_id":"{long}"}}"#), "`job_id`"),
        (format!(r#"{{"job_id":{long}}}"#), "`job_id`"),
        (format!(r#"{{"{long}":1}}"#), "name"),
        (format!(r#"{{"sheep_id":"{long}"}}"#), "`sheep_id`"),
    ] {
        let Err(Refused::Invalid(why)) = both(body.as_bytes()) else { panic!("{field} is not bounded") };
        assert!(why.contains(field), "{why}");
    }
    let body = format!(r#"{{"payload":"{long}","job_id":"a","model":{{"name":"m","version":"1"}}}}"#);
    assert_eq!(both(body.as_bytes()).unwrap().1.len(), MAX_TEXT + 1);
}

/// The members of an object in their order, doubles included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Collect)
    }
}

/// The same rules over a parser of others.
fn reference(body: &[u8]) -> Option<(StartJob, Vec<u8>)> {
    let Members(members) = serde_json::from_slice(body).ok()?;
    let unique = |members: &[(String, Box<RawValue>)]| {
        let mut names: Vec<_> = members.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.windows(2).all(|pair| pair[0] != pair[1])
    };
    let string = |raw: &str| serde_json::from_str::<String>(raw).ok();
    let is_number = |raw: &str| raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let or_number = |raw: &str| if is_number(raw) { Some(raw.to_owned()) } else { string(raw) };
    let (mut id, mut model, mut sheep_id, mut payload, mut priority) = (None, None, None, None, 0);
    for (name, raw) in &members {
        match (name.as_str(), raw.get()) {
            ("job_id", raw) => id = Some(JobId::parse(&or_number(raw)?, JobIdRule::Prefix).ok()?),
            ("sheep_id" | "payload" | "priority", "null") => {}
            ("sheep_id", raw) => sheep_id = Some(string(raw)?),
            ("payload", raw) => payload = Some(or_number(raw)?),
            ("priority", raw) => priority = raw.parse().ok()?,
            ("model", raw) => {
                let Members(parts) = serde_json::from_str(raw).ok()?;
                let known = parts.iter().all(|(name, _)| name == "name" || name == "version");
                let part = |wanted| {
                    parts.iter().find(|(name, _)| name == wanted).and_then(|(_, raw)| or_number(raw.get()))
                };
                if !known || !unique(&parts) {
                    return None;
                }
                model = Some(ModelRef::parse(&part("name")?, &part("version")?).ok()?);
            }
            _ => return None,
        }
    }
    unique(&members).then(|| {
        let has_payload = payload.is_some();
        let job = StartJob { job_id: id?, model: model?, sheep_id, priority, has_payload };
        Some((job, payload.unwrap_or_default().into_bytes()))
    })?
}

/// A string as JSON, some of its characters escaped one way or another.
fn json_string(content: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (content, any::<u64>()).prop_map(|(text, ways)| {
        let mut json = String::from("\"");
        for (index, c) in text.chars().enumerate() {
            let escape_it = ways >> (index % 64) & 1 == 1;
            if escape_it || c < ' ' || c == '"' || c == '\\' {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                json.push(c);
            }
        }
        json + "\""
    })
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => json_string(any::<String>()),
        4 => json_string("[a-z]{1,9}"),
        2 => "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        1 => proptest::sample::select(vec!["null", "true", "false", "[]", "{}", "[1,[2]]", "01", "\"\\ud800\"", "\"\\q\""])
            .prop_map(str::to_owned),
    ]
}

fn object(
    names: &'static [&'static str],
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    let white = || proptest::sample::select(vec!["", "", "", " ", "\n\t "]);
    let member = (proptest::sample::select(names), value, white(), white())
        .prop_map(|(name, value, before, after)| format!("{before}\"{name}\"{after}:{before}{value}{after}"));
    proptest::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Bodies that are near to right.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let model = prop_oneof![
        4 => Just(r#"{"name":"m","version":"1"}"#.to_owned()),
        1 => object(&["name", "version", "other"], value()),
    ];
    let right = (json_string("[a-z]{1,9}"), model, value(), -9..9_i32, any::<u8>()).prop_map(
        |(id, model, payload, priority, order)| {
            let mut members = [
                format!("\"job_id\":{id}"),
                format!("\"model\":{model}"),
                format!("\"payload\": {payload}"),
                format!("\"priority\" :{priority}"),
            ];
            members.rotate_left(usize::from(order % 4));
            members[..].reverse();
            format!("{{{}}}", members.join(", "))
        },
    );
    let any_object = object(&["job_id", "model", "payload", "sheep_id", "priority", "x"], value());
    let text = prop_oneof![4 => right, 1 => any_object];
    (text, proptest::option::weighted(0.4, (any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8)))
        .prop_map(|(text, damage)| {
            let mut bytes = text.into_bytes();
            if let Some((at, byte, how)) = damage {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = byte,
                    _ => bytes.insert(at, byte),
                }
            }
            bytes
        })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_agrees_with_serde_json_however_the_body_is_cut(
        body in body(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([body.len()]) {
            pieces.push(&body[from..cut]);
            from = cut;
        }
        let shown = String::from_utf8_lossy(&body).into_owned();
        prop_assert_eq!(scan(pieces).ok(), reference(&body), "{}", shown);
    }
}
