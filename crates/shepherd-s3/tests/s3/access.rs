//! Who may.

use crate::client::Auth;
use crate::server::{Server, element, elements, names};
use crate::sign;

#[tokio::test]
async fn wrong_keys_are_told_apart() {
    let server = Server::start().await;
    let mut client = server.bucket().await;
    client.request("GET", "/").auth(Auth::Anonymous).send().await.fails(403, "AccessDenied");
    client
        .request("PUT", "/a-job/x")
        .auth(Auth::Anonymous)
        .body(*b"1")
        .send()
        .await
        .fails(403, "AccessDenied");
    client.secret_key = "another".to_owned();
    for auth in [Auth::Header, Auth::Presigned] {
        client.request("GET", "/").auth(auth).send().await.fails(403, "SignatureDoesNotMatch");
        let put = client.request("PUT", "/a-job/x").auth(auth).body(vec![1; 3 << 20]);
        put.send().await.fails(403, "SignatureDoesNotMatch");
    }
    client.access_key = "nobody".to_owned();
    for auth in [Auth::Header, Auth::Presigned] {
        client.request("GET", "/").auth(auth).send().await.fails(403, "InvalidAccessKeyId");
    }
    assert!(names(&server.dir.join("a-job")).is_empty());
}

#[tokio::test]
async fn what_was_not_signed_is_refused() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/secret", b"1").await.is(200);
    for auth in [Auth::Header, Auth::Presigned] {
        // The holder of a URL to put could read the whole storage by this.
        let put = client.request("PUT", "/a-job/x").auth(auth);
        put.unsigned_header("x-amz-copy-source", "/a-job/secret").send().await.fails(403, "AccessDenied");
        let put = client.request("PUT", "/a-job/x").auth(auth);
        put.unsigned_header("x-amz-meta-a", "b").send().await.fails(403, "AccessDenied");
        let put = client.request("PUT", "/a-job/x").auth(auth).body(*b"1");
        put.unsigned_header("content-type", "a/b").send().await.is(200);
    }
}

#[tokio::test]
async fn a_signature_holds_for_a_time() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.request("GET", "/").offset(-3600).send().await.fails(403, "RequestTimeTooSkewed");
    client.request("GET", "/").offset(3600).send().await.fails(403, "RequestTimeTooSkewed");
    let skewed = client.request("GET", "/").offset(-3600).send().await;
    let (theirs, ours) = (element(&skewed, "RequestTime").unwrap(), element(&skewed, "ServerTime").unwrap());
    assert_eq!((theirs.len(), theirs.ends_with('Z')), (sign::date(0).len(), true), "{theirs}");
    assert_eq!(ours[..10].replace('-', ""), sign::date(0)[..8], "{ours}");
    assert_eq!(element(&skewed, "MaxAllowedSkewMilliseconds").as_deref(), Some("900000"));
    let url = || client.request("GET", "/").auth(Auth::Presigned);
    url().offset(-3600).expires("3000").send().await.fails(403, "AccessDenied");
    url().offset(-3600).expires("7000").send().await.is(200);
    url().expires("604800").send().await.is(200);
    url().expires("604801").send().await.fails(400, "AuthorizationQueryParametersError");
}

#[tokio::test]
async fn other_ways_to_sign_are_refused_before_anything_is_read() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let anonymous = |target: &str| client.request("GET", target).auth(Auth::Anonymous);
    let header = anonymous("/").unsigned_header("authorization", "AWS shepherd:AAAA");
    header.send().await.fails(400, "InvalidRequest");
    for query in ["AWSAccessKeyId=shepherd&Expires=9999999999&Signature=AAAA", "%53ignature=AAAA"] {
        anonymous(&format!("/?{query}")).send().await.fails(400, "InvalidRequest");
    }
    for kind in ["multipart/form-data; boundary=x", "Multipart/Form-Data; boundary=x"] {
        let form =
            client.request("POST", "/a-job").auth(Auth::Anonymous).unsigned_header("content-type", kind);
        form.body(*b"--x--").send().await.fails(501, "NotImplemented");
    }
}

#[tokio::test]
async fn a_host_that_may_begin_with_a_bucket_is_never_taken_for_another() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let to = |host: &str, method: &str, target: &str| client.request(method, target).host(host);
    for own in ["s3.example.com", "S3.example.com:7000", "localhost", "shepherd:7000", "[::1]:7000"] {
        to(own, "HEAD", "/a-job").send().await.is(200);
    }
    for host in ["a-job.s3.example.com", "a-job.localhost:7000"] {
        to(host, "PUT", "/inputs").body(*b"hello").send().await.is(200);
        to(host, "PUT", "/deep/input").body(*b"x").send().await.is(200);
        assert_eq!(to(host, "GET", "/inputs").send().await.is(200).text(), "hello");
        assert_eq!(elements(&to(host, "GET", "/").send().await.is(200), "Key"), ["deep/input", "inputs"]);
    }
    to("b-job.s3.example.com", "PUT", "/").send().await.is(200);
    for host in ["a-job.example.org", "a-job.shepherd", "s3.example.com.example.org"] {
        to(host, "PUT", "/inputs").send().await.fails(400, "InvalidRequest");
        to(host, "GET", "/").send().await.fails(400, "InvalidRequest");
    }
    assert_eq!(names(&server.dir), [".shepherd", "a-job", "b-job"]);
}
