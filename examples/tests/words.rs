//! The word counter, run by a real shepherd.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use shepherd_core::{Data, JobEventKind, Member, Options, RunnerLimits, Shepherd, Submit};
use shepherd_job::{DEFAULT_OUTPUT, JobId, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, SheepId};
use shepherd_queue::{SqliteOptions, SqliteStore};
use shepherd_sheep::{BareOptions, BareSheep};
use shepherd_storage::LocalStorage;

/// Long enough for any machine; no test passes by waiting for it.
const LONG: Duration = Duration::from_secs(60);

struct Site {
    shepherd: Shepherd,
    // Removed after the shepherd's end.
    _dir: tempfile::TempDir,
}

impl Site {
    async fn new(models: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data_root, state) = (dir.path().join("data"), dir.path().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let dolly = SheepId::parse("dolly").unwrap();
        let runner_command = vec![env!("CARGO_BIN_EXE_words").to_owned()];
        let sheep = BareOptions {
            runner_command,
            ..BareOptions::new(dolly.clone(), models, data_root.join("dolly"))
        };
        let mut options = Options::new(&data_root, &state);
        let sheep = Arc::new(BareSheep::new(sheep));
        options.flock.push(Member { id: dolly, sheep, limits: RunnerLimits::default() });
        let queue = SqliteStore::open(&state, SqliteOptions::default()).unwrap();
        let storage = LocalStorage::open(&dir.path().join("storage")).unwrap();
        let shepherd = Shepherd::start(options, Arc::new(queue), Arc::new(storage)).await.unwrap();
        Self { shepherd, _dir: dir }
    }

    async fn submit(&self, id: &str, text: impl Into<Bytes>) -> JobId {
        let id = JobId::parse(id, JobIdRule::Bucket).unwrap();
        let model = ModelRef::parse("words", "latest").unwrap();
        let spec = JobSpec { id: id.clone(), model, sheep: None, priority: 0 };
        self.shepherd.submit(Submit { spec, data: Data::Payload(text.into()) }).await.unwrap();
        id
    }

    async fn finished(&self, id: &JobId) -> JobState {
        tokio::time::timeout(LONG, self.shepherd.finished(id)).await.unwrap().unwrap().state.clone()
    }

    async fn output(&self, id: &JobId) -> String {
        let path = ObjectPath::parse(DEFAULT_OUTPUT).unwrap();
        let output = self.shepherd.open(id, &path, None).await.unwrap();
        let bytes: Vec<Bytes> = output.body.try_collect().await.unwrap();
        String::from_utf8(bytes.concat()).unwrap()
    }
}

#[tokio::test]
async fn words_are_counted_and_logged_for_each_job() {
    let site = Site::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).await;
    let ids = ["one-sheep", "two-sheep", "many-sheep"];
    let mut jobs = Vec::new();
    for (number, id) in ids.into_iter().enumerate() {
        let text = format!("{}and a shepherd\n", "A sheep, the sheep's wool.\n".repeat(number + 1));
        jobs.push(site.submit(id, text).await);
    }
    for (number, id) in jobs.iter().enumerate() {
        let state = site.finished(id).await;
        assert!(matches!(state, JobState::Done { .. }), "{state:?}");
        let count = number + 1;
        let wanted = match count {
            1 => "1\tsheep\n1\tsheep's\n1\tshepherd\n1\twool\n".to_owned(),
            _ => format!("{count}\tsheep\n{count}\tsheep's\n{count}\twool\n1\tshepherd\n"),
        };
        assert_eq!(site.output(id).await, wanted);
        let log = site.shepherd.log(id).await.unwrap();
        assert_eq!(log, format!("{} lines, 7 different words\n", count + 1));
    }
    site.shepherd.shutdown(LONG).await;
}

#[tokio::test]
async fn a_job_says_how_far_it_is_and_ends_when_it_is_cancelled() {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(models.path().join("words/latest")).unwrap();
    let config = "{slots: 2, top: 1, common: [], rest: 20}";
    std::fs::write(models.path().join("words/latest/config.yaml"), config).unwrap();
    let site = Site::new(models.path().to_owned()).await;
    let endless = site.submit("endless", "sheep\n".repeat(1_000_000)).await;
    let mut events = site.shepherd.events(&endless, None).await.unwrap();
    loop {
        let event = tokio::time::timeout(LONG, events.next()).await.unwrap().expect("it goes on");
        if let JobEventKind::Progress(progress) = event.kind {
            assert!(progress.fraction.is_some_and(|fraction| fraction > 0.0 && fraction < 0.5));
            assert_eq!(progress.message.as_deref(), Some("counting"));
            break;
        }
    }
    // The other slot works meanwhile.
    let short = site.submit("short", "one\n").await;
    assert!(matches!(site.finished(&short).await, JobState::Done { .. }));
    site.shepherd.cancel(&endless).await.unwrap();
    let state = site.finished(&endless).await;
    assert!(matches!(state, JobState::Cancelled { .. }), "{state:?}");
    // The same process goes on.
    let after = site.submit("after", "two\n").await;
    assert!(matches!(site.finished(&after).await, JobState::Done { .. }));
    assert_eq!(site.output(&after).await, "1\ttwo\n");
    site.shepherd.shutdown(LONG).await;
}
