use super::*;

/// Progress after these lines of the engine's, with whether each was progress.
fn after(lines: &[&str]) -> (Progress, Vec<bool>) {
    let mut progress = Progress::default();
    let moved = lines.iter().map(|line| progress.note(&serde_json::from_str(line).unwrap())).collect();
    (progress, moved)
}

#[test]
fn loaded_and_total_are_those_of_all_layers() {
    let (progress, moved) = after(&[
        r#"{"status":"Pulling from a/probe","id":"1"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"bb"}"#,
        r#"{"status":"Waiting","progressDetail":{},"id":"bb"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":40000000,"total":100000000},"progress":"[=> ]","id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":500,"total":19000500},"id":"bb"}"#,
    ]);
    assert_eq!(moved, [true, true, true, false, true, true]);
    assert_eq!(progress.phrase("mnist:2"), "pulling mnist:2, 40 of 120 MB");
}

#[test]
fn without_sizes_only_what_is_pulled_is_told() {
    assert_eq!(Progress::default().phrase("m:1"), "pulling m:1");
    let (progress, _) = after(&[r#"{"status":"Downloading","progressDetail":{"current":2500},"id":"aa"}"#]);
    assert_eq!(progress.phrase("m:1"), "pulling m:1, 2 of 3 kB");
}

#[test]
fn what_is_loaded_is_unpacked_without_the_registry() {
    let (progress, _) = after(&[
        r#"{"status":"Already exists","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":10,"total":20},"id":"bb"}"#,
    ]);
    assert!(!progress.is_loaded());
    let (progress, moved) = after(&[
        r#"{"status":"Already exists","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":10,"total":20},"id":"bb"}"#,
        r#"{"status":"Download complete","progressDetail":{},"id":"bb"}"#,
        r#"{"status":"Extracting","progressDetail":{"current":5,"total":20},"id":"bb"}"#,
        r#"{"status":"Extracting","progressDetail":{"current":9,"total":20},"id":"bb"}"#,
        r#"{"status":"Pull complete","progressDetail":{},"id":"bb"}"#,
    ]);
    assert_eq!(moved, [true; 6]);
    assert!(progress.is_loaded());
    assert_eq!(progress.phrase("m:1"), "unpacking m:1");
}

#[test]
fn loading_the_same_again_is_no_progress() {
    let (_, moved) = after(&[
        r#"{"status":"Downloading","progressDetail":{"current":10,"total":20},"id":"aa"}"#,
        r#"{"status":"Retrying in 2 seconds","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Retrying in 1 second","progressDetail":{},"id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":5,"total":20},"id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":10,"total":20},"id":"aa"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":11,"total":20},"id":"aa"}"#,
    ]);
    assert_eq!(moved, [true, false, false, false, false, true]);
}

#[test]
fn remarks_of_an_unknown_engine_count_once_each_and_not_for_ever() {
    let line = r#"{"status":"Trying to pull x...","stream":""}"#;
    assert_eq!(after(&[line, line]).1, [true, false]);
    let mut progress = Progress::default();
    let noted = (0..1000)
        .filter(|n| {
            progress.note(&CreateImageInfo { status: Some(format!("step {n}")), ..Default::default() })
        })
        .count();
    assert_eq!(noted, REMARKS_MAX);
}

#[test]
fn numbers_that_make_no_sense_are_nothing() {
    let (progress, _) =
        after(&[r#"{"status":"Downloading","progressDetail":{"current":-1,"total":-1},"id":"aa"}"#]);
    assert_eq!(progress.phrase("m:1"), "pulling m:1");
}
