//! What a client of the storage does, on plain rust-s3: none of our own code is in between.

use http::StatusCode;
use s3::creds::Credentials;
use s3::request::ResponseData;
use s3::{Bucket, Region};

use super::{ACCESS_KEY, REGION, SECRET_KEY};

/// A client of one server. Every method panics when the server answers otherwise than hoped for.
#[derive(Clone, Debug)]
pub struct S3Client {
    url: String,
}

impl S3Client {
    /// Of the server at a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into() }
    }

    fn region(&self) -> Region {
        Region::Custom { region: REGION.to_owned(), endpoint: self.url.clone() }
    }

    fn bucket(&self, name: &str) -> Box<Bucket> {
        Bucket::new(name, self.region(), credentials()).expect("a legal bucket").with_path_style()
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// See [`S3Client`].
    pub async fn make_bucket(&self, name: &str) {
        // rust-s3 names the region in the request's body, and servers refuse to hear of the first one there.
        let url = self.bucket(name).presign_put("/", 60, None, None).await.expect("a URL can be signed");
        let uri: http::Uri = url.parse().expect("it is a URL");
        let address = uri.authority().and_then(|authority| authority.as_str().parse().ok());
        let target = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let client = crate::Client::new(address.expect("servers of tests are addressed by number"));
        // moto wants the length of nothing, too.
        let request = http::Request::put(target).header(http::header::CONTENT_LENGTH, 0);
        let reply = client.send(request.body(Default::default()).expect("a legal request")).await;
        assert_eq!(reply.status, 200, "making the bucket {name}: {}", reply.text());
    }

    /// Stores an object.
    ///
    /// # Panics
    /// See [`S3Client`].
    pub async fn put(&self, bucket: &str, key: &str, data: impl AsRef<[u8]>) {
        let answer = self.bucket(bucket).put_object(key, data.as_ref()).await;
        check(&format!("putting {bucket}/{key}"), &answer);
    }

    /// An object's bytes; `None` when it is not there.
    ///
    /// # Panics
    /// See [`S3Client`].
    pub async fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let answer = self.bucket(bucket).get_object(key).await;
        let what = format!("getting {bucket}/{key}");
        let answer = answer.unwrap_or_else(|e| panic!("{what}: {e}"));
        if answer.status_code() == StatusCode::NOT_FOUND.as_u16() {
            return None;
        }
        assert_eq!(answer.status_code(), 200, "{what}: {:?}", answer.as_str());
        Some(answer.to_vec())
    }

    /// An object that is JSON.
    ///
    /// # Panics
    /// See [`S3Client`]; and when it is not there, or no JSON.
    pub async fn get_json(&self, bucket: &str, key: &str) -> serde_json::Value {
        let data = self.get(bucket, key).await.unwrap_or_else(|| panic!("there is no {bucket}/{key}"));
        serde_json::from_slice(&data).unwrap_or_else(|e| panic!("{bucket}/{key} is no JSON: {e}"))
    }

    /// The keys that begin with a prefix.
    ///
    /// # Panics
    /// See [`S3Client`].
    pub async fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let pages = self.bucket(bucket).list(prefix.to_owned(), None).await;
        let pages = pages.unwrap_or_else(|e| panic!("listing {bucket}/{prefix}: {e}"));
        pages.into_iter().flat_map(|page| page.contents).map(|object| object.key).collect()
    }

    /// Removes an object.
    ///
    /// # Panics
    /// See [`S3Client`].
    pub async fn delete(&self, bucket: &str, key: &str) {
        let answer = self.bucket(bucket).delete_object(key).await;
        check(&format!("deleting {bucket}/{key}"), &answer);
    }

    /// Removes a bucket and all that is in it.
    ///
    /// # Panics
    /// See [`S3Client`].
    pub async fn remove_bucket(&self, name: &str) {
        for key in self.keys(name, "").await {
            self.delete(name, &key).await;
        }
        let status = self.bucket(name).delete().await;
        assert!(matches!(status, Ok(200 | 204)), "deleting the bucket {name}: {status:?}");
    }
}

fn credentials() -> Credentials {
    Credentials::new(Some(ACCESS_KEY), Some(SECRET_KEY), None, None, None).expect("keys are given")
}

fn check(what: &str, answer: &Result<ResponseData, s3::error::S3Error>) {
    match answer {
        Ok(answer) => {
            let text = String::from_utf8_lossy(answer.as_slice());
            assert!(matches!(answer.status_code(), 200 | 204), "{what}: {} {text}", answer.status_code());
        }
        Err(e) => panic!("{what}: {e}"),
    }
}
