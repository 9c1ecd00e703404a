//! Runs jobs in a program of one's own: no daemon, no HTTP. The model is the
//! command `tr`, run by `shepherd-runner`, which must be on `PATH` or beside this
//! program: `cargo build -p shepherd-runner-bin && cargo run --bin embed`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use shepherd_core::{Data, Member, Options, RunnerLimits, Shepherd, Submit};
use shepherd_job::{DEFAULT_OUTPUT, JobId, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, SheepId};
use shepherd_queue::{SqliteOptions, SqliteStore};
use shepherd_sheep::{BareOptions, BareSheep};
use shepherd_storage::LocalStorage;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (data_root, state) = (dir.path().join("data"), dir.path().join("state"));
    let models = dir.path().join("models");
    std::fs::create_dir_all(models.join("upper/1"))?;
    std::fs::create_dir_all(&state)?;
    std::fs::write(models.join("upper/1/config.yaml"), "")?;
    std::fs::write(
        models.join("upper/1/runner.yaml"),
        r#"runner: {command: ["sh", "-c", "tr a-z A-Z < $0/input > $1/output", "{inputs}", "{outputs}"]}"#,
    )?;

    let dolly = SheepId::parse("dolly")?;
    let sheep = BareSheep::new(BareOptions::new(dolly.clone(), models, data_root.join("dolly")));
    let mut options = Options::new(&data_root, &state);
    options.flock.push(Member { id: dolly, sheep: Arc::new(sheep), limits: RunnerLimits::default() });
    let queue = SqliteStore::open(&state, SqliteOptions::default())?;
    let storage = LocalStorage::open(&dir.path().join("storage"))?;
    let shepherd = Shepherd::start(options, Arc::new(queue), Arc::new(storage)).await?;

    for (number, text) in ["counting sheep", "a flock of one"].into_iter().enumerate() {
        let id = JobId::parse(&format!("job-{number}"), JobIdRule::Bucket)?;
        let model = ModelRef::parse("upper", "1")?;
        let spec = JobSpec { id: id.clone(), model, sheep: None, priority: 0 };
        shepherd.submit(Submit { spec, data: Data::Payload(text.into()) }).await?;
        let record = shepherd.finished(&id).await?;
        anyhow::ensure!(matches!(record.state, JobState::Done { .. }), "{:?}", record.state);
        let output = shepherd.open(&id, &ObjectPath::parse(DEFAULT_OUTPUT)?, None).await?;
        let bytes: Vec<bytes::Bytes> = output.body.try_collect().await.context("cannot read the output")?;
        println!("{text} -> {}", String::from_utf8_lossy(&bytes.concat()).trim_end());
    }
    shepherd.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
