//! How many there may be of something, in all and of one address: connections, handshakes under way.
//!
//! The door takes a place for each, on its thread; whoever drops the place gives it back, on any
//! thread. No data passes here, only beginnings and ends.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The places that there are.
#[derive(Debug)]
pub struct Places {
    in_all_max: usize,
    of_address_max: usize,
    spares_loopback: bool,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    /// Those that have any, so that there are never more of them than places.
    of_address: HashMap<IpAddr, (Arc<Address>, usize)>,
}

/// An address that has places.
#[derive(Debug)]
struct Address {
    places: Arc<Places>,
    network: IpAddr,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// That of all addresses together.
    InAll,
    /// That of the address.
    OfAddress,
}

/// A place that is taken, until this is dropped. One pointer, because every connection has one.
#[derive(Debug)]
pub struct Place(Arc<Address>);

impl Places {
    /// So many places in all, and so many for one address. Where it is not said how many that are,
    /// it is the default, and loopback may take all: a proxy on this machine stands for all of its
    /// clients.
    pub fn new(in_all_max: usize, of_address_max: Option<usize>, default: usize) -> Arc<Self> {
        Arc::new(Self {
            in_all_max,
            of_address_max: of_address_max.unwrap_or(default),
            spares_loopback: of_address_max.is_none(),
            taken: Mutex::default(),
        })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`NoPlace`] when there is none left.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, NoPlace> {
        let network = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.of_address.get(&network).map_or(0, |(_, count)| *count);
        let is_spared = self.spares_loopback && network.is_loopback();
        if of_address >= self.of_address_max && !is_spared {
            return Err(NoPlace::OfAddress);
        }
        if taken.in_all >= self.in_all_max {
            return Err(NoPlace::InAll);
        }
        taken.in_all += 1;
        let (address, count) = taken
            .of_address
            .entry(network)
            .or_insert_with(|| (Arc::new(Address { places: Arc::clone(self), network }), 0));
        *count += 1;
        Ok(Place(Arc::clone(address)))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).in_all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Address { places, network } = &*self.0;
        let mut taken = places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        if let Some((_, count)) = taken.of_address.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                taken.of_address.remove(network);
            }
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, because whoever has one such address has
/// them all.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_more_of_an_address_is_refused_until_one_ends() {
        let places = Places::new(10, Some(2), 1);
        let first = places.take(address("192.0.2.1")).unwrap();
        let _second = places.take(address("192.0.2.1")).unwrap();
        assert_eq!(places.take(address("192.0.2.1")).unwrap_err(), NoPlace::OfAddress);
        let _other = places.take(address("192.0.2.2")).unwrap();
        drop(first);
        assert!(places.take(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn one_more_in_all_is_refused_until_one_ends() {
        let places = Places::new(2, None, 2);
        let first = places.take(address("192.0.2.1")).unwrap();
        let _second = places.take(address("192.0.2.2")).unwrap();
        assert_eq!(places.take(address("192.0.2.3")).unwrap_err(), NoPlace::InAll);
        drop(first);
        assert!(places.take(address("192.0.2.3")).is_ok());
        assert_eq!(places.taken(), 1);
    }

    #[test]
    fn loopback_may_take_all_unless_a_number_was_named() {
        for loopback in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let places = Places::new(3, None, 1);
            let taken: Vec<_> = (0..3).map_while(|_| places.take(address(loopback)).ok()).collect();
            assert_eq!(taken.len(), 3, "{loopback}");
            let places = Places::new(3, Some(1), 1);
            let _first = places.take(address(loopback)).unwrap();
            assert_eq!(
                places.take(address(loopback)).unwrap_err(),
                NoPlace::OfAddress,
                "{loopback}"
            );
        }
    }

    #[test]
    fn the_addresses_of_one_network_are_one() {
        for (one, other, are_one) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let places = Places::new(2, None, 1);
            let _first = places.take(address(one)).unwrap();
            assert_eq!(places.take(address(other)).is_err(), are_one, "{one} {other}");
        }
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let places = Places::new(10, None, 1);
        drop(places.take(address("192.0.2.1")));
        assert!(places.taken.lock().unwrap().of_address.is_empty());
    }
}
