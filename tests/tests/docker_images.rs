//! The images of this project, and the sandbox of containers that is made of them.

#![allow(clippy::unwrap_used, reason = "what several tests share is a test, too")]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shepherd_tests::docker::Engine;
use shepherd_tests::{Client, Model, built, eventually, eventually_async, free_port, skip, start_body};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a command printed, trimmed.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Compose, as docker's own command or as the one of its own.
fn compose() -> Option<Vec<&'static str>> {
    let ways = [vec!["docker", "compose"], vec!["docker-compose"]];
    ways.into_iter().find(|way| output(Command::new(way[0]).args(&way[1..]).arg("version")).is_ok())
}

/// The images, under a tag of this test's own. They go when it is dropped.
struct Images<'a> {
    engine: &'a Engine,
    tag: String,
}

impl<'a> Images<'a> {
    fn build(engine: &'a Engine) -> Self {
        let images = Self { engine, tag: format!("test-{}", std::process::id()) };
        let programs = [built("shepherd"), built("shepherd-runner")];
        let mut build = Command::new(root().join("docker/build-local"));
        build.arg(programs[0].parent().expect("a program is in a directory")).arg(&images.tag);
        output(build.env("DOCKER_HOST", engine.host())).unwrap();
        images
    }

    fn named(&self, name: &str) -> String {
        format!("{name}:{}", self.tag)
    }

    /// One that stands in for an image from elsewhere: what `lines` of a Dockerfile make of these files.
    fn stand_in(&self, name: &str, files: &Path, lines: &str) -> String {
        std::fs::write(files.join("Dockerfile"), lines).unwrap();
        let name = self.named(name);
        self.engine.docker(&["build", "--quiet", "--tag", &name, files.to_str().unwrap()]);
        name
    }

    /// Debian's registry.
    fn registry(&self) -> String {
        let files = TempDir::new().unwrap();
        let copy = "program=$(command -v docker-registry) && cp -L \"$program\" . && mkdir lib && \
             ldd \"$program\" | grep -o '/[^ ]*' | grep -v ':$' | xargs cp -L --parents --target-directory=lib";
        output(Command::new("sh").args(["-c", copy]).current_dir(files.path())).unwrap();
        let config = "version: 0.1\nhttp: {addr: \":5000\"}\n\
             storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}\n";
        std::fs::write(files.path().join("config.yml"), config).unwrap();
        let lines = format!(
            "FROM {}\nCOPY lib/ /\nCOPY docker-registry /bin/\nCOPY config.yml /\n\
             CMD [\"docker-registry\", \"serve\", \"/config.yml\"]\n",
            self.named("shepherd-base")
        );
        self.stand_in("shepherd-test-registry", files.path(), &lines)
    }

    /// A shepherd without sheep, which serves its storage over S3.
    fn storage(&self) -> String {
        let files = TempDir::new().unwrap();
        let config = "data_root: /data/work\nstate_dir: /data/state\nsheep: {}\n\
             storage: {serve_s3: {listen: \"0.0.0.0:9000\", access_key: $RUSTFS_ACCESS_KEY, secret_key: $RUSTFS_SECRET_KEY}}\n";
        std::fs::write(files.path().join("shepherd.yml"), config).unwrap();
        // The sandbox gives it the arguments of the image that it stands in for.
        let lines = format!(
            "FROM {}\nCOPY shepherd.yml /etc/shepherd/\nUSER 0:0\n\
             ENTRYPOINT [\"/bin/sh\", \"-c\", \"exec shepherd -c /etc/shepherd/shepherd.yml\"]\n",
            self.named("shepherd")
        );
        self.stand_in("shepherd-test-storage", files.path(), &lines)
    }
}

impl Drop for Images<'_> {
    fn drop(&mut self) {
        let ours = format!("label=shepherd.local={}", self.tag);
        let ids = self.engine.try_docker(&["images", "--quiet", "--filter", &ours]).unwrap_or_default();
        for id in ids.split_whitespace() {
            // One with several names is listed for each of them.
            let _ = self.engine.try_docker(&["rmi", "--force", id]);
        }
    }
}

/// The containers of the sandbox. They end when it is dropped.
struct Sandbox<'a> {
    compose: Vec<&'static str>,
    engine: &'a Engine,
    variables: Vec<(&'static str, String)>,
}

