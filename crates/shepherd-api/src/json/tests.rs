use serde_json::Value;
use shepherd_job::{Attempt, History, JobId, JobIdRule, JobSpec, SheepId};

use super::*;

const AT: i64 = 1_795_383_059_336_682;

fn record(state: JobState) -> JobRecord {
    JobRecord {
        seq: 7,
        spec: JobSpec {
            id: JobId::parse("job-1", JobIdRule::Bucket).unwrap(),
            model: ModelRef::parse("ocr", "latest").unwrap(),
            sheep: None,
            priority: 0,
        },
        submitted_at: Timestamp::from_micros(AT),
        state,
    }
}

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_micros(AT + seconds * 1_000_000)
}

fn records() -> Vec<(&'static str, JobRecord)> {
    let history = History { attempts: 1, crashes: 0 };
    let (started_at, finished_at) = (after(1), after(2));
    let error = JobError {
        message: "no \"text\" in ž\n".into(),
        exception_type: "ValueError".into(),
        exception_traceback: "Traceback:\n\tline 1\u{7f}\u{1}".into(),
    };
    let attempt = Attempt { epoch: 1, number: 1 };
    let sheep = SheepId::parse("sheep-1").unwrap();
    vec![
        ("queued", record(JobState::new())),
        ("processing", record(JobState::Processing { attempt, sheep, started_at, history })),
        ("done", record(JobState::Done { started_at, finished_at, history })),
        ("failed", record(JobState::Failed { started_at, finished_at, error, history })),
        ("cancelled-queued", record(JobState::Cancelled { started_at: None, finished_at, history })),
        ("cancelled", record(JobState::Cancelled { started_at: Some(started_at), finished_at, history })),
    ]
}

fn sheep() -> Vec<SheepView> {
    let id = |text| SheepId::parse(text).unwrap();
    vec![
        SheepView {
            id: id("idle"),
            kind: "bare",
            state: SheepState::Stopped,
            model: None,
            job: None,
            problem: None,
            activity: None,
        },
        SheepView {
            id: id("busy"),
            kind: "bare",
            state: SheepState::Running,
            model: Some(ModelRef::parse("ocr", "").unwrap()),
            job: Some(JobId::parse("job-1", JobIdRule::Bucket).unwrap()),
            problem: None,
            activity: None,
        },
        SheepView {
            id: id("ill"),
            kind: "bare",
            state: SheepState::Starting,
            model: Some(ModelRef::parse("ns/asr", "1.0").unwrap()),
            job: None,
            problem: Some("the runner \"asr\" exits at once".into()),
            activity: Some("pulling asr:1.0, 40 of 120 MB".into()),
        },
    ]
}

/// Compares with `tests/golden/NAME.json`, byte for byte but for the last newline,
/// and with the schema of the description.
#[track_caller]
fn check(name: &str, schema: &str, body: &[u8]) {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(std::str::from_utf8(body).unwrap(), golden.trim_end(), "{name}");
    let spec: Value = serde_json::from_str(include_str!("../docs/spec.json")).unwrap();
    let value = serde_json::from_slice(body).unwrap();
    fits(&spec, &spec["components"]["schemas"][schema], &value, schema)
        .unwrap_or_else(|why| panic!("{name}: {why}"));
}

