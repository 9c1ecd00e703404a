//! What a server was asked.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// The bucket; empty where the request is about none.
    pub bucket: String,
    /// The object's key as it is in the URL, that is, encoded; empty where the request is about none.
    pub key: String,
    /// The query as it is in the URL.
    pub query: String,
}

impl Request {
    /// From the method and target of a path-style request.
    pub(super) fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Self { method: method.into(), bucket: bucket.into(), key: key.into(), query: query.into() }
    }
}

/// `METHOD BUCKET/KEY?QUERY`.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        if !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        Ok(())
    }
}

/// Every request since the start, or since they were taken, in the order in which they came. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    list: Mutex<Vec<Request>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

/// A request that is being answered.
pub(super) struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Requests {
    /// Notes a request, which is being answered until what is returned is dropped.
    pub(super) fn begin(&self, request: Request) -> Running {
        self.lock().push(request);
        let running = self.0.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(running, Ordering::SeqCst);
        Running(Arc::clone(&self.0))
    }

    /// All of them.
    pub fn all(&self) -> Vec<Request> {
        self.lock().clone()
    }

    /// Those that speak of a text, be it in the bucket, the key or the query: what one job cost, in any layout.
    pub fn about(&self, text: &str) -> Vec<Request> {
        let speaks = |request: &&Request| {
            [&request.bucket, &request.key, &request.query].iter().any(|part| part.contains(text))
        };
        self.lock().iter().filter(speaks).cloned().collect()
    }

    /// All of them, which are forgotten.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.lock())
    }

    /// How many were being answered at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_taken_apart_and_shown_again() {
        for (target, parts) in [
            ("/", ["", "", ""]),
            ("/b", ["b", "", ""]),
            ("/b/a%2Fb/c?x=y", ["b", "a%2Fb/c", "x=y"]),
            ("/b/?list-type=2&prefix=a/", ["b", "", "list-type=2&prefix=a/"]),
        ] {
            let request = Request::new("GET", target);
            assert_eq!([&*request.bucket, &*request.key, &*request.query], parts);
        }
        assert_eq!(Request::new("GET", "/b/k?x=y").to_string(), "GET b/k?x=y");
        assert_eq!(Request::new("PUT", "/b/").to_string(), "PUT b");
    }

    #[test]
    fn those_at_once_are_counted() {
        let requests = Requests::default();
        let first = requests.begin(Request::new("GET", "/a"));
        drop(requests.begin(Request::new("GET", "/b")));
        drop(requests.begin(Request::new("GET", "/c/job-1/x")));
        drop(first);
        assert_eq!(requests.most_at_once(), 2);
        assert_eq!(requests.about("job-1").len(), 1);
        assert_eq!(requests.take().len(), 3);
        assert_eq!(requests.all(), []);
    }
}
