//! Places for those who have proved nothing yet, shared out by address.
//!
//! Whoever has not shown who it is can be told apart by its address only. An address that has as
//! many places as it may loses its own oldest one to the next that comes from it; when all places
//! are taken, the address with the most makes room for one with fewer. So whoever is quick gets
//! through, and nobody keeps others out by being slow in large numbers. Of IPv6 a network of 64
//! bits counts as one address, for that is what a single customer has.
//!
//! Deliberately missing: any look at the clock. How long a place may be kept is for its owner to
//! say.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::sync;

/// Places, so many in all and so many for one address.
#[derive(Debug)]
pub struct Places {
    most: usize,
    of_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Places so far: each has a number, the oldest the lowest.
    numbered: u64,
    by_address: HashMap<IpAddr, BTreeMap<u64, Holding>>,
}

/// A place as the one who hands them out sees it.
#[derive(Debug)]
struct Holding {
    /// Told when the place is taken away.
    lost: oneshot::Sender<()>,
    busy: bool,
}

/// A place. It is free again once this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Places {
    /// So many places, and so many of them at most for one address.
    pub fn new(most: usize, of_address: usize) -> Self {
        Self { most, of_address, taken: Mutex::default() }
    }

    /// Takes a place for somebody at an address; nothing if there is none and none can be made.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = group(address);
        let mut taken = self.lock();
        let own = taken.by_address.get(&address).map_or(0, BTreeMap::len);
        if own >= self.of_address {
            taken.make_room(address)?;
        } else if taken.count >= self.most {
            let most = taken.by_address.iter().map(|(address, all)| (all.len(), *address)).max();
            let (_, heaviest) = most.filter(|(count, _)| *count > own)?;
            taken.make_room(heaviest)?;
        }
        let number = taken.numbered;
        taken.numbered += 1;
        taken.count += 1;
        let (tell, lost) = oneshot::channel();
        let holding = Holding { lost: tell, busy: false };
        taken.by_address.entry(address).or_default().insert(number, holding);
        Some(Place { places: Arc::clone(self), address, number, lost })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        sync::lock(&self.taken)
    }
}

impl Taken {
    /// Takes the oldest place of an address away from somebody who is not busy.
    fn make_room(&mut self, address: IpAddr) -> Option<()> {
        let all = self.by_address.get(&address)?;
        let oldest = all.iter().find(|(_, holding)| !holding.busy).map(|(number, _)| *number)?;
        let holding = self.remove(address, oldest)?;
        // Whoever had it may be leaving at this moment.
        let _ = holding.lost.send(());
        Some(())
    }

    fn remove(&mut self, address: IpAddr, number: u64) -> Option<Holding> {
        let all = self.by_address.get_mut(&address)?;
        let holding = all.remove(&number)?;
        if all.is_empty() {
            self.by_address.remove(&address);
        }
        self.count -= 1;
        Some(holding)
    }
}

/// Says whether the owner of a place is busy.
#[derive(Clone, Debug)]
pub struct Marker {
    places: Arc<Places>,
    address: IpAddr,
    number: u64,
}

impl Place {
    /// What says whether the owner is busy; it may outlive the place.
    pub fn marker(&self) -> Marker {
        let Self { places, address, number, .. } = self;
        Marker { places: Arc::clone(places), address: *address, number: *number }
    }

    /// Completes when the place was given to somebody else.
    pub async fn lost(&mut self) {
        // The sender is kept for as long as the place is this one's.
        let _ = (&mut self.lost).await;
    }
}

impl Marker {
    /// Says whether the owner does something for which it must not lose its place.
    pub fn set_busy(&self, busy: bool) {
        let mut taken = self.places.lock();
        let all = taken.by_address.get_mut(&self.address);
        if let Some(holding) = all.and_then(|all| all.get_mut(&self.number)) {
            holding.busy = busy;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.address, self.number);
    }
}

/// What counts as one address.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_lost(place: &mut Place) -> bool {
        place.lost.try_recv().is_ok()
    }

    #[test]
    fn an_address_that_has_its_share_loses_its_own_oldest() {
        let places = Arc::new(Places::new(8, 2));
        let mut other = places.take(address(2)).unwrap();
        let mut first = places.take(address(1)).unwrap();
        let mut second = places.take(address(1)).unwrap();
        let mut third = places.take(address(1)).unwrap();
        assert!(is_lost(&mut first));
        assert!(!is_lost(&mut second) && !is_lost(&mut third) && !is_lost(&mut other));
        // What was lost is not given back a second time.
        drop(first);
        assert_eq!(places.taken(), 3);
        drop((second, third, other));
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by_address.is_empty());
    }

    #[test]
    fn the_address_with_the_most_makes_room_for_one_with_fewer() {
        let places = Arc::new(Places::new(4, 4));
        let mut crowd: Vec<_> = (0..4).filter_map(|_| places.take(address(1))).collect();
        let mut newcomer = places.take(address(2)).unwrap();
        assert!(is_lost(&mut crowd[0]) && !is_lost(&mut crowd[1]));
        // Three and one: the newcomer gets its share, and then no more.
        let _second = places.take(address(2)).unwrap();
        assert!(is_lost(&mut crowd[1]) && !is_lost(&mut newcomer));
        assert!(places.take(address(2)).is_none());
        assert_eq!(places.taken(), 4);
    }

    #[test]
    fn who_is_busy_keeps_its_place() {
        let places = Arc::new(Places::new(8, 2));
        let mut busy = places.take(address(1)).unwrap();
        busy.marker().set_busy(true);
        let mut idle = places.take(address(1)).unwrap();
        let third = places.take(address(1)).unwrap();
        assert!(!is_lost(&mut busy) && is_lost(&mut idle));
        third.marker().set_busy(true);
        assert!(places.take(address(1)).is_none());
        busy.marker().set_busy(false);
        assert!(places.take(address(1)).is_some());
        assert!(is_lost(&mut busy));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_one_is_ipv4() {
        let parse = |text: &str| group(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2::3"), parse("2001:db8:1:2:ffff::9"));
        assert_ne!(parse("2001:db8:1:2::3"), parse("2001:db8:1:3::3"));
        assert_eq!(parse("::ffff:10.0.0.1"), address(1));
        assert_ne!(address(1), group(address(2)));
    }
}
