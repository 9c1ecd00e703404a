//! Files that a person or a script put there, and what others did to the tree.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use bytes::Bytes;
use futures::TryStreamExt as _;
use shepherd_job::{JobId, JobIdRule, ObjectPath};

use super::{Fixture, names, ours, without_privileges};
use crate::local::{LocalStorage, Staging};
use crate::{JobObjects, Put, Replaces, Storage, StorageError, Transfer, body};

fn job(id: &str) -> JobId {
    JobId::parse(id, JobIdRule::Bucket).unwrap()
}

fn key(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

async fn read(storage: &LocalStorage, id: &str, path: &str) -> Option<Vec<u8>> {
    match storage.get(&job(id), &key(path), None).await {
        Ok(object) => Some(object.body.try_collect::<Vec<Bytes>>().await.unwrap().concat()),
        Err(StorageError::NotFound) => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn list(storage: &LocalStorage, id: &str) -> Vec<String> {
    let found = storage.list(&job(id), "", None, usize::MAX).await.unwrap();
    found.into_iter().map(|meta| meta.path.to_string()).collect()
}

#[tokio::test]
async fn files_put_there_are_objects_at_once() {
    let f = Fixture::new();
    fs::create_dir_all(f.dir.join("by-hand/inputs/sub")).unwrap();
    assert!(f.storage.contains(&job("by-hand")).await.unwrap());
    assert!(list(&f.storage, "by-hand").await.is_empty());
    fs::write(f.dir.join("by-hand/inputs/input"), "one").unwrap();
    fs::write(f.dir.join("by-hand/inputs/sub/two"), "two").unwrap();
    assert_eq!(list(&f.storage, "by-hand").await, ["inputs/input", "inputs/sub/two"]);
    assert_eq!(read(&f.storage, "by-hand", "inputs/sub/two").await.unwrap(), b"two");
    let to = f.scratch.join("to");
    fs::create_dir(&to).unwrap();
    let staged = f.storage.stage(&job("by-hand"), &ours(&to)).await.unwrap();
    assert_eq!(staged, Transfer { objects: 2, bytes: 6 });
}

#[tokio::test]
async fn ordinary_objects_are_ordinary_files() {
    let f = Fixture::new();
    for path in ["inputs/input", "inputs/a b/100%", "inputs/.hidden", "inputs/žluť"] {
        f.storage.put(&job("a-job"), &key(path), body("x")).await.unwrap();
        assert_eq!(fs::read(f.dir.join("a-job").join(path)).unwrap(), b"x");
    }
    assert_eq!(names(&f.dir.join("a-job")), ["inputs"], "nothing else is there");
}

#[tokio::test]
async fn a_file_at_the_keys_path_goes_before_an_encoded_one() {
    let f = Fixture::new();
    let id = job("both");
    f.storage.put(&id, &key("a/b"), body("below")).await.unwrap();
    f.storage.put(&id, &key("a"), body("encoded")).await.unwrap();
    assert_eq!(read(&f.storage, "both", "a").await.unwrap(), b"encoded");
    fs::remove_dir_all(f.dir.join("both/a")).unwrap();
    assert_eq!(list(&f.storage, "both").await, ["a"]);
    assert_eq!(read(&f.storage, "both", "a").await.unwrap(), b"encoded");
    fs::write(f.dir.join("both/a"), "by hand").unwrap();
    assert_eq!(list(&f.storage, "both").await, ["a"]);
    assert_eq!(read(&f.storage, "both", "a").await.unwrap(), b"by hand");
    // A put at the key's own path ends the encoded one for good.
    f.storage.put(&id, &key("a"), body("put")).await.unwrap();
    fs::remove_file(f.dir.join("both/a")).unwrap();
    assert_eq!(read(&f.storage, "both", "a").await, None);
}

#[tokio::test]
async fn a_file_by_hand_may_stand_where_keys_need_a_directory() {
    let f = Fixture::new();
    let id = job("in-the-way");
    fs::create_dir(f.dir.join("in-the-way")).unwrap();
    fs::write(f.dir.join("in-the-way/inputs"), "a file").unwrap();
    f.storage.put(&id, &key("inputs/input"), body("x")).await.unwrap();
    assert_eq!(list(&f.storage, "in-the-way").await, ["inputs", "inputs/input"]);
    let to = f.scratch.join("to");
    fs::create_dir(&to).unwrap();
    f.storage.stage(&id, &ours(&to)).await.unwrap();
    assert_eq!(fs::read(to.join("input")).unwrap(), b"x");
}

#[tokio::test]
async fn symbolic_links_are_neither_objects_nor_followed() {
    let f = Fixture::new();
    let id = job("links");
    let outside = f.outer.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::create_dir_all(f.dir.join("links/inputs")).unwrap();
    symlink(&outside, f.dir.join("links/dir")).unwrap();
    symlink(outside.join("secret"), f.dir.join("links/inputs/input")).unwrap();
    symlink(&outside, f.dir.join("links/inputs/dir")).unwrap();
    symlink("loop", f.dir.join("links/loop")).unwrap();
    for path in ["dir/secret", "inputs/input", "inputs/dir/secret", "loop", "loop/x"] {
        assert_eq!(read(&f.storage, "links", path).await, None, "{path}");
    }
    assert!(list(&f.storage, "links").await.is_empty());
    assert!(f.storage.list(&id, "dir/", None, 9).await.unwrap().is_empty());
    let to = f.scratch.join("to");
    fs::create_dir(&to).unwrap();
    assert_eq!(f.storage.stage(&id, &ours(&to)).await.unwrap(), Transfer::default());
    assert!(names(&to).is_empty());
    // Puts land beside the links or in their place.
    for path in ["dir/secret", "inputs/input", "inputs/dir/new", "loop", "loop/x"] {
        f.storage.put(&id, &key(path), body("put")).await.unwrap();
        assert_eq!(read(&f.storage, "links", path).await.unwrap(), b"put", "{path}");
    }
    assert_eq!(names(&outside), ["secret"]);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    f.storage.remove(&id).await.unwrap();
    assert_eq!(names(&outside), ["secret"]);
}

#[tokio::test]
async fn a_link_in_place_of_a_job_or_of_its_encoded_keys_is_not_followed() {
    let f = Fixture::new();
    let outside = f.outer.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, f.dir.join("linked")).unwrap();
    fs::write(f.dir.join("a-file"), "").unwrap();
    for id in ["linked", "a-file"] {
        let there = f.storage.contains(&job(id)).await;
        assert!(matches!(there, Err(StorageError::Invalid(_))), "{there:?}");
        let put = f.storage.put(&job(id), &key("inputs/input"), body("x")).await;
        assert!(matches!(put, Err(StorageError::Invalid(_))), "{put:?}");
        let from = f.scratch.join(id);
        fs::create_dir(&from).unwrap();
        fs::write(from.join("output"), "x").unwrap();
        let published = f.storage.publish(&job(id), &ours(&from), Replaces::Earlier).await;
        assert!(matches!(published, Err(StorageError::Invalid(_))), "{published:?}");
    }
    fs::create_dir(f.dir.join("keys")).unwrap();
    symlink(&outside, f.dir.join("keys/.shepherd-keys")).unwrap();
    let put = f.storage.put(&job("keys"), &key("a//b"), body("x")).await;
    assert!(matches!(put, Err(StorageError::Invalid(_))), "{put:?}");
    f.storage.put(&job("keys"), &key("a"), body("x")).await.unwrap();
    for id in ["linked", "keys"] {
        f.storage.remove(&job(id)).await.unwrap();
    }
    assert!(outside.exists() && names(&outside).is_empty());
    assert_eq!(f.temporaries(), 0);
}

#[tokio::test]
async fn special_files_are_no_objects_and_never_wait() {
    let f = Fixture::new();
    fs::create_dir_all(f.dir.join("pipes/inputs")).unwrap();
    let pipe = f.dir.join("pipes/inputs/input");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(read(&f.storage, "pipes", "inputs/input").await, None);
    assert!(list(&f.storage, "pipes").await.is_empty());
    f.storage.put(&job("pipes"), &key("inputs/input"), body("x")).await.unwrap();
    assert_eq!(fs::read(pipe).unwrap(), b"x");
}

#[tokio::test]
async fn foreign_files_among_the_encoded_are_no_objects() {
    let f = Fixture::new();
    let area = f.dir.join("foreign/.shepherd-keys");
    fs::create_dir_all(area.join("+sub")).unwrap();
    for name in ["x", "=%2f", "=", "+sub/=x", "=a%"] {
        fs::write(area.join(name), "x").unwrap();
    }
    assert!(list(&f.storage, "foreign").await.is_empty());
}

#[tokio::test]
async fn a_staged_link_shares_the_file_and_a_copy_does_not() {
    for (staging, shared) in [(Staging::Share, true), (Staging::Copy, false)] {
        let f = Fixture::with(|dir| LocalStorage::with(dir, staging).unwrap());
        let id = job("share");
        f.storage.put(&id, &key("inputs/input"), body("original")).await.unwrap();
        let to = f.scratch.join("to");
        fs::create_dir(&to).unwrap();
        f.storage.stage(&id, &ours(&to)).await.unwrap();
        let (stored, staged) = (f.dir.join("share/inputs/input"), to.join("input"));
        let same = stored.metadata().unwrap().ino() == staged.metadata().unwrap().ino();
        // Where blocks can be shared, files never are.
        assert!(same == shared || !same);
        fs::write(&staged, "changed!").unwrap();
        let expected: &[u8] = if same { b"changed!" } else { b"original" };
        assert_eq!(fs::read(&stored).unwrap(), expected);
        // A new object is a new file: the staged one stays what it was.
        f.storage.put(&id, &key("inputs/input"), body("new")).await.unwrap();
        assert_eq!(fs::read(&staged).unwrap(), b"changed!");
    }
}

#[tokio::test]
async fn what_was_left_half_done_is_cleared_but_not_what_another_process_does() {
    let f = Fixture::new();
    let tmp = f.dir.join(".shepherd/tmp");
    fs::create_dir_all(tmp.join("999-1/deep/er")).unwrap();
    fs::write(tmp.join("999-1/7"), "half").unwrap();
    fs::write(tmp.join("stray"), "x").unwrap();
    let mine = names(&tmp).into_iter().find(|name| !["999-1", "stray"].contains(&name.as_str())).unwrap();
    let second = LocalStorage::open(&f.dir).unwrap();
    let left = names(&tmp);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&mine));
    f.storage.put(&job("first"), &key("a"), body("x")).await.unwrap();
    second.put(&job("second"), &key("a"), body("x")).await.unwrap();
    drop(second);
    f.storage.check().await.unwrap();
    assert!(names(&tmp).contains(&mine));
}

