//! Objects are files and files are objects, at once.

use std::fs;
use std::os::unix::fs::symlink;

use crate::server::{Server, elements};
use md5::{Digest as _, Md5};

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", crate::sign::hex(&Md5::digest(bytes)))
}

#[tokio::test]
async fn files_put_in_by_hand_are_objects() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let inputs = server.dir.join("a-job/inputs");
    fs::create_dir(&inputs).unwrap();
    fs::write(inputs.join("page.html"), "by hand").unwrap();
    let got = client.get("/a-job/inputs/page.html").await.is(200);
    assert_eq!(got.text(), "by hand");
    assert_eq!(got.header("content-type"), Some("text/html"));
    assert_eq!(got.header("etag"), Some(etag(b"by hand").as_str()));
    assert!(got.header("last-modified").is_some());
    let listed = client.get("/a-job?list-type=2").await.is(200);
    assert_eq!(elements(&listed, "Key"), ["inputs/page.html"]);
    assert_eq!(elements(&listed, "ETag"), [etag(b"by hand")]);

    // A large one is not read for its tag, which therefore is no MD5.
    fs::write(inputs.join("large"), vec![7; 100_000]).unwrap();
    let large = client.head("/a-job/inputs/large").await.is(200);
    let tag = large.header("etag").unwrap().to_owned();
    assert!(tag.ends_with("-1\"") && tag.len() == 36, "{tag}");
    assert_eq!(client.head("/a-job/inputs/large").await.header("etag"), Some(tag.as_str()), "it is stable");
    fs::write(inputs.join("large"), vec![8; 100_001]).unwrap();
    assert_ne!(client.head("/a-job/inputs/large").await.header("etag"), Some(tag.as_str()));

    symlink("/etc/passwd", inputs.join("link")).unwrap();
    client.get("/a-job/inputs/link").await.fails(404, "NoSuchKey");
    symlink("/etc", inputs.join("dir")).unwrap();
    client.get("/a-job/inputs/dir/passwd").await.fails(404, "NoSuchKey");
    client.get("/a-job/inputs").await.fails(404, "NoSuchKey");
}

#[tokio::test]
async fn a_tag_is_not_trusted_once_somebody_wrote_into_the_file() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let put = client.request("PUT", "/a-job/x.txt").header("x-amz-meta-colour", "blue").body(*b"before");
    put.header("x-amz-sdk-checksum-algorithm", "CRC32").send().await.is(200);
    let sums = client.request("GET", "/a-job/x.txt").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert!(sums.header("x-amz-checksum-crc32").is_some());
    let file = server.dir.join("a-job/x.txt");
    fs::hard_link(&file, server.dir.join("a-job/linked")).unwrap();
    let linked = client.head("/a-job/linked").await.is(200);
    assert_eq!(linked.header("etag"), Some(etag(b"before").as_str()));

    fs::write(&file, "after it was").unwrap();
    let got = client.request("GET", "/a-job/x.txt").header("x-amz-checksum-mode", "ENABLED").send().await;
    assert_eq!(got.header("etag"), Some(etag(b"after it was").as_str()));
    assert_eq!(got.header("x-amz-checksum-crc32"), None);
    assert_eq!(got.header("x-amz-meta-colour"), Some("blue"), "what a client said of it stays");
}

#[tokio::test]
async fn an_attribute_that_a_runner_made_up_gives_no_headers_of_its_own() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let file = server.dir.join("a-job/x");
    for attribute in [
        "1 1 1 tag\nset-cookie: x\nx-amz-meta-a: 1\n",
        "1 1 1 \"\r\nx: y\"\n",
        "nonsense",
        "1 1 1 tag\nContent-Type: a/b\n",
        "1 1 1 tag\ncontent-type: a/b\u{1}\n",
    ] {
        fs::write(&file, "x").unwrap();
        let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
        let set = rustix::fs::setxattr(
            &path,
            "user.shepherd",
            attribute.as_bytes(),
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_err() {
            println!("skipped: no extended attributes here");
            return;
        }
        let got = client.get("/a-job/x").await.is(200);
        assert_eq!(got.header("set-cookie"), None);
        assert_eq!(got.header("etag"), Some(etag(b"x").as_str()));
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    }
}
