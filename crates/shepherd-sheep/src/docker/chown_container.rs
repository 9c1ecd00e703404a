//! A container that is never started, through which the engine changes files.
//!
//! The engine unpacks archives into a container as root, also into what is mounted there,
//! and gives the owner and the mode that the archive says to what it unpacks: to a directory
//! that is there already, too, and to any file by way of another name for it. That is the
//! one way to what other users made that needs nothing but the engine: no program, which no
//! image is sure to have, and no right of our own.
//!
//! The container's image is empty, and one directory is mounted. The engine follows links
//! in it no further than into that container's own, empty file system: whatever a runner
//! plants there, nothing else is touched.

use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{CreateImageOptionsBuilder, UploadToContainerOptionsBuilder};
use futures::TryStreamExt as _;

use super::container::Container;
use super::engine::{Engine, Trouble};
use super::{DockerOptions, spec};

/// The empty image.
const REPOSITORY: &str = "shepherd-nothing";
const TAG: &str = "1";
/// Where the directory is mounted.
const TARGET: &str = "/it";
/// For each of the engine's steps.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// A tar archive's records have this size.
const RECORD: usize = 512;
/// Longer paths are in a record of their own.
const SHORT: usize = 100;

/// What an archive changes, by its path below the directory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// A directory becomes ours.
    Directory(&'a [u8]),
    /// Any other file becomes ours, and gets a second name.
    Other {
        /// The file.
        path: &'a [u8],
        /// Its second name.
        name: &'a [u8],
    },
}

/// A container with one directory in it. It is removed by [`done`](Self::done); one that
/// was not is found by its labels.
pub(super) struct ChownContainer {
    container: Container,
}

impl ChownContainer {
    /// Makes one of this name on a directory of this machine.
    pub(super) async fn on(
        engine: &Engine,
        options: &DockerOptions,
        name: &str,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let instance = &engine.options().instance;
        let mount = Mount {
            typ: Some(MountType::BIND),
            source: Some(directory.to_string_lossy().into_owned()),
            target: Some(TARGET.to_owned()),
            read_only: Some(false),
            ..Mount::default()
        };
        let labels = [(spec::INSTANCE, instance.clone()), (spec::SHEEP, options.id.to_string())];
        let body = ContainerCreateBody {
            // It is never run; one must be named.
            cmd: Some(vec!["-".to_owned()]),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let mut container = Container::known(engine, name.to_owned());
        create(&mut container, body).await?;
        Ok(Self { container })
    }

    /// Has the engine make the changes.
    pub(super) async fn change(&self, changes: &[Change<'_>]) -> Result<(), Trouble> {
        let archive = archive(changes, spec::Us::effective());
        let options = UploadToContainerOptionsBuilder::default().path(TARGET).build();
        within(self.container.engine(), async |docker| {
            let body = bollard::body_full(archive.into());
            docker.upload_to_container(self.container.key(), Some(options), body).await
        })
        .await
    }

    /// Removes it.
    pub(super) async fn done(self) {
        if let Err(trouble) = self.container.remove().await {
            let container = self.container.key();
            tracing::debug!(container, %trouble, "a container that never ran stays until the next launch");
        }
    }
}

/// Makes a container of the empty image, which is made where it is missing.
pub(super) async fn create(container: &mut Container, body: ContainerCreateBody) -> Result<(), Trouble> {
    let body = ContainerCreateBody { image: Some(format!("{REPOSITORY}:{TAG}")), ..body };
    match container.create(body.clone()).await {
        Err(trouble) if trouble.is_status(404) => {
            make_image(container.engine()).await?;
            container.create(body).await
        }
        made => made,
    }
}

/// Makes the empty image.
async fn make_image(engine: &Engine) -> Result<(), Trouble> {
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(REPOSITORY).tag(TAG).build();
    within(engine, async |docker| {
        let body = bollard::body_full(vec![0; 2 * RECORD].into());
        docker
            .create_image(Some(options), Some(body), None)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    })
    .await
}

async fn within<T>(
    engine: &Engine,
    request: impl AsyncFnOnce(&Docker) -> Result<T, bollard::errors::Error>,
) -> Result<T, Trouble> {
    let asking = async { Ok(request(engine.reached().await?).await?) };
    let late = |_| Trouble::Late(format!("it did not answer within {STEP_TIMEOUT:?}"));
    tokio::time::timeout(STEP_TIMEOUT, asking).await.map_err(late)?
}

/// The changes as an archive, in which everything is this user's.
fn archive(changes: &[Change<'_>], us: spec::Us) -> Vec<u8> {
    let mut archive = Vec::new();
    for change in changes {
        let (path, kind, target): (_, _, &[u8]) = match change {
            Change::Directory(path) => (path, b'5', b""),
            Change::Other { path, name } => (name, b'1', path),
        };
        for (kind, text) in [(b'L', *path), (b'K', target)] {
            if text.len() > SHORT {
                push(&mut archive, b"././@LongLink", kind, b"", text.len() + 1, us);
                archive.extend_from_slice(text);
                archive.push(0);
                archive.resize(archive.len().next_multiple_of(RECORD), 0);
            }
        }
        push(&mut archive, path, kind, target, 0, us);
    }
    archive.resize(archive.len() + 2 * RECORD, 0);
    archive
}

/// Writes a header in GNU's format, the one whose paths are any bytes.
fn push(archive: &mut Vec<u8>, path: &[u8], kind: u8, target: &[u8], size: usize, us: spec::Us) {
    let mut record = [0_u8; RECORD];
    let mut write = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    write(0, &path[..path.len().min(SHORT)]);
    write(100, b"0000770\0");
    write(108, &number(us.uid));
    write(116, &number(us.gid));
    write(124, format!("{size:011o}\0").as_bytes());
    write(136, b"00000000000\0");
    write(148, b"        ");
    write(156, &[kind]);
    write(157, &target[..target.len().min(SHORT)]);
    write(257, b"ustar  \0");
    let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&record);
}

/// A field of eight bytes: in octal digits, or as a binary number where it has too many.
fn number(value: u32) -> [u8; 8] {
    let mut field = [0; 8];
    if value < 1 << 21 {
        field[..7].copy_from_slice(format!("{value:07o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// As another program reads it.
    #[test]
    fn an_archive_names_owners_and_paths_of_any_length() {
        let deep = "0123456789/".repeat(20);
        let (deep, us) = (deep.trim_end_matches('/'), spec::Us { uid: 4_000_000_000, gid: 2000 });
        let changes = [
            Change::Directory(b"a"),
            Change::Directory(deep.as_bytes()),
            Change::Other { path: deep.as_bytes(), name: b"link" },
        ];
        let child = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--file=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else { return println!("skipped: there is no tar") };
        child.stdin.take().unwrap().write_all(&archive(&changes, us)).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = listing.lines().collect();
        assert_eq!(lines.len(), 3, "{listing}");
        assert!(lines.iter().all(|line| line.contains("rwxrwx--- 4000000000/2000")), "{listing}");
        assert!(lines[1].contains(deep), "{listing}");
        assert!(lines[2].ends_with(&format!("link link to {deep}")), "{listing}");
    }
}
