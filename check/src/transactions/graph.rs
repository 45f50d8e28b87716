//! The graph of dependencies.
//!
//! Its first nodes are the transactions. The others are places on the way from many transactions to
//! many, so that the number of edges is linear: a chain of answers in order of time, and for each
//! key chains through the appends that nobody saw.

use std::collections::BTreeMap;

use super::lists::{Lists, Segment};
use super::{finding, is_done};
use crate::anomaly::Anomaly;
use crate::finding::Finding;
use crate::history::Transaction;

/// Kinds of edges, as bits.
pub(super) const WRITE_WRITE: u8 = 1;
pub(super) const WRITE_READ: u8 = 2;
pub(super) const READ_WRITE: u8 = 4;
pub(super) const REAL_TIME: u8 = 8;
pub(super) const REVISION: u8 = 16;
/// From a place on the way: the edge that led there says why.
pub(super) const ONWARD: u8 = 32;
/// The order in time or of revisions.
pub(super) const ORDER: u8 = REAL_TIME | REVISION;

/// No key.
pub(super) const NO_KEY: u32 = u32::MAX;

/// An edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) to: u32,
    pub(super) kind: u8,
    /// The key, or [`NO_KEY`].
    pub(super) key: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Graph {
    /// Number of transactions, which are the first nodes.
    pub(super) transactions: usize,
    /// The edges of each node begin here, and end where those of the next begin.
    first: Vec<u32>,
    edges: Vec<Edge>,
}

impl Graph {
    /// Builds the graph without snapshots. Adds two writes of one revision to the findings.
    pub(super) fn new(
        transactions: &[Transaction],
        lists: &Lists<'_>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut builder = Builder::new(transactions);
        builder.skipped = transactions.iter().map(|transaction| transaction.snapshot).collect();
        builder.lists(lists);
        builder.real_time(transactions, lists, |_| true, |_| true);
        builder.revisions(transactions, lists, findings);
        builder.build(transactions.len())
    }

    /// Builds the graph with snapshots, and with no other order than that before and after them.
    pub(super) fn of_snapshots(transactions: &[Transaction], lists: &Lists<'_>) -> Self {
        let mut builder = Builder::new(transactions);
        builder.lists(lists);
        let is_snapshot = |place: usize| transactions[place].snapshot;
        builder.real_time(transactions, lists, |_| true, is_snapshot);
        builder.real_time(transactions, lists, is_snapshot, |_| true);
        builder.build(transactions.len())
    }

    /// Returns the number of nodes.
    pub(super) fn nodes(&self) -> usize {
        self.first.len() - 1
    }

    /// Returns the edges from a node.
    pub(super) fn edges(&self, node: usize) -> &[Edge] {
        &self.edges[self.first[node] as usize..self.first[node + 1] as usize]
    }
}

#[derive(Default)]
struct Builder {
    nodes: usize,
    edges: Vec<(u32, Edge)>,
    /// The transactions that have no edges; the others may be missing at the end.
    skipped: Vec<bool>,
}

impl Builder {
    fn new(transactions: &[Transaction]) -> Self {
        Self { nodes: transactions.len(), ..Self::default() }
    }

    fn lists(&mut self, lists: &Lists<'_>) {
        for (number, key) in lists.keys.iter().enumerate() {
            for (place, segment) in key.segments.iter().enumerate() {
                self.segment(segment, number as u32);
                if place == 0 {
                    self.unseen(segment, &key.unseen, number as u32);
                }
            }
        }
    }

    fn edge(&mut self, from: usize, to: usize, kind: u8, key: u32) {
        let is_skipped = |node: usize| self.skipped.get(node) == Some(&true);
        if from != to && !is_skipped(from) && !is_skipped(to) {
            self.edges.push((from as u32, Edge { to: to as u32, kind, key }));
        }
    }

    fn node(&mut self) -> usize {
        self.nodes += 1;
        self.nodes - 1
    }

    fn segment(&mut self, segment: &Segment, key: u32) {
        let writers = &segment.writers;
        for two in writers.windows(2) {
            self.edge(two[0], two[1], WRITE_WRITE, key);
        }
        for &(reader, seen) in &segment.reads {
            if let Some(writer) = seen.checked_sub(1).and_then(|last| writers.get(last)) {
                self.edge(*writer, reader, WRITE_READ, key);
            }
            match writers.get(seen) {
                Some(next) => self.edge(reader, *next, READ_WRITE, key),
                None => {
                    for &by in &segment.replaced_by {
                        self.edge(reader, by, READ_WRITE, key);
                    }
                }
            }
        }
        if let Some(&last) = writers.last() {
            for &by in &segment.replaced_by {
                self.edge(last, by, WRITE_WRITE, key);
            }
        }
    }

