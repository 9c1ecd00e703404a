//! Staging and publishing.

use bytes::Bytes;

use super::{Backend, Keys, at, files, is_empty_or_gone, job, key, write};
use crate::{Replaces, StorageError, Transfer, Trust, body};

fn transfer(objects: u64, bytes: u64) -> Transfer {
    Transfer { objects, bytes }
}

pub(super) async fn staging_brings_inputs_only(b: Backend<'_>, trust: Trust) {
    let job = job("stage");
    for (path, bytes) in [
        ("inputs/input", "input"),
        ("inputs/a/b/c", "deep"),
        ("inputs/a/empty", ""),
        ("inputs/100% .hidden", "percent"),
        ("inputs-2/x", "other prefix"),
        ("outputs/output", "output"),
        ("job_status.json", "{}"),
    ] {
        b.put(&job, path, bytes).await;
    }
    let to = b.runner_dir();
    assert_eq!(b.storage.stage(&job, &at(&to, trust)).await.unwrap(), transfer(4, 16));
    let staged = files(&to);
    let staged: Vec<_> = staged.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let expected: [(&str, &[u8]); 4] =
        [("100% .hidden", b"percent"), ("a/b/c", b"deep"), ("a/empty", b""), ("input", b"input")];
    assert_eq!(staged, expected);
    // The runner's directory is the runner's: what becomes of a file's name there
    // is nothing to the object.
    std::fs::remove_dir_all(&to).unwrap();
    assert_eq!(b.read(&job, "inputs/a/b/c").await, b"deep");
    let nowhere = b.storage.stage(&job, &at(&to, trust)).await;
    assert!(matches!(nowhere, Err(StorageError::NotFound)), "{nowhere:?}");
    b.remove(&job).await;
}

pub(super) async fn staging_stays_inside(b: Backend<'_>, trust: Trust) {
    let job = job("stage-hostile");
    let outer = b.runner_dir();
    let to = outer.join("inner");
    std::fs::create_dir(&to).unwrap();
    let mut stored = Vec::new();
    for rest in [
        "../escaped",
        "../../escaped",
        "/etc/escaped",
        "/escaped",
        "..",
        ".",
        "a//b",
        "a/../../escaped",
        "nul\0byte",
        "a",
        "a/b",
        "a/b/c",
        "plain",
        ".shepherd-keys/=plain",
    ]
    .into_iter()
    .chain([format!("long-{}", "n".repeat(300)).as_str()])
    {
        let path = format!("inputs/{rest}");
        match b.storage.put(&job, &key(&path), body(rest.to_owned())).await {
            Ok(_) => stored.push(rest.as_bytes().to_vec()),
            Err(StorageError::Invalid(_)) if b.keys == Keys::MayRefuse => {}
            Err(error) => panic!("put {path:?}: {error}"),
        }
    }
    let bytes = stored.iter().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(b.storage.stage(&job, &at(&to, trust)).await.unwrap(), transfer(stored.len() as u64, bytes));
    let mut staged: Vec<_> = files(&to).into_iter().map(|(_, bytes)| bytes).collect();
    staged.sort_unstable();
    stored.sort_unstable();
    assert_eq!(staged, stored, "every object is staged once");
    assert_eq!(std::fs::read(to.join("plain")).unwrap(), b"plain");
    assert_eq!(files(&outer).len(), stored.len(), "nothing is outside");
    b.remove(&job).await;
}

pub(super) async fn staging_replaces_what_stands_there(b: Backend<'_>, trust: Trust) {
    let job = job("stage-again");
    b.put(&job, "inputs/input", "input").await;
    b.put(&job, "inputs/linked", "linked").await;
    b.put(&job, "inputs/dir/x", "x").await;
    let outer = b.runner_dir();
    let to = outer.join("inner");
    std::fs::create_dir(&to).unwrap();
    write(&to, "input", b"older");
    write(&outer, "victim", b"untouched");
    std::fs::create_dir(outer.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../victim", to.join("linked")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", to.join("dir")).unwrap();
    for _ in 0..2 {
        assert_eq!(b.storage.stage(&job, &at(&to, trust)).await.unwrap(), transfer(3, 12));
        assert_eq!(std::fs::read(to.join("input")).unwrap(), b"input");
        assert_eq!(std::fs::read(to.join("linked")).unwrap(), b"linked");
        assert_eq!(std::fs::read(outer.join("victim")).unwrap(), b"untouched");
        assert!(is_empty_or_gone(&outer.join("elsewhere")), "no link is followed");
    }
    b.remove(&job).await;
}

