//! Objects in parts.

use crate::client::{Answer, Client, encode};
use crate::server::{Server, element, elements, names};

const LARGE: usize = 5 << 20;

async fn begin(client: &Client, key: &str) -> String {
    let begun = client.request("POST", &format!("/a-job/{key}?uploads")).header("x-amz-meta-colour", "blue");
    element(&begun.send().await.is(200), "UploadId").unwrap()
}

async fn part(client: &Client, id: &str, number: u32, body: &[u8]) -> (u32, String) {
    let target = format!("/a-job/x?partNumber={number}&uploadId={id}");
    let answer = client.put(&target, body).await.is(200);
    (number, answer.header("etag").unwrap().to_owned())
}

async fn complete(client: &Client, id: &str, parts: &[(u32, String)]) -> Answer {
    let parts: String = parts
        .iter()
        .map(|(number, tag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"))
        .collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    client.post(&format!("/a-job/x?uploadId={id}"), &document).await
}

#[tokio::test]
async fn parts_become_one_object_also_after_a_restart() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let id = begin(&client, "x").await;
    let first = vec![1; LARGE];
    let one = part(&client, &id, 1, &first).await;
    part(&client, &id, 7, b"replaced").await;
    let server = server.restart().await;
    let client = server.client();
    let last = part(&client, &id, 7, b"end").await;
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    let made = complete(&client, &id, &[one, last]).await.is(200);
    let got = client.get("/a-job/x").await.is(200);
    assert_eq!(got.body, [&first[..], b"end"].concat());
    assert_eq!(got.header("x-amz-meta-colour"), Some("blue"));
    let tag = got.header("etag").unwrap();
    assert!(tag.ends_with("-2\""), "{tag}");
    assert_eq!(element(&made, "ETag").as_deref(), Some(tag));
    complete(&client, &id, &[(1, "\"0\"".to_owned())]).await.fails(404, "NoSuchUpload");
    assert!(names(&server.dir.join(".shepherd/uploads")).is_empty());
    server.becomes_tidy().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_parts_is_said_and_nothing_made() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let id = begin(&client, "x").await;
    let one = part(&client, &id, 1, &vec![1; LARGE]).await;
    let two = part(&client, &id, 2, b"small").await;
    let three = part(&client, &id, 3, b"end").await;
    let none: &[(u32, String)] = &[];
    complete(&client, &id, none).await.fails(400, "MalformedXML");
    complete(&client, &id, &[two.clone(), one.clone()]).await.fails(400, "InvalidPartOrder");
    complete(&client, &id, &[one.clone(), one.clone()]).await.fails(400, "InvalidPartOrder");
    complete(&client, &id, &[one.clone(), (4, three.1.clone())]).await.fails(400, "InvalidPart");
    complete(&client, &id, &[one.clone(), (2, three.1.clone())]).await.fails(400, "InvalidPart");
    complete(&client, &id, &[one.clone(), two.clone(), three.clone()]).await.fails(400, "EntityTooSmall");
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    for number in ["0", "10001", "-1"] {
        client
            .put(&format!("/a-job/x?partNumber={number}&uploadId={id}"), b"1")
            .await
            .fails(400, "InvalidArgument");
    }
    let wrong = client.request("PUT", &format!("/a-job/x?partNumber=2&uploadId={id}")).body(*b"1");
    wrong.header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==").send().await.fails(400, "BadDigest");
    // Of another object, of no bucket, and no ids at all.
    for target in ["/a-job/y", "/b-job/x"] {
        let there = client.put(&format!("{target}?partNumber=1&uploadId={id}"), b"1").await;
        assert_eq!(there.code().as_deref(), Some("NoSuchUpload"));
    }
    for other in ["..", "..%2Ftmp", &"0".repeat(32)] {
        client.put(&format!("/a-job/x?partNumber=1&uploadId={other}"), b"1").await.fails(404, "NoSuchUpload");
        client.delete(&format!("/a-job/x?uploadId={other}")).await.fails(404, "NoSuchUpload");
    }
    complete(&client, &id, &[one, three]).await.is(200);
    server.becomes_tidy().await;
}

#[tokio::test]
async fn what_a_client_says_of_the_whole_is_verified() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let id = begin(&client, "x").await;
    let (_, tag) = part(&client, &id, 1, b"hello").await;
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
    );
    let with = |name: &str, value: &str| {
        let request = client.request("POST", &format!("/a-job/x?uploadId={id}")).header(name, value);
        request.body(document.as_bytes()).send()
    };
    with("x-amz-checksum-crc32", "AAAAAA==").await.fails(400, "BadDigest");
    with("x-amz-mp-object-size", "6").await.fails(400, "IncompleteBody");
    with("if-match", "\"0\"").await.fails(404, "NoSuchKey");
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    with("x-amz-checksum-crc32", "NhCmhg==").await.is(200);
}