#[tokio::test]
async fn a_directory_that_was_moved_away_is_noticed() {
    let f = Fixture::new();
    fs::rename(&f.dir, f.outer.path().join("moved")).unwrap();
    for _ in 0..2 {
        let checked = f.storage.check().await;
        assert!(matches!(checked, Err(StorageError::Unavailable(_))), "{checked:?}");
        fs::create_dir_all(&f.dir).unwrap();
    }
}

#[tokio::test]
async fn very_deep_trees_are_removed_and_refused_as_outputs() {
    let f = Fixture::new();
    let from = f.scratch.join("deep");
    // Deeper than any path can name: made from the inside out.
    fs::create_dir(&from).unwrap();
    let inner = f.scratch.join("inner");
    for _ in 0..3_000 {
        fs::create_dir(&inner).unwrap();
        fs::rename(&from, inner.join("a-directory")).unwrap();
        fs::rename(&inner, &from).unwrap();
    }
    let published = f.storage.publish(&job("deep"), &ours(&from), Replaces::Earlier).await;
    assert!(matches!(published, Err(StorageError::Invalid(_))), "{published:?}");
    assert!(!f.storage.contains(&job("deep")).await.unwrap());
    fs::rename(&from, f.dir.join("deep")).unwrap();
    assert!(list(&f.storage, "deep").await.is_empty());
    f.storage.remove(&job("deep")).await.unwrap();
    assert!(!f.storage.contains(&job("deep")).await.unwrap());
    assert_eq!(f.temporaries(), 0);
}

