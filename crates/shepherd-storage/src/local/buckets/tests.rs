//! What the S3 endpoint's own tests cannot reach.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::local::attributes::Attributes;
use crate::local::resolve::Resolve;
use crate::{Storage as _, body};

/// Keeps what it is told to, and refuses nothing.
struct Keep(Attributes);

impl Inspect for Keep {
    fn update(&mut self, _: &[u8]) {}

    fn finish(
        self: Box<Self>,
        _: &str,
        _: u64,
    ) -> std::result::Result<Attributes, Box<dyn Error + Send + Sync>> {
        Ok(self.0)
    }
}

fn content(text: &str, pairs: &[(&str, &str)]) -> Content {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let inspect = Box::new(Keep(Attributes::new(pairs).unwrap()));
    Content { body: body(text.to_owned()), size: None, inspect }
}

fn job() -> JobId {
    JobId::parse("a-job", JobIdRule::Bucket).unwrap()
}

fn key(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

fn completion(parts: &[Part]) -> Completion {
    let parts = parts.iter().map(|part| (part.number, part.tag.clone())).collect();
    Completion { parts, smallest: 1, attributes: Attributes::default(), condition: Condition::Always }
}

async fn put(buckets: &Buckets, at: &str, text: &str, pairs: &[(&str, &str)]) -> Result<Described> {
    buckets.put(&job(), &key(at), content(text, pairs), Condition::Always).await
}

async fn put_part(buckets: &Buckets, id: &str, number: u32, text: &str) -> Part {
    buckets.put_part(&job(), &key("x"), id, number, content(text, &[])).await.unwrap()
}

struct Fixture {
    storage: LocalStorage,
    buckets: Buckets,
    outer: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let outer = TempDir::new().unwrap();
        let storage = LocalStorage::open(&outer.path().join("storage")).unwrap();
        let buckets = storage.buckets();
        buckets.make(&job()).await.unwrap();
        Self { storage, buckets, outer }
    }

    fn dir(&self) -> PathBuf {
        self.outer.path().join("storage")
    }

    fn uploads(&self) -> PathBuf {
        self.dir().join(".shepherd/uploads")
    }

    async fn put(&self, at: &str, text: &str) -> Described {
        put(&self.buckets, at, text, &[]).await.unwrap()
    }
}

fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    File::open(path).unwrap().set_modified(then).unwrap();
}

#[tokio::test]
async fn what_the_trait_stores_is_an_object_and_an_object_is_what_the_trait_sees() {
    let fixture = Fixture::new().await;
    fixture.storage.put(&job(), &key("by/trait"), body("one")).await.unwrap();
    let described = fixture.buckets.describe(&job(), &key("by/trait")).await.unwrap();
    assert_eq!(described.tag, "f97c5d29941bfb1b2fdab0874906ab82");
    assert!(!described.trusted && described.attributes.is_empty());

    let put = fixture.put("by/bucket", "two").await;
    assert_eq!(put.tag, "b8a9f715dbb64fd5c56e7783c6820a61");
    assert_eq!(fixture.storage.head(&job(), &key("by/bucket")).await.unwrap(), put.meta);
    // An encoded key goes as a plain one comes, and both go together.
    let both = [key("x"), key("x/y")];
    fixture.put("x/y", "1").await;
    fixture.put("x", "2").await;
    for outcome in fixture.buckets.delete_each(&job(), both.to_vec()).await.unwrap() {
        outcome.unwrap();
    }
    assert!(fixture.storage.list(&job(), "x", None, 9).await.unwrap().is_empty());
    assert!(!fixture.dir().join("a-job/.shepherd-keys").exists());
}