#[tokio::test]
async fn uploads_and_parts_are_listed_and_aborted() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let mut ids = Vec::new();
    for key in ["x", "dir%2Fy", "x"] {
        ids.push(begin(&client, key).await);
    }
    let listed = client.get("/a-job?uploads").await.is(200);
    assert_eq!(elements(&listed, "Key"), ["dir/y", "x", "x"]);
    assert_eq!(elements(&listed, "UploadId"), [ids[1].as_str(), &ids[0], &ids[2]]);
    let listed = client.get("/a-job?uploads&delimiter=%2F&max-uploads=1").await.is(200);
    assert_eq!(elements(&listed, "CommonPrefixes"), ["<Prefix>dir/</Prefix>"]);
    let next = element(&listed, "NextKeyMarker").unwrap();
    let listed = client
        .get(&format!("/a-job?uploads&delimiter=%2F&max-uploads=1&key-marker={}", encode(&next, false)))
        .await
        .is(200);
    assert_eq!(elements(&listed, "UploadId"), [ids[0].as_str()]);
    let listed =
        client.get(&format!("/a-job?uploads&key-marker=x&upload-id-marker={}", ids[0])).await.is(200);
    assert_eq!(elements(&listed, "UploadId"), [ids[2].as_str()]);

    for number in [1, 2, 3] {
        part(&client, &ids[0], number, b"1").await;
    }
    let parts = client.get(&format!("/a-job/x?uploadId={}&max-parts=2", ids[0])).await.is(200);
    assert_eq!(elements(&parts, "PartNumber"), ["1", "2"]);
    assert_eq!(element(&parts, "IsTruncated").as_deref(), Some("true"));
    let parts = client.get(&format!("/a-job/x?uploadId={}&part-number-marker=2", ids[0])).await.is(200);
    assert_eq!(elements(&parts, "PartNumber"), ["3"]);

    client.delete(&format!("/a-job/x?uploadId={}", ids[0])).await.is(204);
    client.delete(&format!("/a-job/x?uploadId={}", ids[0])).await.fails(404, "NoSuchUpload");
    // An upload into a bucket keeps nobody from removing it, and goes with it.
    client.delete("/a-job").await.is(204);
    assert!(names(&server.dir.join(".shepherd/uploads")).is_empty());
    server.becomes_tidy().await;
}

#[tokio::test]
async fn a_part_may_be_copied_from_an_object() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/source", b"0123456789").await.is(200);
    let id = begin(&client, "x").await;
    let copy = |range: &str| {
        let request = client.request("PUT", &format!("/a-job/x?partNumber=1&uploadId={id}"));
        request.header("x-amz-copy-source", "a-job/source").header("x-amz-copy-source-range", range).send()
    };
    copy("bytes=5-10").await.fails(416, "InvalidRange");
    copy("bytes=5-").await.fails(400, "InvalidArgument");
    let copied = copy("bytes=5-7").await.is(200);
    let tag = element(&copied, "ETag").unwrap();
    complete(&client, &id, &[(1, tag)]).await.is(200);
    assert_eq!(client.get("/a-job/x").await.is(200).text(), "567");
}
