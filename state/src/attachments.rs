//! What keys are attached to: leases, and expiries of their own.
//!
//! A key has at most one attachment. Few keys have any, so attachments are beside the table of keys
//! and not in it. Both they and the leases are part of the state: equal on all replicas, and in
//! every checkpoint and snapshot.
//!
//! An expiry is a deadline by the clock of the log. How much time a lease has left is not here: its
//! primary measures that, and has the log end it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::{HolderId, LeaseId};

use super::digest::Digest;
use super::lease::Lease;
use super::rows::Attachment;
use super::rows::{MalformedRow, Table};
use super::tombstones::SmallRows;

/// A lease with its keys.
#[derive(Debug)]
struct WithKeys {
    lease: Lease,
    keys: BTreeSet<Arc<[u8]>>,
    /// The number of the news that told of it.
    news: u64,
}

/// The leases of a shard, and what its keys are attached to.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    // Hash order never decides anything.
    of_keys: HashMap<Arc<[u8]>, Attachment>,
    by_deadline: BTreeSet<(u64, Arc<[u8]>)>,
    leases: BTreeMap<LeaseId, WithKeys>,
    /// Number of leases of each holder.
    holders: HashMap<HolderId, usize>,
    /// The leases that have ended and have keys left.
    ending: BTreeSet<LeaseId>,
    /// Counts what may give a primary something to do. Not part of the state: replicas count
    /// differently.
    news: u64,
    by_news: BTreeMap<u64, LeaseId>,
    changed_keys: BTreeSet<Arc<[u8]>>,
    changed_leases: BTreeSet<LeaseId>,
    /// Rows that were read back, until all are there.
    loaded: Vec<(Arc<[u8]>, Attachment)>,
}

impl Attachments {
    /// Returns what a key is attached to.
    pub(super) fn get(&self, key: &[u8]) -> Option<Attachment> {
        // The look-up costs more than the question whether there is anything.
        if self.of_keys.is_empty() { None } else { self.of_keys.get(key).copied() }
    }

    /// Attaches a key, or detaches it. A lease must be there. Returns whether that changed a row.
    pub(super) fn attach(
        &mut self,
        key: &Arc<[u8]>,
        attachment: Option<Attachment>,
        digest: &mut Digest,
    ) -> bool {
        let before = self.get(key);
        if before == attachment {
            return false;
        }
        if let Some(before) = before {
            digest.remove_small(Table::Attachments, key, before.number());
            self.of_keys.remove(key);
            match before {
                Attachment::Lease(lease) => {
                    if let Some(found) = self.leases.get_mut(&lease) {
                        found.keys.remove(key);
                    }
                }
                Attachment::Expiry { deadline_ms, .. } => {
                    self.by_deadline.remove(&(deadline_ms, Arc::clone(key)));
                }
            }
        }
        if let Some(attachment) = attachment {
            digest.add_small(Table::Attachments, key, attachment.number());
            self.insert(Arc::clone(key), attachment);
        }
        self.changed_keys.insert(Arc::clone(key));
        true
    }

    fn insert(&mut self, key: Arc<[u8]>, attachment: Attachment) {
        match attachment {
            Attachment::Lease(lease) => {
                if let Some(found) = self.leases.get_mut(&lease) {
                    found.keys.insert(Arc::clone(&key));
                }
            }
            Attachment::Expiry { deadline_ms, .. } => {
                if self.next_deadline_ms().is_none_or(|first| deadline_ms < first) {
                    self.news += 1;
                }
                self.by_deadline.insert((deadline_ms, Arc::clone(&key)));
            }
        }
        self.of_keys.insert(key, attachment);
    }

    /// Returns the number of leases.
    pub(super) fn leases_len(&self) -> usize {
        self.leases.len()
    }

    /// Returns the number of leases of a holder.
    pub(super) fn leases_of(&self, holder: HolderId) -> usize {
        self.holders.get(&holder).copied().unwrap_or_default()
    }

    /// Returns a lease and the number of its keys.
    pub(super) fn lease(&self, id: LeaseId) -> Option<(Lease, usize)> {
        self.leases.get(&id).map(|found| (found.lease, found.keys.len()))
    }

