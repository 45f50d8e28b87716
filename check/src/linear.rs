//! Linearizability, a key at a time (Herlihy and Wing, 1990: a history is linearizable if that of
//! each object is).
//!
//! The search is that of Wing and Gong (1993) with Lowe's memo (2017): take any operation that
//! began before the first answer that is still outstanding, see whether it can be next, go on from
//! there, and come back if that leads nowhere. A set of taken operations together with the register
//! that they leave is never tried twice.
//!
//! Operations with an unknown outcome have no answer that could be outstanding: they may be taken
//! at any time after they began, or never. To try each of them at each moment would take forever
//! after an outage with many of them, and is not needed: one that is taken matters only if what
//! comes right after it could not have come without it. Whatever else is skipped, for the same
//! operations are also tried without it.
//!
//! Revisions only grow, so an operation that tells one cannot come after a later one. A path on
//! which one of these was left behind is left at once. And answered operations are tried first and
//! by revision, since that is nearly always how it was: mostly the first path is the right one.

mod explain;

use std::collections::HashSet;

pub(crate) use explain::contradiction;

use crate::history::Current;
use crate::register::{Register, Step};

/// Sets that are tried for one key before the search is given up.
pub const CONFIGURATIONS_MAX: usize = 2_000_000;

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Explained,
    /// There is none.
    Unexplained,
    /// The search was given up.
    Undecided,
}

/// One operation of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) start_ns: u64,
    /// None: it may happen at any time after its start, or never.
    pub(crate) end_ns: Option<u64>,
    pub(crate) step: Step,
}

impl Call {
    /// What to try first.
    fn rank(&self) -> (bool, u64, u64) {
        let revision = match self.step {
            Step::Found(_, revision) | Step::Wrote { revision, .. } => revision,
            Step::Missing(revision) | Step::MissingOn(_, revision) => revision,
            Step::Conflicted(..) | Step::Open { .. } => None,
        };
        let end_ns = self.end_ns.unwrap_or(u64::MAX);
        (self.end_ns.is_none(), revision.unwrap_or(u64::MAX), end_ns)
    }

    /// The latest floor of a register at which it can happen.
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

/// Searches for an order of the operations of one key, which is `first` before them.
pub(crate) fn search(calls: &[Call], first: Register) -> Verdict {
    let (mut answered, mut open): (Vec<Call>, Vec<Call>) =
        calls.iter().copied().partition(|call| call.end_ns.is_some());
    answered.sort_by_key(|call| call.start_ns);
    open.sort_by_key(|call| call.start_ns);
    Search { taken: Taken::new(&answered, open.len()), answered, open }.run(first)
}

struct Search {
    /// Those with an answer, by their beginning.
    answered: Vec<Call>,
    /// Those without, by their beginning.
    open: Vec<Call>,
    taken: Taken,
}

/// An operation by its place in one of the two lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Answered(usize),
    Open(usize),
}

/// One operation that was taken, and what may be taken after it.
struct Frame {
    name: Option<Name>,
    register: Register,
    /// Before it, if it was open.
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

    /// All that began before the first outstanding answer came. What began at the same moment is
    /// taken to have begun before.
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
        // An answer that came before another began was found only after that one was noted.
        candidates.retain(|name| self.call(*name).start_ns <= until);
        let begun = self.open.iter().take_while(|call| call.start_ns <= until).enumerate();
        candidates.extend(
            begun.map(|(place, _)| Name::Open(place)).filter(|name| !self.taken.has_open(*name)),
        );
        candidates.sort_by_key(|name| self.call(*name).rank());
        candidates
    }
}

/// Which operations were taken.
struct Taken {
    answered: Vec<u64>,
    open: Vec<u64>,
    /// Answered operations before this one are all taken.
    frontier: usize,
    count: usize,
    total: usize,
    /// Answered operations by their limits, with these.
    by_limit: Vec<(u64, usize)>,
    /// Where each answered operation is in that list.
    rank: Vec<usize>,
    /// Before this place in that list all are taken.
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

    /// The set in few words: all before the frontier is taken, and little after it.
    fn key(&self) -> Box<[u64]> {
        let first = self.frontier / 64;
        let last = self.answered.iter().rposition(|word| *word != 0).map_or(first, |last| last + 1);
        let after = &self.answered[first..last.max(first)];
        [&[self.frontier as u64], after, &self.open[..]].concat().into()
    }
}

#[cfg(test)]
mod tests;
