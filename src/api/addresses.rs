//! `Addresses`: how many connections each address has, and that none has too many.
//!
//! ```text
//! accept ─► Addresses::take ─► Taken ─ the connection ends ─► given back
//!                           └► None: closed at once
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::Places;

/// The bound on one address's connections, and how many each has now.
#[derive(Debug)]
pub struct Addresses {
    /// The bound, and how often it was reached; nobody takes a place in it.
    bound: Arc<Places>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// At most `max` connections an address; 0 is no bound.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { bound: Places::new("max-connections-per-address", max), open: Mutex::default() })
    }

    /// The bound, and how often it was reached.
    pub fn bound(&self) -> &Arc<Places> {
        &self.bound
    }

    /// The most connections that an address has now.
    pub fn most(&self) -> usize {
        self.open.lock().values().copied().max().unwrap_or(0)
    }

    /// Counts a connection, or says that it is one too many.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Option<Taken>, TooMany> {
        if self.bound.max() == 0 {
            return Ok(None);
        }
        // The same client by either kind of address.
        let address = address.to_canonical();
        let mut open = self.open.lock();
        let count = open.entry(address).or_insert(0);
        if *count >= self.bound.max() {
            drop(open);
            self.bound.refuse();
            return Err(TooMany);
        }
        *count += 1;
        drop(open);
        Ok(Some(Taken { addresses: self.clone(), address }))
    }
}

/// An address has as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// A connection that is counted.
#[derive(Debug)]
pub(super) struct Taken {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn each_address_has_its_own() {
        let addresses = Addresses::new(1);
        let (one, other) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
        let held = addresses.take(one).expect("the first");
        assert_eq!(addresses.take(one).err(), Some(TooMany));
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!(addresses.take(mapped).err(), Some(TooMany));
        assert!(addresses.take(other).is_ok());
        assert_eq!((addresses.most(), addresses.bound.refused()), (1, 2));
        drop(held);
        assert!(addresses.open.lock().is_empty() && addresses.take(one).is_ok());
    }

    #[test]
    fn without_a_bound_nothing_is_counted() {
        let addresses = Addresses::new(0);
        let held: Vec<_> = (0..3).map(|_| addresses.take(Ipv6Addr::LOCALHOST.into())).collect();
        assert!(held.iter().all(|held| matches!(held, Ok(None))) && addresses.most() == 0);
    }
}
