//! Eventual writes, and the part of them that the last reads have to show.

use std::collections::{BTreeMap, BTreeSet};

use dkv_check::Outcome;

/// The eventual writes of a run.
#[derive(Default)]
pub(super) struct EventualWrites {
    keys: BTreeMap<String, Key>,
    /// The nodes that took an eventual write of a stamp: two clients may choose the same one.
    takers: BTreeMap<u64, BTreeSet<String>>,
    /// Nodes that were removed, with what was in their outboxes.
    removed: BTreeSet<String>,
}

/// A key that has eventual writes.
#[derive(Default)]
struct Key {
    /// Values of those that were accepted, by their stamps; no value of a delete. Any one of those
    /// with the same stamp may stay.
    accepted: BTreeMap<u64, BTreeSet<Option<String>>>,
    /// Values of those whose stamp is not known: strong ones, and eventual ones that may have been
    /// accepted.
    others: BTreeSet<Option<String>>,
}

impl EventualWrites {
    /// Notes that these nodes were removed: what they had taken and not delivered may be lost.
    pub(super) fn nodes_were_removed(&mut self, names: impl IntoIterator<Item = String>) {
        self.removed.extend(names);
    }

    /// Notes which node took a write.
    pub(super) fn taken(&mut self, stamp: u64, by: String) {
        self.takers.entry(stamp).or_default().insert(by);
    }

    /// Whether the accepted write of that stamp may have gone with the node that took it.
    pub(super) fn may_be_lost(&self, stamp: u64) -> bool {
        // A node without a name was removed before its name could be looked up.
        let is_lost = |name: &String| self.removed.contains(name) || !name.starts_with('n');
        let takers = self.takers.get(&stamp);
        !self.removed.is_empty() && takers.is_none_or(|takers| takers.iter().any(is_lost))
    }

    /// Notes a write, of any level, of a key that has eventual ones.
    pub(super) fn wrote(&mut self, key: &str, value: Option<String>, outcome: &Outcome) {
        let key = self.keys.entry(key.to_owned()).or_default();
        match outcome {
            Outcome::Accepted { stamp } => {
                key.accepted.entry(*stamp).or_default().insert(value);
            }
            // A delete of what is not there is the latest write as well.
            Outcome::Unknown | Outcome::Written { .. } | Outcome::Absent { .. } => {
                key.others.insert(value);
            }
            _ => {}
        }
    }

    /// Whether a strong read shows what a key may be in the end.
    pub(super) fn is_settled(&self, key: &str, read: &Outcome) -> bool {
        let shown = match read {
            Outcome::Value { value, .. } => Some(value.to_string()),
            Outcome::Absent { .. } => None,
            _ => return false,
        };
        let Some(key) = self.keys.get(key) else { return true };
        let mut latest = key.accepted.keys().rev();
        // Those after the last that is not lost may have been done all the same.
        let Some(kept) = latest.find(|stamp| !self.may_be_lost(**stamp)) else { return true };
        let mut later = key.accepted.range(kept..).map(|(_, values)| values);
        key.others.contains(&shown) || later.any(|values| values.contains(&shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Outcome {
        Outcome::Value { value: name.into(), revision: Some(1) }
    }

    #[test]
    fn of_equal_stamps_either_write_may_stay() {
        let mut writes = EventualWrites::default();
        writes.wrote("e0", Some("before".into()), &Outcome::Accepted { stamp: 6 });
        writes.wrote("e0", Some("put".into()), &Outcome::Accepted { stamp: 7 });
        writes.wrote("e0", None, &Outcome::Accepted { stamp: 7 });
        assert!(writes.is_settled("e0", &value("put")));
        assert!(writes.is_settled("e0", &Outcome::Absent { revision: None }));
        assert!(!writes.is_settled("e0", &value("before")));
    }

    #[test]
    fn what_a_removed_node_took_may_be_lost() {
        let mut writes = EventualWrites::default();
        writes.wrote("e0", Some("kept".into()), &Outcome::Accepted { stamp: 6 });
        writes.wrote("e0", Some("lost".into()), &Outcome::Accepted { stamp: 7 });
        writes.taken(6, "n1".into());
        writes.taken(7, "n2".into());
        assert!(!writes.is_settled("e0", &value("kept")));
        writes.nodes_were_removed(["n2".to_owned()]);
        assert!(writes.is_settled("e0", &value("kept")));
        assert!(writes.is_settled("e0", &value("lost")));
    }
}