pub(super) async fn folder_markers_become_directories(b: Backend<'_>, trust: Trust) {
    let job = job("folders");
    for path in ["inputs/", "inputs/empty/", "inputs/full/"] {
        match b.storage.put(&job, &key(path), body("")).await {
            Ok(_) => {}
            Err(StorageError::Invalid(_)) if b.keys == Keys::MayRefuse => {
                b.remove(&job).await;
                return;
            }
            Err(error) => panic!("put {path:?}: {error}"),
        }
    }
    b.put(&job, "inputs/full/x", "x").await;
    let to = b.runner_dir();
    assert_eq!(b.storage.stage(&job, &at(&to, trust)).await.unwrap(), transfer(4, 1));
    assert_eq!(files(&to), [("full/x".to_owned(), b"x".to_vec())]);
    assert!(to.join("empty").is_dir());
    b.remove(&job).await;
}

pub(super) async fn publishing_takes_all_files(b: Backend<'_>, trust: Trust) {
    let job = job("publish");
    let from = b.runner_dir();
    write(&from, "output", b"result");
    write(&from, "a/b/c", b"deep");
    write(&from, "a/empty", b"");
    write(&from, ".hidden 100%", b"h");
    write(&from, ".shepherd-keys/=x", b"a name like any other");
    std::fs::create_dir(from.join("empty-dir")).unwrap();
    let large = super::noise(2_000_000);
    write(&from, "large", &large);
    b.put(&job, "inputs/input", "input").await;
    b.put(&job, "outputs-2/x", "other prefix").await;
    assert_eq!(
        b.storage.publish(&job, &at(&from, trust), Replaces::Nothing).await.unwrap(),
        transfer(6, 2_000_032)
    );
    b.storage.sync().await.unwrap();
    assert!(is_empty_or_gone(&from));
    let expected = [
        "inputs/input",
        "outputs-2/x",
        "outputs/.hidden 100%",
        "outputs/.shepherd-keys/=x",
        "outputs/a/b/c",
        "outputs/a/empty",
        "outputs/large",
        "outputs/output",
    ];
    assert_eq!(b.list(&job, "").await, expected);
    assert_eq!(b.read(&job, "outputs/output").await, b"result");
    assert_eq!(b.read(&job, "outputs/a/b/c").await, b"deep");
    assert_eq!(b.read(&job, "outputs/.shepherd-keys/=x").await, b"a name like any other");
    assert!(b.read(&job, "outputs/large").await == large);
    b.put(&job, "outputs/later", "x").await;
    assert_eq!(b.list(&job, "outputs/l").await, ["outputs/large", "outputs/later"]);
    b.remove(&job).await;
}

pub(super) async fn publishing_replaces_all_outputs(b: Backend<'_>, trust: Trust) {
    let job = job("publish-again");
    let mut kept = Vec::new();
    // An object named as the directory of outputs is none of them.
    match b.storage.put(&job, &key("outputs"), body("mine")).await {
        Ok(_) => kept.push("outputs"),
        Err(StorageError::Invalid(_)) if b.keys == Keys::MayRefuse => {}
        Err(error) => panic!("{error}"),
    }
    for round in 0..3 {
        let from = b.runner_dir();
        write(&from, "output", format!("round {round}").as_bytes());
        write(&from, &format!("only/{round}"), b"x");
        assert_eq!(
            b.storage.publish(&job, &at(&from, trust), Replaces::Earlier).await.unwrap(),
            transfer(2, 8)
        );
        assert!(is_empty_or_gone(&from));
        let only = format!("outputs/only/{round}");
        let mut expected = kept.clone();
        expected.extend([only.as_str(), "outputs/output"]);
        assert_eq!(b.list(&job, "").await, expected);
        assert_eq!(b.read(&job, "outputs/output").await, format!("round {round}").as_bytes());
        for path in &kept {
            assert_eq!(b.read(&job, path).await, b"mine");
        }
        // Those whose keys are no paths are outputs too.
        for path in ["outputs//x", "outputs/", "outputs/output/below"] {
            let put = b.storage.put(&job, &key(path), body("x")).await;
            assert!(put.is_ok() || b.keys == Keys::MayRefuse);
        }
    }
    b.remove(&job).await;
}

