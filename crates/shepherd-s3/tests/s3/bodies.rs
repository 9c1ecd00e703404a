//! Bodies, and what clients say of them.

use crate::client::{Auth, Client, Request};
use crate::server::{SECRET_KEY, Server, element, names};
use crate::sign;

const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// The CRC32 of `hello`, in base64.
const CRC32: &str = "NhCmhg==";

fn put(client: &Client) -> Request {
    client.request("PUT", "/a-job/x").body(*b"hello")
}

#[tokio::test]
async fn a_body_must_be_what_its_headers_say() {
    let server = Server::start().await;
    let client = server.bucket().await;
    put(&client).payload(sign::sha256(b"other")).send().await.fails(400, "XAmzContentSHA256Mismatch");
    put(&client)
        .payload(sign::sha256(b"other"))
        .auth(Auth::Header)
        .body(vec![1; 3 << 20])
        .send()
        .await
        .fails(400, "XAmzContentSHA256Mismatch");
    put(&client).header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==").send().await.fails(400, "BadDigest");
    put(&client).header("content-md5", "nonsense").send().await.fails(400, "InvalidDigest");
    for name in ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"] {
        put(&client)
            .header(&format!("x-amz-checksum-{name}"), "AAAAAA==")
            .send()
            .await
            .fails(400, "BadDigest");
    }
    assert!(names(&server.dir.join("a-job")).is_empty(), "nothing is left behind");
    server.becomes_tidy().await;
    let right =
        put(&client).header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==").header("x-amz-checksum-crc32", CRC32);
    let answer = right
        .header("x-amz-checksum-sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")
        .send()
        .await
        .is(200);
    assert_eq!(answer.header("x-amz-checksum-crc32"), Some(CRC32));
    put(&client).payload("UNSIGNED-PAYLOAD").send().await.is(200);
    put(&client).payload("nonsense").send().await.fails(403, "SignatureDoesNotMatch");
    let asked = client.request("GET", "/a-job/x").header("x-amz-checksum-mode", "ENABLED");
    assert_eq!(asked.send().await.is(200).header("x-amz-checksum-crc32"), None, "the last put had none");
}

#[tokio::test]
async fn a_put_that_breaks_off_leaves_nothing() {
    let server = Server::start().await;
    let client = server.bucket().await;
    for size in [10, 5 << 20] {
        for payload in [None, Some("UNSIGNED-PAYLOAD")] {
            let mut request = client.request("PUT", "/a-job/x").body(vec![1; size]).cut(size / 2);
            if let Some(payload) = payload {
                request = request.payload(payload);
            }
            let answer = request.send_with(|body, _, _| body).await;
            assert!(answer.is_none_or(|answer| answer.status == 400));
        }
    }
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    server.becomes_tidy().await;
}

fn framed(body: &[u8], size: usize, date: &str, seed: &str, tamper: bool, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut previous = seed.to_owned();
    for (number, data) in body.chunks(size).chain([&[][..]]).enumerate() {
        previous = sign::chunk(SECRET_KEY, date, &previous, data);
        out.extend_from_slice(format!("{:x};chunk-signature={previous}\r\n", data.len()).as_bytes());
        let at = out.len();
        out.extend_from_slice(data);
        if tamper && number == 1 {
            out[at] ^= 1;
        }
        if !data.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
    }
    if !trailers.is_empty() {
        let signature = sign::trailer(SECRET_KEY, date, &previous, &format!("{trailers}\n"));
        out.extend_from_slice(format!("{trailers}\r\nx-amz-trailer-signature:{signature}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn streaming(client: &Client, payload: &str, length: usize) -> Request {
    let request = client.request("PUT", "/a-job/x").payload(payload);
    request
        .header("x-amz-decoded-content-length", length.to_string())
        .header("content-encoding", "aws-chunked")
}

#[tokio::test]
async fn signed_chunks() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let body: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let send = async |tamper: bool, length: usize| {
        let request = streaming(&client, SIGNED, length).body(body.clone());
        request.send_with(|body, date, seed| framed(&body, 65_536, date, seed, tamper, "")).await.unwrap()
    };
    send(true, body.len()).await.fails(403, "SignatureDoesNotMatch");
    send(false, body.len() + 1).await.fails(400, "IncompleteBody");
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
    send(false, body.len()).await.is(200);
    let got = client.get("/a-job/x").await.is(200);
    assert_eq!(got.body, body);
    assert_eq!(got.header("content-encoding"), None, "how it travelled is no property of the object");

    let request = streaming(&client, SIGNED, 5).body(*b"hello");
    let huge =
        request.send_with(|_, _, _| format!("2000000;chunk-signature={:064}\r\n", 0).into_bytes()).await;
    huge.unwrap().fails(400, "EntityTooLarge");
    server.becomes_tidy().await;
}

#[tokio::test]
async fn trailers() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let signed = async |crc: &str| {
        let request = streaming(&client, SIGNED_TRAILER, 5).header("x-amz-trailer", "x-amz-checksum-crc32");
        let lines = format!("x-amz-checksum-crc32:{crc}");
        request
            .body(*b"hello")
            .send_with(|body, date, seed| framed(&body, 3, date, seed, false, &lines))
            .await
            .unwrap()
    };
    signed("AAAAAA==").await.fails(400, "BadDigest");
    signed(CRC32).await.is(200);

    let unsigned = async |text: &str| {
        let request = streaming(&client, UNSIGNED_TRAILER, 5).header("x-amz-trailer", "x-amz-checksum-crc32");
        request.send_with(|_, _, _| text.as_bytes().to_vec()).await.unwrap()
    };
    unsigned("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n").await.fails(400, "BadDigest");
    unsigned("5\r\nhello\r\n0\r\n\r\n").await.fails(400, "InvalidRequest");
    unsigned("5\r\nhello\r\n").await.fails(400, "IncompleteBody");
    unsigned("5\r\nhelloX\r\n0\r\n\r\n").await.fails(400, "InvalidRequest");
    unsigned(&format!("3\r\nhel\r\n2\r\nlo\r\n0\r\nx-amz-checksum-crc32:{CRC32}\r\n\r\n")).await.is(200);
    let got = client.request("GET", "/a-job/x").header("x-amz-checksum-mode", "ENABLED").send().await.is(200);
    assert_eq!((got.text().as_str(), got.header("x-amz-checksum-crc32")), ("hello", Some(CRC32)));
}

#[tokio::test]
async fn one_large_unsigned_chunk_is_no_burden() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let body = vec![7_u8; 20 << 20];
    let request =
        streaming(&client, UNSIGNED_TRAILER, body.len()).header("x-amz-trailer", "x-amz-checksum-crc32");
    let answer = request.send_with(|_, _, _| {
        let mut out = format!("{:x}\r\n", body.len()).into_bytes();
        out.extend_from_slice(&body);
        out.extend_from_slice(b"\r\n0\r\nx-amz-checksum-crc32:9LkV0Q==\r\n\r\n");
        out
    });
    // The checksum is made up; all of the body was read to find that out.
    answer.await.unwrap().fails(400, "BadDigest");
}

