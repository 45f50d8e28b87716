//! The order of a range's answer, with as few keys in memory as its limit allows.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::kv::plan::Order;
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
    /// Whether keys were dropped.
    more: bool,
}

impl Sorted {
    /// Begins without keys. At most `limit` are in the end.
    pub(crate) fn new(order: Order, limit: Option<usize>) -> Self {
        Self { order, limit, kept: Vec::new(), more: false }
    }

    /// Adds keys. They have to come in the order of their bytes, so that those which the order does
    /// not tell apart stay in it.
    pub(crate) fn add(&mut self, keys: impl IntoIterator<Item = KeyValue>) {
        for key in keys {
            self.kept.push(key);
            if self.limit.is_some_and(|limit| self.kept.len() >= limit.saturating_add(SLACK)) {
                self.cut();
            }
        }
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
        }
    }
}

impl Order {
    /// Returns whether values are compared.
    pub(crate) fn needs_values(self) -> bool {
        self.target == SortTarget::Value
    }

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
