use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use super::{Record, RecordFile, boot_id};
use crate::SheepError;
use crate::bare::process::{MARK, Process};
use shepherd_job::SheepId;

fn file(dir: &tempfile::TempDir) -> RecordFile {
    RecordFile { sheep: SheepId::parse("dolly").unwrap(), path: dir.path().join("sheep/dolly.json") }
}

fn record(leader: Option<(i32, u64)>) -> Record {
    let run = uuid::Uuid::now_v7().simple().to_string();
    Record { boot_id: boot_id(), run, leader, group: None, private_socket: None }
}

/// A process that sleeps until it is killed.
struct Sleeper(Child);

impl Sleeper {
    fn new(mark: Option<&str>) -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000").process_group(0);
        command.envs(mark.map(|run| (MARK, run)));
        Self(command.spawn().unwrap())
    }

    fn leader(&self) -> (i32, u64) {
        let pid = i32::try_from(self.0.id()).unwrap();
        (pid, Process::read(pid).unwrap().start)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_recorded_process_and_the_marked_are_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = Sleeper::new(None);
    let record = record(Some(leader.leader()));
    let mut marked = Sleeper::new(Some(&record.run));
    let file = file(&dir);
    file.write(&record).unwrap();
    file.sweep().unwrap();
    // Reaped by the sweep, as children of this process: waiting finds them gone.
    assert!(leader.0.try_wait().map_or(true, |status| status.is_some()));
    assert!(marked.0.try_wait().map_or(true, |status| status.is_some()));
    assert!(!file.path.exists());
}

#[test]
fn a_stranger_that_got_the_recorded_id_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut stranger = Sleeper::new(Some("another-run"));
    let (pid, start) = stranger.leader();
    let file = file(&dir);
    file.write(&record(Some((pid, start - 1)))).unwrap();
    file.sweep().unwrap();
    assert!(stranger.lives());
    assert!(!file.path.exists());
}

#[test]
fn a_record_of_another_boot_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut stranger = Sleeper::new(None);
    let file = file(&dir);
    let record = Record { boot_id: "another".to_owned(), ..record(Some(stranger.leader())) };
    file.write(&record).unwrap();
    file.sweep().unwrap();
    assert!(stranger.lives());
    assert!(!file.path.exists());
}

#[test]
fn a_broken_record_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    file.write(&record(None)).unwrap();
    let whole = std::fs::read(&file.path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&file.path, &whole[..cut]).unwrap();
        file.sweep().unwrap();
        assert!(!file.path.exists());
    }
}

#[test]
fn no_record_is_nothing_to_do() {
    file(&tempfile::tempdir().unwrap()).sweep().unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sheep"), "").unwrap();
    let error = file(&dir).write(&record(None)).unwrap_err();
    assert!(matches!(&error, SheepError::Misconfigured(m) if m.contains("sheep/dolly.json")), "{error}");
}
