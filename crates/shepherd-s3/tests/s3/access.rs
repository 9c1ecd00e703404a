//! Who may.

use crate::client::Auth;
use crate::server::{Server, names};

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
