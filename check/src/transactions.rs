//! Checks whether transactions over lists are strictly serializable.
//!
//! The method is that of Elle (Kingsbury and Alvaro 2020). Every element is written once, so a list
//! that was read says in which order its elements were appended, and thereby how the transactions
//! depend on each other:
//!
//! | dependency | the second transaction |
//! |---|---|
//! | write-write | wrote the version of a key that follows the first one's |
//! | write-read | read a version that the first one wrote |
//! | read-write | wrote the version that follows the one that the first read |
//! | order | began after the first was answered, or has a later revision in the same shard |
//!
//! Transactions are strictly serializable if these make no cycle. The kinds of edges in a cycle
//! name the anomaly (Adya 1999): G0 has write-write only, G1c also write-read, G-single one
//! read-write, G2 several. A cycle that needs the order in time is a *strict* one. What a single
//! read shows is checked before: what nobody wrote, an aborted write (G1a), a version within a
//! transaction (G1b), an element twice, lists that do not grow from one another.
//!
//! An element of a transaction with an unknown outcome that was read shows that the transaction was
//! executed. If none of its elements was read, it has no dependencies, and may have had no effect.
//! An element of an acknowledged transaction that nobody read comes after all that were read, which
//! finds lost appends.
//!
//! A *snapshot* may show one of two transactions that ran while it was taken, and not the one that
//! ended before. So there are two graphs: in the first the snapshots have no part; in the second
//! the only order is that between a snapshot and the transactions before and after it.
//!
//! The time is linear in the history, apart from cycles that are found: edges in time go through a
//! chain of all answers, and edges to appends that nobody read through chains of these.

mod lists;
mod graph;
mod cycles;
mod explain;

use crate::anomaly::Anomaly;
use crate::finding::{Finding, Kind};
use crate::history::{Fate, Transaction};
use graph::Graph;
use lists::Lists;

/// Finds the anomalies of transactions.
pub fn check(transactions: &[Transaction]) -> Vec<Finding> {
    let (lists, mut findings) = Lists::read(transactions);
    let graph = Graph::new(transactions, &lists, &mut findings);
    let mut cycles = cycles::find(&graph, &lists);
    if cycles.is_empty() && transactions.iter().any(|transaction| transaction.snapshot) {
        cycles = cycles::find(&Graph::of_snapshots(transactions, &lists), &lists);
    }
    findings.extend(cycles.iter().map(|cycle| explain::cycle(transactions, &lists, cycle)));
    findings
}

/// A finding about single transactions.
fn finding(
    anomaly: Anomaly,
    text: String,
    transactions: &[Transaction],
    places: &[usize],
) -> Finding {
    let lines = places.iter().map(|place| explain::shown(transactions, *place)).collect();
    let text = format!("{}: {text}", anomaly.name());
    Finding::of_lines(Kind::Anomaly(anomaly), text, lines)
}

/// Whether a transaction is known to have been executed.
fn is_done(transaction: &Transaction, observed: bool) -> bool {
    match transaction.result {
        Fate::Ok => true,
        Fate::Failed => false,
        Fate::Unknown => observed,
    }
}

#[cfg(test)]
mod tests;
