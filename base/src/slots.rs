//! Slots for unauthenticated peers, shared out fairly by address.
//!
//! A peer that has not authenticated itself can be told apart by its address only. An address with
//! its full share of slots loses its own oldest slot to its next connection; when all slots are in
//! use, the address with the most gives one up to an address with fewer, unless it is busy. So a
//! quick peer gets through, and many slow ones do not keep others out. An IPv6 network of 64 bits
//! counts as one address, since that is what a single customer has.
//!
//! Deliberately missing: the clock. The owner of a slot decides how long to keep it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::sync;

/// A pool of slots, bounded in total and for each address.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    of_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Number of slots given out so far. Each slot has a number; older slots have lower ones.
    numbered: u64,
    by_address: HashMap<IpAddr, BTreeMap<u64, Holding>>,
}

/// A slot as the pool sees it.
#[derive(Debug)]
struct Holding {
    /// Tells the owner that the slot was taken away.
    lost: oneshot::Sender<()>,
    /// What its owner is busy with, as a number.
    busy: u32,
}

/// A slot in use. Dropping it frees the slot.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Slots {
    /// A pool of `most` slots, of which one address may have `of_address`.
    pub fn new(most: usize, of_address: usize) -> Self {
        Self { most, of_address, taken: Mutex::default() }
    }

    /// Takes a slot for a peer at `address`, from another peer if need be. `None` if no slot can be
    /// freed.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = group(address);
        let mut taken = self.lock();
        let own = taken.by_address.get(&address).map_or(0, BTreeMap::len);
        if own >= self.of_address {
            taken.make_room(address)?;
        } else if taken.count >= self.most {
            let idle = |all: &BTreeMap<u64, Holding>| all.values().any(|it| it.busy == 0);
            let others = taken.by_address.iter().filter(|(_, all)| all.len() > own && idle(all));
            let (_, heaviest) = others.map(|(address, all)| (all.len(), *address)).max()?;
            taken.make_room(heaviest)?;
        }
        let number = taken.numbered;
        taken.numbered += 1;
        taken.count += 1;
        let (tell, lost) = oneshot::channel();
        let holding = Holding { lost: tell, busy: 0 };
        taken.by_address.entry(address).or_default().insert(number, holding);
        debug_assert!(taken.count <= self.most, "more slots in use than there are");
        Some(Slot { slots: Arc::clone(self), address, number, lost })
    }

    /// Number of slots in use.
    pub fn taken(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        sync::lock(&self.taken)
    }
}