#[tokio::test]
async fn a_document_does_not_bring_a_job_back() {
    let f = Fixture::new();
    let document = (key("job_status.json"), Bytes::from_static(b"{}"));
    let documents = vec![JobObjects::new(job("removed"), &Put::Beside, [document])];
    assert!(f.storage.put_small(documents.clone()).await[0].is_ok());
    assert!(!f.storage.contains(&job("removed")).await.unwrap());
    fs::create_dir(f.dir.join("removed")).unwrap();
    assert!(f.storage.put_small(documents).await[0].is_ok());
    assert_eq!(list(&f.storage, "removed").await, ["job_status.json"]);
    assert_eq!(f.temporaries(), 0);
}

#[tokio::test]
async fn outputs_that_may_not_be_read_are_refused_for_good() {
    use std::os::unix::fs::PermissionsExt as _;

    for name in ["file", "dir", ""] {
        let f = Fixture::new();
        f.storage.put(&job("secretive"), &key("outputs/old"), body("kept")).await.unwrap();
        let from = f.scratch.join("from");
        fs::create_dir_all(from.join("dir")).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        fs::set_permissions(from.join(name), fs::Permissions::from_mode(0o000)).unwrap();
        let published = without_privileges(|| f.storage.disk.publish(&job("secretive"), &ours(&from)));
        match published {
            Err(StorageError::Invalid(message)) => assert!(message.contains("may not be read"), "{message}"),
            outcome => panic!("{name}: {outcome:?}"),
        }
        assert_eq!(list(&f.storage, "secretive").await, ["outputs/old"]);
    }
}

