//! `cargo xtask demo`: the main job on real input, from nothing to a result, as a person would do it.
//!
//! The daemon runs on its defaults (embedded queue, embedded storage) with one bare sheep that reads text in
//! pictures. Each committed picture goes the four steps of the tutorial: its file is put into storage, the job
//! is started, waited for, and its output is taken from storage. The demo fails when a text is not read as it
//! is known to be, when a job fails, or when the daemon does not stop cleanly.
//!
//! Everything it makes is under `target/demo`; the data of an earlier run is removed first.

mod daemon;
mod http;
mod json;
mod pictures;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::daemon::Daemon;
use self::http::Client;
use self::json::Value;
use self::pictures::{Picture, Reading};
use crate::command::{build_binaries, step};
use crate::{Profile, Result, python, root, setup, target_dir};

/// Longer than any picture takes on a slow machine; a job that is not done by then is a failure to report.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one picture's job came to.
struct Report {
    picture: Picture,
    /// The text and its least confidence, or why there is none.
    outcome: std::result::Result<Reading, String>,
    /// From the job's start to its end, as the daemon recorded it.
    processing: Option<Duration>,
}

impl Report {
    fn is_as_expected(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|reading| reading.says(&self.picture.text))
    }
}

/// Runs the whole demo.
///
/// # Errors
/// Set-up or build failed, the daemon did not start or stop as it should, or a text was not recognised.
pub(crate) fn run(profile: Profile) -> Result<()> {
    setup::build_tools()?;
    let python = python::DEMO.make()?;
    let binaries = build_binaries(profile)?;
    let place = Place::prepare()?;
    let pictures = pictures::load(&root().join("examples/demo/pictures"))?;

    step("starting the daemon on the embedded queue and storage");
    let daemon = Daemon::start(&binaries.join("shepherd"), &place.config, &place.log, &python)?;
    let client = Client::new(daemon.address());
    for picture in &pictures {
        submit(&client, &place, picture)?;
    }
    let reports = pictures
        .into_iter()
        .map(|picture| collect(&client, &place, picture))
        .collect::<Result<Vec<Report>>>()?;
    println!("\n{}", table(&reports));
    step("stopping the daemon (SIGTERM)");
    daemon.stop()?;

    let wrong = reports.iter().filter(|report| !report.is_as_expected()).count();
    if wrong > 0 {
        return Err(format!("{wrong} of {} pictures were not read as expected", reports.len()).into());
    }
    println!("the daemon ended with exit code 0; all {} pictures were read as expected", reports.len());
    println!("its configuration, log and data are in {}", place.folder.display());
    Ok(())
}

/// The files of one run.
struct Place {
    folder: PathBuf,
    config: PathBuf,
    log: PathBuf,
    storage: PathBuf,
}

impl Place {
    fn prepare() -> Result<Self> {
        let folder = target_dir().join("demo");
        let data = folder.join("data");
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", data.display()).into());
            }
            Ok(()) | Err(_) => {}
        }
        let place = Self {
            config: folder.join("shepherd.yaml"),
            log: folder.join("shepherd.log"),
            // The default storage is the directory `storage` of the default state directory.
            storage: data.join("state/storage"),
            folder,
        };
        fs::create_dir_all(&place.folder)?;
        fs::write(&place.config, configuration(&data, &root().join("examples/models")))?;
        Ok(place)
    }
}

fn configuration(data: &Path, models: &Path) -> String {
    format!(
        "# Written by `cargo xtask demo`. Storage and queue are the embedded defaults, below data_root.\n\
         data_root: {}\n\
         sheep:\n  \
           reader:\n    \
             type: bare\n    \
             working_directory: {}\n",
        yaml_string(data),
        yaml_string(models)
    )
}

