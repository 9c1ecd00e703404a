//! A sheep in a directory of its own, and ways to see its processes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shepherd_job::{ModelRef, SheepId};
use shepherd_sheep::{BareOptions, BareSheep, RunningSheep, Sheep, SheepError};
use tempfile::TempDir;

/// Far more than any of the waits needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// A grace that no test waits out.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// A sheep's directories, with the model `m:1` and a script for its runner.
pub(crate) struct BareFixture {
    pub(crate) dir: TempDir,
    pub(crate) options: BareOptions,
}

impl BareFixture {
    pub(crate) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        std::fs::create_dir_all(options.working_directory.join("m/1")).unwrap();
        std::fs::write(options.working_directory.join("m/1/config.yaml"), "").unwrap();
        std::fs::write(dir.path().join("runner.sh"), script).unwrap();
        Self { dir, options }
    }

    pub(crate) fn sheep(&self) -> BareSheep {
        BareSheep::new(self.options.clone())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.path("data/state/sheep/dolly.json")
    }

    /// Waits until the script has written the file, and takes a process id from it.
    pub(crate) async fn pid(&self, name: &str) -> i32 {
        until(|| self.path(name).exists()).await;
        self.read(name).trim().parse().unwrap()
    }
}

/// The options of a sheep whose runner is `DIR/runner.sh`, with `DIR` as `$DIR`.
pub(crate) fn options(dir: &Path) -> BareOptions {
    let mut options =
        BareOptions::new(SheepId::parse("dolly").unwrap(), dir.join("models"), dir.join("data/dolly"));
    let script = dir.join("runner.sh").to_str().unwrap().to_owned();
    options.runner_command = vec!["/bin/sh".to_owned(), script];
    options.env = vec![("DIR".to_owned(), dir.to_str().unwrap().to_owned())];
    options
}

pub(crate) fn model() -> ModelRef {
    ModelRef::parse("m", "1").unwrap()
}

/// Whether the process is there and not a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

pub(crate) fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) async fn launch(sheep: &BareSheep) -> Box<dyn RunningSheep> {
    sheep.launch(&model()).await.unwrap()
}

pub(crate) async fn refusal(sheep: &BareSheep, model: &ModelRef) -> SheepError {
    sheep.launch(model).await.err().expect("the launch must be refused")
}

/// A script that can `write FILE`: whole, so that its engine_liveness means that it is complete.
pub(crate) fn script(body: &str) -> String {
    format!(
        "write() {{ cat > \"$DIR/.$1\" && mv \"$DIR/.$1\" \"$DIR/$1\"; }}
{body}"
    )
}