#[tokio::test]
async fn ten_thousand_inputs_are_one_job_like_any_other() {
    let f = Fixture::new();
    let id = job("many");
    let objects = (0..10_000).map(|n| (key(&format!("inputs/{n:05}")), Bytes::from_static(b"x")));
    let objects = JobObjects::new(id.clone(), &Put::Replace, objects);
    assert!(f.storage.put_small(vec![objects]).await[0].is_ok());
    f.storage.sync().await.unwrap();
    let to = f.scratch.join("to");
    fs::create_dir(&to).unwrap();
    let all = Transfer { objects: 10_000, bytes: 10_000 };
    assert_eq!(f.storage.stage(&id, &ours(&to)).await.unwrap(), all);
    assert_eq!(names(&to).len(), 10_000);
    let listed = list(&f.storage, "many").await;
    assert_eq!(listed.len(), 10_000);
    assert!(listed.is_sorted());
    assert_eq!(f.storage.publish(&id, &ours(&to), Replaces::Earlier).await.unwrap(), all);
    f.storage.remove(&id).await.unwrap();
    assert_eq!(f.entries(), [".shepherd"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_survive_a_job_that_is_removed_under_them() {
    let f = Fixture::new();
    let id = job("contended");
    let puts = async {
        for n in 0..300 {
            f.storage.put(&id, &key(&format!("inputs/{n}")), body("x")).await.unwrap();
        }
    };
    let removes = async {
        for _ in 0..300 {
            f.storage.remove(&id).await.unwrap();
        }
    };
    tokio::join!(puts, removes);
    f.storage.remove(&id).await.unwrap();
    assert_eq!(f.entries(), [".shepherd"]);
    assert_eq!(f.temporaries(), 0);
}
