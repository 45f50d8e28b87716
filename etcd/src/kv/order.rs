//! The order of a range's answer, with as few keys in memory as its limit allows.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::kv::plan::Order;
use crate::limits::{KEY_OVERHEAD_BYTES, SORT_SLACK_BYTES};
use crate::proto::etcdserverpb::range_request::SortTarget;
use crate::proto::mvccpb::KeyValue;

/// Keys beyond the limit that are held before the last ones are dropped.
const SLACK: usize = 1024;

/// The first keys of an order, of all that were added.
#[derive(Debug)]
pub(crate) struct Sorted {
    order: Order,
    limit: Option<usize>,
    kept: Vec<KeyValue>,
    /// Memory that the kept keys take, in bytes.
    bytes: usize,
    /// The same after the last ones were dropped.
    bytes_cut: usize,
    /// Whether keys were dropped.
    more: bool,
}

impl Sorted {
    /// Begins without keys. At most `limit` are in the end.
    pub(crate) fn new(order: Order, limit: Option<usize>) -> Self {
        Self { order, limit, kept: Vec::new(), bytes: 0, bytes_cut: 0, more: false }
    }

    /// Adds keys. They have to come in the order of their bytes, so that those which the order does
    /// not tell apart stay in it.
    pub(crate) fn add(&mut self, keys: impl IntoIterator<Item = KeyValue>) {
        for key in keys {
            self.bytes += bytes_of(&key);
            self.kept.push(key);
            let is_over = |limit: usize| {
                self.kept.len() >= limit.saturating_add(SLACK)
                    || self.kept.len() > limit && self.bytes >= self.bytes_cut + SORT_SLACK_BYTES
            };
            if self.limit.is_some_and(is_over) {
                self.cut();
            }
        }
    }

    /// Returns the memory that the keys take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the keys, and whether there were more.
    pub(crate) fn finish(mut self) -> (Vec<KeyValue>, bool) {
        self.cut();
        (self.kept, self.more)
    }

    fn cut(&mut self) {
        let order = self.order;
        self.kept.sort_by(|one, other| order.compare(one, other));
        if let Some(limit) = self.limit
            && self.kept.len() > limit
        {
            self.kept.truncate(limit);
            self.more = true;
            self.bytes = self.kept.iter().map(bytes_of).sum();
            self.bytes_cut = self.bytes;
        }
    }
}

/// Returns the memory that a key of an answer takes, in bytes.
pub(crate) fn bytes_of(key: &KeyValue) -> usize {
    key.key.len() + key.value.len() + KEY_OVERHEAD_BYTES
}

impl Order {
    /// Compares two keys of an answer.
    fn compare(self, one: &KeyValue, other: &KeyValue) -> Ordering {
        let ascending = match self.target {
            SortTarget::Key => one.key.cmp(&other.key),
            SortTarget::Version => one.version.cmp(&other.version),
            SortTarget::Create => one.create_revision.cmp(&other.create_revision),
            SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
            SortTarget::Value => one.value.cmp(&other.value),
        };
        if self.descending { ascending.reverse() } else { ascending }
    }
}
