//! Linearizability, a key at a time (Herlihy and Wing, 1990: a history is linearizable if that of
//! each object is).
//!
//! The search is that of Wing and Gong (1993) with Lowe's memoisation (2017): take any operation
//! that began before the first outstanding answer, check whether it can be next, continue from
//! there, and backtrack if that leads nowhere. The same set of taken operations with the same
//! register is never tried twice.
//!
//! Operations with an unknown outcome have no outstanding answer: they may be taken at any time
//! after they began, or never. Trying each of them at each moment would take forever after an
//! outage with many of them, and is not needed: taking one matters only if the operation right
//! after it could not follow without it. All other cases are skipped, as the same operations are
//! also tried without it.
//!
//! Revisions only grow, so an operation that reports one cannot come after a later one. A path that
//! leaves such an operation behind is abandoned at once. Answered operations are tried first and in
//! the order of their revisions, which is nearly always the true order: mostly the first path
//! succeeds.

mod explain;

use std::collections::HashSet;

pub(crate) use explain::contradiction;

use crate::history::Current;
use crate::register::{Register, Step};

/// Sets of taken operations that are tried for one key before the search gives up.
pub const CONFIGURATIONS_MAX: usize = 2_000_000;

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some order explains all operations.
    Explained,
    /// No order explains all operations.
    Unexplained,
    /// The search gave up.
    Undecided,
}

/// One operation of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) start_ns: u64,
    /// `None` if it may take effect at any time after its start, or never.
    pub(crate) end_ns: Option<u64>,
    pub(crate) step: Step,
}

impl Call {
    /// The order in which operations are tried.
    fn rank(&self) -> (bool, u64, u64) {
        let revision = match self.step {
            Step::Found(_, revision) | Step::Wrote { revision, .. } => revision,
            Step::Missing(revision) | Step::MissingOn(_, revision) => revision,
            Step::Conflicted(..) | Step::Open { .. } => None,
        };
        let end_ns = self.end_ns.unwrap_or(u64::MAX);
        (self.end_ns.is_none(), revision.unwrap_or(u64::MAX), end_ns)
    }

    /// The latest floor of a register at which it can take effect.
    fn limit(&self) -> u64 {
        match self.step {
            Step::Wrote { revision: Some(revision), .. } => revision.saturating_sub(1),
            Step::Found(_, Some(revision))
            | Step::Missing(Some(revision))
            | Step::MissingOn(_, Some(revision))
            | Step::Conflicted(_, Some(Current::Revision(revision))) => revision,
            _ => u64::MAX,
        }
    }
}

/// Searches for an order of the operations of one key, whose register is `first` before them.
pub(crate) fn search(calls: &[Call], first: Register) -> Verdict {
    let (mut answered, mut open): (Vec<Call>, Vec<Call>) =
        calls.iter().copied().partition(|call| call.end_ns.is_some());
    answered.sort_by_key(|call| call.start_ns);
    open.sort_by_key(|call| call.start_ns);
    Search { taken: Taken::new(&answered, open.len()), answered, open }.run(first)
}

struct Search {
    /// The answered operations, by their start.
    answered: Vec<Call>,
    /// The open operations, by their start.
    open: Vec<Call>,
    taken: Taken,
}

/// An operation, by its index in one of the two lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Answered(usize),
    Open(usize),
}

/// An operation that was taken, and those that may be taken after it.
struct Frame {
    name: Option<Name>,
    register: Register,
    /// The register before it, if it is an open operation.
    before: Option<Register>,
    candidates: Vec<Name>,
    next: usize,
}

impl Search {
    fn run(mut self, first: Register) -> Verdict {
        let mut seen: HashSet<(Box<[u64]>, Register)> = HashSet::new();
        let mut stack = vec![self.frame(None, first, None)];
        while let Some(frame) = stack.last_mut() {
            if self.taken.all_answered() {
                return Verdict::Explained;
            }
            let Some(name) = frame.candidates.get(frame.next).copied() else {
                if let Some(name) = frame.name {
                    self.taken.give_back(name);
                }
                stack.pop();
                continue;
            };
            frame.next += 1;
            let (register, before) = (frame.register, frame.before);
            let step = self.call(name).step;
            let Some(after) = register.after(step) else { continue };
            let needless = before.and_then(|before| before.after(step));
            if needless.is_some_and(|without| without.allows_all_of(after)) {
                continue;
            }
            let before = match name {
                Name::Open(_) if after == register => continue,
                Name::Open(_) => Some(register),
                Name::Answered(_) => None,
            };
            self.taken.take(name);
            if after.floor() > self.taken.limit() {
                self.taken.give_back(name);
                continue;
            }
            if !seen.insert((self.taken.key(), after)) {
                self.taken.give_back(name);
                continue;
            }
            if seen.len() > CONFIGURATIONS_MAX {
                return Verdict::Undecided;
            }
            let next = self.frame(Some(name), after, before);
            stack.push(next);
        }
        Verdict::Unexplained
    }

