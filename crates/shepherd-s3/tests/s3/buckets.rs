//! Buckets.

use std::os::unix::fs::symlink;

use crate::server::{Server, elements, names};

#[tokio::test]
async fn a_bucket_is_a_directory_and_a_directory_a_bucket() {
    let server = Server::start().await;
    let client = server.client();
    client.head("/a-job").await.is(404);
    let made = client.put("/a-job", b"").await.is(200);
    assert_eq!(made.header("location"), Some("/a-job"));
    assert!(server.dir.join("a-job").is_dir());
    client.put("/a-job", b"").await.is(200);
    assert_eq!(client.head("/a-job").await.is(200).header("x-amz-bucket-region"), Some("us-east-1"));

    std::fs::create_dir(server.dir.join("by-hand")).unwrap();
    client.head("/by-hand").await.is(200);
    // Neither are buckets: a job of another layout, a file, a link, and what is ours.
    std::fs::create_dir(server.dir.join("Upper_Case")).unwrap();
    std::fs::write(server.dir.join("a-file"), "").unwrap();
    symlink(server.dir.join("a-job"), server.dir.join("a-link")).unwrap();
    client.put("/a-file", b"").await.fails(409, "BucketAlreadyExists");
    client.put("/a-link", b"").await.fails(409, "BucketAlreadyExists");
    client.head("/a-file").await.is(404);
    client.head("/a-link").await.is(404);
    let listed = client.get("/").await.is(200);
    assert_eq!(elements(&listed, "Name"), ["a-job", "by-hand"]);
    assert_eq!(elements(&listed, "CreationDate").len(), 2);
    let listed = client.get("/?max-buckets=1").await.is(200);
    assert_eq!(elements(&listed, "Name"), ["a-job"]);
    let token = &elements(&listed, "ContinuationToken")[0];
    let listed = client.get(&format!("/?continuation-token={token}")).await.is(200);
    assert_eq!(elements(&listed, "Name"), ["by-hand"]);

    client.delete("/by-hand").await.is(204);
    client.delete("/by-hand").await.fails(404, "NoSuchBucket");
    assert!(!server.dir.join("by-hand").exists());
}

#[tokio::test]
async fn names_that_are_no_buckets_are_refused() {
    let server = Server::start().await;
    let client = server.client();
    for name in [".shepherd", "ab", "A-Job", "a_job", "a..b", "192.168.0.1", "-ab", &"a".repeat(64)] {
        client.put(&format!("/{name}"), b"").await.fails(400, "InvalidBucketName");
        client.get(&format!("/{name}/x")).await.fails(400, "InvalidBucketName");
    }
    for name in ["%2e%2e", "..", "%2E%2E%2Fetc"] {
        let answer = client.get(&format!("/{name}/passwd")).await;
        assert_ne!(answer.status, 200, "{name}");
    }
    assert_eq!(names(&server.dir), [".shepherd"]);
}

#[tokio::test]
async fn a_bucket_with_anything_in_it_stays() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/inputs/deep/input", b"x").await.is(200);
    client.delete("/a-job").await.fails(409, "BucketNotEmpty");
    client.delete("/a-job/inputs/deep/input").await.is(204);
    // Directories are nothing.
    std::fs::create_dir_all(server.dir.join("a-job/inputs/more/and/more")).unwrap();
    // A link is no object, but somebody's.
    let link = server.dir.join("a-job/inputs/more/link");
    symlink("/etc/passwd", &link).unwrap();
    client.delete("/a-job").await.fails(409, "BucketNotEmpty");
    assert!(link.is_symlink());
    std::fs::remove_file(link).unwrap();
    client.delete("/a-job").await.is(204);
    assert_eq!(names(&server.dir), [".shepherd"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_and_a_removal_that_meet_lose_nothing_silently() {
    let server = Server::start().await;
    for round in 0..30 {
        let client = server.bucket().await;
        let (put, removed) = tokio::join!(client.put("/a-job/a/b", b"x"), client.delete("/a-job"));
        let found = client.get("/a-job/a/b").await.status;
        match (put.status, removed.status) {
            (200, 409) => {
                assert_eq!(found, 200, "round {round}");
                client.delete("/a-job/a/b").await.is(204);
                client.delete("/a-job").await.is(204);
            }
            (404, 204) => assert_eq!(found, 404, "round {round}"),
            other => panic!("round {round}: {other:?}"),
        }
    }
    server.becomes_tidy().await;
}

#[tokio::test]
async fn questions_about_settings_are_answered_as_by_a_bucket_without_any() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/x", b"").await.is(200);
    for what in ["versioning", "logging", "notification", "accelerate", "requestPayment", "acl", "location"] {
        client.get(&format!("/a-job?{what}")).await.is(200);
        client.get(&format!("/no-job?{what}")).await.fails(404, "NoSuchBucket");
    }
    client.get("/a-job/x?acl").await.is(200);
    client.get("/a-job/x?tagging").await.is(200);
    for (what, code) in [
        ("tagging", "NoSuchTagSet"),
        ("policy", "NoSuchBucketPolicy"),
        ("cors", "NoSuchCORSConfiguration"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("website", "NoSuchWebsiteConfiguration"),
        ("encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("replication", "ReplicationConfigurationNotFoundError"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
        ("publicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
    ] {
        client.get(&format!("/a-job?{what}")).await.fails(404, code);
    }
    let versioning = r#"<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>"#;
    client.put("/a-job?versioning", versioning.as_bytes()).await.fails(501, "NotImplemented");
    client.get("/a-job?inventory&id=x").await.fails(501, "NotImplemented");
}