    /// Leads from everybody who saw the whole list to each transaction whose append nobody saw,
    /// except to itself.
    fn unseen(&mut self, segment: &Segment, unseen: &[usize], key: u32) {
        let length = segment.writers.len();
        let readers = segment.reads.iter().filter(|(_, seen)| *seen == length);
        let readers = readers.map(|(reader, _)| (*reader, READ_WRITE));
        let writer = segment.writers.last().map(|writer| (*writer, WRITE_WRITE));
        if unseen.is_empty() {
            return;
        }
        // The place `up[i]` leads to `unseen[i]` and all after it, `down[i]` to it and all before.
        let up: Vec<usize> = unseen.iter().map(|_| self.node()).collect();
        let down: Vec<usize> = unseen.iter().map(|_| self.node()).collect();
        for (at, &to) in unseen.iter().enumerate() {
            self.edge(up[at], to, ONWARD, key);
            self.edge(down[at], to, ONWARD, key);
            if at > 0 {
                self.edge(up[at - 1], up[at], ONWARD, key);
                self.edge(down[at], down[at - 1], ONWARD, key);
            }
        }
        for (from, kind) in readers.chain(writer) {
            match unseen.binary_search(&from) {
                Err(_) => self.edge(from, up[0], kind, key),
                Ok(at) => {
                    if let Some(&after) = up.get(at + 1) {
                        self.edge(from, after, kind, key);
                    }
                    if at > 0 {
                        self.edge(from, down[at - 1], kind, key);
                    }
                }
            }
        }
    }

    /// Leads from the answers of some transactions to those of others that began later.
    fn real_time(
        &mut self,
        transactions: &[Transaction],
        lists: &Lists<'_>,
        from: impl Fn(usize) -> bool,
        to: impl Fn(usize) -> bool,
    ) {
        let done = |place: &usize| is_done(&transactions[*place], lists.observed[*place]);
        let all: Vec<usize> = (0..transactions.len()).filter(done).collect();
        let ended = |place: &usize| {
            let transaction = &transactions[*place];
            let is_known = transaction.result != crate::history::Fate::Unknown;
            transaction.end_ns.filter(|_| is_known).map(|end_ns| (end_ns, *place))
        };
        let mut answers: Vec<(u64, usize)> =
            all.iter().filter(|place| from(**place)).filter_map(ended).collect();
        answers.sort_unstable();
        let starts = all.iter().filter(|place| to(**place));
        let mut starts: Vec<(u64, usize)> =
            starts.map(|place| (transactions[*place].start_ns, *place)).collect();
        starts.sort_unstable();
        let (mut answers, mut last) = (answers.into_iter().peekable(), None);
        for (start_ns, begun) in starts {
            while let Some((_, answered)) = answers.next_if(|(end_ns, _)| *end_ns < start_ns) {
                let place = self.node();
                self.edge(answered, place, REAL_TIME, NO_KEY);
                if let Some(before) = last.replace(place) {
                    self.edge(before, place, ONWARD, NO_KEY);
                }
            }
            if let Some(last) = last {
                self.edge(last, begun, ONWARD, NO_KEY);
            }
        }
    }

    fn revisions(
        &mut self,
        transactions: &[Transaction],
        lists: &Lists<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let mut shards: BTreeMap<u32, Vec<(u64, usize)>> = BTreeMap::new();
        for (place, transaction) in transactions.iter().enumerate() {
            if is_done(transaction, lists.observed[place]) {
                for (shard, revision) in &transaction.revisions {
                    shards.entry(*shard).or_default().push((*revision, place));
                }
            }
        }
        for (shard, mut revisions) in shards {
            revisions.sort_unstable();
            for two in revisions.windows(2) {
                if two[0].0 == two[1].0 {
                    let text = format!(
                        "revision {} of shard {shard} was given to two transactions",
                        two[0].0
                    );
                    let places = [two[0].1, two[1].1];
                    findings.push(finding(Anomaly::StrictG0, text, transactions, &places));
                } else {
                    self.edge(two[0].1, two[1].1, REVISION, NO_KEY);
                }
            }
        }
    }

    fn build(mut self, transactions: usize) -> Graph {
        self.edges.sort_by_key(|(from, _)| *from);
        let mut first = vec![0_u32; self.nodes + 1];
        for (from, _) in &self.edges {
            first[*from as usize + 1] += 1;
        }
        for node in 1..first.len() {
            first[node] += first[node - 1];
        }
        let edges = self.edges.into_iter().map(|(_, edge)| edge).collect();
        Graph { transactions, first, edges }
    }
}
