//! What goes wrong on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use shepherd_storage::{Body, JobObjects, Put, Replaces, S3Options, Storage, StorageError, Transfer, body};

use super::server::{Fate, Server};
use super::{bucket_per_job, dir, job, key, noise, open, read, write};

/// Limits that make waiting for what does not come bearable.
fn impatient(url: &str) -> S3Options {
    let mut options = bucket_per_job(url);
    options.limits.answer = Duration::from_secs(1);
    options.limits.progress = Duration::from_secs(1);
    // An answer that does not come leaves time for another try.
    options.limits.ask = Duration::from_secs(5);
    options.limits.part = 5 << 20;
    options
}

/// The fate of the first `times` requests for which `which` holds.
fn first(
    times: usize,
    fate: Fate,
    which: impl Fn(&Method, &str) -> bool + Send + Sync + 'static,
) -> impl Fn(&Method, &str) -> Fate + Send + Sync + 'static {
    let left = AtomicUsize::new(times);
    move |method, target| {
        let takes = |left: usize| left.checked_sub(1);
        if which(method, target) && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes).is_ok() {
            fate
        } else {
            Fate::Served
        }
    }
}

#[tokio::test]
async fn every_call_outlives_a_burst_of_faults() {
    let server = Server::start().await;
    let storage = open(&impatient(&server.url));
    let one = job("burst");
    let fates = [
        Fate::Refused(500, "InternalError"),
        Fate::Refused(503, "SlowDown"),
        Fate::Refused(503, ""),
        Fate::Refused(429, "TooManyRequests"),
        Fate::Refused(409, "OperationAborted"),
        Fate::Unanswered,
        Fate::Unread,
        Fate::Ignored,
        Fate::Late(Duration::from_millis(100)),
    ];
    for fate in fates {
        println!("{fate:?}");
        server.plan(|_, _| Fate::Served);
        storage.remove(&one).await.unwrap();
        // Every second request.
        let count = AtomicUsize::new(0);
        server.plan(move |_, _| match count.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => fate,
            _ => Fate::Served,
        });
        assert!(!storage.contains(&one).await.unwrap());
        storage.put(&one, &key("inputs/input"), body("input")).await.unwrap();
        assert!(storage.contains(&one).await.unwrap());
        assert_eq!(storage.head(&one, &key("inputs/input")).await.unwrap().size, 5);
        assert_eq!(read(&storage, &one, "inputs/input").await, "input");
        let (to, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(storage.stage(&one, &dir(to.path())).await.unwrap(), Transfer { objects: 1, bytes: 5 });
        let large = noise((5 << 20) + 1);
        write(from.path(), "output", &large);
        storage.publish(&one, &dir(from.path()), Replaces::Earlier).await.unwrap();
        assert!(read(&storage, &one, "outputs/output").await == large);
        assert_eq!(storage.list(&one, "", None, 10).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn what_does_not_pass_ends_with_what_it_is() {
    let server = Server::start().await;
    let mut options = impatient(&server.url);
    (options.limits.ask, options.limits.retry) = (Duration::from_millis(400), Duration::from_millis(400));
    let storage = open(&options);
    let one = job("ends");
    storage.put(&one, &key("x"), body("x")).await.unwrap();
    for (fate, throttled) in [
        (Fate::Refused(503, "SlowDown"), true),
        (Fate::Refused(429, ""), true),
        (Fate::Refused(500, "InternalError"), false),
        (Fate::Unanswered, false),
        (Fate::Ignored, false),
        (Fate::Refused(301, "PermanentRedirect"), false),
    ] {
        server.plan(move |_, _| fate);
        let outcomes = [
            storage.contains(&one).await.map(drop),
            storage.get(&one, &key("x"), None).await.map(drop),
            storage.put(&one, &key("x"), body("y")).await.map(drop),
            storage.check().await,
        ];
        for outcome in outcomes {
            match outcome {
                Err(StorageError::Throttled(said)) if throttled => {
                    assert!(said.contains("answered"), "{said}");
                }
                Err(StorageError::Unavailable(_)) if !throttled => {}
                outcome => panic!("{fate:?}: {outcome:?}"),
            }
        }
    }
    server.plan(|_, _| Fate::Refused(507, ""));
    let full = storage.put(&one, &key("x"), body("y")).await;
    assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
}

#[tokio::test]
async fn a_refusal_is_not_asked_for_again() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    for (status, code) in
        [(403, "AccessDenied"), (400, "InvalidArgument"), (507, ""), (501, "NotImplemented")]
    {
        server.plan(move |_, _| Fate::Refused(status, code));
        server.forget();
        storage.put(&job("refused"), &key("x"), body("x")).await.unwrap_err();
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_reading_that_breaks_off_goes_on_where_it_ended() {
    let server = Server::start().await;
    let storage = open(&impatient(&server.url));
    let (one, bytes) = (job("resumed"), noise(3_000_000));
    storage.put(&one, &key("inputs/input"), body(bytes.clone())).await.unwrap();
    server.forget();
    server.plan(first(5, Fate::Cut(400_000), |method, _| method == Method::GET));
    assert!(read(&storage, &one, "inputs/input").await == bytes);
    assert_eq!(server.seen().len(), 6);
    server.plan(first(3, Fate::Cut(100), |method, _| method == Method::GET));
    let object = storage.get(&one, &key("inputs/input"), Some(1_000..2_000_000)).await.unwrap();
    let part = object.body.try_collect::<Vec<_>>().await.unwrap().concat();
    assert!(part == bytes[1_000..2_000_000]);
    server.plan(first(4, Fate::Cut(100_000), |method, target| {
        method == Method::GET && target.ends_with("input")
    }));
    let to = tempfile::tempdir().unwrap();
    storage.stage(&one, &dir(to.path())).await.unwrap();
    assert!(std::fs::read(to.path().join("input")).unwrap() == bytes);
}

#[tokio::test]
async fn a_reading_is_never_gone_on_with_in_another_object() {
    let server = Server::start().await;
    let storage = open(&impatient(&server.url));
    let (one, bytes) = (job("mixed"), noise(3_000_000));
    storage.put(&one, &key("x"), body(bytes.clone())).await.unwrap();
    server.plan(first(1, Fate::Cut(1_000_000), |method, _| method == Method::GET));
    let mut object = storage.get(&one, &key("x"), None).await.unwrap();
    let begun = object.body.next().await.unwrap().unwrap();
    storage.put(&one, &key("x"), body(vec![0; 3_000_000])).await.unwrap();
    let rest: Result<Vec<Bytes>, _> = object.body.try_collect().await;
    match rest {
        // A server may keep what is being read.
        Ok(rest) => assert!([begun, rest.concat().into()].concat() == bytes),
        Err(error) => assert!(error.to_string().contains("replaced"), "{error}"),
    }
}

#[tokio::test]
async fn an_upload_that_fails_leaves_nothing_at_the_server() {
    let server = Server::start().await;
    let mut options = impatient(&server.url);
    options.limits.retry = Duration::from_millis(300);
    let storage = open(&options);
    let one = job("aborted");
    storage.put(&one, &key("x"), body("x")).await.unwrap();
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "large", &noise(11 << 20));
    server.plan(|_, target| match target.contains("partNumber=2") {
        true => Fate::Refused(500, "InternalError"),
        false => Fate::Served,
    });
    server.forget();
    let failed = storage.publish(&one, &dir(from.path()), Replaces::Nothing).await;
    assert!(matches!(failed, Err(StorageError::Unavailable(_))), "{failed:?}");
    let aborted = |seen: Vec<String>| {
        seen.iter().filter(|one| one.starts_with("DELETE ") && one.contains("uploadId")).count()
    };
    assert_eq!(aborted(server.seen()), 1);
    assert!(from.path().join("large").exists(), "what was not stored is still there");
    // The same call again.
    server.plan(|_, _| Fate::Served);
    let storage = open(&impatient(&server.url));
    storage.publish(&one, &dir(from.path()), Replaces::Nothing).await.unwrap();
    assert!(!from.path().join("large").exists());
    assert_eq!(storage.head(&one, &key("outputs/large")).await.unwrap().size, 11 << 20);
    // A body that breaks off after its first parts.
    server.forget();
    let broken: Body =
        futures::stream::iter([Ok(Bytes::from(noise(11 << 20))), Err(std::io::Error::other("gone"))]).boxed();
    let failed = storage.put(&one, &key("broken"), broken).await;
    assert!(matches!(failed, Err(StorageError::Invalid(_))), "{failed:?}");
    assert_eq!(aborted(server.seen()), 1);
    assert!(matches!(storage.head(&one, &key("broken")).await, Err(StorageError::NotFound)));
}

#[tokio::test]
async fn an_upload_that_nobody_waits_for_is_aborted() {
    let server = Server::start().await;
    let storage = open(&impatient(&server.url));
    let one = job("dropped");
    storage.put(&one, &key("x"), body("x")).await.unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let aborted = Arc::new(tokio::sync::Notify::new());
    let (tell, notify) = (std::sync::Mutex::new(Some(tell)), Arc::clone(&aborted));
    server.plan(move |method, target| {
        if target.contains("partNumber=1") {
            // Part after part never comes through: the first one is on its way.
            if let Some(tell) = tell.lock().unwrap().take() {
                tell.send(()).unwrap();
            }
            return Fate::Ignored;
        }
        if method == Method::DELETE {
            notify.notify_one();
        }
        Fate::Served
    });
    let path = key("inputs/large");
    tokio::select! {
        stored = storage.put(&one, &path, body(noise(11 << 20))) => panic!("{stored:?}"),
        told = told => told.unwrap(),
    }
    aborted.notified().await;
    server.plan(|_, _| Fate::Served);
    assert!(matches!(storage.head(&one, &path).await, Err(StorageError::NotFound)));
}

#[tokio::test]
async fn an_answer_lost_after_the_object_was_put_together_is_no_failure() {
    let server = Server::start().await;
    let storage = open(&impatient(&server.url));
    let (one, bytes) = (job("completed"), noise(6 << 20));
    storage.put(&one, &key("x"), body("x")).await.unwrap();
    let lost = |method: &Method, target: &str| method == Method::POST && target.contains("uploadId");
    server.plan(first(1, Fate::Unanswered, lost));
    match storage.put(&one, &key("large"), body(bytes.clone())).await {
        Ok(stored) => assert_eq!(stored.size, 6 << 20),
        // Where nothing tells that it is the same object, it is stored again.
        Err(StorageError::Unavailable(_)) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(read(&storage, &one, "large").await == bytes);
}

#[tokio::test]
async fn outputs_that_may_not_be_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let one = job("refused");
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "output", b"x");
    write(from.path(), "closed/secret", b"x");
    let closed = from.path().join("closed/secret");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&closed).is_ok() {
        // Root may read everything. The storage's own tests, which give that up, stand for this.
        return;
    }
    let refused = storage.publish(&one, &dir(from.path()), Replaces::Nothing).await;
    assert!(
        matches!(&refused, Err(StorageError::Invalid(said)) if said.contains("closed/secret")),
        "{refused:?}"
    );
    assert!(server.seen().is_empty(), "nothing was stored");
}

#[tokio::test]
async fn what_goes_with_a_removed_job_does_not_bring_it_back() {
    let moto = shepherd_tests::s3::Moto::shared();
    let Some(moto) = moto else { return };
    let storage = open(&bucket_per_job(&moto.url()));
    let (here, gone) = (job("still-here"), job("gone-for-good"));
    storage.put(&here, &key("x"), body("x")).await.unwrap();
    let document = |job: &shepherd_job::JobId| {
        let document = (key("job_status.json"), Bytes::from_static(b"{}"));
        JobObjects::new(job.clone(), &Put::Beside, [document])
    };
    let outcomes = storage.put_small(vec![document(&here), document(&gone)]).await;
    assert!(matches!(outcomes[..], [Ok(()), Ok(())]), "{outcomes:?}");
    assert_eq!(read(&storage, &here, "job_status.json").await, "{}");
    assert!(!storage.contains(&gone).await.unwrap());
}

#[tokio::test]
async fn a_bucket_removed_behind_our_back_is_made_again() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let one = job("removed");
    storage.put(&one, &key("inputs/input"), body("x")).await.unwrap();
    open(&bucket_per_job(&server.url)).remove(&one).await.unwrap();
    let to = tempfile::tempdir().unwrap();
    assert_eq!(storage.stage(&one, &dir(to.path())).await.unwrap(), Transfer::default());
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "output", b"result");
    storage.publish(&one, &dir(from.path()), Replaces::Nothing).await.unwrap();
    assert_eq!(read(&storage, &one, "outputs/output").await, "result");
}

#[tokio::test]
async fn a_proxy_that_is_away_is_named() {
    let server = Server::start().await;
    let mut options = impatient(&server.url);
    options.limits.ask = Duration::from_millis(100);
    options.proxy = Some("http://127.0.0.1:1".to_owned());
    match open(&options).contains(&job("proxied")).await {
        Err(StorageError::Unavailable(why)) => {
            assert!(why.contains("through the proxy http://127.0.0.1:1"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}
