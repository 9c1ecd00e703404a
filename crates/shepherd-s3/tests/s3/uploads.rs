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
    for method in ["GET", "HEAD"] {
        let of = |number: u32| client.request(method, &format!("/a-job/x?partNumber={number}")).send();
        let second = of(2).await.is(206);
        assert_eq!(second.header("content-range"), Some("bytes 5242880-5242882/5242883"));
        assert_eq!(
            (second.header("content-length"), second.header("x-amz-mp-parts-count")),
            (Some("3"), Some("2"))
        );
        assert_eq!(second.text(), if method == "GET" { "end" } else { "" });
        assert_eq!(of(1).await.is(206).header("content-length"), Some("5242880"));
        assert_eq!(of(3).await.status, 416);
        assert_eq!(of(0).await.status, 416);
    }
    let both = client.request("GET", "/a-job/x?partNumber=1").header("range", "bytes=0-1");
    both.send().await.fails(400, "InvalidRequest");
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

const SHA256: &str = "x-amz-checksum-sha256";
/// The SHA256 of `hello`, that of its digest, and one of something else, in base64.
const HELLO: &str = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
const COMPOSITE: &str = "lZXJ35AHUUjrBoYDZd8zWEt1v/eCpRDGzUiDpBmDPVA=-1";
const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Completes an upload of one part, of which `inside` says more, with a header.
async fn finish(client: &Client, id: &str, tag: &str, inside: &str, header: Option<(&str, &str)>) -> Answer {
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag>{inside}</Part>\
         </CompleteMultipartUpload>"
    );
    let request = client.request("POST", &format!("/a-job/x?uploadId={id}")).body(document.as_bytes());
    header.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send().await
}

#[tokio::test]
async fn checksums_of_parts_and_their_whole_are_verified_and_told() {
    let server = Server::start().await;
    let client = server.bucket().await;
    // A part whose checksum is told, and one of which it is made later.
    for told in [true, false] {
        let begun = client.request("POST", "/a-job/x?uploads").header("x-amz-checksum-algorithm", "SHA256");
        let begun = begun.send().await.is(200);
        assert_eq!(begun.header("x-amz-checksum-algorithm"), Some("SHA256"));
        assert_eq!(begun.header("x-amz-checksum-type"), Some("COMPOSITE"));
        let id = element(&begun, "UploadId").unwrap();
        let target = format!("/a-job/x?partNumber=1&uploadId={id}");
        let put = |sum: Option<&str>| {
            let put = client.request("PUT", &target).body(*b"hello");
            sum.into_iter().fold(put, |put, sum| put.header(SHA256, sum)).send()
        };
        put(Some(OTHER)).await.fails(400, "BadDigest");
        let part = put(told.then_some(HELLO)).await.is(200);
        assert_eq!(part.header(SHA256), told.then_some(HELLO));
        let listed = client.get(&format!("/a-job/x?uploadId={id}")).await.is(200);
        assert_eq!(element(&listed, "ChecksumSHA256").as_deref(), told.then_some(HELLO));
        assert_eq!(element(&listed, "ChecksumAlgorithm").as_deref(), Some("SHA256"));
        let listed = client.get("/a-job?uploads").await.is(200);
        assert_eq!(element(&listed, "ChecksumType").as_deref(), Some("COMPOSITE"));

        let tag = part.header("etag").unwrap().to_owned();
        let wrong = format!("<ChecksumSHA256>{OTHER}</ChecksumSHA256>");
        let right = format!("<ChecksumSHA256>{HELLO}</ChecksumSHA256>");
        finish(&client, &id, &tag, &wrong, None).await.fails(400, "InvalidPart");
        for value in [format!("{OTHER}-1"), OTHER.to_owned(), HELLO.to_owned(), format!("{HELLO}-1")] {
            finish(&client, &id, &tag, &right, Some((SHA256, &value))).await.fails(400, "BadDigest");
        }
        let kind = Some(("x-amz-checksum-type", "FULL_OBJECT"));
        finish(&client, &id, &tag, &right, kind).await.fails(400, "InvalidRequest");
        client.head("/a-job/x").await.is(404);
        let made = finish(&client, &id, &tag, &right, None).await.is(200);
        let composite_told = element(&made, "ChecksumSHA256").unwrap();
        assert_eq!(composite_told, COMPOSITE);
        assert_eq!(element(&made, "ChecksumType").as_deref(), Some("COMPOSITE"));
        let again = finish(&client, &id, &tag, &right, Some((SHA256, &composite_told))).await.is(200);
        assert_eq!(element(&again, "ChecksumSHA256").as_deref(), Some(&*composite_told));
        for method in ["GET", "HEAD"] {
            let got = client.request(method, "/a-job/x").header("x-amz-checksum-mode", "ENABLED");
            let got = got.send().await.is(200);
            assert_eq!(got.header(SHA256), Some(&*composite_told), "{method}");
            assert_eq!(got.header("x-amz-checksum-type"), Some("COMPOSITE"), "{method}");
            assert_eq!(got.header("x-shepherd-upload"), None);
        }
        client.delete("/a-job/x").await.is(204);
    }
}

