//! Single objects, and whole jobs.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use shepherd_job::JobId;

use super::{Backend, Keys, at, job, key, noise, pieces};
use crate::{Body, JobObjects, Put, StorageError, Transfer, Trust, body};

pub(super) async fn a_job_without_data_is_empty(b: Backend<'_>) {
    let job = job("none");
    assert!(!b.storage.contains(&job).await.unwrap());
    assert!(b.is_missing(&job, "inputs/input").await);
    assert!(b.list(&job, "").await.is_empty());
    assert_eq!(
        b.storage.stage(&job, &at(&b.runner_dir(), Trust::Trusted)).await.unwrap(),
        Transfer::default()
    );
    b.remove(&job).await;
    assert!(!b.storage.contains(&job).await.unwrap(), "asking for a job does not make it");
}

pub(super) async fn what_was_put_comes_back(b: Backend<'_>) {
    let job = job("put");
    for (path, len, piece) in [
        ("inputs/empty", 0, 1),
        ("inputs/one", 1, 1),
        ("inputs/input", 5_000, 1),
        ("inputs/large", 3_000_001, 65_537),
        ("inputs/huge-pieces", 9_000_000, 4_000_000),
        ("job_status.json", 300, 7),
    ] {
        let bytes = noise(len);
        let meta = b.storage.put(&job, &key(path), pieces(&bytes, piece)).await.unwrap();
        assert_eq!((meta.path.as_str(), meta.size), (path, len as u64));
        assert!(b.read(&job, path).await == bytes, "{path} differs");
        let head = b.storage.head(&job, &key(path)).await.unwrap();
        assert_eq!((head.path.as_str(), head.size), (path, len as u64));
        // A day's tolerance: a server's clock is its own.
        let age = head
            .modified
            .as_micros()
            .abs_diff(shepherd_job::Timestamp::from(std::time::SystemTime::now()).as_micros());
        assert!(age < 86_400_000_000, "{path} was modified {age} microseconds from now");
    }
    assert!(b.storage.contains(&job).await.unwrap());
    assert!(b.is_missing(&job, "inputs").await, "a prefix is no object");
    assert!(b.is_missing(&job, "inputs/inpu").await);
    b.remove(&job).await;
}

pub(super) async fn a_put_replaces(b: Backend<'_>) {
    let job = job("replace");
    for bytes in ["first", "", "a longer third"] {
        b.put(&job, "job_status.json", bytes).await;
        assert_eq!(b.read(&job, "job_status.json").await, bytes.as_bytes());
    }
    assert_eq!(b.list(&job, "").await, ["job_status.json"]);
    b.remove(&job).await;
}

fn broken_after(len: usize) -> Body {
    let sent = noise(len);
    let broken = futures::stream::iter([Err(std::io::Error::other("the client left"))]);
    pieces(&sent, 100_000).chain(broken).boxed()
}

pub(super) async fn a_body_that_breaks_off_leaves_nothing(b: Backend<'_>) {
    let (new, old) = (job("broken"), job("broken-old"));
    b.put(&old, "inputs/input", "old").await;
    for len in [0, 1, 100_001, 7_000_000] {
        for job in [&new, &old] {
            let broken = b.storage.put(job, &key("inputs/input"), broken_after(len)).await;
            assert!(matches!(broken, Err(StorageError::Invalid(_))), "{broken:?}");
        }
        assert!(b.list(&new, "").await.is_empty());
        assert!(b.is_missing(&new, "inputs/input").await);
        assert_eq!(b.read(&old, "inputs/input").await, b"old");
    }
    b.remove(&new).await;
    b.remove(&old).await;
}

pub(super) async fn a_put_that_is_dropped_leaves_nothing(b: Backend<'_>) {
    let job = job("dropped");
    for len in [10, 3_000_000] {
        let reached = Arc::new(tokio::sync::Notify::new());
        let tell = Arc::clone(&reached);
        let sent = noise(len);
        let endless = futures::stream::once(async move {
            tell.notify_one();
            std::future::pending::<std::io::Result<Bytes>>().await
        });
        let endless = pieces(&sent, 100_000).chain(endless).boxed();
        let path = key("inputs/input");
        tokio::select! {
            put = b.storage.put(&job, &path, endless) => panic!("it ended: {put:?}"),
            () = reached.notified() => {}
        }
        assert!(b.is_missing(&job, "inputs/input").await);
        assert!(b.list(&job, "").await.is_empty());
    }
    b.remove(&job).await;
}

