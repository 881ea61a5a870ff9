//! Places for connections: so many in all, and so many for each address, so that nobody has them all.
//!
//! An address of version 6 counts by its first 64 bits, which is what one machine or one household usually has; one of
//! version 4 counts whole, however it is written. What is behind a proxy has the proxy's address: no header is believed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken.
    All,
    /// This address has as many as it may have.
    Address,
}

/// The places.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    max: usize,
    per_address_max: usize,
    /// How many each address has; none that has none.
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(max: usize, per_address_max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(max)), max, per_address_max, held: Arc::default() }
    }

    /// A place for a connection from there.
    pub(crate) fn take(&self, from: IpAddr) -> Result<Place, NoPlace> {
        let address = counted_as(from);
        let mut held = lock(&self.held);
        let count = held.get(&address).copied().unwrap_or(0);
        if count >= self.per_address_max {
            return Err(NoPlace::Address);
        }
        let permit = self.all.clone().try_acquire_owned().map_err(|_| NoPlace::All)?;
        held.insert(address, count + 1);
        Ok(Place { address, held: self.held.clone(), _permit: permit })
    }

    /// Waits until all are free.
    pub(crate) async fn all_free(&self) {
        let all = u32::try_from(self.max).unwrap_or(u32::MAX);
        // Nobody closes it; the places are free again at once.
        drop(self.all.acquire_many(all).await);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        match held.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&self.address)),
        }
    }
}

fn lock(held: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_count_as_who_has_them() {
        let table = [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "127.0.0.1", false),
        ];
        for (one, other, same) in table {
            assert_eq!(counted_as(address(one)) == counted_as(address(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn an_address_has_so_many_and_all_together_so_many() {
        let places = Places::new(3, 2);
        let [one, other, third] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(address);
        let (first, second) = (places.take(one).unwrap(), places.take(one).unwrap());
        assert_eq!(places.take(one).unwrap_err(), NoPlace::Address);
        let others = places.take(other).unwrap();
        assert_eq!(places.take(third).unwrap_err(), NoPlace::All);
        // Who was refused has taken nothing.
        drop(others);
        let third = places.take(third).unwrap();
        drop(first);
        let again = places.take(one).unwrap();
        assert_eq!(places.take(one).unwrap_err(), NoPlace::Address);
        drop((third, again, second));
        assert!(lock(&places.held).is_empty(), "nothing is remembered of who is gone");
    }
}