/// A path in YAML's single quotes, in which only the quote itself is special.
fn yaml_string(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

/// Steps 1 and 2: the input goes into storage as an ordinary file, then the job is started.
fn submit(client: &Client, place: &Place, picture: &Picture) -> Result<()> {
    let inputs = place.storage.join(&picture.job_id).join("inputs");
    fs::create_dir_all(&inputs)?;
    fs::copy(&picture.path, inputs.join("input")).map_err(|error| {
        format!("cannot copy {} to {}: {error}", picture.path.display(), inputs.display())
    })?;
    let body =
        format!(r#"{{"job_id": "{}", "model": {{"name": "ocr", "version": "latest"}}}}"#, picture.job_id);
    let answer = client.post_json("/start-job", &body)?;
    if answer.status != 200 {
        return Err(format!("start-job of {} was answered with {answer}", picture.job_id).into());
    }
    Ok(())
}

/// Steps 3 and 4: wait until the job is ready, then read its output from storage.
fn collect(client: &Client, place: &Place, picture: Picture) -> Result<Report> {
    let job = format!("/jobs/{}", picture.job_id);
    let answer = client.get(&format!("{job}/wait_ready?timeout={}", PATIENCE.as_secs()))?;
    if answer.status != 200 {
        return Err(format!("waiting for {} was answered with {answer}", picture.job_id).into());
    }
    let status = answer.json()?;
    let processing = duration(&status, "processing_started_at", "finished_at");
    let ready = client.get(&format!("{job}/ready"))?;
    if ready.json()?.get("ready").and_then(Value::as_bool) != Some(true) {
        return Err(format!("{} was waited for but is not ready: {ready}", picture.job_id).into());
    }
    let outcome = match status.get("status").and_then(Value::as_str) {
        Some("done") => Ok(read_output(client, place, &picture)?),
        _ => Err(status
            .get("error_details")
            .and_then(|details| details.get("message"))
            .and_then(Value::as_str)
            .unwrap_or("the job ended without a result or a message")
            .to_owned()),
    };
    Ok(Report { picture, outcome, processing })
}

/// The output as a file of the storage, which must be what the API serves too.
fn read_output(client: &Client, place: &Place, picture: &Picture) -> Result<Reading> {
    let path = place.storage.join(&picture.job_id).join("outputs/output");
    let output = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let served = client.get(&format!("/jobs/{}/result", picture.job_id))?;
    if served.status != 200 || served.body != output {
        return Err(format!("the API's result of {} is not the file in storage", picture.job_id).into());
    }
    Reading::parse(&output)
}

/// The time between two of the status's timestamps of one day (or across one midnight).
fn duration(status: &Value, from: &str, until: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 3_600 * 1_000_000;
    let from = micros_of_day(status.get(from)?.as_str()?)?;
    let until = micros_of_day(status.get(until)?.as_str()?)?;
    Some(Duration::from_micros((until + DAY - from) % DAY))
}

/// Microseconds since midnight of an ISO 8601 time such as `2026-11-22T21:30:59.336682`.
fn micros_of_day(time: &str) -> Option<u64> {
    let (_, clock) = time.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut seconds = 0;
    for part in clock.splitn(3, ':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    Some(seconds * 1_000_000 + micros)
}

fn table(reports: &[Report]) -> String {
    let header = ["picture", "recognised text", "confidence", "time", "as expected"].map(str::to_owned);
    let mut rows = vec![header];
    for report in reports {
        let (text, confidence) = match &report.outcome {
            Ok(reading) => (reading.text(), format!("{:.3}", reading.confidence)),
            Err(message) => (format!("failed: {message}"), "-".to_owned()),
        };
        let time =
            report.processing.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()));
        let verdict = if report.is_as_expected() {
            "yes".to_owned()
        } else {
            format!("NO: {}", report.picture.text.join(" / "))
        };
        rows.push([report.picture.name.clone(), text, confidence, time, verdict]);
    }
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut lines = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            lines.push_str(&format!("{cell:<width$}  "));
        }
        lines.truncate(lines.trim_end().len());
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_job_is_read_from_its_status() {
        let status = json::parse(
            r#"{"processing_started_at": "2026-11-22T23:59:59.750000",
                "finished_at": "2026-11-23T00:00:01.000500"}"#,
        )
        .unwrap();
        let time = duration(&status, "processing_started_at", "finished_at");
        assert_eq!(time, Some(Duration::from_micros(1_250_500)));
        assert_eq!(duration(&status, "processing_started_at", "enqueued_at"), None);
        assert_eq!(micros_of_day("2026-11-22T00:00:02"), Some(2_000_000));
        assert_eq!(micros_of_day("yesterday"), None);
    }

    #[test]
    fn a_path_with_quotes_survives_the_configuration() {
        let text = configuration(Path::new("/it's here/data"), Path::new("/models"));
        assert!(text.contains("data_root: '/it''s here/data'\n"), "{text}");
        assert!(text.contains("\n    working_directory: '/models'\n"), "{text}");
    }

    #[test]
    fn the_table_shows_what_was_read_and_what_was_not() {
        let picture = |name: &str| Picture {
            name: name.to_owned(),
            path: PathBuf::from(name),
            job_id: format!("demo-{name}"),
            text: vec!["ask inside".to_owned()],
        };
        let reading = Reading { lines: vec!["askinside".to_owned()], confidence: 0.96 };
        let reports = [
            Report {
                picture: picture("board"),
                outcome: Ok(reading),
                processing: Some(Duration::from_millis(812)),
            },
            Report { picture: picture("broken"), outcome: Err("no picture".to_owned()), processing: None },
        ];
        let expected = "\
picture  recognised text     confidence  time    as expected
board    askinside           0.960       812 ms  yes
broken   failed: no picture  -           -       NO: ask inside
";
        assert_eq!(table(&reports), expected);
    }
}
