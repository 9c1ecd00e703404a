//! An engine, a registry of a test's own, and images in it.

use std::io::{BufRead, BufReader, Read};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, PushImageOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use futures::{FutureExt, TryStreamExt};
use shepherd_job::ModelRef;
use tempfile::TempDir;

use crate::docker::activity::Activity;
pub(super) use crate::docker::fixtures::engine;
use crate::docker::fixtures::{engine_host, skip};
use crate::docker::images::ImageInUse;
use crate::{Engine, EngineHost, EngineOptions, Pull, RegistryLogin, SheepError};

const REGISTRY: &str = "/usr/bin/docker-registry";
/// What every letter of base64 and of UTF-8 goes wrong with.
pub(super) const PASSWORD: &str = "a~?>ž+/ÿ";
/// Of [`PASSWORD`], by bcrypt.
const PASSWORD_HASH: &str = "$2b$04$VAi0zymU5x6gcuLhWd8pI.o67ms0QXfcFl7oHjUpPQ2wplLYJ.eSq";

/// Whom a registry serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Open,
    Login,
}

pub(super) struct Site {
    pub(super) host: EngineHost,
    /// The registry's authority.
    pub(super) registry: String,
    docker: Docker,
    dir: TempDir,
    process: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `test` where there is an engine and a registry, and removes what it left
/// behind at the engine.
pub(super) async fn on_site(access: Access, test: impl AsyncFnOnce(&Site)) {
    let Some(host) = engine_host().await else { return };
    if !std::path::Path::new(REGISTRY).exists() {
        return skip(&format!("there is no {REGISTRY}"));
    }
    let site = Site::start(host, access).await;
    let outcome = AssertUnwindSafe(test(&site)).catch_unwind().await;
    site.clean().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

pub(super) fn login(password: &str) -> Option<RegistryLogin> {
    Some(RegistryLogin { username: "shep".to_owned(), password: password.to_owned() })
}

pub(super) fn model(name: &str, version: &str) -> ModelRef {
    ModelRef::parse(name, version).unwrap()
}

impl Engine {
    /// What a sheep does that wants `name:version`.
    pub(super) async fn get(&self, name: &str, version: &str, pull: Pull) -> Result<ImageInUse, SheepError> {
        self.images().obtain(&model(name, version), pull, &Activity::default()).await
    }

    /// The sentence that the job's client reads when that fails for good.
    pub(super) async fn refusal(&self, name: &str, version: &str, pull: Pull) -> String {
        match self.get(name, version, pull).await {
            Err(SheepError::Model(sentence)) => sentence,
            Err(other) => panic!("not the model's fault: {other:?}"),
            Ok(image) => panic!("got {}", image.name),
        }
    }
}

impl Site {
    async fn start(host: EngineHost, access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let auth = match access {
            Access::Open => String::new(),
            Access::Login => {
                std::fs::write(dir.path().join("htpasswd"), format!("shep:{PASSWORD_HASH}\n")).unwrap();
                format!("auth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n")
            }
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {path}/store}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n{auth}"
        );
        std::fs::write(dir.path().join("registry.yml"), config).unwrap();
        let mut process = Command::new(REGISTRY)
            .arg("serve")
            .arg(dir.path().join("registry.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let registry = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the registry ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split('"').next().unwrap().to_owned();
            }
        };
        // So that it does not stop at a full pipe.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        let docker = engine(&host, &registry, |_| {}).reached().await.unwrap().clone();
        Self { host, registry, docker, dir, process }
    }

    /// The engine itself, for what a user does behind our back.
    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// An engine that pulls from this registry, with a state directory of its own.
    pub(super) fn engine(&self, change: impl FnOnce(&mut EngineOptions)) -> Engine {
        self.engine_at(&self.registry, change)
    }

    /// Likewise from this authority, behind which the registry is.
    pub(super) fn engine_at(&self, registry: &str, change: impl FnOnce(&mut EngineOptions)) -> Engine {
        engine(&self.host, registry, |options| {
            options.state_dir = self.state_dir();
            change(options);
        })
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Puts an image of about `size` bytes into the registry, and not into the engine.
    /// Its content is its own. Its id comes back.
    pub(super) async fn publish(&self, name: &str, version: &str, size: usize) -> String {
        let repository = format!("{}/{name}", self.registry);
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(&repository).tag(version).build();
        let body = bollard::body_full(tar(size).into());
        self.docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
        let id = self.id_of(&format!("{repository}:{version}")).await.expect("it was just made");
        let credentials = DockerCredentials {
            username: Some("shep".to_owned()),
            password: Some(PASSWORD.to_owned()),
            ..DockerCredentials::default()
        };
        let options = PushImageOptionsBuilder::new().tag(version).build();
        self.docker
            .push_image(&repository, Some(options), Some(credentials))
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        self.remove(&format!("{repository}:{version}")).await;
        id
    }

    /// Gives an image another name.
    pub(super) async fn tag(&self, id: &str, name: &str, version: &str) {
        let repository = format!("{}/{name}", self.registry);
        let options = TagImageOptionsBuilder::new().repo(&repository).tag(version).build();
        self.docker.tag_image(id, Some(options)).await.unwrap();
    }

    pub(super) async fn remove(&self, reference: &str) {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        self.docker.remove_image(reference, Some(options), None).await.unwrap();
    }

    /// The id of what the engine has by this name.
    pub(super) async fn id_of(&self, reference: &str) -> Option<String> {
        self.docker.inspect_image(reference).await.ok().and_then(|image| image.id)
    }

    /// Removes the containers and images of this site: no other has its registry.
    async fn clean(&self) {
        let all = bollard::query_parameters::ListContainersOptionsBuilder::new().all(true).build();
        for container in self.docker.list_containers(Some(all)).await.unwrap() {
            if container.names.iter().flatten().any(|name| name[1..] == self.container_name()) {
                let force = RemoveContainerOptionsBuilder::new().force(true).build();
                self.docker.remove_container(&container.id.unwrap(), Some(force)).await.unwrap();
            }
        }
        let all = ListImagesOptionsBuilder::new().digests(true).build();
        for image in self.docker.list_images(Some(all)).await.unwrap() {
            let names: Vec<String> = image.repo_tags.into_iter().chain(image.repo_digests).collect();
            if names.iter().any(|name| name.contains(&self.mark())) {
                let force = RemoveImageOptionsBuilder::new().force(true).build();
                // Several names may be of one image.
                let _ = self.docker.remove_image(&image.id, Some(force), None).await;
            }
        }
    }

    /// What all names of images in this site's registry, or behind a relay, have in them.
    pub(super) fn mark(&self) -> String {
        format!("site{}", self.registry.rsplit(':').next().unwrap())
    }

    pub(super) fn container_name(&self) -> String {
        format!("shepherd-test-{}", self.mark())
    }

    /// A model's name that no other site has.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.mark())
    }
}

/// A tar archive with one file of `size` random bytes.
fn tar(size: usize) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    random.by_ref().take(size as u64).read_to_end(&mut archive).unwrap();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}
