//! What a valid configuration names on this machine: directories, files and programs. Looked
//! at, never changed.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::Access;
use shepherd_config::{Config, DockerHost, SheepConfig, SheepKind, StorageConfig};

use crate::compose;

/// What would keep the shepherd, or a sheep, from working. Each names the key, the place and
/// what was expected.
pub(crate) fn problems(config: &Config) -> Vec<String> {
    let mut found = Found::default();
    found.directory_to_make("data_root", &config.data_root);
    found.directory_to_make("state_dir", &config.state_dir);
    match &config.storage {
        StorageConfig::Local(local) => found.directory_to_make("storage.url", &local.dir),
        StorageConfig::S3(s3) => {
            if let Some(file) = &s3.ca_file {
                found.file("storage.ca_file", file);
            }
        }
    }
    if let Some(docker) = &config.docker {
        match &docker.host {
            DockerHost::Unix(socket) => found.socket("docker.host", socket),
            DockerHost::Tcp { tls: Some(tls), .. } => {
                found.file("docker.ca_file", &tls.ca_file);
                found.file("docker.cert_file", &tls.cert_file);
                found.file("docker.key_file", &tls.key_file);
            }
            DockerHost::Tcp { tls: None, .. } => {}
        }
    }
    for sheep in &config.sheep {
        found.sheep(config, sheep);
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn add(&mut self, key: &str, path: &Path, problem: impl std::fmt::Display) {
        self.0.push(format!("{key}: {} {problem}", path.display()));
    }

    fn sheep(&mut self, config: &Config, sheep: &SheepConfig) {
        let key = |name: &str| format!("sheep.{}.{name}", sheep.id);
        let logs = match &sheep.kind {
            SheepKind::Bare(bare) => {
                let dir = &bare.working_directory;
                match fs::read_dir(dir) {
                    Ok(_) => {}
                    Err(error) => self.add(&key("working_directory"), dir, cannot("be read", &error)),
                }
                let options = compose::bare_options(config, sheep, bare);
                if let Err(error) = options.check_program() {
                    self.0.push(format!("{}: {error}", key("runner_command")));
                }
                [&bare.stdout_file, &bare.stderr_file]
            }
            SheepKind::Docker(docker) => {
                for (index, mount) in docker.mounts.iter().enumerate() {
                    if let Err(error) = fs::metadata(&mount.source) {
                        self.add(
                            &key(&format!("mounts[{index}]")),
                            &mount.source,
                            cannot("be mounted", &error),
                        );
                    }
                }
                [&docker.stdout_file, &docker.stderr_file]
            }
        };
        for (name, file) in ["stdout_file", "stderr_file"].into_iter().zip(logs) {
            if let Some(file) = file {
                self.file_to_append(&key(name), file);
            }
        }
    }

    /// A directory that the shepherd makes where it is missing, and writes in.
    fn directory_to_make(&mut self, key: &str, path: &Path) {
        let existing = path.ancestors().find(|dir| dir.symlink_metadata().is_ok()).unwrap_or(path);
        if !existing.is_dir() {
            return self.add(key, existing, "is no directory, expected one");
        }
        if let Err(errno) = rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK) {
            let what = if existing == path { "be written in" } else { "get the directory that is missing" };
            self.add(key, existing, cannot(what, &errno.into()));
        }
    }

    /// A file that is read.
    fn file(&mut self, key: &str, path: &Path) {
        if let Err(error) = fs::File::open(path) {
            self.add(key, path, cannot("be read", &error));
        }
    }

    /// A file that is made where it is missing, and appended to.
    fn file_to_append(&mut self, key: &str, path: &Path) {
        let (target, access) = match path.symlink_metadata() {
            Ok(_) => (path, Access::WRITE_OK),
            Err(_) => (path.parent().unwrap_or(path), Access::WRITE_OK | Access::EXEC_OK),
        };
        if let Err(errno) = rustix::fs::access(target, access) {
            self.add(key, target, cannot("be written", &errno.into()));
        }
    }

    fn socket(&mut self, key: &str, path: &Path) {
        match fs::metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => {}
            Ok(_) => self.add(key, path, "is no socket, expected the container engine's"),
            Err(error) => self.add(key, path, cannot("be connected to", &error)),
        }
    }
}

fn cannot(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}
