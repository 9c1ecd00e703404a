//! How many connections each address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of all addresses, with one bound for each.
#[derive(Debug)]
pub(crate) struct Peers {
    most: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    peer: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Peers {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// A place for a connection from `address`, if there is one.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let peer = peer(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= self.most.max(1) {
            return None;
        }
        *count += 1;
        Some(Place { peer, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// Whom an address counts for. A machine has a whole network of IPv6 addresses.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_bounded_number_of_places_and_gives_them_back() {
        let peers = Peers::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = peers.enter(ip("10.0.0.1")).unwrap();
        let _second = peers.enter(ip("::ffff:10.0.0.1")).unwrap();
        assert!(peers.enter(ip("10.0.0.1")).is_none());
        let _other = peers.enter(ip("10.0.0.2")).unwrap();
        drop(first);
        let _again = peers.enter(ip("10.0.0.1")).unwrap();
        let v6 = [peers.enter(ip("2001:db8::1")), peers.enter(ip("2001:db8::ffff:1"))];
        assert!(v6.iter().all(Option::is_some) && peers.enter(ip("2001:db8::2")).is_none());
        let _other = peers.enter(ip("2001:db8:0:1::1")).unwrap();
        drop(v6);
        assert_eq!(peers.counts.lock().unwrap().len(), 3);
    }
}