/// Wrong values of everything that a client can say of a body, and what is answered.
const WRONG: [(&str, &str, &str); 7] = [
    ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==", "BadDigest"),
    ("content-md5", "nonsense", "InvalidDigest"),
    ("x-amz-checksum-crc32", "AAAAAA==", "BadDigest"),
    ("x-amz-checksum-crc32c", "AAAAAA==", "BadDigest"),
    ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=", "BadDigest"),
    ("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "BadDigest"),
    ("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "BadDigest"),
];

#[tokio::test]
async fn nothing_is_deleted_by_a_document_that_is_not_what_its_headers_say() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/x", b"1").await.is(200);
    let named = "<Delete><Object><Key>x</Key></Object></Delete>";
    let delete = || client.request("POST", "/a-job?delete").body(named.as_bytes());
    for payload in [None, Some("UNSIGNED-PAYLOAD")] {
        for (name, value, code) in WRONG {
            let mut request = delete().header(name, value);
            if let Some(payload) = payload {
                request = request.payload(payload);
            }
            request.send().await.fails(400, code);
        }
    }
    delete().payload(sign::sha256(b"other")).send().await.fails(400, "XAmzContentSHA256Mismatch");
    let trailing = delete().payload(UNSIGNED_TRAILER).header("x-amz-trailer", "x-amz-checksum-crc32");
    let trailing = trailing.header("x-amz-decoded-content-length", named.len().to_string());
    trailing.send().await.fails(501, "NotImplemented");
    client.head("/a-job/x").await.is(200);
    delete().header("x-amz-sdk-checksum-algorithm", "CRC64NVME").send().await.is(200);
    client.head("/a-job/x").await.is(404);
}

#[tokio::test]
async fn every_operation_verifies_the_digest_of_its_body() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/x", b"1").await.is(200);
    let begun = client.post("/a-job/y?uploads", "").await.is(200);
    let id = element(&begun, "UploadId").unwrap();
    let part = format!("/a-job/y?partNumber=1&uploadId={id}");
    let tag = client.put(&part, b"1").await.is(200).header("etag").unwrap().to_owned();
    let complete = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
    );
    let upload = format!("/a-job/y?uploadId={id}");
    for (method, target, body) in [
        ("GET", "/", ""),
        ("PUT", "/b-job", ""),
        ("HEAD", "/a-job", ""),
        ("GET", "/a-job?list-type=2", ""),
        ("GET", "/a-job/x", ""),
        ("HEAD", "/a-job/x", ""),
        ("PUT", "/a-job/x", ""),
        ("PUT", "/a-job/x", "2"),
        ("DELETE", "/a-job/x", ""),
        ("DELETE", "/a-job", ""),
        ("POST", "/a-job/y?uploads", ""),
        ("PUT", part.as_str(), "2"),
        ("POST", upload.as_str(), complete.as_str()),
        ("DELETE", upload.as_str(), ""),
    ] {
        let request = client.request(method, target).body(body).payload(sign::sha256(b"other"));
        let answer = request.send().await;
        assert_eq!(answer.status, 400, "{method} {target}");
        if method != "HEAD" {
            answer.fails(400, "XAmzContentSHA256Mismatch");
        }
    }
    assert_eq!(client.get("/a-job/x").await.is(200).text(), "1", "nothing was done");
    client.head("/b-job").await.is(404);
    client.post(&upload, &complete).await.is(200);
}

#[tokio::test]
async fn a_document_over_the_limit_is_refused_and_one_that_breaks_off_too() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let large = vec![b' '; (8 << 20) + 1];
    for payload in [None, Some("UNSIGNED-PAYLOAD")] {
        for (method, target) in [("POST", "/a-job?delete"), ("PUT", "/b-job"), ("DELETE", "/a-job")] {
            let mut request = client.request(method, target).body(large.clone());
            if let Some(payload) = payload {
                request = request.payload(payload);
            }
            request.send().await.fails(400, "MaxMessageLengthExceeded");
        }
        let cut = client.request("POST", "/a-job?delete").body(vec![b' '; 1000]).cut(500);
        let answer = cut.send_with(|body, _, _| body).await;
        assert!(answer.is_none_or(|answer| answer.code().as_deref() == Some("IncompleteBody")));
    }
    client.head("/b-job").await.is(404);
}
