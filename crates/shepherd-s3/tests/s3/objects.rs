//! Objects, and what is kept with them.

use crate::client::Auth;
use crate::server::{Server, element, elements};

#[tokio::test]
async fn what_was_put_comes_back_with_what_was_said_of_it() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let kept = [
        ("cache-control", "no-cache"),
        ("content-disposition", "attachment; filename=\"x.txt\""),
        ("content-encoding", "gzip"),
        ("content-language", "cs"),
        ("content-type", "text/plain; charset=utf-8"),
        ("expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
        ("x-amz-meta-colour", "blue"),
        ("x-amz-meta-empty", ""),
    ];
    let mut put = client.request("PUT", "/a-job/inputs/input").body(*b"hello");
    for (name, value) in kept {
        put = put.header(name, value);
    }
    let put = put.send().await.is(200);
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    assert_eq!(put.header("etag"), Some(etag));
    assert_eq!(std::fs::read(server.dir.join("a-job/inputs/input")).unwrap(), b"hello");
    for method in ["GET", "HEAD"] {
        let got = client.request(method, "/a-job/inputs/input").send().await.is(200);
        for (name, value) in kept {
            assert_eq!(got.header(name), Some(value), "{method} {name}");
        }
        assert_eq!(got.header("etag"), Some(etag));
        assert_eq!(got.header("content-length"), Some("5"));
        assert_eq!(got.header("accept-ranges"), Some("bytes"));
        assert_eq!(got.text(), if method == "GET" { "hello" } else { "" });
    }
    let query = "response-cache-control=x&response-content-disposition=y&response-content-type=a%2Fb";
    let got = client.get(&format!("/a-job/inputs/input?{query}")).await.is(200);
    assert_eq!(got.header("cache-control"), Some("x"));
    assert_eq!(got.header("content-disposition"), Some("y"));
    assert_eq!(got.header("content-type"), Some("a/b"));

    // A put replaces all of it.
    client.put("/a-job/inputs/input", b"").await.is(200);
    let got = client.get("/a-job/inputs/input").await.is(200);
    assert_eq!((got.header("x-amz-meta-colour"), got.header("content-encoding")), (None, None));
    assert_eq!(got.header("content-length"), Some("0"));
    server.becomes_tidy().await;
}

#[tokio::test]
async fn ranges() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/x", b"0123456789").await.is(200);
    let get = |range: &str| client.request("GET", "/a-job/x").header("range", range).send();
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=7-100", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
        ("bytes=0-0", "0", "bytes 0-0/10"),
    ] {
        let got = get(range).await.is(206);
        assert_eq!(
            (got.text().as_str(), got.header("content-range")),
            (body, Some(content_range)),
            "{range}"
        );
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=100-200"] {
        get(range).await.fails(416, "InvalidRange");
    }
    let head = client.request("HEAD", "/a-job/x").header("range", "bytes=2-4").send().await.is(200);
    assert_eq!(head.header("content-length"), Some("10"), "a range is of what is sent, and nothing is");
    client.put("/a-job/empty", b"").await.is(200);
    client.request("GET", "/a-job/empty").header("range", "bytes=0-").send().await.fails(416, "InvalidRange");
    client.request("GET", "/a-job/empty").header("range", "bytes=-1").send().await.fails(416, "InvalidRange");
}

#[tokio::test]
async fn what_is_not_there_is_said_by_its_code() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    client.head("/a-job/x").await.is(404);
    client.get("/no-job/x").await.fails(404, "NoSuchBucket");
    client.put("/no-job/x", b"1").await.fails(404, "NoSuchBucket");
    client.delete("/no-job/x").await.fails(404, "NoSuchBucket");
    client.get("/no-job").await.fails(404, "NoSuchBucket");
    client.get("/no-job?max-keys=0").await.fails(404, "NoSuchBucket");
    client.delete("/a-job/x").await.is(204);
    client.get("/a-job/x?versionId=abc").await.fails(404, "NoSuchVersion");
    client.get("/a-job/x?versionId=null").await.fails(404, "NoSuchKey");
    assert!(!server.dir.join("no-job").exists());
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let server = Server::start().await;
    let client = server.bucket().await;
    for (name, value) in [
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-tagging", "a=b"),
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "id=1"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-website-redirect-location", "/x"),
    ] {
        client
            .request("PUT", "/a-job/x")
            .header(name, value)
            .body(*b"1")
            .send()
            .await
            .fails(501, "NotImplemented");
    }
    let glacier = client.request("PUT", "/a-job/x").header("x-amz-storage-class", "GLACIER");
    glacier.send().await.fails(400, "InvalidStorageClass");
    let large = client.request("PUT", "/a-job/x").header("x-amz-meta-a", "a".repeat(2048));
    large.send().await.fails(400, "MetadataTooLarge");
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    for (name, value) in [
        ("x-amz-acl", "private"),
        ("x-amz-acl", ""),
        ("x-amz-storage-class", "STANDARD"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-storage-class", ""),
    ] {
        client.request("PUT", "/a-job/x").header(name, value).body(*b"1").send().await.is(200);
    }
    client
        .put("/a-job/x?tagging", b"<Tagging><TagSet></TagSet></Tagging>")
        .await
        .fails(501, "NotImplemented");
}

