//! Listings.

use crate::client::encode;
use crate::server::{Server, element, elements};

const KEYS: [&str; 9] = ["a", "b/1", "b/2", "b/c/3", "b0", "c d+e", "f&<g>", "z//y", "ž/ž"];

async fn filled() -> (Server, crate::client::Client) {
    let server = Server::start().await;
    let client = server.bucket().await;
    for key in KEYS {
        client.put(&format!("/a-job/{}", encode(key, true)), b"x").await.is(200);
    }
    (server, client)
}

fn unescape(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().map(|text| text.replace("&lt;", "<").replace("&gt;", ">")).collect()
}

#[tokio::test]
async fn pages_of_every_size_hold_everything_once() {
    let (_server, client) = filled().await;
    for delimiter in ["", "/", "//", "c"] {
        let whole =
            client.get(&format!("/a-job?list-type=2&delimiter={}", encode(delimiter, false))).await.is(200);
        let (keys, prefixes) = (elements(&whole, "Key"), elements(&whole, "CommonPrefixes"));
        if delimiter.is_empty() {
            assert_eq!(unescape(keys.clone()), KEYS);
        }
        for size in 1..=KEYS.len() + 1 {
            for version in [1, 2] {
                let (mut seen, mut rolled, mut go_on) = (Vec::new(), Vec::new(), String::new());
                for page in 0.. {
                    assert!(page < 20, "the listing ends");
                    let kind = if version == 2 { "&list-type=2" } else { "" };
                    let target =
                        format!("/a-job?delimiter={}{kind}&max-keys={size}{go_on}", encode(delimiter, false));
                    let answer = client.get(&target).await.is(200);
                    let (keys, prefixes) = (elements(&answer, "Key"), elements(&answer, "CommonPrefixes"));
                    let truncated = element(&answer, "IsTruncated").as_deref() == Some("true");
                    assert_eq!(truncated && size > 0, truncated && keys.len() + prefixes.len() == size);
                    seen.extend(keys);
                    rolled.extend(prefixes);
                    if !truncated {
                        break;
                    }
                    go_on = if version == 2 {
                        format!("&continuation-token={}", element(&answer, "NextContinuationToken").unwrap())
                    } else {
                        let next = unescape(elements(&answer, "NextMarker")).remove(0);
                        format!("&marker={}", encode(&next, false))
                    };
                }
                assert_eq!(
                    (&seen, &rolled),
                    (&keys, &prefixes),
                    "{delimiter:?} by {size}, version {version}"
                );
            }
        }
    }
}

#[tokio::test]
async fn prefixes_and_beginnings() {
    let (_server, client) = filled().await;
    let get = async |query: &str| {
        let answer = client.get(&format!("/a-job?list-type=2&{query}")).await.is(200);
        let rolled = elements(&answer, "CommonPrefixes").concat();
        (unescape(elements(&answer, "Key")), rolled.replace("<Prefix>", "").replace("</Prefix>", ";"))
    };
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(get("prefix=b").await, (owned(&["b/1", "b/2", "b/c/3", "b0"]), String::new()));
    assert_eq!(get("prefix=b&delimiter=%2F").await, (owned(&["b0"]), "b/;".to_owned()));
    assert_eq!(get("prefix=b%2F&delimiter=%2F").await, (owned(&["b/1", "b/2"]), "b/c/;".to_owned()));
    assert_eq!(get("prefix=none").await, (owned(&[]), String::new()));
    assert_eq!(get("start-after=b%2F2").await.0, owned(&["b/c/3", "b0", "c d+e", "f&<g>", "z//y", "ž/ž"]));
    assert_eq!(get("start-after=b%2F1&delimiter=%2F").await.1, "b/;z/;ž/;");
    assert_eq!(get("start-after=b%2F&delimiter=%2F").await.1, "z/;ž/;");
    assert_eq!(get("max-keys=0").await, (owned(&[]), String::new()));
    client.get("/a-job?list-type=2&max-keys=-1").await.fails(400, "InvalidArgument");
    client.get("/a-job?list-type=2&continuation-token=%21").await.fails(400, "InvalidArgument");
    client.get("/a-job?list-type=2&encoding-type=x").await.fails(400, "InvalidArgument");
}

#[tokio::test]
async fn what_a_listing_tells() {
    let (_server, client) = filled().await;
    let answer = client.get("/a-job?list-type=2&prefix=c&encoding-type=url&fetch-owner=true").await.is(200);
    assert_eq!(elements(&answer, "Key"), ["c%20d%2Be"]);
    assert_eq!(elements(&answer, "ETag"), ["\"9dd4e461268c8034f5c8564e155c67a6\""]);
    assert_eq!(elements(&answer, "Size"), ["1"]);
    assert_eq!(elements(&answer, "StorageClass"), ["STANDARD"]);
    assert_eq!(elements(&answer, "KeyCount"), ["1"]);
    assert!(answer.text().contains("<Owner>"));
    let answer = client.get("/a-job?list-type=2").await.is(200);
    assert!(!answer.text().contains("<Owner>"));
    assert!(client.get("/a-job").await.is(200).text().contains("<Owner>"));
    let versions = client.get("/a-job?versions").await.is(200);
    assert_eq!(elements(&versions, "VersionId").len(), KEYS.len());
}

#[tokio::test]
async fn empty_directories_are_nothing() {
    let (server, client) = filled().await;
    std::fs::create_dir_all(server.dir.join("a-job/empty/very")).unwrap();
    let answer = client.get("/a-job?list-type=2&delimiter=%2F").await.is(200);
    assert!(!answer.text().contains("empty"), "{}", answer.text());
}

#[tokio::test]
async fn more_keys_than_a_page() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let inputs = server.dir.join("a-job/inputs");
    std::fs::create_dir(&inputs).unwrap();
    for n in 0..2_500 {
        std::fs::write(inputs.join(format!("{n:05}")), "").unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let answer = client.get(&format!("/a-job?list-type=2{after}")).await.is(200);
        seen.extend(elements(&answer, "Key"));
        let Some(token) = element(&answer, "NextContinuationToken") else { break };
        assert_eq!(seen.len() % 1000, 0);
        after = format!("&continuation-token={token}");
    }
    assert_eq!(seen.len(), 2_500);
    assert!(seen.is_sorted());
    let rolled = client.get("/a-job?list-type=2&delimiter=%2F").await.is(200);
    assert_eq!(elements(&rolled, "CommonPrefixes"), ["<Prefix>inputs/</Prefix>"]);
    assert_eq!(element(&rolled, "IsTruncated").as_deref(), Some("false"));
}
