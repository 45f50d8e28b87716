//! Which watchers a changed key concerns.
//!
//! Watchers of one key are in a map. Ranges are in an interval tree: a treap in the order of their
//! first keys, of which each node knows the last end below it. So a change costs a look at those
//! whom it concerns, and at logarithmically many others, however many watch and however their
//! ranges overlap. Watchers of the same range share a node.
//!
//! Plain data.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use bytes::Bytes;
use dkv_api::KeyRange;

/// A watcher's number.
pub(super) type WatcherId = u64;

/// The watchers by what they watch.
#[derive(Default)]
pub(super) struct Index {
    keys: HashMap<Bytes, BTreeSet<WatcherId>>,
    ranges: Tree,
    /// Draws the priorities of nodes, which no caller can foresee.
    random: RandomState,
}

type Tree = Option<Box<Node>>;

/// A range and its watchers.
struct Node {
    range: (Bytes, End),
    /// The last end of the ranges of this node and those below it.
    last_end: End,
    /// Not less than those of the nodes below it, which keeps the tree balanced.
    priority: u64,
    watchers: BTreeSet<WatcherId>,
    left: Tree,
    right: Tree,
}

/// Where a range ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum End {
    /// Before a key.
    Before(Bytes),
    Never,
}

impl End {
    fn is_after(&self, key: &Bytes) -> bool {
        match self {
            Self::Before(end) => key < end,
            Self::Never => true,
        }
    }
}

impl Index {
    /// Adds a watcher.
    pub(super) fn insert(&mut self, keys: &KeyRange, watcher: WatcherId) {
        match keys {
            KeyRange::Key(key) => {
                self.keys.entry(key.clone()).or_default().insert(watcher);
            }
            keys => {
                let range = range(keys);
                let priority = self.random.hash_one(&range);
                insert(&mut self.ranges, range, priority, watcher);
            }
        }
    }

    /// Removes a watcher of these keys.
    pub(super) fn remove(&mut self, keys: &KeyRange, watcher: WatcherId) {
        match keys {
            KeyRange::Key(key) => {
                if let Some(watchers) = self.keys.get_mut(key) {
                    watchers.remove(&watcher);
                    if watchers.is_empty() {
                        self.keys.remove(key);
                    }
                }
            }
            keys => remove(&mut self.ranges, &range(keys), watcher),
        }
    }

    /// Adds the watchers of a key to a list, each once.
    pub(super) fn find(&self, key: &Bytes, found: &mut Vec<WatcherId>) {
        if let Some(watchers) = self.keys.get(key) {
            found.extend(watchers);
        }
        find(&self.ranges, key, found);
    }
}

fn range(keys: &KeyRange) -> (Bytes, End) {
    match keys {
        KeyRange::Key(key) => (key.clone(), End::Before([&key[..], &[0]].concat().into())),
        KeyRange::Range(from, to) if to.is_empty() => (from.clone(), End::Never),
        KeyRange::Range(from, to) => (from.clone(), End::Before(to.clone())),
        KeyRange::Prefix(prefix) => (prefix.clone(), after_prefix(prefix)),
    }
}

fn after_prefix(prefix: &[u8]) -> End {
    let Some(last) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return End::Never };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    End::Before(end.into())
}

impl Node {
    /// Finds the last end anew, once a node below this one has changed.
    fn update(&mut self) {
        let below = [&self.left, &self.right];
        let below = below.into_iter().flatten().map(|node| &node.last_end);
        self.last_end = below.fold(&self.range.1, |last, end| last.max(end)).clone();
    }
}

fn priority(tree: &Tree) -> u64 {
    tree.as_ref().map_or(0, |node| node.priority)
}

fn insert(tree: &mut Tree, range: (Bytes, End), priority_of_new: u64, watcher: WatcherId) {
    let Some(node) = tree else {
        *tree = Some(Box::new(Node {
            last_end: range.1.clone(),
            range,
            priority: priority_of_new,
            watchers: BTreeSet::from([watcher]),
            left: None,
            right: None,
        }));
        return;
    };
    let side = range.cmp(&node.range);
    match side {
        Ordering::Equal => {
            node.watchers.insert(watcher);
            return;
        }
        Ordering::Less => insert(&mut node.left, range, priority_of_new, watcher),
        Ordering::Greater => insert(&mut node.right, range, priority_of_new, watcher),
    }
    let below = if side == Ordering::Less { &node.left } else { &node.right };
    if priority(below) > node.priority {
        rotate(tree, side);
    } else {
        node.update();
    }
}

/// Puts the node of one side above its parent.
fn rotate(tree: &mut Tree, side: Ordering) {
    let Some(mut parent) = tree.take() else { return };
    let child = if side == Ordering::Less { parent.left.take() } else { parent.right.take() };
    let Some(mut child) = child else {
        *tree = Some(parent);
        return;
    };
    if side == Ordering::Less {
        parent.left = child.right.take();
        parent.update();
        child.right = Some(parent);
    } else {
        parent.right = child.left.take();
        parent.update();
        child.left = Some(parent);
    }
    child.update();
    *tree = Some(child);
}

fn remove(tree: &mut Tree, range: &(Bytes, End), watcher: WatcherId) {
    let Some(node) = tree else { return };
    match range.cmp(&node.range) {
        Ordering::Equal => {
            node.watchers.remove(&watcher);
            if node.watchers.is_empty() {
                *tree = joined(node.left.take(), node.right.take());
                return;
            }
        }
        Ordering::Less => remove(&mut node.left, range, watcher),
        Ordering::Greater => remove(&mut node.right, range, watcher),
    }
    node.update();
}

/// Joins two trees; all ranges of the first come before those of the second.
fn joined(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut left), Some(mut right)) => {
            if left.priority > right.priority {
                left.right = joined(left.right.take(), Some(right));
                left.update();
                Some(left)
            } else {
                right.left = joined(Some(left), right.left.take());
                right.update();
                Some(right)
            }
        }
    }
}

fn find(tree: &Tree, key: &Bytes, found: &mut Vec<WatcherId>) {
    let Some(node) = tree else { return };
    if !node.last_end.is_after(key) {
        return;
    }
    find(&node.left, key, found);
    if node.range.0 <= *key {
        if node.range.1.is_after(key) {
            found.extend(&node.watchers);
        }
        find(&node.right, key, found);
    }
}
