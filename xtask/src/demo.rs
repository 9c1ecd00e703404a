//! `cargo xtask demo`: the main job on real input, from nothing to a result, as a person would do it.
//!
//! The daemon runs on its defaults (embedded queue, embedded storage) with one bare sheep that reads text in
//! pictures. Each committed picture goes the four steps of the tutorial: its file is put into storage, the job
//! is started, waited for, and its output is taken from storage. The demo fails when a text is not read as it
//! is known to be, when a job fails, or when the daemon does not stop cleanly.
//!
//! Every picture is read in three ways, and the table at the end says how long each took:
//!
//! - *cold*, once: the model's version `cold` is a command that is started for each job and loads the model;
//! - *warm*, [`ROUNDS`] times: its version `latest` is a Python runner that has it loaded;
//! - in a *plain loop*, as often: the same Python code without a shepherd. It takes turns with the warm runner,
//!   so that what slows down the machine slows down both.
//!
//! What the shepherd adds to a picture is what its client waits beyond the time that the code takes within the
//! runner, which the runner prints. What warm and plain loop differ by must come to the same; but on a machine
//! that does other things too, that is lost in the noise of two long times.
//!
//! Everything it makes is under `target/demo`; the data of an earlier run is removed first.

mod daemon;
mod http;
mod json;
mod pictures;
mod plain;
mod report;
mod sdk;
mod walk;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::daemon::Daemon;
use self::http::Client;
use self::pictures::Picture;
use self::plain::Plain;
use self::report::Report;
use self::walk::Walk;
use crate::command::{build_binaries, step};
use crate::{Profile, Result, python, root, setup, target_dir};

/// Longer than any picture takes on a slow machine; a job that is not done by then is a failure to report.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often each picture is read warm and in the plain loop. Odd, so that one time is in the middle.
const ROUNDS: usize = 5;

/// Runs the whole demo.
///
/// # Errors
/// Set-up or build failed, the daemon did not start or stop as it should, or a text was not recognised.
pub(crate) fn run(profile: Profile) -> Result<()> {
    setup::build_tools()?;
    let python = python::DEMO.make()?;
    sdk::install(&python)?;
    let binaries = build_binaries(profile)?;
    let place = Place::prepare()?;
    let pictures = pictures::load(&root().join("examples/demo/pictures"))?;

    step("starting the daemon on the embedded queue and storage");
    let daemon = Daemon::start(&binaries.join("shepherd"), &place.config, &place.log, &python)?;
    let walk = Walk { client: Client::new(daemon.address()), storage: place.storage.clone() };
    let mut reports = measure(&walk, &place, &python, pictures)?;
    step("stopping the daemon (SIGTERM)");
    daemon.stop()?;
    // All that the runner printed is there by now.
    let printed = fs::read_to_string(&place.printed)
        .map_err(|error| format!("cannot read {}: {error}", place.printed.display()))?;
    for report in &mut reports {
        report.add_printed(&printed)?;
    }
    println!("\n{}", report::table(&reports));
    println!("{}", report::summary(&reports));

    let wrong = reports.iter().filter(|report| !report.is_as_expected()).count();
    if wrong > 0 {
        return Err(format!("{wrong} of {} pictures were not read as expected", reports.len()).into());
    }
    println!("the daemon ended with exit code 0; all {} pictures were read as expected", reports.len());
    println!("its configuration, log and data are in {}", place.folder.display());
    Ok(())
}

/// Reads every picture in every way.
fn measure(walk: &Walk, place: &Place, python: &Path, pictures: Vec<Picture>) -> Result<Vec<Report>> {
    step("reading each picture cold: a process for each, which loads the model");
    let mut reports = Vec::new();
    for picture in pictures {
        let cold = walk.go(&picture, "cold", &format!("{}-cold", picture.stem))?;
        reports.push(Report::new(picture, cold));
    }

    step("loading the model once, in a runner and in a plain loop without a shepherd");
    let mut plain = Plain::start(&python.join("python3"), &model("latest"), &place.plain)?;
    // The first job waits for the model; and a first picture, for memory.
    for report in &mut reports {
        let first = walk.go(&report.picture, "latest", &format!("{}-first", report.picture.stem))?;
        report.warm_up(first);
        plain.read(&report.picture)?;
    }

    step(&format!("reading each picture {ROUNDS} times warm and in the plain loop, which take turns"));
    for round in 1..=ROUNDS {
        for report in &mut reports {
            let job = format!("{}-{round}", report.picture.stem);
            // Neither is always the one that the other has just left the caches to.
            let (warm, alone) = if round % 2 == 1 {
                let warm = walk.go(&report.picture, "latest", &job)?;
                (warm, plain.read(&report.picture)?)
            } else {
                let alone = plain.read(&report.picture)?;
                (walk.go(&report.picture, "latest", &job)?, alone)
            };
            report.add(job, warm, &alone);
        }
    }
    plain.stop()?;
    Ok(reports)
}

/// The directory of one version of the text recognition.
fn model(version: &str) -> PathBuf {
    root().join("examples/models/ocr").join(version)
}

/// The files of one run.
struct Place {
    folder: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// What the runners printed.
    printed: PathBuf,
    storage: PathBuf,
    /// Inputs and outputs of the plain loop.
    plain: PathBuf,
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
            printed: data.join("runner.out"),
            // The default storage is the directory `storage` of the default state directory.
            storage: data.join("state/storage"),
            plain: data.join("plain"),
            folder,
        };
        fs::create_dir_all(&data)?;
        let configuration = configuration(&data, &root().join("examples/models"), &place.printed);
        fs::write(&place.config, configuration)?;
        Ok(place)
    }
}

fn configuration(data: &Path, models: &Path, printed: &Path) -> String {
    format!(
        "# Written by `cargo xtask demo`. Storage and queue are the embedded defaults, below data_root.\n\
         data_root: {}\n\
         sheep:\n  \
           reader:\n    \
             type: bare\n    \
             working_directory: {}\n    \
             stdout_file: {}\n",
        yaml_string(data),
        yaml_string(models),
        yaml_string(printed)
    )
}

/// A path in YAML's single quotes, in which only the quote itself is special.
fn yaml_string(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_quotes_survives_the_configuration() {
        let text = configuration(Path::new("/it's here/data"), Path::new("/models"), Path::new("/out"));
        assert!(text.contains("data_root: '/it''s here/data'\n"), "{text}");
        assert!(text.contains("\n    working_directory: '/models'\n"), "{text}");
    }

    #[test]
    fn the_model_is_there_in_both_ways() {
        for version in ["cold", "latest"] {
            for file in ["config.yaml", "runner.yaml"] {
                assert!(model(version).join(file).is_file(), "{version}: {file}");
            }
        }
    }
}
