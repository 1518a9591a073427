//! `Addresses`: how many connections each address has, and that none has too many.
//!
//! ```text
//! accept ─► Addresses::take ─► Taken ─ the connection ends ─► given back
//!                           └► None: closed at once
//! ```
//! An address of IPv6 stands for its /64: that is what one host or one customer has, and all of it is as easily used as
//! one. (So do the pods of a Kubernetes node, which have one together.)

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
        let address = client(address);
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

/// Bits of an IPv6 address that are a host's own to choose.
const HOST_BITS: u32 = 64;

/// The network by which hosts of IPv4 are seen as those of IPv6 (RFC 6052): the address is in the last 32 bits.
const TRANSLATED: u128 = 0x0064_ff9b << 96;

/// What connections of one client have in common, by either kind of address. Neighbours on one link share a network that is
/// nobody's.
pub(super) fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if address.to_bits() >> 32 == TRANSLATED >> 32 => {
            let [.., a, b, c, d] = address.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        IpAddr::V6(address) if !address.is_unicast_link_local() => {
            Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into()
        }
        whole => whole,
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
    fn whoever_has_a_network_of_ipv6_has_one_address() {
        let addresses = Addresses::new(2);
        let of = |text: &str| addresses.take(text.parse().expect("an address"));
        let held = [of("2001:db8::1"), of("2001:db8::ffff:1:2:3")];
        assert!(held.iter().all(Result::is_ok) && of("2001:db8::2").is_err());
        assert_eq!((addresses.most(), addresses.open.lock().len()), (2, 1));
        assert!(of("2001:db8:0:1::1").is_ok() && of("::1").is_ok(), "others have their own");
        drop(held);
        assert!(of("2001:db8::2").is_ok());
    }

    // Cause: each network of 64 bits passed for one host's. Symptom: all neighbours on a link, and all of IPv4 behind NAT64, had
    // one bound together.
    #[test]
    fn neighbours_and_translated_hosts_have_their_own() {
        for (one, other) in [("fe80::1", "fe80::2"), ("64:ff9b::10.0.0.1", "64:ff9b::10.0.0.2")] {
            let addresses = Addresses::new(1);
            let of = |text: &str| addresses.take(text.parse().expect("an address"));
            let held = of(one);
            assert!(held.is_ok() && of(one).is_err() && of(other).is_ok());
        }
        let addresses = Addresses::new(1);
        let of = |text: &str| addresses.take(text.parse().expect("an address"));
        let held = of("10.0.0.1");
        assert!(held.is_ok() && of("64:ff9b::10.0.0.1").is_err() && of("64:ff9b:1::10.0.0.1").is_ok());
    }

    #[test]
    fn without_a_bound_nothing_is_counted() {
        let addresses = Addresses::new(0);
        let held: Vec<_> = (0..3).map(|_| addresses.take(Ipv6Addr::LOCALHOST.into())).collect();
        assert!(held.iter().all(|held| matches!(held, Ok(None))) && addresses.most() == 0);
    }
}