pub(super) async fn puts_of_one_key_at_once_never_mix(b: Backend<'_>) {
    let job = job("race");
    let bodies: Vec<_> = (0..8_u8).map(|n| vec![n; 70_000 + usize::from(n)]).collect();
    let put = |bytes: &Vec<u8>| {
        let (job, path, body) = (&job, key("outputs/output"), pieces(bytes, 10_000));
        async move { b.storage.put(job, &path, body).await.unwrap() }
    };
    futures::future::join_all(bodies.iter().map(put)).await;
    let read = b.read(&job, "outputs/output").await;
    assert!(bodies.contains(&read));
    assert_eq!(b.list(&job, "").await, ["outputs/output"]);
    b.remove(&job).await;
}

pub(super) async fn a_batch_stores_each_job_in_order(b: Backend<'_>) {
    let jobs = [job("batch-a"), job("batch-b")];
    let objects = |job: usize, how: Put, objects: &[(&str, &str)]| {
        let objects =
            objects.iter().map(|(path, bytes)| (key(path), Bytes::copy_from_slice(bytes.as_bytes())));
        JobObjects::new(jobs[job].clone(), &how, objects)
    };
    assert!(b.storage.put_small(Vec::new()).await.is_empty());
    let whole = [("inputs/deep/er", "x"), ("inputs/input", "first"), ("job_status.json", "{}")];
    // Once where nothing is there, once over what is, and once with one key twice.
    for (mut first, last) in [(whole.to_vec(), "first"), (whole.to_vec(), "first"), (whole.to_vec(), "last")]
    {
        if last == "last" {
            first.push(("inputs/input", last));
        }
        let batch = vec![objects(0, Put::Replace, &first), objects(1, Put::Replace, &[("inputs/input", "")])];
        let outcomes = b.storage.put_small(batch).await;
        assert!(matches!(outcomes[..], [Ok(()), Ok(())]), "{outcomes:?}");
        assert_eq!(b.read(&jobs[0], "inputs/input").await, last.as_bytes());
        assert_eq!(b.read(&jobs[1], "inputs/input").await, b"");
        assert_eq!(b.list(&jobs[0], "").await, ["inputs/deep/er", "inputs/input", "job_status.json"]);
    }
    for job in &jobs {
        b.remove(job).await;
    }
    // All at once where nothing is there, with a key twice and one below another.
    let batch = vec![
        objects(0, Put::Replace, &[("inputs/input", "first"), ("inputs/input", "last")]),
        objects(1, Put::New, &[("a", "1"), ("a/b", "2"), ("c//d", "3")]),
    ];
    let outcomes = b.storage.put_small(batch).await;
    if b.keys == Keys::All {
        assert!(matches!(outcomes[..], [Ok(()), Ok(())]), "{outcomes:?}");
        assert_eq!(b.list(&jobs[1], "").await, ["a", "a/b", "c//d"]);
    }
    assert_eq!(b.read(&jobs[0], "inputs/input").await, b"last");
    for job in &jobs {
        b.remove(job).await;
    }
}