impl Sandbox<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]);
        command.arg("-f").arg(root().join("examples/docker/docker-compose-sandbox.yml")).args(arguments);
        command.env("DOCKER_HOST", self.engine.host()).env_remove("COMPOSE_FILE");
        output(command.envs(self.variables.iter().map(|(name, value)| (name, value))))
    }

    fn container(&self, service: &str) -> String {
        self.run(&["ps", "-q", service]).unwrap()
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.run(&["logs", "--no-color"]).unwrap_or_else(|error| error));
        }
        if let Err(error) = self.run(&["down", "--volumes"]) {
            println!("{error}");
        }
    }
}

#[tokio::test]
async fn the_sandbox_runs_a_model_whose_image_was_built_here() {
    let Some(engine) = Engine::shared() else { return };
    let Some(compose) = compose() else {
        skip("there is no docker compose");
        return;
    };
    if output(Command::new("docker-registry").arg("--version")).is_err() {
        skip("there is no docker-registry");
        return;
    }
    let images = Images::build(&engine);
    let data = TempDir::new().unwrap();
    let socket = engine.host().trim_start_matches("unix://").to_owned();
    let group = std::fs::metadata(&socket).unwrap().gid();
    let [api, registry, storage] = [free_port(), free_port(), free_port()];
    let variables = vec![
        ("COMPOSE_PROJECT_NAME", format!("shepherd{}", images.tag)),
        ("SHEPHERD_IMAGE", images.named("shepherd")),
        ("REGISTRY_IMAGE", images.registry()),
        ("STORAGE_IMAGE", images.storage()),
        ("SHEPHERD_PORT", api.to_string()),
        ("REGISTRY_PORT", registry.to_string()),
        ("STORAGE_PORT", storage.to_string()),
        ("SHEPHERD_DATA", data.path().display().to_string()),
        ("DOCKER_SOCKET", socket),
        ("DOCKER_GID", group.to_string()),
        ("MINIO_ACCESS_KEY", "sheepdog".to_owned()),
        ("MINIO_SECRET_KEY", "a-secret-of-ours".to_owned()),
    ];
    let sandbox = Sandbox { compose, engine: &engine, variables };
    sandbox.run(&["up", "-d"]).unwrap();

    let model = Model { name: "language", version: "1" };
    let reference = format!("127.0.0.1:{registry}/{}:{}", model.name, model.version);
    engine.docker(&["tag", &images.named("shepherd-language"), &reference]);
    eventually("the registry", || engine.try_docker(&["push", &reference]).ok()).await;
    engine.docker(&["rmi", &reference]);

    let client = Client::new(([127, 0, 0, 1], api).into());
    eventually_async("the shepherd to be ready", async || {
        client.try_get("/readyz").await.ok().filter(|reply| reply.status == 200)
    })
    .await;
    let text = "Der Hund ist nicht im Haus, und die Katze auch nicht";
    assert_eq!(client.start_job(&start_body("which-language", model, text)).await.status, 200);
    let finished = client.finished("which-language").await;
    assert_eq!(finished["status"], "done", "{finished}");
    let said = client.result("which-language").await.json();
    assert_eq!((said["language"].as_str(), said["words"].as_u64()), (Some("de"), Some(11)), "{said}");

    // Neither is root, and only the shepherd reaches the engine.
    let user = |container: &str| engine.docker(&["inspect", "--format", "{{.Config.User}}", container]);
    assert_eq!(user(&sandbox.container("shepherd")), "65532:65532");
    let state = data.path().join("state");
    let sheep = engine.containers(&state, false);
    assert_eq!(sheep.len(), 1);
    assert_eq!(user(&sheep[0]), "65532:65532");
    let mounts = engine.docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", &sheep[0]]);
    assert_eq!(mounts, data.path().join("data/fenced_sheep").display().to_string());
    assert!(!sandbox.run(&["logs", "shepherd"]).unwrap().contains("a-secret-of-ours"));

    sandbox.run(&["stop", "shepherd"]).unwrap();
    assert_eq!(engine.containers(&state, true), [""; 0], "a shepherd that ends leaves no sheep");
}