#[tokio::test]
async fn copies() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/b-job", b"").await.is(200);
    let put = client.request("PUT", "/a-job/a%20b%2Bc").header("x-amz-meta-colour", "blue").body(*b"hello");
    put.header("content-type", "text/x").send().await.is(200);
    let copy = |to: &str| client.request("PUT", to).header("x-amz-copy-source", "/a-job/a%20b%2Bc");
    let copied = copy("/b-job/copy").send().await.is(200);
    assert_eq!(element(&copied, "ETag").as_deref(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let got = client.get("/b-job/copy").await.is(200);
    assert_eq!((got.text().as_str(), got.header("x-amz-meta-colour")), ("hello", Some("blue")));
    assert_eq!(got.header("content-type"), Some("text/x"));

    let replaced = copy("/b-job/copy").header("x-amz-metadata-directive", "REPLACE");
    replaced.header("x-amz-meta-size", "xl").send().await.is(200);
    let got = client.get("/b-job/copy").await.is(200);
    assert_eq!((got.header("x-amz-meta-colour"), got.header("x-amz-meta-size")), (None, Some("xl")));

    copy("/a-job/a%20b%2Bc").send().await.fails(400, "InvalidRequest");
    copy("/a-job/a%20b%2Bc").header("x-amz-metadata-directive", "REPLACE").send().await.is(200);
    assert_eq!(client.get("/a-job/a%20b%2Bc").await.is(200).text(), "hello");
    copy("/no-job/x").send().await.fails(404, "NoSuchBucket");
    let from = |source: &str| client.request("PUT", "/b-job/y").header("x-amz-copy-source", source).send();
    from("/no-job/x").await.fails(404, "NoSuchBucket");
    from("/a-job/none").await.fails(404, "NoSuchKey");
    copy("/b-job/y")
        .header("x-amz-copy-source-if-match", "\"0\"")
        .send()
        .await
        .fails(412, "PreconditionFailed");
    let same = "\"5d41402abc4b2a76b9719d911017c592\"";
    copy("/b-job/y")
        .header("x-amz-copy-source-if-none-match", same)
        .send()
        .await
        .fails(412, "PreconditionFailed");
    client.get("/b-job/y").await.fails(404, "NoSuchKey");

    // A file that nobody recorded the tag of is hashed on the way.
    std::fs::write(server.dir.join("a-job/hand"), vec![0; 100_000]).unwrap();
    from("/a-job/hand").await.is(200);
    let tag = client.head("/b-job/y").await.header("etag").unwrap().to_owned();
    assert!(!tag.contains('-'), "{tag}");
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let server = Server::start().await;
    let client = server.bucket().await;
    for key in ["a", "b/c", "d%26"] {
        client.put(&format!("/a-job/{key}"), b"1").await.is(200);
    }
    let named = "<Delete><Object><Key>a</Key></Object><Object><Key>d&amp;</Key></Object>\
                 <Object><Key>none</Key></Object><Object><Key>b/c</Key><VersionId>7</VersionId></Object></Delete>";
    let answer = client.post("/a-job?delete", named).await.is(200);
    let mut keys = elements(&answer, "Key");
    keys.sort();
    assert_eq!(keys, ["a", "b/c", "d&", "none"]);
    assert_eq!(elements(&answer, "Code"), ["NoSuchVersion"]);
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>b/c</Key></Object></Delete>";
    let answer = client.post("/a-job?delete", quiet).await.is(200);
    assert!(elements(&answer, "Key").is_empty());
    client.post("/a-job?delete", "<Delete></Delete>").await.fails(400, "MalformedXML");
    client.post("/a-job?delete", "nonsense").await.fails(400, "MalformedXML");
    client.post("/no-job?delete", quiet).await.fails(404, "NoSuchBucket");
    client.delete("/a-job").await.is(204);
}

#[tokio::test]
async fn a_presigned_url_puts_and_gets() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let put = client.request("PUT", "/a-job/pre%20signed").auth(Auth::Presigned).body(*b"hello");
    put.send().await.is(200);
    let got = client.request("GET", "/a-job/pre%20signed").auth(Auth::Presigned).send().await.is(200);
    assert_eq!(got.text(), "hello");
}
