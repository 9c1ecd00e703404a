//! Where a runner of this machine listens.

use std::net::Ipv4Addr;

use super::{BareOptions, Transport};
use crate::SheepError;
use crate::endpoint::{Endpoint, Trust, make_home};

/// Makes the place for the run of this name.
pub(super) fn prepare(options: &BareOptions, run: &str) -> Result<Endpoint, SheepError> {
    make_home(&options.data_root, Trust::Trusted)?;
    match options.transport {
        // A listener on any address would be in the way of the runner's.
        Transport::Tcp => Endpoint::tcp(Ipv4Addr::UNSPECIFIED, options.port),
        Transport::Ipc => Endpoint::ipc(&options.data_root, Trust::Trusted, run),
    }
}