    fn call(&self, name: Name) -> &Call {
        match name {
            Name::Answered(place) => &self.answered[place],
            Name::Open(place) => &self.open[place],
        }
    }

    fn frame(&self, name: Option<Name>, register: Register, before: Option<Register>) -> Frame {
        Frame { name, register, before, candidates: self.candidates(), next: 0 }
    }

    /// All operations that began before the first outstanding answer. Those that began at the same
    /// moment count as earlier.
    fn candidates(&self) -> Vec<Name> {
        let mut until = u64::MAX;
        let mut candidates = Vec::new();
        for (place, call) in self.answered.iter().enumerate().skip(self.taken.frontier) {
            if call.start_ns > until {
                break;
            }
            if !self.taken.has_answered(place) {
                until = until.min(call.end_ns.unwrap_or(u64::MAX));
                candidates.push(Name::Answered(place));
            }
        }
        // The bound may have fallen after a candidate was added.
        candidates.retain(|name| self.call(*name).start_ns <= until);
        let begun = self.open.iter().take_while(|call| call.start_ns <= until).enumerate();
        candidates.extend(
            begun.map(|(place, _)| Name::Open(place)).filter(|name| !self.taken.has_open(*name)),
        );
        candidates.sort_by_key(|name| self.call(*name).rank());
        candidates
    }
}

/// The set of operations that were taken.
struct Taken {
    answered: Vec<u64>,
    open: Vec<u64>,
    /// All answered operations before this index are taken.
    frontier: usize,
    count: usize,
    total: usize,
    /// The answered operations as (limit, index), ascending.
    by_limit: Vec<(u64, usize)>,
    /// The index of each answered operation in `by_limit`.
    rank: Vec<usize>,
    /// All operations before this index of `by_limit` are taken.
    lowest: usize,
}

impl Taken {
    fn new(answered: &[Call], open: usize) -> Self {
        let words = |bits: usize| vec![0; bits.div_ceil(64)];
        let limits = answered.iter().enumerate().map(|(place, call)| (call.limit(), place));
        let mut by_limit: Vec<(u64, usize)> = limits.collect();
        by_limit.sort_unstable();
        let mut rank = vec![0; answered.len()];
        by_limit.iter().enumerate().for_each(|(order, (_, place))| rank[*place] = order);
        Self {
            answered: words(answered.len()),
            open: words(open),
            frontier: 0,
            count: 0,
            total: answered.len(),
            by_limit,
            rank,
            lowest: 0,
        }
    }

    /// The lowest limit of an answered operation that is not taken.
    fn limit(&self) -> u64 {
        self.by_limit.get(self.lowest).map_or(u64::MAX, |(limit, _)| *limit)
    }

    fn all_answered(&self) -> bool {
        self.count == self.total
    }

    fn has_answered(&self, place: usize) -> bool {
        self.answered[place / 64] >> (place % 64) & 1 == 1
    }

    fn has_open(&self, name: Name) -> bool {
        matches!(name, Name::Open(place) if self.open[place / 64] >> (place % 64) & 1 == 1)
    }

    fn take(&mut self, name: Name) {
        match name {
            Name::Answered(place) => {
                self.answered[place / 64] |= 1 << (place % 64);
                self.count += 1;
                while self.frontier < self.total && self.has_answered(self.frontier) {
                    self.frontier += 1;
                }
                while self.by_limit.get(self.lowest).is_some_and(|(_, at)| self.has_answered(*at)) {
                    self.lowest += 1;
                }
            }
            Name::Open(place) => self.open[place / 64] |= 1 << (place % 64),
        }
    }

    fn give_back(&mut self, name: Name) {
        match name {
            Name::Answered(place) => {
                self.answered[place / 64] &= !(1 << (place % 64));
                self.count -= 1;
                self.frontier = self.frontier.min(place);
                self.lowest = self.lowest.min(self.rank[place]);
            }
            Name::Open(place) => self.open[place / 64] &= !(1 << (place % 64)),
        }
    }

    /// The set in compact form: everything before the frontier is taken, and little after it.
    fn key(&self) -> Box<[u64]> {
        let first = self.frontier / 64;
        let last = self.answered.iter().rposition(|word| *word != 0).map_or(first, |last| last + 1);
        let after = &self.answered[first..last.max(first)];
        [&[self.frontier as u64], after, &self.open[..]].concat().into()
    }
}

#[cfg(test)]
mod tests;
