//! Against a real engine, as a user who is not root and may only ask the engine.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempDir;

use super::*;
use crate::EngineHost;
use crate::docker::fixtures;

/// The daemon's user here.
const US: u32 = 51_234;
/// Its runner's.
const STRANGER: u32 = 54_321;

fn container() -> String {
    spec::name("test", "dolly", &uuid::Uuid::now_v7().simple().to_string())
}

/// A sheep's directory of [`US`], in which the stranger may write.
struct Home {
    dir: TempDir,
    engine_group: u32,
    host: EngineHost,
}

impl Home {
    async fn new() -> Option<Self> {
        let host = fixtures::engine_host().await?;
        if Us::effective().uid != 0 {
            fixtures::skip("only root can be several users");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let engine_group = fs::metadata(fixtures::engine_socket()).unwrap().gid();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        let home = Self { dir, engine_group, host };
        chown(home.path(""), Some(US), Some(engine_group)).unwrap();
        fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o2770)).unwrap();
        Some(home)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("home").join(below)
    }

    /// What the stranger makes and closes to all others.
    fn close(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
        fs::write(self.path(path).join("file"), "").unwrap();
        chown(self.path(path), Some(STRANGER), None).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// Does something as the daemon's user.
    fn as_us<T: Send>(&self, work: impl AsyncFnOnce(&Engine, &DockerOptions) -> T + Send) -> T {
        use rustix::process::{Gid, Uid};
        use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

        let group = Gid::from_raw(self.engine_group);
        let worker = || {
            set_thread_groups(&[group]).unwrap();
            set_thread_gid(group).unwrap();
            set_thread_uid(Uid::from_raw(US)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let instance = self.dir.path().file_name().unwrap().to_string_lossy().replace('.', "-");
            let engine = fixtures::engine(&self.host, "localhost", |options| options.instance = instance);
            let options = DockerOptions { user: Some(STRANGER.to_string()), ..fixtures::options() };
            let done = runtime.block_on(work(&engine, &options));
            let labels = [(crate::docker::spec::INSTANCE, engine.options().instance.as_str())];
            let left = runtime.block_on(crate::docker::container::list(&engine, &labels, true)).unwrap();
            assert!(left.is_empty(), "{left:?}");
            done
        };
        std::thread::scope(|scope| scope.spawn(worker).join().unwrap())
    }
}

#[tokio::test]
async fn what_another_user_closed_can_be_removed() {
    let Some(home) = Home::new().await else { return };
    let names = ["trash-0", "trash-1", "plain", "gone"].map(OsString::from);
    let long = "n".repeat(90);
    for path in [format!("trash-0/{long}/{long}"), "trash-1/a".to_owned(), "trash-1/b/c".to_owned()] {
        home.close(&path);
    }
    for path in [&format!("trash-0/{long}"), "trash-0", "trash-1/b", "trash-1", "kept"] {
        home.close(path);
    }
    fs::write(home.path("plain"), "").unwrap();
    let outside = home.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, home.path("trash-1/link")).unwrap();
    home.as_us(async |engine, options| {
        assert!(fs::remove_dir_all(home.path("trash-0")).is_err());
        assert!(directories(engine, options, &container(), &home.path(""), &names).await.unwrap());
        for name in ["trash-0", "trash-1"] {
            fs::remove_dir_all(home.path(name)).unwrap();
        }
        assert!(!directories(engine, options, &container(), &home.path(""), &names).await.unwrap());
        assert!(fs::read_dir(home.path("kept")).is_err(), "nobody asked for it");
    });
    let stat = outside.metadata().unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o777), (0, 0o755));
}

#[tokio::test]
async fn a_socket_of_another_user_can_be_dialled() {
    let Some(home) = Home::new().await else { return };
    let path = home.path(".runner-1.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    chown(&path, Some(STRANGER), Some(home.engine_group)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    home.as_us(async |engine, options| {
        assert!(UnixStream::connect(&path).is_err());
        socket(engine, options, path.clone()).await;
        UnixStream::connect(&path).unwrap();
    });
    let names: Vec<_> =
        fs::read_dir(home.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".runner-1.sock"]);
}

#[tokio::test]
async fn an_engine_that_is_away_changes_nothing() {
    let Some(home) = Home::new().await else { return };
    home.close("trash-0");
    let names = [OsString::from("trash-0")];
    let away = fixtures::engine(&EngineHost::Unix(home.path("no.sock")), "localhost", |_| {});
    home.as_us(async |_, options| {
        let outcome = directories(&away, options, &container(), &home.path(""), &names).await;
        assert!(matches!(outcome, Err(Trouble::Lost(_))), "{outcome:?}");
    });
    assert_eq!(home.path("trash-0").metadata().unwrap().uid(), STRANGER);
}
