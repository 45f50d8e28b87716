//! Pages of a range, all of one revision, from the network.

use bytes::Bytes;
use dkv_api::{
    Client, Error, KeyRange, LeaseId, Level, RangeOptions, RangePage, RangeRequest, Receipt,
    Revision, Version,
};

use crate::etcd::etcd_revision;
use crate::kv::plan::{Part, RangePlan};
use crate::proto::mvccpb::KeyValue;

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
    /// The revision of all pages, once the first is there.
    at: Option<Revision>,
    /// The first page.
    first: Option<RangePage>,
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
    /// Finds out the moment of a range, and reads its first page. No more than `wanted` keys will
    /// come.
    pub(crate) async fn open(
        store: Client,
        plan: RangePlan,
        wanted: usize,
    ) -> Result<(Self, RangeMoment), Error> {
        // A range without keys has a moment all the same.
        let nothing = || KeyRange::Range(Bytes::from_static(&[0]), Bytes::from_static(&[0, 0]));
        let keys = plan.keys.clone();
        let counts = keys.is_some();
        let after = Bytes::new();
        let mut pages = Self { store, plan, at: None, first: None, after, left: wanted };
        let (receipt, page) = pages.read(keys.unwrap_or_else(nothing), true).await?;
        pages.at = Some(page.at);
        let count = if counts { page.count } else { 0 };
        let moment = RangeMoment { receipt, latest: receipt.revision, count };
        pages.first = Some(page);
        Ok((pages, moment))
    }

    async fn read(&self, keys: KeyRange, first: bool) -> Result<(Receipt, RangePage), Error> {
        let Self { plan, left, .. } = self;
        let part = plan.part_to_read();
        // Without a limit it is the bytes that end a page.
        let keys_max = if *left == usize::MAX { 0 } else { *left as u64 };
        let (written, created) = (plan.written, plan.created);
        let options = RangeOptions { keys_max, part, at: self.at.or(plan.at), written, created };
        let level = match plan.serializable && first {
            true => Level::Session,
            false => Level::Strong,
        };
        let request = RangeRequest::new(keys).options(options).after(self.after.clone());
        self.store.range(request.counted(first).level(level)).await
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
        let page = match self.first.take() {
            Some(first) => first,
            None => self.read(range, false).await?.1,
        };
        let RangePage { keys, more, .. } = page;
        if let Some((last, _)) = keys.last() {
            self.after = last.clone();
        }
        self.left = if more { self.left.saturating_sub(keys.len()) } else { 0 };
        let keys = keys.into_iter().map(|(key, version)| key_at(key, version)).collect();
        Ok(Some(RangeKeys { keys, more }))
    }
}

/// Returns a key at a version as etcd's messages have it.
pub(crate) fn key_at(key: Bytes, version: Version) -> KeyValue {
    let Version { revision, created, version, value, lease, .. } = version;
    key_value(key, value.unwrap_or_default(), (created, revision, version), lease)
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
