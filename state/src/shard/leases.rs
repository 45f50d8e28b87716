//! Leases and expiry in the state of a shard.
//!
//! The log ends what ends: a primary proposes it, and this executes it. One command deletes a
//! bounded number of keys, so that nobody waits while a million keys end together. Until its turn
//! comes a key is still there: it ends late, never early.

use std::sync::Arc;

use dkv_base::id::{LeaseId, Revision, Serial, SessionId, Stamp};
use dkv_wire::limits;
use dkv_wire::message::{Attach, Expire, LeaseAction, LeaseCommand, Operation};
use dkv_wire::user::User;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Attaching, ShardState};
use crate::command::CommandResult;
use crate::lease::Lease;
use crate::rows::{ATTACHMENT_BYTES_MAX, Attachment};
use crate::session::Outcome;

/// A lease as a shard has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundLease {
    /// The lease.
    pub id: LeaseId,
    /// The time that each keep-alive gives it, in milliseconds.
    pub ttl_ms: u64,
    /// The number of its grant, by which the log ends this lease and no later one.
    pub grant: u64,
    /// The user to whom it was granted, if it was granted to one.
    pub owner: Option<User>,
    /// Whether it has ended, and keys are left to be deleted.
    pub ending: bool,
    /// The number of its keys.
    pub keys: usize,
}

/// How long a key will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundExpiry {
    /// The key does not exist.
    Absent,
    /// Until it is deleted.
    Never,
    /// Until the log's clock shows this time.
    At {
        /// The time, in milliseconds.
        deadline_ms: u64,
        /// The time to live that led to it, in milliseconds.
        ttl_ms: u64,
    },
    /// As long as its lease.
    Lease(FoundLease),
}

impl ShardState {
    /// Returns the number of leases.
    pub fn leases_len(&self) -> usize {
        self.attachments.leases_len()
    }

    /// Returns a lease.
    pub fn lease(&self, id: LeaseId) -> Option<FoundLease> {
        self.attachments.lease(id).map(|(lease, keys)| found(id, lease, keys))
    }

    /// Returns the leases after one, in the order of their ids.
    pub fn leases_after(&self, after: LeaseId) -> impl Iterator<Item = FoundLease> {
        self.attachments.leases_after(after).map(|(id, lease, keys)| found(id, lease, keys))
    }

    /// Returns the keys of a lease after one, in order.
    pub fn lease_keys(&self, id: LeaseId, after: &[u8]) -> impl Iterator<Item = &Arc<[u8]>> {
        self.attachments.keys_of(id, after)
    }

    /// Returns the leases that have ended and whose keys are not all deleted.
    pub fn ending_leases(&self) -> impl Iterator<Item = FoundLease> {
        self.attachments.ending().filter_map(|id| self.lease(id))
    }

