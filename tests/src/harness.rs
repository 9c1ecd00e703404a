//! What outlives a daemon: directories, configuration, models.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker::{self, Engine, Registry};
use crate::s3::{ACCESS_KEY, Layout, SECRET_KEY};
use crate::{Daemon, Ended, Journal, Manner, Model, ids, process, programs};

/// A place to run daemons in, one after the other. Removed when dropped, and every
/// process in it is killed.
#[derive(Debug)]
pub struct Harness {
    dir: TempDir,
    config: Value,
}

impl Harness {
    /// One sheep ([`ids::SHEEP`]) with the scripted runner, the models
    /// [`ids::SCRIPTED`] and [`ids::RAW`], and storage in a directory.
    ///
    /// # Panics
    /// When the directories cannot be made.
    pub fn new() -> Self {
        let harness = Self::without_sheep(&std::env::temp_dir()).with_sheep(ids::SHEEP, json!({}));
        harness.model(ids::SCRIPTED, Manner::Sdk);
        harness.model(ids::RAW, Manner::Raw);
        harness
    }

    /// As [`new`](Self::new), with storage in the S3 server at a URL.
    ///
    /// # Panics
    /// When the directories cannot be made.
    pub fn on_s3(url: &str, layout: Layout) -> Self {
        let mut harness = Self::new();
        let mut storage = json!({"url": url, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY});
        if let Layout::Prefix { bucket, prefix } = layout {
            merge(&mut storage, json!({"layout": "prefix", "bucket": bucket, "prefix": prefix}));
        }
        harness.config["storage"] = storage;
        harness
    }

    /// As [`new`](Self::new), with the storage's directory served over S3 at any port.
    ///
    /// # Panics
    /// When the directories cannot be made.
    pub fn serving_s3() -> Self {
        let served = json!({"listen": "127.0.0.1:0", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY});
        Self::new().with(json!({"storage": {"serve_s3": served}}))
    }

    /// A harness in a new directory below `parent`, with storage in a directory, and
    /// neither sheep nor models.
    ///
    /// # Panics
    /// When the directories cannot be made.
    pub fn without_sheep(parent: &Path) -> Self {
        // Short, because the path of a socket is.
        let dir = tempfile::Builder::new().prefix("sh-").tempdir_in(parent).expect("a directory can be made");
        let mut harness = Self { dir, config: Value::Null };
        for name in ["models", "storage", "data"] {
            std::fs::create_dir(harness.path(name)).expect("a directory can be made");
        }
        harness.config = json!({
            "data_root": harness.path("data"),
            "state_dir": harness.path("state"),
            "storage": {"url": format!("file://{}", harness.path("storage").display())},
            "sheep": {},
        });
        harness
    }

    /// Adds a bare sheep, or replaces it; its runner is the scripted one, unless
    /// `keys` say another. A null in `keys` leaves a key out.
    #[must_use]
    pub fn with_sheep(mut self, id: &str, keys: Value) -> Self {
        let mut sheep = json!({
            "type": "bare",
            "working_directory": self.path("models"),
            "stdout_file": self.path("runners.out"),
            "stderr_file": self.path("runners.err"),
        });
        match keys.get("runner_command") {
            None => {
                let program = programs::built("scripted_runner");
                sheep["runner_command"] = json!([program, "--journal", self.journal().path()]);
            }
            // The default, which the daemon finds beside itself.
            Some(Value::Null) => drop(programs::built("shepherd-runner")),
            Some(_) => {}
        }
        merge(&mut sheep, keys);
        self.config["sheep"][id] = sheep;
        self
    }

    /// A harness whose one sheep ([`ids::SHEEP`]) runs images of this registry on this engine: with the scripted
    /// runner, over ipc. Its journal and [`shared`](Self::shared) can be reached from the containers.
    ///
    /// # Panics
    /// When the directories cannot be made.
    pub fn on_engine(engine: &Engine, registry: &Registry, keys: Value) -> Self {
        let harness = Self::without_sheep(&std::env::temp_dir())
            .with(json!({"docker": {"host": engine.host()}, "registry": registry.config()}));
        std::fs::create_dir(harness.path("shared")).expect("a directory can be made");
        // Containers run under any user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(harness.path("shared"), open).expect("its mode can be set");
        harness.with_docker_sheep(ids::SHEEP, keys)
    }

    /// Adds a sheep as [`on_engine`](Self::on_engine) does, or replaces it.
    #[must_use]
    pub fn with_docker_sheep(mut self, id: &str, keys: Value) -> Self {
        let shared = self.path("shared");
        let mut sheep = json!({
            "type": "docker",
            "transport": "ipc",
            "mounts": [format!("{0}:{0}:rw", shared.display())],
            "command": ["--journal", shared.join("journal"), "/model/config.yaml"],
        });
        merge(&mut sheep, keys);
        self.config["sheep"][id] = sheep;
        self
    }

