//! Keys of every kind.

use crate::client::encode;
use crate::server::{Server, elements, names};

const KEYS: [&str; 18] = [
    "inputs/input",
    "a b+c",
    "%2F",
    "100%",
    "žluťoučký/kůň 😀",
    ".hidden/.file",
    "...",
    "a",
    "a/b",
    "a//b",
    "/lead",
    "trail/",
    "../x",
    "inputs/../../../x",
    ".",
    ".shepherd-keys/=x",
    "q?x=1&y=2#z",
    "~!@$^*()'\"<>;:,[]{}|\\`",
];

#[tokio::test]
async fn every_key_keeps_its_bytes_and_none_leaves_its_bucket() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let long = "x".repeat(1000);
    let deep = "d/".repeat(500);
    let keys = KEYS.into_iter().chain([long.as_str(), deep.as_str()]);
    for key in keys.clone() {
        client.put(&format!("/a-job/{}", encode(key, true)), key.as_bytes()).await.is(200);
    }
    for key in keys.clone() {
        let path = format!("/a-job/{}", encode(key, true));
        assert_eq!(client.get(&path).await.is(200).text(), key);
        client.head(&path).await.is(200);
    }
    let mut sorted: Vec<_> = keys.clone().map(|key| encode(key, true)).collect();
    sorted.sort_by_key(|key| percent(key));
    let listed = client.get("/a-job?list-type=2&encoding-type=url").await.is(200);
    assert_eq!(elements(&listed, "Key"), sorted);
    assert_eq!(names(server.dir.parent().unwrap()), ["storage"], "nothing is outside");
    assert_eq!(names(&server.dir), [".shepherd", "a-job"]);

    for key in keys {
        client.delete(&format!("/a-job/{}", encode(key, true))).await.is(204);
        client.delete(&format!("/a-job/{}", encode(key, true))).await.is(204);
    }
    assert!(names(&server.dir.join("a-job")).is_empty(), "no directory stays that an object needed");
    client.delete("/a-job").await.is(204);
    server.becomes_tidy().await;
}

fn percent(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

#[tokio::test]
async fn a_slash_may_be_encoded_and_a_key_may_be_too_long() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/inputs%2Finput", b"1").await.is(200);
    assert_eq!(std::fs::read(server.dir.join("a-job/inputs/input")).unwrap(), b"1");
    client.put(&format!("/a-job/{}", "x".repeat(1024)), b"").await.is(200);
    client.put(&format!("/a-job/{}", "x".repeat(1025)), b"").await.fails(400, "KeyTooLongError");
}

#[tokio::test]
async fn a_key_that_was_a_directory_is_a_file_at_its_own_path_again() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/inputs/x/y", b"1").await.is(200);
    client.delete("/a-job/inputs/x/y").await.is(204);
    client.put("/a-job/inputs/x", b"2").await.is(200);
    assert_eq!(std::fs::read(server.dir.join("a-job/inputs/x")).unwrap(), b"2");
}

#[tokio::test]
async fn keys_that_xml_cannot_hold_are_not_made_and_leave_listings_well_formed() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let copy = |key: &str| {
        client.request("PUT", &format!("/a-job/{key}")).header("x-amz-copy-source", "/a-job/x").send()
    };
    client.put("/a-job/x", b"1").await.is(200);
    for key in ["%01", "a%1Fb", "%EF%BF%BE", "%EF%BF%BF", "%00"] {
        client.put(&format!("/a-job/{key}"), b"1").await.fails(400, "InvalidArgument");
        client.post(&format!("/a-job/{key}?uploads"), "").await.fails(400, "InvalidArgument");
        copy(key).await.fails(400, "InvalidArgument");
    }
    // Others put files where they like.
    std::fs::write(server.dir.join("a-job/b\u{1}"), "1").unwrap();
    for listing in ["", "list-type=2", "versions"] {
        let listed = client.get(&format!("/a-job?{listing}")).await.is(200);
        assert_eq!(elements(&listed, "Key"), ["b%01", "x"], "{listing}");
        assert_eq!(elements(&listed, "EncodingType"), ["url"], "{listing}");
        // The control character is in what the client said.
        let asked = client.get(&format!("/a-job?{listing}&prefix=%02")).await.is(200);
        assert_eq!(elements(&asked, "Prefix"), ["%02"], "{listing}");
        let plain = client.get(&format!("/a-job?{listing}&prefix=x")).await.is(200);
        assert_eq!((elements(&plain, "Key").len(), elements(&plain, "EncodingType").len()), (1, 0));
    }
    let uploads = client.get("/a-job?uploads&prefix=%02").await.is(200);
    assert_eq!(elements(&uploads, "Prefix"), ["%02"]);
    let error = client.get("/a-job?max-keys=%01").await;
    assert!(error.text().contains('\u{FFFD}') && !error.text().contains('\u{1}'), "{}", error.text());
    assert_eq!(client.get("/a-job/b%01").await.is(200).text(), "1");
    let named = "<Delete><Object><Key>b&#1;</Key></Object></Delete>";
    client.post("/a-job?delete", named).await.fails(400, "MalformedXML");
    client.delete("/a-job/b%01").await.is(204);

    // One that a parser would read as another.
    client.put("/a-job/a%0D%0Ab", b"1").await.is(200);
    assert_eq!(elements(&client.get("/a-job").await.is(200), "Key"), ["a&#13;\nb", "x"]);
    let named = "<Delete><Object><Key>a&#13;&#10;b</Key></Object></Delete>";
    assert_eq!(elements(&client.post("/a-job?delete", named).await.is(200), "Key"), ["a&#13;\nb"]);
    client.get("/a-job/a%0D%0Ab").await.fails(404, "NoSuchKey");
}
