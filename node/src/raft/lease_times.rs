//! How much time leases have left, as their primary measures it.
//!
//! This is not in the log, so that keeping a lease alive costs no entry. It begins anew in each
//! term: a new primary gives every lease its full time from the moment at which it has applied an
//! entry of its own term, because its predecessor may have kept it alive until then. So a lease
//! never ends early, whatever fails over.
//!
//! Once the primary has proposed the end of a lease, that may happen at any time: from then on the
//! lease cannot be kept alive in this term.
//!
//! Deliberately missing: a clock. The caller passes readings in.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use dkv_base::id::{LeaseId, Term};
use dkv_base::mutants::{Mutant, planted};
use dkv_state::{FoundLease, ShardState};
use tokio::time::Instant;

/// The time that is left of the leases of one shard, while this replica leads it.
#[derive(Debug, Default)]
pub(crate) struct LeaseTimes {
    term: Term,
    /// The number of the state's news up to which leases are known here.
    news: u64,
    // Hash order never decides anything.
    leases: HashMap<LeaseId, LeaseTime>,
    /// The ends of the leases whose end is not proposed.
    by_end: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Clone, Copy, Debug)]
struct LeaseTime {
    grant: u64,
    ttl: Duration,
    ends: Instant,
    /// Whether its end was proposed.
    is_proposed: bool,
}

/// Why a lease cannot be kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// It has ended.
    Ended,
    /// It is about to end.
    Ending,
}

impl LeaseTimes {
    /// Follows the state of the shard in a term in which this replica leads. Returns whether there
    /// is no later one.
    pub(crate) fn follow(&mut self, term: Term, shard: &ShardState, now: Instant) -> bool {
        if term < self.term {
            return false;
        }
        let taken_over = term > self.term;
        if taken_over {
            *self = Self { term, ..Self::default() };
        }
        if taken_over && planted(Mutant::ForgetLeases) {
            self.news = shard.lease_news();
        }
        for lease in shard.granted_after(self.news).filter(|lease| !lease.ending) {
            self.begin(&lease, now);
            if taken_over && planted(Mutant::ShortenLeases) {
                self.end_at(lease.id, now);
            }
        }
        self.news = shard.lease_news();
        true
    }

    /// Gives a lease its first full time.
    fn begin(&mut self, lease: &FoundLease, now: Instant) {
        let ttl = Duration::from_millis(lease.ttl_ms);
        let ends = now + ttl;
        let time = LeaseTime { grant: lease.grant, ttl, ends, is_proposed: false };
        if let Some(before) = self.leases.insert(lease.id, time) {
            self.by_end.remove(&(before.ends, lease.id));
        }
        self.by_end.insert((ends, lease.id));
    }

    /// Moves the end of a lease, for a planted bug.
    fn end_at(&mut self, lease: LeaseId, at: Instant) {
        if let Some(time) = self.leases.get_mut(&lease) {
            self.by_end.remove(&(time.ends, lease));
            time.ends = at;
            self.by_end.insert((at, lease));
        }
    }

    /// Gives a lease its full time again.
    ///
    /// # Errors
    /// If it has ended, or is about to.
    pub(crate) fn keep_alive(&mut self, lease: &FoundLease, now: Instant) -> Result<(), NotKept> {
        if lease.ending {
            return Err(NotKept::Ended);
        }
        let time = self.leases.get_mut(&lease.id).filter(|time| time.grant == lease.grant);
        let time = time.ok_or(NotKept::Ended)?;
        if time.is_proposed {
            return Err(NotKept::Ending);
        }
        self.by_end.remove(&(time.ends, lease.id));
        time.ends = time.ends.max(now + time.ttl);
        self.by_end.insert((time.ends, lease.id));
        Ok(())
    }

    /// Gives every lease its full time again, except for those whose end was proposed: keeping them
    /// alive was not possible for a while.
    pub(crate) fn keep_all_alive(&mut self, now: Instant) {
        for (id, time) in self.leases.iter_mut().filter(|(_, time)| !time.is_proposed) {
            self.by_end.remove(&(time.ends, *id));
            time.ends = time.ends.max(now + time.ttl);
            self.by_end.insert((time.ends, *id));
        }
    }

    /// Returns the time that a lease has left.
    pub(crate) fn remaining(&self, lease: &FoundLease, now: Instant) -> Duration {
        let time = self.leases.get(&lease.id).filter(|time| time.grant == lease.grant);
        let time = time.filter(|time| !lease.ending && !time.is_proposed);
        time.map_or(Duration::ZERO, |time| time.ends.saturating_duration_since(now))
    }

    /// Returns when the next lease ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.by_end.first().map(|(ends, _)| *ends)
    }

    /// Returns leases whose end is to be proposed now, with about `keys_max` keys together, and at
    /// least one if there is one. They are about to end from here on.
    pub(crate) fn propose_ends(
        &mut self,
        shard: &ShardState,
        now: Instant,
        leases_max: usize,
        keys_max: usize,
    ) -> Vec<FoundLease> {
        let (mut due, mut keys) = (Vec::new(), 0);
        while let Some((ends, id)) = self.by_end.first().copied() {
            let is_full = !due.is_empty() && (due.len() >= leases_max || keys >= keys_max);
            if ends > now || is_full {
                break;
            }
            self.by_end.remove(&(ends, id));
            let Some(time) = self.leases.get_mut(&id) else { continue };
            let lease = shard.lease(id).filter(|lease| lease.grant == time.grant && !lease.ending);
            let Some(lease) = lease else {
                // It was revoked.
                self.leases.remove(&id);
                continue;
            };
            time.is_proposed = true;
            keys += lease.keys;
            due.push(lease);
        }
        due
    }

    /// Takes note of how a proposal went: those that have not ended are to be proposed again.
    pub(crate) fn proposed(&mut self, leases: &[FoundLease], shard: &ShardState) {
        for FoundLease { id, grant, .. } in leases {
            let Some(time) = self.leases.get(id).filter(|time| time.grant == *grant) else {
                continue;
            };
            match shard.lease(*id).filter(|found| found.grant == *grant && !found.ending) {
                Some(_) => _ = self.by_end.insert((time.ends, *id)),
                None => _ = self.leases.remove(id),
            }
        }
    }
}

#[cfg(test)]
mod tests;