/// As much of JSON Schema as the description uses. Members that it does not name
/// are errors, so that it cannot fall behind.
fn fits(spec: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(path) = schema["$ref"].as_str() {
        let target = spec.pointer(&path[1..]).ok_or(format!("{at}: {path} leads nowhere"))?;
        return fits(spec, target, value, at);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let fitting = options.iter().filter(|option| fits(spec, option, value, at).is_ok()).count();
        return if fitting == 1 {
            Ok(())
        } else {
            Err(format!("{at}: {value} fits {fitting} of {options:?}"))
        };
    }
    if let Some(options) = schema["enum"].as_array() {
        return if options.contains(value) {
            Ok(())
        } else {
            Err(format!("{at}: {value} is not in {options:?}"))
        };
    }
    if let Some(constant) = schema.get("const") {
        return if constant == value { Ok(()) } else { Err(format!("{at}: {value} is not {constant}")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["type"] != kind && !schema["type"].as_array().is_some_and(|kinds| kinds.contains(&kind.into()))
    {
        return Err(format!("{at}: {value} is no {}", schema["type"]));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(spec, &schema["items"], item, &format!("{at}[{index}]"))?;
    }
    let Some(members) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        members.get(name.as_str().unwrap()).ok_or(format!("{at}: {name} is missing"))?;
    }
    for (name, member) in members {
        let of_name = schema["properties"].get(name).or(schema.get("additionalProperties"));
        fits(
            spec,
            of_name.ok_or(format!("{at}: {name} is not described"))?,
            member,
            &format!("{at}.{name}"),
        )?;
    }
    Ok(())
}

#[test]
fn status_bodies_are_as_they_were() {
    for (name, job) in records() {
        check(&format!("status-{name}"), "Status", &status_document(&job));
    }
}

#[test]
fn a_cancelled_job_is_cancelled_on_the_routes_that_were_added() {
    for (name, job) in records() {
        let (first, later) = (status_document(&job), later_status(&job));
        match job.state.phase() {
            Phase::Cancelled => check(&format!("later-{name}"), "LaterStatus", &later),
            Phase::Queued | Phase::Processing | Phase::Done | Phase::Failed => assert_eq!(first, later),
        }
    }
}

#[test]
fn progress_is_told_of_a_job_in_work() {
    let (_, job) = records().into_iter().nth(1).unwrap();
    let at = |fraction, message: Option<&str>| Progress { fraction, message: message.map(str::to_owned) };
    let half = at(Some(0.5), Some("page \"1\" of 2\n"));
    check("status-progress", "Status", &status(&job, Some(&half)));
    check("progress", "Progress", &progress(&half));
    for (fraction, shown) in
        [(None, "null"), (Some(f64::NAN), "null"), (Some(1.0), "1.0"), (Some(1e-7), "1e-7")]
    {
        let text = format!("{{\"fraction\":{shown},\"message\":null}}");
        assert_eq!(progress(&at(fraction, None)), text);
    }
}

#[test]
fn the_other_bodies_are_as_they_were() {
    let waiting = Readiness { problems: vec!["a".into()], notices: vec!["b \"c\"".into()] };
    check("flock", "Flock", &flock(&sheep(), &waiting));
    check("flock-empty", "Flock", &flock(&[], &Readiness::default()));
    let records: Vec<_> = records().into_iter().map(|(_, job)| std::sync::Arc::new(job)).collect();
    check("jobs", "JobList", &jobs(&records[..3], Some(u64::MAX)));
    check("jobs-empty", "JobList", &jobs::<std::sync::Arc<JobRecord>>(&[], None));
    check("readyz", "Readiness", &readiness(&Readiness::default()));
    check(
        "readyz-problems",
        "Readiness",
        &readiness(&Readiness {
            problems: vec!["a \"b\"".into(), "c".into()],
            notices: vec!["not of readiness".into()],
        }),
    );
    check("message", "Error", &message("ž \"x\" \\ \n"));
    check("success", "Success", &success());
    check("success-conflict", "Success", &success_beside("a \"b\""));
    check("ready", "Ready", &ready(true));
    check("not-ready", "Ready", &ready(false));
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let spec: Value = serde_json::from_str(include_str!("../docs/spec.json")).unwrap();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, methods) in spec["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    let mut routes = crate::route::DESCRIBED.map(|(method, path)| (method.to_owned(), path.to_owned()));
    routes.sort();
    described.sort();
    assert_eq!(described, routes);
    assert_eq!(spec["openapi"], "3.1.0");
    assert_eq!(spec["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    fn walk(spec: &Value, value: &Value) {
        if let Some(path) = value["$ref"].as_str() {
            assert!(spec.pointer(&path[1..]).is_some(), "{path}");
        }
        for child in value.as_object().into_iter().flat_map(|members| members.values()) {
            walk(spec, child);
        }
        for child in value.as_array().into_iter().flatten() {
            walk(spec, child);
        }
    }
    let spec = serde_json::from_str(include_str!("../docs/spec.json")).unwrap();
    walk(&spec, &spec);
}
