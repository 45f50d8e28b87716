//! Pages of a range, all of one revision, from the network.

use bytes::Bytes;
use dkv_api::{Client, Error, KeyRange, LeaseId, Receipt, Revision, ScanOptions};

use crate::etcd::etcd_revision;
use crate::kv::plan::{Part, RangePlan};
use crate::proto::mvccpb::KeyValue;

/// Keys of a page.
const PAGE_KEYS: usize = 1000;
/// Bytes of keys and values after which a page ends.
const PAGE_BYTES: usize = 1024 * 1024;

/// A page of a range.
pub(crate) struct RangeKeys {
    /// The keys that pass the filters, in order.
    pub(crate) keys: Vec<KeyValue>,
    /// Whether more follow.
    pub(crate) more: bool,
}

/// The pages of a range, one after the other.
pub(crate) struct Pages {
    store: Client,
    plan: RangePlan,
    /// The revision of all pages.
    at: Revision,
    /// The last key of the page before.
    after: Bytes,
    /// Most keys that are still wanted.
    left: usize,
}

/// What the first answer says of the whole.
pub(crate) struct RangeMoment {
    /// The receipt of the answer.
    pub(crate) receipt: Receipt,
    /// The latest revision of the keyspace then.
    pub(crate) latest: Revision,
    /// The number of keys of the range, whatever the limit and the filters.
    pub(crate) count: u64,
}

impl Pages {
    /// Finds out the moment of a range. No more than `wanted` keys will come.
    pub(crate) async fn open(
        store: Client,
        plan: RangePlan,
        wanted: usize,
    ) -> Result<(Self, RangeMoment), Error> {
        let receipt = store.latest().await?;
        let latest = receipt.revision;
        let at = plan.at.unwrap_or(latest);
        if at > latest {
            return Err(Error::NotYet { asked: at, latest });
        }
        let mut count = 0;
        if let Some(keys) = &plan.keys {
            let mut scan = store.scan(scan_of(keys, &Bytes::new()).values(false).at(at));
            while let Some(pair) = scan.next().await? {
                count += u64::from(keys.contains(&pair.key));
            }
        }
        let pages = Self { store, plan, at, after: Bytes::new(), left: wanted };
        Ok((pages, RangeMoment { receipt, latest, count }))
    }

    /// Returns whether no page follows.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Returns the next page; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<RangeKeys>, Error> {
        let Some(range) = self.plan.keys.clone() else { return Ok(None) };
        if self.left == 0 || self.plan.none_pass || self.plan.part == Part::Count {
            return Ok(None);
        }
        let values = self.plan.part == Part::Values;
        let mut scan = self.store.scan(scan_of(&range, &self.after).values(values).at(self.at));
        let (mut keys, mut bytes) = (Vec::new(), 0);
        loop {
            let Some(pair) = scan.next().await? else {
                self.left = 0;
                return Ok(Some(RangeKeys { keys, more: false }));
            };
            if !range.contains(&pair.key) {
                if pair.key < *first_of(&range) {
                    continue;
                }
                self.left = 0;
                return Ok(Some(RangeKeys { keys, more: false }));
            }
            if keys.len() == self.left {
                self.left = 0;
                return Ok(Some(RangeKeys { keys, more: true }));
            }
            if keys.len() == PAGE_KEYS || bytes >= PAGE_BYTES {
                self.left -= keys.len();
                return Ok(Some(RangeKeys { keys, more: true }));
            }
            self.after = pair.key.clone();
            let version = self.store.read_at(&pair.key, self.at).await?;
            let within = |(least, most), revision| least <= revision && revision <= most;
            if within(self.plan.written, version.revision)
                && within(self.plan.created, version.created)
            {
                bytes += pair.key.len() + pair.value.as_ref().map_or(0, Bytes::len);
                keys.push(key_value(
                    pair.key,
                    pair.value.unwrap_or_default(),
                    (version.created, version.revision, version.version),
                    LeaseId(0),
                ));
            }
        }
    }
}

fn first_of(range: &KeyRange) -> &Bytes {
    match range {
        KeyRange::Key(first) | KeyRange::Prefix(first) | KeyRange::Range(first, _) => first,
    }
}

fn scan_of(range: &KeyRange, after: &Bytes) -> ScanOptions {
    match range {
        KeyRange::Key(key) => ScanOptions::prefix(key.clone()).after(after.clone()),
        _ => ScanOptions::default().after(after.clone()),
    }
}

/// Returns a key as etcd's messages have it. The numbers are those of a version: its creation, its
/// revision, and its number.
pub(crate) fn key_value(
    key: Bytes,
    value: Bytes,
    (created, revision, version): (Revision, Revision, u64),
    lease: LeaseId,
) -> KeyValue {
    KeyValue {
        key,
        value,
        create_revision: etcd_revision(created),
        mod_revision: etcd_revision(revision),
        version: i64::try_from(version).unwrap_or(i64::MAX),
        lease: lease.0 as i64,
    }
}