    /// Returns the leases after one, in the order of their ids.
    pub(super) fn leases_after(
        &self,
        after: LeaseId,
    ) -> impl Iterator<Item = (LeaseId, Lease, usize)> {
        let rest = self.leases.range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(id, found)| (*id, found.lease, found.keys.len()))
    }

    /// Returns the keys of a lease after one, in order.
    pub(super) fn keys_of(&self, id: LeaseId, after: &[u8]) -> impl Iterator<Item = &Arc<[u8]>> {
        let keys = self.leases.get(&id).map(|found| &found.keys);
        let after = (Bound::Excluded(after), Bound::Unbounded);
        keys.into_iter().flat_map(move |keys| keys.range::<[u8], _>(after))
    }

    /// Adds a lease that is not there.
    pub(super) fn grant(&mut self, id: LeaseId, lease: Lease, digest: &mut Digest) {
        self.load_lease(id, lease, digest);
        self.changed_leases.insert(id);
    }

    /// Ends a lease: no key can be attached to it any more.
    pub(super) fn end(&mut self, id: LeaseId, digest: &mut Digest) {
        let Some(found) = self.leases.get_mut(&id) else { return };
        if found.lease.ending {
            return;
        }
        digest.remove_small(Table::Leases, &name(id), found.lease.number());
        found.lease.ending = true;
        digest.add_small(Table::Leases, &name(id), found.lease.number());
        self.ending.insert(id);
        self.news += 1;
        self.changed_leases.insert(id);
    }

    /// Removes a lease that has no keys.
    pub(super) fn remove(&mut self, id: LeaseId, digest: &mut Digest) {
        if self.leases.get(&id).is_none_or(|found| !found.keys.is_empty()) {
            return;
        }
        let Some(WithKeys { lease, news, .. }) = self.leases.remove(&id) else { return };
        digest.remove_small(Table::Leases, &name(id), lease.number());
        self.ending.remove(&id);
        self.by_news.remove(&news);
        if let Some(count) = self.holders.get_mut(&lease.holder) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&lease.holder);
            }
        }
        self.changed_leases.insert(id);
    }

    /// Returns the leases that have ended and have keys left.
    pub(super) fn ending(&self) -> impl Iterator<Item = LeaseId> {
        self.ending.iter().copied()
    }

    /// Returns the earliest deadline of a key, by the log's clock.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Returns the keys whose deadline has passed, the earliest first.
    pub(super) fn due(&self, clock_ms: u64) -> impl Iterator<Item = &Arc<[u8]>> {
        let due = self.by_deadline.iter().take_while(move |(at, _)| *at <= clock_ms);
        due.map(|(_, key)| key)
    }

    /// Returns the number of the latest news: of a grant, of a lease with keys that has ended, or
    /// of a deadline earlier than all others.
    pub(super) fn news(&self) -> u64 {
        self.news
    }

    /// Returns the leases whose grant was news after that of this number.
    pub(super) fn granted_after(&self, news: u64) -> impl Iterator<Item = (LeaseId, Lease)> {
        let since = self.by_news.range((Bound::Excluded(news), Bound::Unbounded));
        since.filter_map(|(_, id)| Some((*id, self.leases.get(id)?.lease)))
    }

    /// Adds a lease that was read back.
    pub(super) fn load_lease(&mut self, id: LeaseId, lease: Lease, digest: &mut Digest) {
        digest.add_small(Table::Leases, &name(id), lease.number());
        self.news += 1;
        self.by_news.insert(self.news, id);
        *self.holders.entry(lease.holder).or_default() += 1;
        if lease.ending {
            self.ending.insert(id);
        }
        self.leases.insert(id, WithKeys { lease, keys: BTreeSet::new(), news: self.news });
    }

    /// Adds an attachment that was read back; it is in its place once [`Self::finish_load`] is
    /// done.
    pub(super) fn load_key(&mut self, key: Arc<[u8]>, attachment: Attachment, digest: &mut Digest) {
        digest.add_small(Table::Attachments, &key, attachment.number());
        self.loaded.push((key, attachment));
    }

    /// Completes the loading of rows. `find` returns a key of the table.
    ///
    /// # Errors
    /// If a key is attached that does not exist, or to a lease that does not exist.
    pub(super) fn finish_load(
        &mut self,
        find: impl Fn(&[u8]) -> Option<Arc<[u8]>>,
    ) -> Result<(), MalformedRow> {
        for (key, attachment) in std::mem::take(&mut self.loaded) {
            let key = find(&key).ok_or(MalformedRow("a key is attached that does not exist"))?;
            if let Attachment::Lease(lease) = attachment
                && !self.leases.contains_key(&lease)
            {
                return Err(MalformedRow("a key is attached to a lease that does not exist"));
            }
            self.insert(key, attachment);
        }
        Ok(())
    }

    /// Returns the rows that changed since the last call, encoded; `None` for removed ones.
    pub(super) fn take_changed(&mut self) -> SmallRows {
        let keys = std::mem::take(&mut self.changed_keys).into_iter().map(|key| {
            let row = self.of_keys.get(&key).map(|attachment| attachment.encode());
            (Table::Attachments, key.to_vec(), row)
        });
        let leases = std::mem::take(&mut self.changed_leases).into_iter().map(|id| {
            let row = self.leases.get(&id).map(|found| found.lease.encode());
            (Table::Leases, name(id).to_vec(), row)
        });
        keys.chain(leases).collect()
    }

    /// Marks a row as changed again, if it is of one of these tables.
    pub(super) fn restore_changed(&mut self, table: Table, key: &[u8]) {
        match (table, <[u8; 8]>::try_from(key)) {
            (Table::Attachments, _) => _ = self.changed_keys.insert(Arc::from(key)),
            (Table::Leases, Ok(id)) => {
                self.changed_leases.insert(LeaseId(u64::from_be_bytes(id)));
            }
            _ => {}
        }
    }

    /// Returns the number of changed rows.
    pub(super) fn changed_len(&self) -> usize {
        self.changed_keys.len() + self.changed_leases.len()
    }
}

/// Returns the key of the row of a lease.
fn name(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}
