//! The smallest part of a history that cannot be explained.
//!
//! A whole hour's history with one contradiction in it helps no one. Three steps reduce it, none of
//! which can turn an explainable history into an unexplainable one:
//!
//! 1. End it early. Operations without an answer by then count as open.
//! 2. Begin it late, with a key of which nothing is known. Earlier writes that may still have been
//!    in progress count as open.
//! 3. Leave out single reads, and count single writes as open.
//!
//! The thresholds of the first two are found by bisection; the third is tried one by one.

use super::{Call, Verdict, search};
use crate::register::{Register, Step};

/// A window with more operations than this skips the third step.
const SINGLE_MAX: usize = 400;

/// The indices in `calls` of operations that contradict each other.
pub(crate) fn contradiction(calls: &[Call], first: Register) -> Vec<usize> {
    let mut ends: Vec<u64> = calls.iter().filter_map(|call| call.end_ns).collect();
    ends.sort_unstable();
    ends.dedup();
    let end = bisect(&ends, |end| fails(&ended(calls, end), first));
    let Some(calls) = end.map(|end| ended(calls, end)) else { return Vec::new() };

    let mut starts: Vec<u64> = calls.iter().flatten().map(|call| call.start_ns).collect();
    starts.sort_unstable_by(|one, other| other.cmp(one));
    starts.dedup();
    let begun_late = bisect(&starts, |start| fails(&begun(&calls, start), Register::ANY));
    let (mut calls, first) = match begun_late {
        Some(start) => (begun(&calls, start), Register::ANY),
        // The contradiction needs the very beginning.
        None => (calls, first),
    };

    let answered = |calls: &[Option<Call>]| -> Vec<usize> {
        let is_answered = |call: &Option<Call>| call.is_some_and(|call| call.end_ns.is_some());
        (0..calls.len()).filter(|place| is_answered(&calls[*place])).collect()
    };
    let window = answered(&calls);
    if window.len() <= SINGLE_MAX {
        for place in window {
            let before = calls[place].take();
            calls[place] = before.and_then(weakened);
            if !fails(&calls, first) {
                calls[place] = before;
            }
        }
    }
    answered(&calls)
}

fn fails(calls: &[Option<Call>], first: Register) -> bool {
    let calls: Vec<Call> = calls.iter().flatten().copied().collect();
    search(&calls, first) == Verdict::Unexplained
}

/// The first value for which `holds` is true. It must stay true for all later ones.
fn bisect(values: &[u64], holds: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (0, values.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(values[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    values.get(low).copied()
}

fn ended(calls: &[Call], end_ns: u64) -> Vec<Option<Call>> {
    let limited = |call: &Call| match call.end_ns {
        _ if call.start_ns > end_ns => None,
        Some(answered) if answered > end_ns => weakened(*call),
        _ => Some(*call),
    };
    calls.iter().map(limited).collect()
}

fn begun(calls: &[Option<Call>], start_ns: u64) -> Vec<Option<Call>> {
    let limited = |call: &Option<Call>| {
        let call = (*call)?;
        match call.end_ns {
            Some(answered) if answered < start_ns => None,
            Some(_) if call.start_ns < start_ns => weakened(call),
            _ => Some(call),
        }
    };
    calls.iter().map(limited).collect()
}

/// The operation without its answer.
fn weakened(call: Call) -> Option<Call> {
    let step = match call.step {
        Step::Wrote { value, condition, .. } | Step::Open { value, condition } => {
            Step::Open { value, condition }
        }
        Step::Found(..) | Step::Missing(_) | Step::MissingOn(..) | Step::Conflicted(..) => {
            return None;
        }
    };
    Some(Call { end_ns: None, step, ..call })
}