pub(super) async fn what_is_there_already_is_not_stored_anew(b: Backend<'_>) {
    for how in [Put::New, Put::Missing] {
        let (job, other) = (job("new"), job("new-other"));
        let objects = |job: &JobId, objects: &[(&str, &'static str)]| {
            let objects =
                objects.iter().map(|(path, bytes)| (key(path), Bytes::from_static(bytes.as_bytes())));
            JobObjects::new(job.clone(), &how, objects)
        };
        let batch = vec![objects(&job, &[("inputs/input", "ours")]), objects(&other, &[("inputs/a/b", "")])];
        let outcomes = b.storage.put_small(batch).await;
        assert!(matches!(outcomes[..], [Ok(()), Ok(())]), "{outcomes:?}");
        assert_eq!(b.read(&job, "inputs/input").await, b"ours");
        b.put(&job, "inputs/input", "theirs").await;
        let batch = vec![objects(&job, &[("inputs/input", "ours"), ("inputs/more", "more")])];
        let outcomes = b.storage.put_small(batch).await;
        assert!(matches!(outcomes[..], [Ok(())]), "{outcomes:?}");
        assert_eq!(b.read(&job, "inputs/input").await, b"theirs");
        assert_eq!(b.list(&job, "inputs/").await, ["inputs/input", "inputs/more"]);
        b.remove(&job).await;
        b.remove(&other).await;
    }
}

pub(super) async fn what_goes_with_others_is_stored_beside_them(b: Backend<'_>) {
    let (job, gone) = (job("beside"), job("beside-nothing"));
    b.put(&job, "inputs/input", "x").await;
    b.put(&gone, "inputs/input", "x").await;
    b.remove(&gone).await;
    let document = |job: &JobId| {
        let document = (key("job_status.json"), Bytes::from_static(b"{}"));
        JobObjects::new(job.clone(), &Put::Beside, [document])
    };
    for _ in 0..2 {
        let outcomes = b.storage.put_small(vec![document(&gone), document(&job)]).await;
        assert!(matches!(outcomes[..], [Ok(()), Ok(())]), "{outcomes:?}");
        b.storage.sync().await.unwrap();
        assert_eq!(b.read(&job, "job_status.json").await, b"{}");
        // Of the other a storage may keep it; nothing else of it is there.
        assert!(matches!(b.list(&gone, "").await[..], [] | [_]));
    }
    b.remove(&job).await;
    b.remove(&gone).await;
}

pub(super) async fn ranges_are_clipped_or_refused(b: Backend<'_>) {
    let job = job("range");
    let bytes = noise(1_000_000);
    b.put(&job, "outputs/output", bytes.clone()).await;
    for (asked, given) in [
        (0..1, 0..1),
        (0..1_000_000, 0..1_000_000),
        (999_999..u64::MAX, 999_999..1_000_000),
        (300_000..900_001, 300_000..900_001),
        (5..5, 5..5),
    ] {
        let object = b.storage.get(&job, &key("outputs/output"), Some(asked)).await.unwrap();
        assert_eq!((object.range, object.meta.size), (given.clone(), 1_000_000));
        let read: Vec<_> = object.body.try_collect().await.unwrap();
        let expected = usize::try_from(given.start).unwrap()..usize::try_from(given.end).unwrap();
        assert!(read.concat() == bytes[expected], "{given:?}");
    }
    b.put(&job, "outputs/empty", "").await;
    for (path, from, size) in [
        ("outputs/output", 1_000_000, 1_000_000),
        ("outputs/output", u64::MAX, 1_000_000),
        ("outputs/empty", 0, 0),
    ] {
        let refused = b.storage.get(&job, &key(path), Some(from..u64::MAX)).await.map(drop);
        assert!(matches!(refused, Err(StorageError::Range { size: s }) if s == size), "{refused:?}");
    }
    b.remove(&job).await;
}

pub(super) async fn an_open_object_outlives_its_replacement(b: Backend<'_>) {
    let job = job("open");
    let bytes = noise(600_000);
    b.put(&job, "outputs/output", bytes.clone()).await;
    let object = b.storage.get(&job, &key("outputs/output"), None).await.unwrap();
    b.put(&job, "outputs/output", "new").await;
    let read: Result<Vec<_>, _> = object.body.try_collect().await;
    // A server may break off what was replaced, but never mix.
    assert!(read.is_err() || read.unwrap().concat() == bytes);
    assert_eq!(b.read(&job, "outputs/output").await, b"new");
    b.remove(&job).await;
}

pub(super) async fn remove_takes_one_job_and_all_of_it(b: Backend<'_>) {
    let gone = job("remove");
    // A job whose name begins with the other's.
    let stays = JobId::parse(&format!("{gone}-1"), shepherd_job::JobIdRule::Bucket).unwrap();
    for job in [&gone, &stays] {
        for path in ["inputs/input", "inputs/a/b", "outputs/output", "job_status.json"] {
            b.put(job, path, path.to_owned()).await;
        }
    }
    for _ in 0..2 {
        b.remove(&gone).await;
        assert!(!b.storage.contains(&gone).await.unwrap());
        assert!(b.list(&gone, "").await.is_empty());
        assert!(b.is_missing(&gone, "inputs/input").await);
    }
    assert_eq!(b.list(&stays, "").await.len(), 4);
    b.put(&gone, "inputs/input", "again").await;
    assert_eq!(b.list(&gone, "").await, ["inputs/input"]);
    b.remove(&gone).await;
    b.remove(&stays).await;
}

pub(super) async fn syncs_are_shared(b: Backend<'_>) {
    let job = job("sync");
    b.storage.sync().await.unwrap();
    let one = |n: usize| {
        let job = &job;
        async move {
            b.storage.put(job, &key(&format!("inputs/{n}")), body("x")).await.unwrap();
            b.storage.sync().await.unwrap();
        }
    };
    one(0).await;
    futures::future::join_all((1..20).map(one)).await;
    assert_eq!(b.list(&job, "inputs/").await.len(), 20);
    b.remove(&job).await;
    b.storage.sync().await.unwrap();
}

pub(super) async fn the_storage_answers(b: Backend<'_>) {
    b.storage.check().await.unwrap();
}