pub(super) async fn publishing_nothing_leaves_no_outputs(b: Backend<'_>, trust: Trust) {
    let job = job("publish-none");
    b.put(&job, "inputs/input", "x").await;
    b.put(&job, "outputs/old", "x").await;
    let from = b.runner_dir();
    std::fs::create_dir_all(from.join("empty/er")).unwrap();
    assert_eq!(b.storage.publish(&job, &at(&from, trust), Replaces::Earlier).await.unwrap(), transfer(0, 0));
    b.storage.sync().await.unwrap();
    assert!(is_empty_or_gone(&from));
    assert_eq!(b.list(&job, "").await, ["inputs/input"]);
    let nowhere = b.scratch.join("does-not-exist");
    let refused = b.storage.publish(&job, &at(&nowhere, trust), Replaces::Earlier).await;
    assert!(matches!(refused, Err(StorageError::NotFound)), "{refused:?}");
    b.remove(&job).await;
}

pub(super) async fn what_is_no_regular_file_is_not_published(b: Backend<'_>, trust: Trust) {
    use std::os::unix::ffi::OsStrExt as _;

    use rustix::fs::{CWD, Mode, mkfifoat};

    let job = job("publish-bad");
    b.put(&job, "outputs/output", "old").await;
    for name in ["link", "deep", "pipe", "socket", "bad"] {
        let from = b.runner_dir();
        write(&from, "output", b"new");
        match name {
            "link" => std::os::unix::fs::symlink("/etc/passwd", from.join(name)).unwrap(),
            "deep" => {
                std::fs::create_dir(from.join("sub")).unwrap();
                std::os::unix::fs::symlink("..", from.join("sub/deep")).unwrap();
            }
            "pipe" => mkfifoat(CWD, from.join(name), Mode::RWXU).unwrap(),
            "socket" => drop(std::os::unix::net::UnixListener::bind(from.join(name)).unwrap()),
            _ => std::fs::write(from.join(std::ffi::OsStr::from_bytes(b"bad\xff")), "x").unwrap(),
        }
        match b.storage.publish(&job, &at(&from, trust), Replaces::Earlier).await {
            Err(StorageError::Invalid(message)) => assert!(message.contains(name), "{message}"),
            outcome => panic!("{name}: {outcome:?}"),
        }
        assert_eq!(b.read(&job, "outputs/output").await, b"old");
        assert_eq!(b.list(&job, "").await, ["outputs/output"]);
        assert!(from.join("output").exists(), "a refused directory is left as it was");
    }
    let file = b.scratch.join("publish-a-file");
    std::fs::write(&file, "x").unwrap();
    let refused = b.storage.publish(&job, &at(&file, trust), Replaces::Earlier).await;
    assert!(matches!(refused, Err(StorageError::Invalid(_))), "{refused:?}");
    b.remove(&job).await;
}

pub(super) async fn inputs_may_become_outputs(b: Backend<'_>, trust: Trust) {
    let job = job("moved");
    b.put(&job, "inputs/linked", "linked").await;
    b.put(&job, "inputs/moved", "moved").await;
    let (to, from) = (b.runner_dir(), b.runner_dir());
    b.storage.stage(&job, &at(&to, trust)).await.unwrap();
    std::fs::hard_link(to.join("linked"), from.join("linked")).unwrap();
    std::fs::rename(to.join("moved"), from.join("moved")).unwrap();
    assert_eq!(b.storage.publish(&job, &at(&from, trust), Replaces::Earlier).await.unwrap(), transfer(2, 11));
    b.put(&job, "outputs/linked", "new").await;
    assert_eq!(b.read(&job, "inputs/linked").await, b"linked");
    assert_eq!(b.read(&job, "inputs/moved").await, b"moved");
    assert_eq!(b.read(&job, "outputs/moved").await, b"moved");
    b.remove(&job).await;
}

pub(super) async fn more_than_a_thousand_inputs(b: Backend<'_>) {
    let job = job("many");
    let objects = (0..1_205).map(|n| (key(&format!("inputs/{n}")), Bytes::from_static(b"x")));
    b.put_small(&job, objects).await;
    let to = b.runner_dir();
    assert_eq!(b.storage.stage(&job, &at(&to, Trust::Trusted)).await.unwrap(), transfer(1_205, 1_205));
    assert_eq!(files(&to).len(), 1_205);
    assert_eq!(
        b.storage.publish(&job, &at(&to, Trust::Trusted), Replaces::Earlier).await.unwrap(),
        transfer(1_205, 1_205)
    );
    assert!(is_empty_or_gone(&to));
    assert_eq!(b.list(&job, "outputs/").await.len(), 1_205);
    b.remove(&job).await;
}
