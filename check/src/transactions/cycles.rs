//! Cycles in the graph of dependencies.
//!
//! Several passes search the graph, each with more kinds of edges: the cycles of the first pass are
//! the worst. Each pass searches the strongly connected components (Tarjan 1972) that had no cycle
//! before for a short one.

use std::collections::{HashMap, HashSet, VecDeque};

use super::graph::{Edge, Graph, ONWARD, ORDER, READ_WRITE, WRITE_READ, WRITE_WRITE};
use super::lists::Lists;
use crate::anomaly::Anomaly;

/// Cycles that are reported.
const CYCLES_MAX: usize = 16;
/// Searches in a component for a short cycle, and for one with a single read-write dependency.
const SEARCHES_MAX: usize = 16;
const SINGLES_MAX: usize = 512;

/// A cycle of transactions.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    pub(super) anomaly: Anomaly,
    /// The transactions, and how each depends on the one before: the last is followed by the first.
    pub(super) steps: Vec<Dependency>,
}

/// A transaction, and the dependency that leads from it to the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dependency {
    pub(super) transaction: usize,
    pub(super) kind: u8,
    pub(super) key: u32,
}

/// Finds cycles, the worst first: at most one in each component.
pub(super) fn find(graph: &Graph, lists: &Lists<'_>) -> Vec<Cycle> {
    let data = WRITE_WRITE | WRITE_READ | READ_WRITE;
    let levels = [
        WRITE_WRITE,
        WRITE_WRITE | WRITE_READ,
        data,
        WRITE_WRITE | ORDER,
        WRITE_WRITE | WRITE_READ | ORDER,
        data | ORDER,
    ];
    let (mut found, mut explained): (Vec<Cycle>, HashSet<usize>) = Default::default();
    for kinds in levels {
        for component in components(graph, kinds | ONWARD) {
            if found.len() >= CYCLES_MAX || component.iter().any(|it| explained.contains(it)) {
                continue;
            }
            let steps = shortest(graph, &component, kinds | ONWARD);
            if let Some(steps) = steps {
                found.push(Cycle { anomaly: anomaly(&steps, lists), steps });
            }
            explained.extend(component);
        }
    }
    found
}

fn anomaly(steps: &[Dependency], lists: &Lists<'_>) -> Anomaly {
    let has = |kinds: u8| steps.iter().any(|step| step.kind & kinds != 0);
    let strict = has(ORDER);
    let anti = steps.iter().filter(|step| step.kind == READ_WRITE).count();
    if let ([one, two], false) = (steps, has(ORDER | WRITE_READ))
        && one.key == two.key
    {
        let read = |step: &Dependency| lists.read_first.get(&(step.transaction, step.key as usize));
        if let (Some(one), Some(two)) = (read(one), read(two))
            && one == two
        {
            return Anomaly::LostUpdate;
        }
    }
    match (anti, has(WRITE_READ), strict) {
        (0, false, false) => Anomaly::G0,
        (0, true, false) => Anomaly::G1c,
        (1, _, false) => Anomaly::GSingle,
        (_, _, false) => Anomaly::G2,
        (0, false, true) => Anomaly::StrictG0,
        (0, true, true) => Anomaly::StrictG1c,
        (1, _, true) => Anomaly::StrictGSingle,
        (_, _, true) => Anomaly::StrictG2,
    }
}

/// Returns a short cycle in a component, with a single read-write dependency if there is one.
fn shortest(graph: &Graph, component: &[usize], kinds: u8) -> Option<Vec<Dependency>> {
    let members: HashSet<usize> = component.iter().copied().collect();
    let mut best: Option<Vec<Dependency>> = None;
    let mut offer = |steps: Vec<Dependency>| {
        if best.as_ref().is_none_or(|best| steps.len() < best.len()) {
            best = Some(steps);
        }
    };
    let is_anti =
        |edge: &&Edge| edge.kind & kinds & READ_WRITE != 0 && members.contains(&(edge.to as usize));
    let anti = component
        .iter()
        .flat_map(|node| graph.edges(*node).iter().filter(is_anti).map(move |edge| (*node, edge)));
    let mut has_single = false;
    for (node, edge) in anti.take(SINGLES_MAX) {
        let back = path(graph, &members, edge.to as usize, node, kinds & !READ_WRITE);
        if let Some(back) = back {
            has_single = true;
            let first = (node, READ_WRITE, edge.key);
            offer(steps(graph, std::iter::once(first).chain(back)));
        }
    }
    let transactions = component.iter().filter(|node| **node < graph.transactions);
    for &node in transactions.take(if has_single { 0 } else { SEARCHES_MAX }) {
        if let Some(round) = path(graph, &members, node, node, kinds) {
            offer(steps(graph, round.into_iter()));
        }
    }
    best
}

/// Leaves out the places on the way.
fn steps(graph: &Graph, path: impl Iterator<Item = (usize, u8, u32)>) -> Vec<Dependency> {
    let at_transaction = path.filter(|(node, ..)| *node < graph.transactions);
    at_transaction.map(|(transaction, kind, key)| Dependency { transaction, kind, key }).collect()
}

/// Returns the shortest path within a component: each node, with the edge that leaves it.
fn path(
    graph: &Graph,
    members: &HashSet<usize>,
    from: usize,
    to: usize,
    kinds: u8,
) -> Option<Vec<(usize, u8, u32)>> {
    let mut came: HashMap<usize, (usize, u8, u32)> = HashMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        for edge in graph.edges(node) {
            let next = edge.to as usize;
            if edge.kind & kinds == 0 || !members.contains(&next) || came.contains_key(&next) {
                continue;
            }
            came.insert(next, (node, edge.kind, edge.key));
            if next == to {
                let (mut path, mut at) = (Vec::new(), to);
                loop {
                    let step = came[&at];
                    path.push(step);
                    at = step.0;
                    if at == from {
                        path.reverse();
                        return Some(path);
                    }
                }
            }
            queue.push_back(next);
        }
    }
    None
}

/// Returns the strongly connected components that have several transactions.
fn components(graph: &Graph, kinds: u8) -> Vec<Vec<usize>> {
    const NEW: u32 = u32::MAX;
    let nodes = graph.nodes();
    let (mut index, mut low) = (vec![NEW; nodes], vec![0_u32; nodes]);
    let mut on_stack = vec![false; nodes];
    let (mut stack, mut found, mut next) = (Vec::new(), Vec::new(), 0_u32);
    // The nodes that are being visited, each with the next edge to look at.
    let mut visits: Vec<(usize, usize)> = Vec::new();
    for root in 0..graph.transactions {
        if index[root] != NEW {
            continue;
        }
        visits.push((root, 0));
        while let Some((node, at)) = visits.last_mut() {
            let node = *node;
            if *at == 0 {
                (index[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            let edges = graph.edges(node);
            let Some(edge) = edges.get(*at) else {
                visits.pop();
                if let Some((parent, _)) = visits.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == index[node] {
                    let mut component = Vec::new();
                    while let Some(member) = stack.pop() {
                        on_stack[member] = false;
                        component.push(member);
                        if member == node {
                            break;
                        }
                    }
                    let is_transaction = |node: &&usize| **node < graph.transactions;
                    if component.iter().filter(is_transaction).count() > 1 {
                        component.sort_unstable();
                        found.push(component);
                    }
                }
                continue;
            };
            *at += 1;
            let to = edge.to as usize;
            if edge.kind & kinds == 0 {
                continue;
            }
            if index[to] == NEW {
                visits.push((to, 0));
            } else if on_stack[to] {
                low[node] = low[node].min(index[to]);
            }
        }
    }
    found
}