impl Taken {
    /// Takes away the oldest slot of an address whose owner is not busy.
    fn make_room(&mut self, address: IpAddr) -> Option<()> {
        let all = self.by_address.get(&address)?;
        let oldest =
            all.iter().find(|(_, holding)| holding.busy == 0).map(|(number, _)| *number)?;
        let holding = self.remove(address, oldest)?;
        // The owner may be dropping the slot at this moment.
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

/// Marks the owner of a slot as busy. It may outlive the slot.
#[derive(Clone, Debug)]
pub struct BusyFlag {
    slots: Arc<Slots>,
    address: IpAddr,
    number: u64,
}

impl Slot {
    /// A flag that marks the owner as busy.
    pub fn busy_flag(&self) -> BusyFlag {
        let Self { slots, address, number, .. } = self;
        BusyFlag { slots: Arc::clone(slots), address: *address, number: *number }
    }

    /// Completes when the slot is given to another peer.
    pub async fn lost(&mut self) {
        // The pool drops or uses the sender only when it takes the slot away.
        let _ = (&mut self.lost).await;
    }
}

/// Something that the owner of a slot is busy with, until this is dropped.
#[derive(Debug)]
pub struct Busy(BusyFlag);

impl BusyFlag {
    /// Marks the owner as busy until the returned value is dropped. An owner that is busy with
    /// anything does not lose its slot. `None` if it has lost it already.
    #[must_use = "the owner is busy until this is dropped"]
    pub fn begin(&self) -> Option<Busy> {
        self.change(|busy| *busy += 1).then(|| Busy(self.clone()))
    }

    /// The same, as long as `idle` owners that are not busy, or free slots, remain beside it, in
    /// the pool and in the share of its address. So there is always room for somebody else.
    #[must_use = "the owner is busy until this is dropped"]
    pub fn begin_beside(&self, idle: usize) -> Option<Busy> {
        let mut taken = self.slots.lock();
        let busy_of = |all: &BTreeMap<u64, Holding>| all.values().filter(|it| it.busy > 0).count();
        let all_busy: usize = taken.by_address.values().map(busy_of).sum();
        let all = taken.by_address.get_mut(&self.address)?;
        let room = self.slots.of_address.saturating_sub(busy_of(all));
        if room.min(self.slots.most.saturating_sub(all_busy)) <= idle {
            return None;
        }
        all.get_mut(&self.number)?.busy += 1;
        Some(Busy(self.clone()))
    }

    /// Returns whether the slot is still the owner's.
    fn change(&self, change: impl FnOnce(&mut u32)) -> bool {
        let mut taken = self.slots.lock();
        let all = taken.by_address.get_mut(&self.address);
        let holding = all.and_then(|all| all.get_mut(&self.number));
        holding.map(|holding| change(&mut holding.busy)).is_some()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|busy| *busy -= 1);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(self.address, self.number);
    }
}

/// The address that a peer counts under: its own, or its IPv6 network of 64 bits.
pub fn group(address: IpAddr) -> IpAddr {
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

    fn is_lost(slot: &mut Slot) -> bool {
        slot.lost.try_recv().is_ok()
    }

    #[test]
    fn an_address_with_its_full_share_loses_its_own_oldest_slot() {
        let slots = Arc::new(Slots::new(8, 2));
        let mut other = slots.take(address(2)).unwrap();
        let mut first = slots.take(address(1)).unwrap();
        let mut second = slots.take(address(1)).unwrap();
        let mut third = slots.take(address(1)).unwrap();
        assert!(is_lost(&mut first));
        assert!(!is_lost(&mut second) && !is_lost(&mut third) && !is_lost(&mut other));
        // Dropping a lost slot does not free another one.
        drop(first);
        assert_eq!(slots.taken(), 3);
        drop((second, third, other));
        assert_eq!(slots.taken(), 0);
        assert!(slots.lock().by_address.is_empty());
    }

    #[test]
    fn the_address_with_the_most_slots_makes_room_for_one_with_fewer() {
        let slots = Arc::new(Slots::new(4, 4));
        let mut crowd: Vec<_> = (0..4).filter_map(|_| slots.take(address(1))).collect();
        let mut newcomer = slots.take(address(2)).unwrap();
        assert!(is_lost(&mut crowd[0]) && !is_lost(&mut crowd[1]));
        // Three and one: the newcomer gets its share and no more.
        let _second = slots.take(address(2)).unwrap();
        assert!(is_lost(&mut crowd[1]) && !is_lost(&mut newcomer));
        assert!(slots.take(address(2)).is_none());
        assert_eq!(slots.taken(), 4);
    }

    #[test]
    fn a_busy_owner_keeps_its_slot() {
        let slots = Arc::new(Slots::new(8, 2));
        let mut busy = slots.take(address(1)).unwrap();
        let first = busy.busy_flag().begin().unwrap();
        let second = busy.busy_flag().begin().unwrap();
        drop(first);
        let mut idle = slots.take(address(1)).unwrap();
        let third = slots.take(address(1)).unwrap();
        assert!(!is_lost(&mut busy) && is_lost(&mut idle));
        let _third = third.busy_flag().begin();
        assert!(slots.take(address(1)).is_none());
        drop(second);
        assert!(slots.take(address(1)).is_some());
        assert!(is_lost(&mut busy));
    }

    #[test]
    fn some_owners_may_be_busy_only_beside_others_that_are_not() {
        let slots = Arc::new(Slots::new(6, 3));
        let crowd: Vec<_> = (0..3).filter_map(|_| slots.take(address(1))).collect();
        let begin = |slot: &Slot| slot.busy_flag().begin_beside(1);
        let mut busy: Vec<_> = crowd.iter().filter_map(begin).collect();
        assert_eq!(busy.len(), 2, "one place of the address is for others");
        let newcomer = slots.take(address(1)).unwrap();
        assert!(begin(&newcomer).is_none() && newcomer.busy_flag().begin().is_some());
        drop(newcomer);
        // The same in the pool: five of six.
        let more: Vec<_> = (2..4).flat_map(|last| [last; 2]).collect();
        let more: Vec<_> = more.iter().filter_map(|last| slots.take(address(*last))).collect();
        busy.extend(more.iter().filter_map(begin));
        assert_eq!(busy.len(), 5);
        drop(busy);
        assert!(begin(&crowd[2]).is_none(), "it has lost its slot");
        assert!(begin(&more[0]).is_some());
    }

    #[test]
    fn an_owner_is_told_that_its_slot_was_taken_before_it_was_busy() {
        let slots = Arc::new(Slots::new(8, 1));
        let first = slots.take(address(1)).unwrap();
        let _second = slots.take(address(1)).unwrap();
        assert!(first.busy_flag().begin().is_none());
    }

    #[test]
    fn a_busy_address_does_not_keep_others_out_while_there_are_idle_ones() {
        let slots = Arc::new(Slots::new(6, 3));
        let crowd: Vec<_> = (0..3).filter_map(|_| slots.take(address(9))).collect();
        let busy: Vec<_> = crowd.iter().filter_map(|slot| slot.busy_flag().begin()).collect();
        let mut idle: Vec<_> = (0..3).filter_map(|_| slots.take(address(1))).collect();
        assert_eq!((busy.len(), idle.len()), (3, 3));
        assert!(slots.take(address(2)).is_some());
        assert!(is_lost(&mut idle[0]));
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_address_is_ipv4() {
        let parse = |text: &str| group(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2::3"), parse("2001:db8:1:2:ffff::9"));
        assert_ne!(parse("2001:db8:1:2::3"), parse("2001:db8:1:3::3"));
        assert_eq!(parse("::ffff:10.0.0.1"), address(1));
        assert_ne!(address(1), group(address(2)));
    }
}