    /// Returns the earliest deadline of a key, by the log's clock in milliseconds.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.attachments.next_deadline_ms()
    }

    /// Returns how long a key will live.
    pub fn expiry(&self, key: &[u8]) -> FoundExpiry {
        match self.attachments.get(key) {
            _ if !self.keys.contains_key(key) => FoundExpiry::Absent,
            None => FoundExpiry::Never,
            Some(Attachment::Expiry { deadline_ms, ttl_ms }) => {
                FoundExpiry::At { deadline_ms, ttl_ms }
            }
            Some(Attachment::Lease(id)) => match self.lease(id) {
                Some(lease) => FoundExpiry::Lease(lease),
                None => FoundExpiry::Never,
            },
        }
    }

    /// Returns a number that grows with everything that may give a primary something to end: a
    /// grant, a lease that has ended, a deadline earlier than all others. Replicas count
    /// differently.
    pub fn lease_news(&self) -> u64 {
        self.attachments.news()
    }

    /// Returns the leases that were granted after the news of this number.
    pub fn granted_after(&self, news: u64) -> impl Iterator<Item = FoundLease> {
        self.attachments.granted_after(news).map(|(id, lease)| found(id, lease, 0))
    }

    /// Returns what a put attaches its key to, or the lease that does not exist.
    pub(super) fn attachment(&self, attach: Attach) -> Result<Attachment, LeaseId> {
        match attach {
            Attach::Ttl(ttl_ms) => {
                let deadline_ms = self.clock_ms.saturating_add(ttl_ms);
                Ok(Attachment::Expiry { deadline_ms, ttl_ms })
            }
            Attach::Lease(id) => match self.attachments.lease(id) {
                Some((Lease { ending: false, .. }, _)) => Ok(Attachment::Lease(id)),
                _ => Err(id),
            },
        }
    }

    /// Attaches a key, or detaches it.
    pub(super) fn attach(&mut self, key: &Arc<[u8]>, attachment: Option<Attachment>) {
        if self.attachments.attach(key, attachment, &mut self.digest) {
            self.changed_bytes += key.len() + ATTACHMENT_BYTES_MAX;
        }
    }

    /// Executes a change of a lease.
    pub(super) fn change_lease(&mut self, change: &LeaseCommand, now: Stamp) -> Outcome {
        let LeaseCommand { session, serial, lease, action, .. } = *change;
        match action {
            LeaseAction::Grant { ttl_ms } => self.grant((session, serial), lease, ttl_ms, None),
            LeaseAction::GrantTo { ttl_ms, user } => {
                self.grant((session, serial), lease, ttl_ms, Some(user))
            }
            LeaseAction::Revoke => match self.end_lease(lease, now) {
                None => Outcome::NoLease { lease },
                Some((deleted, left)) => Outcome::Revoked {
                    revision: self.revision,
                    deleted: deleted as u16, // at most `EXPIRE_KEYS_MAX`
                    left: u32::try_from(left).unwrap_or(u32::MAX),
                },
            },
        }
    }

    fn grant(
        &mut self,
        (session, serial): (SessionId, Serial),
        id: LeaseId,
        ttl_ms: u64,
        owner: Option<User>,
    ) -> Outcome {
        let holder = self.sessions.holder(session);
        if self.attachments.lease(id).is_some() {
            return Outcome::LeaseExists { lease: id };
        }
        if self.attachments.leases_len() >= limits::LEASES_MAX {
            return Outcome::TooManyLeases { own: false };
        }
        if self.attachments.leases_of(holder) >= limits::HOLDER_LEASES_MAX {
            return Outcome::TooManyLeases { own: true };
        }
        let grant = grant_number(session, serial);
        let lease = Lease { ttl_ms, grant, holder, owner, ending: false };
        self.attachments.grant(id, lease, &mut self.digest);
        Outcome::Granted { revision: self.revision }
    }

    /// Deletes what has ended.
    pub(super) fn expire(&mut self, expire: &Expire, now: Stamp) -> CommandResult {
        match *expire {
            Expire::Keys => {
                let due = self.attachments.due(self.clock_ms).filter(|key| !self.is_postponed(key));
                let keys: Vec<_> = due.take(limits::EXPIRE_KEYS_MAX).cloned().collect();
                let deleted = self.delete_ended(keys, now) as u32;
                // Those that are postponed are among them.
                let more = self.attachments.due(self.clock_ms).next().is_some();
                CommandResult::Expired { deleted, more }
            }
            Expire::Lease { lease, grant } => {
                let is_it = |(found, _): &(Lease, usize)| found.grant == grant;
                let found = self.attachments.lease(lease).filter(is_it);
                let ended = found.and_then(|_| self.end_lease(lease, now));
                let (deleted, left) = ended.unwrap_or_default();
                CommandResult::Expired { deleted: deleted as u32, more: left > 0 }
            }
        }
    }

    /// Ends a lease, and deletes as many of its keys as one command may. Returns how many these
    /// were, and how many are left; `None` if there is no such lease.
    fn end_lease(&mut self, id: LeaseId, now: Stamp) -> Option<(usize, usize)> {
        self.attachments.lease(id)?;
        self.attachments.end(id, &mut self.digest);
        let keys = self.attachments.keys_of(id, &[]).filter(|key| !self.is_postponed(key));
        let keys: Vec<_> = keys.take(limits::EXPIRE_KEYS_MAX).cloned().collect();
        let deleted = self.delete_ended(keys, now);
        let left = self.attachments.lease(id).map_or(0, |(_, keys)| keys);
        self.attachments.remove(id, &mut self.digest);
        Some((deleted, left))
    }

    /// Deletes keys as one revision, and returns their number.
    fn delete_ended(&mut self, mut keys: Vec<Arc<[u8]>>, now: Stamp) -> usize {
        if keys.is_empty() {
            return 0;
        }
        // The changes of a revision are in the order of keys.
        keys.sort_unstable();
        let stamp = self.stamp_after(now, Stamp::default());
        let revision = Revision(self.revision.0 + 1);
        for key in &keys {
            self.store_at((revision, 0), key, Operation::Delete, stamp, Attaching::Nothing);
        }
        keys.len()
    }

    /// Returns whether a key cannot be deleted at present, and ends later: a transaction over
    /// several shards has locked it.
    fn is_postponed(&self, key: &[u8]) -> bool {
        self.is_locked(key)
    }
}

/// Returns the number of a grant.
pub(crate) fn grant_number(session: SessionId, serial: Serial) -> u64 {
    xxh3_64_with_seed(session.0.as_bytes(), serial.0)
}

fn found(id: LeaseId, lease: Lease, keys: usize) -> FoundLease {
    let Lease { ttl_ms, grant, owner, ending, .. } = lease;
    FoundLease { id, ttl_ms, grant, owner, ending, keys }
}
