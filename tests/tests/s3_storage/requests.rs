//! How many requests each call makes. Whoever adds one adds it here, too.

use shepherd_storage::{JobObjects, Put, Replaces, Storage, Transfer, body};

use super::server::Server;
use super::{bucket_per_job, dir, in_prefix, job, key, make_bucket, noise, open, read, write};

/// What a call asked, each request as its method and what it is about.
fn asked(server: &Server) -> Vec<String> {
    let seen = server.seen();
    server.forget();
    let short = |request: &String| {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let subject = match query {
            "" => "",
            query if query.starts_with("list-type") => " list",
            query if query.starts_with("uploads=&") => " list-uploads",
            query if query.starts_with("uploads") => " begin",
            query if query.starts_with("partNumber") => " part",
            query if query.starts_with("uploadId") => " upload",
            query if query.starts_with("delete") => " delete",
            other => panic!("{other}"),
        };
        format!("{method} {path}{subject}")
    };
    seen.iter().map(short).collect()
}

#[tokio::test]
async fn a_job_with_a_payload_and_an_output_takes_seven() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let one = job("one");
    assert!(!storage.contains(&one).await.unwrap());
    assert_eq!(asked(&server), ["GET /one list"]);
    // What was not there a moment ago is made without asking again.
    storage.put(&one, &key("inputs/input"), body("payload")).await.unwrap();
    assert_eq!(asked(&server), ["PUT /one", "PUT /one/inputs/input"]);
    storage.put(&one, &key("job_status.json"), body("{}")).await.unwrap();
    assert_eq!(asked(&server), ["PUT /one/job_status.json"]);
    let to = tempfile::tempdir().unwrap();
    storage.stage(&one, &dir(to.path())).await.unwrap();
    assert_eq!(asked(&server), ["GET /one list", "GET /one/inputs/input"]);
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "output", b"result");
    storage.publish(&one, &dir(from.path()), Replaces::Nothing).await.unwrap();
    assert_eq!(asked(&server), ["PUT /one/outputs/output"]);
    storage.sync().await.unwrap();
    assert!(asked(&server).is_empty());
}

#[tokio::test]
async fn reading_takes_one_each() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let one = job("one");
    storage.put(&one, &key("x"), body("0123456789")).await.unwrap();
    server.forget();
    assert_eq!(read(&storage, &one, "x").await, "0123456789");
    storage.get(&one, &key("x"), Some(3..5)).await.unwrap();
    storage.head(&one, &key("x")).await.unwrap();
    storage.list(&one, "", None, 10).await.unwrap();
    storage.check().await.unwrap();
    let seen = asked(&server);
    assert_eq!(seen[..4], ["GET /one/x", "GET /one/x", "HEAD /one/x", "GET /one list"]);
    assert!(seen.len() == 5 && seen[4].starts_with("GET /shepherd-check-"), "{seen:?}");
    let to = tempfile::tempdir().unwrap();
    storage.put(&one, &key("inputs/empty"), body("")).await.unwrap();
    server.forget();
    assert_eq!(storage.stage(&one, &dir(to.path())).await.unwrap(), Transfer { objects: 1, bytes: 0 });
    assert_eq!(asked(&server), ["GET /one list"], "what is empty is not fetched");
}

#[tokio::test]
async fn a_wrong_memory_of_a_bucket_costs_requests_and_nothing_else() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let other = open(&bucket_per_job(&server.url));
    let one = job("one");
    assert!(!storage.contains(&one).await.unwrap());
    other.put(&one, &key("x"), body("x")).await.unwrap();
    server.forget();
    storage.put(&one, &key("y"), body("y")).await.unwrap();
    assert_eq!(asked(&server), ["PUT /one", "PUT /one/y"]);
    storage.put(&one, &key("z"), body("z")).await.unwrap();
    assert_eq!(asked(&server), ["PUT /one/z"]);
    assert_eq!(storage.list(&one, "", None, 10).await.unwrap().len(), 3);
    assert!(storage.contains(&one).await.unwrap());
    other.remove(&one).await.unwrap();
    assert!(!storage.contains(&one).await.unwrap());
}

#[tokio::test]
async fn publishing_again_looks_and_removes_what_is_left_over() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let one = job("one");
    for path in ["outputs/a", "outputs/b", "outputs/c", "outputs"] {
        let _ = storage.put(&one, &key(path), body("old")).await;
    }
    server.forget();
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "a", b"new");
    storage.publish(&one, &dir(from.path()), Replaces::Earlier).await.unwrap();
    let seen = asked(&server);
    assert_eq!(seen, ["GET /one list-uploads", "PUT /one/outputs/a", "GET /one list", "POST /one delete"],);
    let left = storage.list(&one, "outputs/", None, 10).await.unwrap();
    assert_eq!(left.iter().map(|meta| meta.path.as_str()).collect::<Vec<_>>(), ["outputs/a"]);
    // Nothing to publish, and nothing to be looked for.
    server.forget();
    storage.publish(&one, &dir(from.path()), Replaces::Nothing).await.unwrap();
    assert!(asked(&server).is_empty());
}

#[tokio::test]
async fn a_large_object_goes_in_parts() {
    let server = Server::start().await;
    let options = in_prefix(&server.url, "shared", "");
    make_bucket(&options, "shared").await;
    let storage = open(&options);
    let (one, bytes) = (job("one"), noise((16 << 20) + 1));
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "large", &bytes);
    server.forget();
    storage.publish(&one, &dir(from.path()), Replaces::Nothing).await.unwrap();
    let path = "/shared/one/outputs/large";
    let expected = [
        format!("POST {path} begin"),
        format!("PUT {path} part"),
        format!("PUT {path} part"),
        format!("PUT {path} part"),
        format!("POST {path} upload"),
    ];
    assert_eq!(asked(&server), expected);
    assert!(read(&storage, &one, "outputs/large").await == bytes);
    storage.put(&one, &key("x"), body(bytes.clone())).await.unwrap();
    assert!(read(&storage, &one, "x").await == bytes);
    // Exactly one part is one request.
    server.forget();
    storage.put(&one, &key("y"), body(bytes[..8 << 20].to_vec())).await.unwrap();
    assert_eq!(asked(&server), ["PUT /shared/one/y"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_small_inputs_are_not_fetched_one_after_another() {
    let server = Server::start().await;
    let storage = open(&bucket_per_job(&server.url));
    let one = job("many");
    let objects = (0..2_000).map(|n| (key(&format!("inputs/{n}")), format!("input {n}").into()));
    let objects = JobObjects::new(one.clone(), &Put::Replace, objects);
    storage.put_small(vec![objects]).await.remove(0).unwrap();
    let seen = asked(&server);
    let made = seen.iter().filter(|request| *request == "PUT /many").count();
    assert!(made <= 1, "{made}");
    let to = tempfile::tempdir().unwrap();
    let staged = storage.stage(&one, &dir(to.path())).await.unwrap();
    assert_eq!(staged.objects, 2_000);
    assert!((2..=33).contains(&server.most_at_once()), "{}", server.most_at_once());
    let seen = asked(&server);
    assert_eq!(seen.iter().filter(|request| request.ends_with(" list")).count(), 2);
    assert_eq!(seen.len(), 2_002);
    for n in 0..2_000 {
        assert_eq!(std::fs::read_to_string(to.path().join(n.to_string())).unwrap(), format!("input {n}"));
    }
}
