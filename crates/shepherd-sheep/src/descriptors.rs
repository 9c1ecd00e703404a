//! The limit on open files: the daemon's own is raised, its runners keep the one that it
//! was started with. Programs that wait by `select` break when theirs is larger.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit};

static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's soft limit on open files to the hard one, if the system lets it,
/// and returns the soft limit; none where there is none.
pub fn raise_descriptor_limit() -> Option<u64> {
    let before = *INHERITED.get_or_init(|| rustix::process::getrlimit(Resource::Nofile));
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            before.current
        }
    }
}

/// The limit that a child is to have, where it is not this process's.
pub(crate) fn inherited() -> Option<Rlimit> {
    INHERITED.get().copied()
}
