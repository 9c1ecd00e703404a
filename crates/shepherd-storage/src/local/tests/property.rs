//! Any set of keys, against a map.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use futures::TryStreamExt as _;
use proptest::prelude::{Just, Strategy, TestCaseError, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use proptest::{prop_assert, prop_assert_eq};
use shepherd_job::{JobId, JobIdRule, ObjectPath};

use super::{Fixture, names, ours};
use crate::local::LocalStorage;
use crate::local::disk::Disk;
use crate::local::resolve::Resolve;
use crate::{JobObjects, Put, Replaces, Storage, body};

/// A segment that is likely to meet another one, or trouble.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => proptest::sample::select(vec![
            "a", "b", "ab", "a-b", "a.b", "", ".", "..", "...", ".hidden", "é", " ", "%2F", "\0", "a\0", "\n",
            "inputs", "outputs", ".shepherd", ".shepherd-keys", "=a", "+a", "~",
        ]).prop_map(str::to_owned),
        1 => "\\PC{1,4}",
        1 => (100_usize..400).prop_map(|n| "n".repeat(n)),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let top = prop_oneof![3 => Just("inputs/"), 1 => Just("outputs/"), 2 => Just("")];
    (top, proptest::collection::vec(segment(), 1..5))
        .prop_map(|(top, segments)| format!("{top}{}", segments.join("/")))
        .prop_filter("a legal key", |key| ObjectPath::parse(key).is_ok())
}

#[derive(Clone, Debug)]
struct Case {
    puts: Vec<(String, u8, bool)>,
    listings: Vec<(String, usize, Option<String>, usize)>,
}

fn case() -> impl Strategy<Value = Case> {
    let puts = proptest::collection::vec((key(), any::<u8>(), any::<bool>()), 1..14);
    let listings =
        proptest::collection::vec((key(), 0_usize..12, proptest::option::of(key()), 0_usize..6), 0..6);
    (puts, listings).prop_map(|(puts, listings)| Case { puts, listings })
}

fn parse(key: &str) -> ObjectPath {
    ObjectPath::parse(key).unwrap()
}

async fn check(f: &Fixture, case: Case) -> Result<(), TestCaseError> {
    let job = JobId::parse("a-job", JobIdRule::Bucket).unwrap();
    let mut model = BTreeMap::new();
    for (key, byte, batch) in case.puts {
        let bytes = Bytes::from(vec![byte; usize::from(byte)]);
        if batch {
            let object = JobObjects::new(job.clone(), &Put::Replace, [(parse(&key), bytes.clone())]);
            let outcomes = f.storage.put_small(vec![object]).await;
            prop_assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes);
        } else {
            let put = f.storage.put(&job, &parse(&key), body(bytes.clone())).await;
            prop_assert!(put.is_ok(), "{:?}", put);
        }
        model.insert(key, bytes);
    }
    for (key, bytes) in &model {
        let object = f.storage.get(&job, &parse(key), None).await.unwrap();
        prop_assert_eq!(object.meta.size, bytes.len() as u64);
        let read: Vec<Bytes> = object.body.try_collect().await.unwrap();
        prop_assert_eq!(&read.concat()[..], &bytes[..]);
    }
    let whole = (String::new(), 0, None, usize::MAX);
    for (prefix, cut, after, limit) in case.listings.into_iter().chain([whole]) {
        let prefix: String = prefix.chars().take(cut).collect();
        let listed =
            f.storage.list(&job, &prefix, after.as_deref().map(parse).as_ref(), limit).await.unwrap();
        let listed: Vec<_> = listed.iter().map(|meta| (meta.path.as_str(), meta.size)).collect();
        let expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after))
            .map(|(key, bytes)| (key.as_str(), bytes.len() as u64))
            .take(limit)
            .collect();
        prop_assert_eq!(listed, expected, "prefix {:?} after {:?}", prefix, after);
    }
    let to = f.scratch.join("to");
    fs::create_dir(&to).unwrap();
    let staged = f.storage.stage(&job, &ours(&to)).await.unwrap();
    let inputs = || model.iter().filter(|(key, _)| key.starts_with("inputs/"));
    prop_assert_eq!(staged.objects, inputs().count() as u64);
    prop_assert_eq!(staged.bytes, inputs().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    fs::remove_dir_all(&to).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(to.join("output"), "x").unwrap();
    f.storage.publish(&job, &ours(&to), Replaces::Earlier).await.unwrap();
    model.retain(|key, _| !key.starts_with("outputs/"));
    model.insert("outputs/output".to_owned(), Bytes::from_static(b"x"));
    let listed = f.storage.list(&job, "", None, usize::MAX).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|meta| meta.path.as_str()).collect();
    prop_assert_eq!(listed, model.keys().collect::<Vec<_>>());
    let mut entries = f.entries();
    entries.sort();
    prop_assert_eq!(entries, [".shepherd", "a-job"], "nothing is outside the job");
    f.storage.remove(&job).await.unwrap();
    prop_assert!(!f.storage.contains(&job).await.unwrap());
    prop_assert_eq!(f.temporaries(), 0);
    let mut outer = names(f.outer.path());
    outer.sort();
    prop_assert_eq!(outer, ["scratch", "storage"]);
    Ok(())
}

fn any_set_of_keys_round_trips(fixture: &Fixture) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&case(), |case| {
            let checked = runtime.block_on(check(fixture, case));
            // What a failed case left must not fail the smaller ones.
            for dir in [fixture.dir.join("a-job"), fixture.scratch.join("to")] {
                let _ = fs::remove_dir_all(dir);
            }
            checked
        })
        .unwrap();
}

#[test]
fn any_set_of_keys_round_trips_by_the_kernel() {
    any_set_of_keys_round_trips(&Fixture::new());
}

#[test]
fn any_set_of_keys_round_trips_by_walking() {
    let walking = |dir: &_| LocalStorage::over(Disk::open(dir, Some(Resolve::Walk)).unwrap());
    any_set_of_keys_round_trips(&Fixture::with(walking));
}
