//! The plan of a range: what it asks of the network, and what has to be done here.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use dkv_api::{KeyRange, RangePart, Revision};

use crate::error::EtcdError;
use crate::etcd::own_revision;
use crate::proto::etcdserverpb::RangeRequest;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};

/// A checked request for a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangePlan {
    /// The keys; `None` if the range is empty by itself.
    pub(crate) keys: Option<KeyRange>,
    /// Most keys of the answer.
    pub(crate) limit: Option<usize>,
    /// The revision to read at; the latest if there is none.
    pub(crate) at: Option<Revision>,
    /// The order of the answer; that of the keys if there is none.
    pub(crate) order: Option<Order>,
    /// What of the keys is wanted.
    pub(crate) part: Part,
    /// Only keys that were last written at these revisions, both included.
    pub(crate) written: (Revision, Revision),
    /// Only keys that were created at these revisions, both included.
    pub(crate) created: (Revision, Revision),
    /// Whether no key passes the filters.
    pub(crate) none_pass: bool,
    /// Whether any replica may answer.
    pub(crate) serializable: bool,
}

/// The part of the keys that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Keys and values.
    Values,
    /// Keys.
    Keys,
    /// Their number.
    Count,
}

/// An order other than the ascending one of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// The number or bytes that are compared.
    pub(crate) target: SortTarget,
    /// Whether the greatest comes first.
    pub(crate) descending: bool,
}

impl Order {
    /// Returns whether values are compared.
    fn needs_values(self) -> bool {
        self.target == SortTarget::Value
    }
}

impl RangePlan {
    /// Checks a request.
    ///
    /// # Errors
    /// The key is missing, or the order is none that etcd knows.
    pub(crate) fn new(request: &RangeRequest) -> Result<Self, EtcdError> {
        if request.key.is_empty() {
            return Err(EtcdError::EMPTY_KEY);
        }
        let unknown = |_| EtcdError::INVALID_SORT_OPTION;
        let order = SortOrder::try_from(request.sort_order).map_err(unknown)?;
        let target = SortTarget::try_from(request.sort_target).map_err(unknown)?;
        let order = match (target, order) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
            (target, order) => Some(Order { target, descending: order == SortOrder::Descend }),
        };
        let part = match (request.count_only, request.keys_only) {
            (true, _) => Part::Count,
            (false, true) => Part::Keys,
            (false, false) => Part::Values,
        };
        let filters = [
            (request.min_mod_revision, request.max_mod_revision),
            (request.min_create_revision, request.max_create_revision),
        ];
        // A range whose revision is zero or less is of the latest one.
        let at = (request.revision > 0).then(|| own_revision(request.revision)).flatten();
        let [written, created] = filters.map(|(least, most)| bounds(least, most));
        Ok(Self {
            keys: key_range(&request.key, &request.range_end),
            limit: usize::try_from(request.limit).ok().filter(|limit| *limit > 0),
            at,
            order,
            part,
            written: written.unwrap_or_default(),
            created: created.unwrap_or_default(),
            none_pass: written.is_none() || created.is_none(),
            serializable: request.serializable,
        })
    }

    /// Returns what of the keys has to be read: an order by value needs values that the answer does
    /// not have.
    pub(crate) fn part_to_read(&self) -> RangePart {
        match self.part {
            _ if self.none_pass || self.keys.is_none() => RangePart::Count,
            Part::Count => RangePart::Count,
            Part::Keys if !self.order.is_some_and(Order::needs_values) => RangePart::Keys,
            Part::Keys | Part::Values => RangePart::Values,
        }
    }

    /// Returns whether it asks only for keys of some revisions.
    pub(crate) fn has_filters(&self) -> bool {
        self.none_pass || self.written != ANY || self.created != ANY
    }
}

/// All revisions.
const ANY: (Revision, Revision) = (Revision(0), Revision(u64::MAX));

/// Returns the bounds of a filter in the shard's revisions; `None` if nothing passes.
fn bounds(least: i64, most: i64) -> Option<(Revision, Revision)> {
    let least = match least {
        ..=1 => Revision(0),
        least => own_revision(least)?,
    };
    let most = match most {
        0 => Revision(u64::MAX),
        most => own_revision(most)?,
    };
    Some((least, most))
}

/// Returns the keys from `key` until `end` as etcd means them: one key if the end is empty, all
/// from the key on if it is a zero byte; `None` if that is none.
pub(crate) fn key_range(key: &Bytes, end: &Bytes) -> Option<KeyRange> {
    match &end[..] {
        [] => Some(KeyRange::Key(key.clone())),
        [0] => Some(KeyRange::Range(key.clone(), Bytes::new())),
        _ if key >= end => None,
        _ => Some(KeyRange::Range(key.clone(), end.clone())),
    }
}
