//! Images from nothing: a shell, the programs under test, and the libraries that they name.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use tempfile::TempDir;

use super::{Engine, PASSWORD, Registry, USER};
use crate::{Manner, Model, programs};

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How its scripted runner serves.
    pub manner: Manner,
    /// What runs, before the sheep's `command`.
    pub entrypoint: Vec<String>,
    /// The user that it runs as, unless the sheep says another.
    pub user: Option<&'static str>,
    /// A directory that is to be a volume.
    pub volume: Option<&'static str>,
    /// A file to make it different from others.
    pub content: Vec<u8>,
}

impl Default for Recipe {
    /// The scripted runner on the SDK.
    fn default() -> Self {
        let entrypoint = vec!["/bin/scripted_runner".to_owned()];
        Self { manner: Manner::Sdk, entrypoint, user: None, volume: None, content: Vec::new() }
    }
}

impl Recipe {
    /// Something else than the scripted runner: a shell that is given this script.
    pub fn shell(script: &str) -> Self {
        Self { entrypoint: ["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec(), ..Self::default() }
    }

    /// The same for a runner of the first shepherd's time: it knows its port and nothing else.
    pub fn legacy() -> Self {
        Self::shell("unset SHEPHERD_LISTEN; exec /bin/scripted_runner \"$@\" -p 9999")
    }
}

/// An image in a registry. Its names go from the engine when it is dropped.
#[derive(Debug)]
pub struct Image<'a> {
    engine: &'a Engine,
    reference: String,
    model: Model,
}

impl<'a> Image<'a> {
    /// Makes the image of a model and puts it into the registry; the engine forgets its name, so that it must
    /// be pulled.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn push(engine: &'a Engine, registry: &Registry, model: Model, recipe: &Recipe) -> Self {
        let image = Self::make(engine, registry.authority(), model, recipe);
        let login = TempDir::new().expect("a directory can be made");
        if registry.has_login() {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
            let auths = serde_json::json!({"auths": {registry.authority(): {"auth": auth}}});
            std::fs::write(login.path().join("config.json"), auths.to_string())
                .expect("a file can be written");
        }
        let mut push = engine.command();
        let output = push.env("DOCKER_CONFIG", login.path()).args(["push", &image.reference]).output();
        let output = output.expect("docker can be run");
        assert!(output.status.success(), "docker push: {}", String::from_utf8_lossy(&output.stderr));
        engine.docker(&["rmi", "--force", &image.reference]);
        image
    }

    /// Makes the image of a model in the engine alone.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn make(engine: &'a Engine, authority: &str, model: Model, recipe: &Recipe) -> Self {
        let version = if model.version.is_empty() { "latest" } else { model.version };
        let reference = format!("{authority}/{}:{version}", model.name);
        let root = tree(recipe);
        let mut import = engine.command();
        let entrypoint = serde_json::to_string(&recipe.entrypoint).expect("text is JSON");
        import.args(["import", "--change", &format!("ENTRYPOINT {entrypoint}")]);
        import.args(["--change", "CMD [\"/model/config.yaml\"]", "--change", "ENV PATH=/bin"]);
        if let Some(user) = recipe.user {
            import.args(["--change", &format!("USER {user}")]);
        }
        if let Some(volume) = recipe.volume {
            import.args(["--change", &format!("VOLUME {volume}")]);
        }
        let archive = Command::new("tar").arg("-C").arg(root.path()).args(["-cf", "-", "."]).output();
        let archive = archive.expect("tar can be run");
        assert!(archive.status.success(), "tar: {}", String::from_utf8_lossy(&archive.stderr));
        import.args(["-", &reference]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut import = import.spawn().expect("docker can be run");
        // What it did not read shows in how it ends.
        let _ = import.stdin.take().expect("a pipe was asked for").write_all(&archive.stdout);
        let output = import.wait_with_output().expect("docker ends");
        assert!(output.status.success(), "docker import: {}", String::from_utf8_lossy(&output.stderr));
        Self { engine, reference, model }
    }

    /// Its full name.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The model that it is.
    pub fn model(&self) -> Model {
        self.model
    }
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        // Also what was pulled by this name; somebody else may have removed it.
        let _ = self.engine.try_docker(&["rmi", "--force", &self.reference]);
    }
}

/// A name that no other test uses.
pub(crate) fn unique(stem: &str) -> &'static str {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // Tests have few models, and a model's name lives as long as they do.
    format!("{stem}-{}-{number}", std::process::id()).leak()
}

impl Model {
    /// A model of this version whose name no other test uses: engines are shared, and so are images' names.
    pub fn unique(stem: &str, version: &'static str) -> Self {
        Self { name: unique(stem), version }
    }
}

/// The image's files.
fn tree(recipe: &Recipe) -> TempDir {
    let root = TempDir::new().expect("a directory can be made");
    let path = |below: &str| root.path().join(below.trim_start_matches('/'));
    for dir in ["bin", "model", "tmp", "etc"] {
        std::fs::create_dir_all(path(dir)).expect("a directory can be made");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(path("tmp"), open).expect("its mode can be set");
    let busybox = find("busybox").expect("busybox-static is installed");
    std::fs::copy(busybox, path("bin/busybox")).expect("a file can be copied");
    for applet in [
        "sh", "id", "cat", "ls", "sleep", "touch", "head", "tail", "ip", "kill", "ln", "rm", "chmod", "mkdir",
    ] {
        std::os::unix::fs::symlink("busybox", path("bin").join(applet)).expect("a link can be made");
    }
    let runner = programs::built("scripted_runner");
    for library in libraries(&runner) {
        let to = path(library.to_str().expect("libraries have plain names"));
        std::fs::create_dir_all(to.parent().expect("a library is in a directory")).expect("it can be made");
        std::fs::copy(&library, to).expect("a file can be copied");
    }
    let stripped = path("bin/scripted_runner");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&runner).output();
    if !strip.is_ok_and(|output| output.status.success()) {
        std::fs::copy(&runner, &stripped).expect("a file can be copied");
    }
    std::fs::write(path("etc/passwd"), "root:x:0:0::/:/bin/sh\nsheep:x:1234:1234::/:/bin/sh\n")
        .expect("written");
    std::fs::write(path("etc/group"), "root:x:0:\nsheep:x:1234:\n").expect("written");
    std::fs::write(path("model/config.yaml"), recipe.manner.text()).expect("a file can be written");
    std::fs::write(path("model/content"), &recipe.content).expect("a file can be written");
    root
}

/// The files of the shared libraries that a program needs, with the one that loads them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
