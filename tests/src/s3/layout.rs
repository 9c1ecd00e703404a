//! Where a job's objects are in a server.

/// How jobs lie in buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A job is a bucket.
    BucketPerJob,
    /// A job is a prefix in one bucket.
    Prefix {
        /// The bucket.
        bucket: &'static str,
        /// What goes before the job's id; may be empty.
        prefix: &'static str,
    },
}

impl Layout {
    /// The bucket that a job's objects are in.
    pub fn bucket(self, job: &str) -> String {
        match self {
            Self::BucketPerJob => job.to_owned(),
            Self::Prefix { bucket, .. } => bucket.to_owned(),
        }
    }

    /// The key in that bucket of one of a job's objects.
    pub fn key(self, job: &str, key: &str) -> String {
        match self {
            Self::BucketPerJob => key.to_owned(),
            Self::Prefix { prefix: "", .. } => format!("{job}/{key}"),
            Self::Prefix { prefix, .. } => format!("{prefix}/{job}/{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_objects_have_places() {
        let place = |layout: Layout| layout.bucket("job") + "/" + &layout.key("job", "inputs/input");
        assert_eq!(place(Layout::BucketPerJob), "job/inputs/input");
        assert_eq!(place(Layout::Prefix { bucket: "all", prefix: "" }), "all/job/inputs/input");
        assert_eq!(place(Layout::Prefix { bucket: "all", prefix: "a/b" }), "all/a/b/job/inputs/input");
    }
}
