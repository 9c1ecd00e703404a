//! An engine, an image of a test's own, and a sheep of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shepherd_job::{ModelRef, SheepId};
use shepherd_sheep::{
    DockerOptions, DockerSheep, Engine, EngineHost, EngineOptions, Pull, RunningSheep, Sheep as _,
    SheepError, Transport,
};
use tempfile::TempDir;

/// Far more than any of the waits needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A grace that no test waits out.
pub(crate) const LONG: Duration = Duration::from_secs(600);

const BUSYBOX: &str = "/bin/busybox";
const REGISTRY: &str = "shepherd.test";

/// An engine with an image that has a shell, known as the model `NAME:1`.
pub(crate) struct Site {
    pub(crate) host: String,
    pub(crate) dir: TempDir,
    /// No other test has it, as instance and as the model's name.
    pub(crate) instance: String,
}

/// A site at the engine of this machine, if there is one.
pub(crate) fn site() -> Option<Site> {
    let host = std::env::var("SHEPHERD_TEST_DOCKER_HOST");
    let host = host.unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    if !Path::new(BUSYBOX).exists() {
        return skip(&format!("there is no {BUSYBOX}"));
    }
    let version = Command::new("docker").args(["-H", &host, "version"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        return skip(&format!("no engine answers at {host}, or there is no docker command"));
    }
    Some(Site::at(host))
}

pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    let forbidden = std::env::var("SHEPHERD_TEST_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!forbidden, "a test was to be skipped, and SHEPHERD_TEST_NO_SKIP forbids it: {reason}");
    println!("skipped: {reason}");
    None
}

impl Site {
    /// A site at an engine that is there.
    pub(crate) fn at(host: String) -> Self {
        let instance = uuid::Uuid::now_v7().simple().to_string();
        let instance = format!("test-{}", &instance[instance.len() - 12..]);
        let site = Self { host, dir: tempfile::tempdir().unwrap(), instance };
        site.import(&site.image(), &[r#"CMD ["/bin/sh", "-c", "echo its own; exit 5"]"#]);
        site
    }

    /// Makes an image with a shell and two users, changed as a `Dockerfile` would.
    pub(crate) fn import(&self, name: &str, changes: &[&str]) {
        let root = self.dir.path().join("root");
        if !root.exists() {
            for dir in ["bin", "etc", "tmp"] {
                std::fs::create_dir_all(root.join(dir)).unwrap();
            }
            std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
            for applet in [
                "sh", "cat", "sleep", "id", "touch", "ls", "nc", "head", "yes", "chmod", "mkdir", "dd",
                "kill",
            ] {
                std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
            std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nshep:x:1234:1234::/:/bin/sh\n")
                .unwrap();
            std::fs::write(root.join("etc/group"), "root:x:0:\nshep:x:1234:\n").unwrap();
        }
        let mut tar = Command::new("tar")
            .args(["-c", "-C", root.to_str().unwrap(), "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut import = Command::new("docker");
        import.args(["-H", &self.host, "import"]);
        for change in changes {
            import.args(["-c", change]);
        }
        let output = import.args(["-", name]).stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(tar.wait().unwrap().success());
    }

    pub(crate) fn image(&self) -> String {
        format!("{REGISTRY}/{}:1", self.instance)
    }

    pub(crate) fn model(&self) -> ModelRef {
        ModelRef::parse(&self.instance, "1").unwrap()
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine_at(&self.host)
    }

    pub(crate) fn engine_at(&self, host: &str) -> Engine {
        let path = PathBuf::from(host.strip_prefix("unix://").expect("the engine's host is a unix:// URL"));
        Engine::new(EngineOptions {
            host: EngineHost::Unix(path),
            instance: self.instance.clone(),
            flock: ["dolly", "molly"].map(|id| SheepId::parse(id).unwrap()).to_vec(),
            registry: REGISTRY.to_owned(),
            login: None,
            registry_patience: Duration::from_secs(1),
            image_budget: None,
            state_dir: self.dir.path().join("state"),
        })
        .unwrap()
    }

    /// Options of a sheep whose runner is a shell script.
    pub(crate) fn options(&self, script: &str) -> DockerOptions {
        DockerOptions {
            id: SheepId::parse("dolly").unwrap(),
            data_root: self.home(),
            transport: Transport::Ipc,
            port: 0,
            devices: Vec::new(),
            gpus: None,
            cdi: Vec::new(),
            autoremove: true,
            memory: None,
            cpus: None,
            pids: 100,
            shm_size: None,
            user: None,
            env: Vec::new(),
            mounts: Vec::new(),
            network: None,
            read_only: true,
            capabilities: Vec::new(),
            models: None,
            pull: Pull::Never,
            entrypoint: None,
            command: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
            stdout_file: None,
            stderr_file: None,
            log_max_bytes: 1 << 20,
            log_files: 2,
        }
    }

    pub(crate) fn sheep(&self, options: DockerOptions) -> DockerSheep {
        DockerSheep::new(options, self.engine())
    }

    /// Launches a runner that is this script.
    pub(crate) async fn launch(&self, script: &str) -> Box<dyn RunningSheep> {
        self.sheep(self.options(script)).launch(&self.model()).await.unwrap()
    }

    /// Why a launch is refused, after which nothing is left.
    pub(crate) async fn refusal(&self, options: DockerOptions) -> SheepError {
        let error =
            self.sheep(options).launch(&self.model()).await.err().expect("the launch must be refused");
        assert_eq!(self.containers(), "", "{error}");
        error
    }

    /// The sheep's directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("data/dolly")
    }

    /// What the docker command says.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker").args(["-H", &self.host]).args(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The ids of this instance's containers.
    pub(crate) fn containers(&self) -> String {
        let label = format!("label=shepherd.instance={}", self.instance);
        self.docker(&["ps", "-aq", "--no-trunc", "--filter", &label])
    }

    /// A container that is not a sheep's, doing this, with these arguments to `docker run`.
    pub(crate) fn stranger(&self, arguments: &[&str], script: &str) -> Stranger<'_> {
        let image = self.image();
        let mut run = vec!["run", "-d", "--label", "shepherd.sheep=dolly"];
        run.extend_from_slice(arguments);
        run.extend_from_slice(&[&image, "/bin/sh", "-c", script]);
        Stranger { site: self, id: self.docker(&run) }
    }
}

/// A container of somebody else.
pub(crate) struct Stranger<'a> {
    site: &'a Site,
    id: String,
}

impl Stranger<'_> {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn is_running(&self) -> bool {
        self.site.docker(&["inspect", "-f", "{{.State.Running}}", &self.id]) == "true"
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.site.docker(&["rm", "-f", "-v", &self.id]);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let quiet = |arguments: &[&str]| {
            let output = Command::new("docker").args(["-H", &self.host]).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        let label = format!("label=shepherd.instance={}", self.instance);
        for id in quiet(&["ps", "-aq", "--filter", &label]).split_whitespace() {
            quiet(&["rm", "-f", "-v", id]);
        }
        let mut images = String::new();
        let _ = write!(images, "{}", quiet(&["images", "-q", &format!("{REGISTRY}/{}*", self.instance)]));
        for id in images.split_whitespace() {
            quiet(&["rmi", "-f", id]);
        }
    }
}

pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}