#[tokio::test]
async fn a_put_makes_no_bucket_where_the_kernel_cannot_resolve_either() {
    for resolve in [None, Some(Resolve::Walk)] {
        let outer = TempDir::new().unwrap();
        let storage = LocalStorage::over(Disk::open(&outer.path().join("storage"), resolve).unwrap());
        let buckets = storage.buckets();
        for at in ["x", "a/../b"] {
            assert!(matches!(put(&buckets, at, "x", &[]).await, Err(BucketError::NoBucket)));
        }
        buckets.make(&job()).await.unwrap();
        for at in ["x", "d/e/f", "a/../b", "d"] {
            put(&buckets, at, "x", &[]).await.unwrap();
        }
        assert!(matches!(buckets.remove(&job()).await, Err(BucketError::NotEmpty)));
        for at in ["x", "d/e/f", "a/../b", "d"] {
            buckets.delete(&job(), &key(at), Condition::Always).await.unwrap();
        }
        buckets.remove(&job()).await.unwrap();
        assert!(matches!(buckets.find(&job()).await, Err(BucketError::NoBucket)));
    }
}

#[tokio::test]
async fn metadata_that_cannot_be_kept_is_refused() {
    let fixture = Fixture::new().await;
    if !fixture.buckets.keeps_attributes().await.unwrap() {
        println!("skipped: this file system keeps no extended attributes");
        return;
    }
    let long = "x".repeat(100_000);
    assert!(put(&fixture.buckets, "x", "1", &[("x-amz-meta-a", &long)]).await.is_err());
    assert!(matches!(fixture.buckets.describe(&job(), &key("x")).await, Err(BucketError::NoObject)));
    put(&fixture.buckets, "x", "1", &[("x-amz-meta-a", &long[..2000])]).await.unwrap();
    let described = fixture.buckets.describe(&job(), &key("x")).await.unwrap();
    assert_eq!(described.attributes.get("x-amz-meta-a"), Some(&long[..2000]));
}

#[test]
fn where_no_attributes_can_be_kept_nothing_is_lost_that_cannot_be_made_again() {
    use crate::local::attributes::record;

    // A file that has none, as every file of some file systems.
    let file = File::open("/proc/self/comm").unwrap();
    let of = |name: &str| Attributes::new([(name.to_owned(), "a".to_owned())]).unwrap();
    assert_eq!(record(&file, "tag", &Attributes::default()).unwrap(), "tag");
    for spare in ["content-type", "x-amz-checksum-crc32", "x-shepherd-upload", "x-shepherd-parts"] {
        assert_eq!(record(&file, "tag", &of(spare)).unwrap(), "tag");
    }
    let refused = record(&file, "tag", &of("x-amz-meta-colour")).unwrap_err();
    assert!(refused.to_string().contains("`x-amz-meta-colour` would be lost"), "{refused}");
}

