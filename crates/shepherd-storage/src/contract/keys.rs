//! Keys, and listings of them.

use bytes::Bytes;

use super::{Backend, Keys, job, key};
use crate::{StorageError, body};

/// Keys that are paths of files as they are.
const CLEAN: &[&str] = &[
    "inputs/input",
    "inputs/with space",
    "inputs/100%",
    "inputs/%2e%2e%2fx",
    "inputs/a+b&c=d;e,f?g#h@i:j",
    "inputs/žluťoučký kůň/日本語",
    "inputs/.hidden",
    "inputs/...",
    "inputs/a.b/c.d",
    "inputs/'quoted' \"twice\" `thrice` $HOME {x} [y] (z) *",
    "inputs/back\\slash",
    "inputs/<xml>&amp;</xml>",
    "inputs/UPPER",
    "inputs/upper",
    "inputs/.shepherd-keys/=x",
    "inputs/.shepherd/tmp/x",
    "x",
];

/// Keys that are not.
fn hostile() -> Vec<String> {
    let mut keys: Vec<String> = [
        "/",
        "//",
        "/x",
        "/etc/passwd",
        "x/",
        "inputs/",
        "inputs//x",
        "inputs///x",
        "inputs/./x",
        "inputs/../x",
        "../x",
        "../../x",
        "..",
        ".",
        "inputs/..",
        "outputs/../inputs/input",
        "inputs/new\nline",
        "inputs/tab\t",
        "inputs/bell\u{7}",
        "inputs/nul\0byte",
        "inputs/del\u{7f}",
        "inputs/\u{feff}bom",
        "inputs/\u{202e}rtl",
        ".shepherd-keys",
        ".shepherd-keys/=x",
        ".shepherd-keys/=inputs%2F%2Fx",
        ".shepherd",
        ".shepherd/tmp",
    ]
    .map(str::to_owned)
    .into();
    keys.push(format!("inputs/{}", "n".repeat(255)));
    keys.push(format!("inputs/{}", "n".repeat(256)));
    keys.push(format!("inputs/{}", "é".repeat(500)));
    keys.push("k".repeat(1024));
    keys.push("/".repeat(1024));
    keys.push("d/".repeat(512));
    keys.push(format!("{}x", "d/".repeat(511)));
    keys
}

pub(super) async fn clean_keys_are_kept(b: Backend<'_>) {
    let job = job("clean");
    for path in CLEAN {
        b.put(&job, path, (*path).to_owned()).await;
    }
    for path in CLEAN {
        assert_eq!(b.read(&job, path).await, path.as_bytes(), "{path:?}");
    }
    let mut expected = CLEAN.to_vec();
    expected.sort_unstable();
    assert_eq!(b.list(&job, "").await, expected);
    b.remove(&job).await;
    assert!(b.list(&job, "").await.is_empty());
}

pub(super) async fn hostile_keys_are_kept_or_refused(b: Backend<'_>) {
    let job = job("hostile");
    let mut kept = Vec::new();
    for path in hostile() {
        match b.storage.put(&job, &key(&path), body(path.clone())).await {
            Ok(_) => kept.push(path),
            Err(StorageError::Invalid(_)) if b.keys == Keys::MayRefuse => {}
            Err(error) => panic!("put {path:?}: {error}"),
        }
    }
    for path in &kept {
        assert_eq!(b.read(&job, path).await, path.as_bytes(), "{path:?}");
    }
    kept.sort_unstable();
    assert_eq!(b.list(&job, "").await, kept);
    // Now in a batch, and over what is there.
    let objects = kept.iter().map(|path| (key(path), Bytes::from_static(b"new")));
    b.put_small(&job, objects).await;
    for path in &kept {
        assert_eq!(b.read(&job, path).await, b"new", "{path:?}");
    }
    assert_eq!(b.list(&job, "").await, kept);
    b.remove(&job).await;
    assert!(!b.storage.contains(&job).await.unwrap());
}

pub(super) async fn a_key_may_lie_below_another(b: Backend<'_>) {
    let keys = ["a", "a/b", "a/b/c", "a/b/c/d"];
    let mut orders = vec![keys.to_vec(), keys.iter().rev().copied().collect()];
    orders.push(vec!["a/b/c", "a", "a/b/c/d", "a/b"]);
    for order in orders {
        let job = job("below");
        for round in ["one", "two"] {
            for path in &order {
                match b.storage.put(&job, &key(path), body(format!("{path} {round}"))).await {
                    Ok(_) => {}
                    Err(StorageError::Invalid(_)) if b.keys == Keys::MayRefuse => {
                        b.remove(&job).await;
                        return;
                    }
                    Err(error) => panic!("put {path:?}: {error}"),
                }
            }
            for path in keys {
                assert_eq!(b.read(&job, path).await, format!("{path} {round}").as_bytes(), "{order:?}");
            }
            assert_eq!(b.list(&job, "").await, keys, "{order:?}");
            assert_eq!(b.list(&job, "a/").await, &keys[1..], "{order:?}");
        }
        b.remove(&job).await;
    }
}

pub(super) async fn listing_follows_the_bytes_of_keys(b: Backend<'_>) {
    let job = job("order");
    let mut keys = [
        "a-b",
        "a.b",
        "a/b",
        "a/b-c",
        "a/b.c/d",
        "a0b",
        "ab",
        "a b",
        "b/c/d",
        "b/c/e",
        "b/c-d",
        "é/x",
        "Z",
        "inputs/1",
        "inputs/10",
        "inputs/2",
        "inputs-2",
        "a/z/y/x",
    ];
    for path in keys {
        b.put(&job, path, "x").await;
    }
    keys.sort_unstable();
    for prefix in
        ["", "a", "a/", "a/b", "b/c", "b/c/", "inputs/", "inputs/1", "é", "c", "a/z/y/x", "a/z/y/x/"]
    {
        for after in [None, Some("a"), Some("a/b"), Some("a/b.c"), Some("a/b.c/d"), Some("b/c/"), Some("é/x")]
        {
            for limit in [0, 1, 2, 3, 100] {
                let listed = b.storage.list(&job, prefix, after.map(key).as_ref(), limit).await.unwrap();
                let listed: Vec<_> = listed.iter().map(|meta| meta.path.as_str()).collect();
                let expected: Vec<_> = keys
                    .iter()
                    .copied()
                    .filter(|k| k.starts_with(prefix) && after.is_none_or(|after| *k > after))
                    .take(limit)
                    .collect();
                assert_eq!(listed, expected, "prefix {prefix:?} after {after:?} limit {limit}");
            }
        }
    }
    b.remove(&job).await;
}

pub(super) async fn pages_hold_every_object_once(b: Backend<'_>) {
    let job = job("pages");
    let mut keys: Vec<_> = (0..1_205).map(|n| format!("inputs/{}/{n}", n % 7)).collect();
    let objects = keys.iter().map(|path| (key(path), Bytes::from(path.clone())));
    b.put_small(&job, objects).await;
    keys.sort_unstable();
    for limit in [100, 1_000, 1_205] {
        let mut listed = Vec::new();
        loop {
            let after = listed.last().map(|path: &String| key(path));
            let page = b.storage.list(&job, "inputs/", after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            assert!(page.iter().all(|meta| meta.size == meta.path.as_str().len() as u64));
            listed.extend(page.iter().map(|meta| meta.path.to_string()));
        }
        assert_eq!(listed, keys);
    }
    b.remove(&job).await;
}