    /// A path in the directory that containers see at the same place.
    pub fn shared(&self, below: impl AsRef<Path>) -> PathBuf {
        self.path("shared").join(below)
    }

    /// Changes the configuration.
    #[must_use]
    pub fn with(mut self, keys: Value) -> Self {
        merge(&mut self.config, keys);
        self
    }

    /// Writes a model whose scripted runner has this manner.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn model(&self, model: Model, manner: Manner) {
        std::fs::write(self.model_dir(model).join("config.yaml"), manner.text())
            .expect("a model can be written");
    }

    /// The directory of a model, made when missing.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn model_dir(&self, model: Model) -> PathBuf {
        let dir = self.path("models").join(model.name).join(model.version);
        std::fs::create_dir_all(&dir).expect("a model's directory can be made");
        dir
    }

    /// Leaves the directory when this is dropped; its path.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    /// A path below the harness's directory.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Where an object of a job lies in storage.
    pub fn object(&self, job: &str, key: &str) -> PathBuf {
        self.path("storage").join(job).join(key)
    }

    /// Puts an object of a job into storage, as a person or a script does.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, job: &str, key: &str, data: impl AsRef<[u8]>) {
        let path = self.object(job, key);
        std::fs::create_dir_all(path.parent().expect("an object is in a directory"))
            .expect("directories can be made");
        std::fs::write(path, data).expect("an object can be written");
    }

    /// Opens a gate that a [`Script::Gate`](crate::Script::Gate) waits for.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn open_gate(&self, gate: &Path) {
        assert!(gate.starts_with(self.dir.path()), "a gate is in the site");
        std::fs::write(gate, "").expect("a gate can be opened");
    }

    /// What the scripted runners did.
    pub fn journal(&self) -> Journal {
        let shared = self.path("shared");
        Journal::at(&if shared.is_dir() { shared.join("journal") } else { self.path("journal") })
    }

    /// Waits until a runner has begun this many attempts at a job.
    pub async fn begun(&self, job: &str, attempts: usize) {
        crate::eventually(&format!("attempt {attempts} at {job}"), || {
            (self.journal().runs_of(job).len() >= attempts).then_some(())
        })
        .await;
    }

    /// The configuration.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Writes the configuration file; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self) -> PathBuf {
        let path = self.path("shepherd.yaml");
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&self.config).expect("JSON is text");
        std::fs::write(&path, plain_references(&text)).expect("the configuration can be written");
        path
    }

    /// The command that runs the daemon on a free port, to which more may be added.
    pub fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.arg("-c").arg(self.write_config()).args(["-h", "127.0.0.1", "-p", "0"]);
        command
    }

    /// The binary without arguments, in the harness's directory.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(programs::built("shepherd"));
        command.current_dir(self.dir.path());
        command
    }

    /// Starts the daemon and waits until it can be asked.
    pub async fn start(&self) -> Daemon {
        self.start_command(self.command()).await
    }

    /// Starts the daemon by a command and waits until it can be asked.
    pub async fn start_command(&self, command: Command) -> Daemon {
        let mut daemon = self.spawn(command);
        daemon.available().await;
        daemon
    }

    /// Starts the daemon and waits for nothing.
    pub fn spawn(&self, command: Command) -> Daemon {
        Daemon::spawn(command, self.dir.path())
    }

    /// Runs a command of the binary that is to end by itself.
    pub async fn run(&self, command: Command) -> Ended {
        self.spawn(command).ended().await
    }

    /// Processes that run in the harness now.
    pub fn processes(&self) -> Vec<i32> {
        process::below(self.dir.path())
    }
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some(host) = self.config["docker"]["host"].as_str() {
            docker::remove_left_over(host, &self.path("state"));
        }
        let _ = crate::daemon::wait_for(|| {
            let processes = self.processes();
            for pid in &processes {
                process::signal(*pid, rustix::process::Signal::KILL);
            }
            processes.is_empty()
        });
    }
}

/// Lays `keys` over `base`: objects are merged, anything else replaces, null removes.
fn merge(base: &mut Value, keys: Value) {
    match (base, keys) {
        (Value::Object(base), Value::Object(keys)) => {
            for (key, value) in keys {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, keys) => *base = keys,
    }
}

/// JSON with strings such as `"$NAME"` as plain scalars: quoted ones are no references.
fn plain_references(json: &str) -> String {
    let mut pieces = json.split("\"$");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let (name, rest) = piece.split_once('"').expect("JSON closes its strings");
        format!("{text}${name}{rest}")
    })
}