#[tokio::test]
async fn the_checksum_of_a_full_object_is_made_of_those_of_its_parts() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let begun = client.request("POST", "/a-job/x?uploads").header("x-amz-checksum-algorithm", "CRC64NVME");
    let begun = begun.send().await.is(200);
    assert_eq!(begun.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    let id = element(&begun, "UploadId").unwrap();
    let mut parts = Vec::new();
    for (number, body) in [(1, vec![7; LARGE]), (2, b"end".to_vec())] {
        parts.push(part(&client, &id, number, &body).await);
    }
    let made = complete(&client, &id, &parts).await.is(200);
    let whole = client.request("PUT", "/a-job/y").body([vec![7; LARGE], b"end".to_vec()].concat());
    let whole = whole.header("x-amz-sdk-checksum-algorithm", "CRC64NVME").send().await.is(200);
    assert_eq!(element(&made, "ChecksumCRC64NVME").as_deref(), whole.header("x-amz-checksum-crc64nvme"));
    assert_eq!(element(&made, "ChecksumType").as_deref(), Some("FULL_OBJECT"));
    assert_eq!(whole.header("x-amz-checksum-type"), Some("FULL_OBJECT"));

    let asked =
        |name: &str, value: &str| client.request("POST", "/a-job/z?uploads").header(name, value).send();
    asked("x-amz-checksum-algorithm", "MD5").await.fails(400, "InvalidRequest");
    asked("x-amz-checksum-type", "COMPOSITE").await.fails(400, "InvalidRequest");
    for (algorithm, kind) in [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("CRC32", "HALF")] {
        let begin = client.request("POST", "/a-job/z?uploads").header("x-amz-checksum-algorithm", algorithm);
        begin.header("x-amz-checksum-type", kind).send().await.fails(400, "InvalidRequest");
    }
    let unknown = client.request("PUT", "/a-job/z").header("x-amz-checksum-xxhash64", "AAAAAAAAAAA=");
    unknown.send().await.fails(501, "NotImplemented");
}

#[tokio::test]
async fn an_upload_completed_again_is_answered_as_the_first_time() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let id = begin(&client, "x").await;
    let only = part(&client, &id, 1, b"hello").await;
    let first = complete(&client, &id, std::slice::from_ref(&only)).await.is(200);
    let server = server.restart().await;
    let client = server.client();
    let second = complete(&client, &id, std::slice::from_ref(&only)).await.is(200);
    assert_eq!(element(&second, "ETag"), element(&first, "ETag"));
    // Also where the object must not have been there.
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        only.1
    );
    let third = client.request("POST", &format!("/a-job/x?uploadId={id}")).header("if-none-match", "*");
    third.body(document.as_bytes()).send().await.is(200);
    // Another object in its place, or none, is no answer to it.
    client.put("/a-job/x", b"other").await.is(200);
    complete(&client, &id, std::slice::from_ref(&only)).await.fails(404, "NoSuchUpload");
    client.delete("/a-job/x").await.is(204);
    complete(&client, &id, std::slice::from_ref(&only)).await.fails(404, "NoSuchUpload");
}

#[tokio::test]
async fn attributes_of_an_object_are_told_by_a_list() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let put = client.request("PUT", "/a-job/y").header(SHA256, HELLO).body(*b"hello");
    put.send().await.is(200);
    let get = |key: &str, list: &str| {
        client
            .request("GET", &format!("/a-job/{key}?attributes"))
            .header("x-amz-object-attributes", list)
            .header("x-amz-max-parts", "1")
            .send()
    };
    let told = get("y", "ETag,Checksum, ObjectParts,StorageClass,ObjectSize").await.is(200);
    assert_eq!(element(&told, "ObjectSize").as_deref(), Some("5"));
    assert_eq!(element(&told, "ChecksumSHA256").as_deref(), Some(HELLO));
    assert_eq!(element(&told, "ChecksumType").as_deref(), Some("FULL_OBJECT"));
    assert_eq!(element(&told, "StorageClass").as_deref(), Some("STANDARD"));
    assert!(element(&told, "ETag").is_some() && element(&told, "ObjectParts").is_none());
    let told = get("y", "ObjectSize").await.is(200);
    assert!(element(&told, "ETag").is_none() && element(&told, "Checksum").is_none());
    get("y", "ETag,Colour").await.fails(400, "InvalidArgument");

    let id = begin(&client, "x").await;
    let mut parts = vec![part(&client, &id, 1, &vec![7; LARGE]).await];
    parts.push(part(&client, &id, 2, b"end").await);
    complete(&client, &id, &parts).await.is(200);
    let told = get("x", "ObjectParts").await.is(200);
    assert_eq!(element(&told, "PartsCount").as_deref(), Some("2"));
    assert_eq!(
        (elements(&told, "Size"), elements(&told, "PartNumber")),
        (vec![LARGE.to_string()], vec!["1".into()])
    );
    assert_eq!(element(&told, "NextPartNumberMarker").as_deref(), Some("1"));
    // A copy has what the bytes have.
    let copy = client.request("PUT", "/a-job/z").header("x-amz-copy-source", "/a-job/x");
    copy.header("x-amz-metadata-directive", "REPLACE").send().await.is(200);
    assert_eq!(element(&get("z", "ObjectParts").await.is(200), "PartsCount").as_deref(), Some("2"));
    let copy = client.request("PUT", "/a-job/z").header("x-amz-copy-source", "/a-job/y").send().await.is(200);
    assert_eq!(element(&copy, "ChecksumSHA256").as_deref(), Some(HELLO));
}