#[test]
fn attributes_are_lines() {
    let pairs = [("content-type", "a/b; c=d"), ("x-amz-meta-ž", "")];
    let all = |pairs: &[(&str, &str)]| {
        Attributes::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    };
    assert_eq!(all(&pairs), Err("x-amz-meta-ž".to_owned()));
    let attributes = all(&[("content-type", "a: b"), ("x-amz-meta-e", "")]).unwrap();
    assert_eq!(Attributes::parse(&attributes.lines()), Some(attributes));
    for bad in [
        [("a", "1"), ("a", "2")],
        [("A", "1"), ("b", "2")],
        [("a", "1\n2"), ("b", "")],
        [("", ""), ("b", "")],
    ] {
        assert!(all(&bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_are_removed_at_an_open() {
    let fixture = Fixture::new().await;
    let (old, new) = (
        fixture.buckets.begin(&job(), &key("x"), Attributes::default()).await.unwrap(),
        fixture.buckets.begin(&job(), &key("x"), Attributes::default()).await.unwrap(),
    );
    let part = put_part(&fixture.buckets, &old, 1, "1").await;
    assert_eq!((part.number, part.size), (1, 1));
    age(&fixture.uploads().join(&old), 8);
    age(&fixture.uploads().join(&new), 6);
    // Not ours.
    fs::create_dir(fixture.uploads().join("else")).unwrap();
    age(&fixture.uploads().join("else"), 100);
    let again = LocalStorage::open(&fixture.dir()).unwrap().buckets();
    let left = again.uploads(&job()).await.unwrap();
    assert_eq!(left.iter().map(|upload| &upload.id).collect::<Vec<_>>(), [&new]);
    assert!(fixture.uploads().join("else").exists());
    assert!(!fixture.uploads().join(&old).exists());
}

#[tokio::test]
async fn a_part_that_the_machine_may_have_lost_is_read_again() {
    let fixture = Fixture::new().await;
    let id = fixture.buckets.begin(&job(), &key("x"), Attributes::default()).await.unwrap();
    let mut parts = Vec::new();
    for (number, text) in [(1, "one"), (2, "two")] {
        parts.push(put_part(&fixture.buckets, &id, number, text).await);
    }
    let dir = fixture.uploads().join(&id);
    let file = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let second = file
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("00002"))
        .unwrap();
    let about = fs::read_to_string(dir.join("about")).unwrap();
    let mut lines: Vec<_> = about.split('\n').collect();
    lines[2] = "another-boot";
    fs::write(dir.join("about"), lines.join("\n")).unwrap();
    fs::write(&second, "\0\0\0").unwrap();
    let complete = fixture.buckets.complete(&job(), &key("x"), &id, completion(&parts)).await;
    assert!(matches!(complete, Err(BucketError::NoPart(2))), "{complete:?}");
    fs::write(&second, "two").unwrap();
    fixture.buckets.complete(&job(), &key("x"), &id, completion(&parts)).await.unwrap();
    // Until it is ended, it can be completed again.
    fixture.buckets.complete(&job(), &key("x"), &id, completion(&parts)).await.unwrap();
    assert_eq!(fs::read(fixture.dir().join("a-job/x")).unwrap(), b"onetwo");
    fixture.buckets.end(&job(), &key("x"), &id).await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn what_is_known_of_parts_is_in_their_names_and_the_sizes_in_the_object() {
    let fixture = Fixture::new().await;
    let sums = [("x-amz-checksum-crc32", "NhCmhg=="), ("x-amz-checksum-sha256", "a/b+c/d=")];
    let id = fixture.buckets.begin(&job(), &key("x"), Attributes::default()).await.unwrap();
    let part = fixture.buckets.put_part(&job(), &key("x"), &id, 1, content("hello", &sums)).await.unwrap();
    let second = put_part(&fixture.buckets, &id, 3, "end").await;
    let again = LocalStorage::open(&fixture.dir()).unwrap().buckets();
    let (_, parts) = again.upload(&job(), &key("x"), &id).await.unwrap();
    assert_eq!(parts, [part.clone(), second.clone()]);
    assert!(part.sums.iter().eq(sums));
    let kept = Attributes::new([("x-amz-meta-kept".to_owned(), "a".to_owned())]).unwrap();
    let inspect = Box::new(Keep(kept.clone()));
    assert_eq!(again.inspect_part(&job(), &key("x"), &id, &part, inspect).await.unwrap(), kept);

    if !fixture.buckets.keeps_attributes().await.unwrap() {
        println!("skipped: this file system keeps no extended attributes");
        return;
    }
    let made = again.complete(&job(), &key("x"), &id, completion(&parts)).await.unwrap();
    assert_eq!(made.parts(), Some(vec![5, 3]));
    assert_eq!(again.describe(&job(), &key("x")).await.unwrap().parts(), Some(vec![5, 3]));
    again.end(&job(), &key("x"), &id).await.unwrap();
    // It is still told once its upload is gone, unless other parts are meant.
    assert_eq!(again.complete(&job(), &key("x"), &id, completion(&parts)).await.unwrap().tag, made.tag);
    let other = again.complete(&job(), &key("x"), &id, completion(&[second])).await;
    assert!(matches!(other, Err(BucketError::NoUpload)), "{other:?}");
    fs::write(fixture.dir().join("a-job/x"), "written").unwrap();
    assert_eq!(again.describe(&job(), &key("x")).await.unwrap().parts(), Some(vec![7]));
}
