//! The naive model: a copy of all keys for each revision, and the list of its events.

use std::collections::{BTreeMap, BTreeSet};

use dkv_base::id::Revision;
use dkv_wire::codec;
use dkv_wire::message::{
    Attach, Compare, Keys, PutAttach, RangeOptions, RangePart, Relation, Test, Transaction,
    TransactionOperation, Unfit,
};

use super::{Part, Plan};

/// A key as it is at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) value: Vec<u8>,
    pub(super) lease: u64,
    pub(super) created: u64,
    pub(super) revision: u64,
    pub(super) version: u64,
}

pub(super) type All = BTreeMap<Vec<u8>, Kept>;
/// The key, what it became, what it was.
pub(super) type Event = (Vec<u8>, Option<Kept>, Option<Kept>);

pub(super) fn encoded(plan: &Plan) -> Vec<u8> {
    let Plan { compares, then, otherwise } = plan;
    let bodies = |parts: &[Part]| -> Vec<Vec<u8>> {
        let body = |part: &Part| match part {
            Part::Operation(_) => Vec::new(),
            Part::Nested(plan) => encoded(plan),
        };
        parts.iter().map(body).collect()
    };
    fn list<'a>(parts: &[Part], bodies: &'a [Vec<u8>]) -> Vec<TransactionOperation<'a>> {
        let wire = |(part, body): (&Part, &'a Vec<u8>)| match part {
            Part::Operation(operation) => *operation,
            Part::Nested(_) => TransactionOperation::Nested(body),
        };
        parts.iter().zip(bodies).map(wire).collect()
    }
    let (first, second) = (bodies(then), bodies(otherwise));
    let (then, otherwise) = (list(then, &first), list(otherwise, &second));
    codec::encode_vec(&Transaction { compares: compares.clone(), then, otherwise })
}

pub(super) fn related<T: Ord>(a: T, relation: Relation, b: T) -> bool {
    match relation {
        Relation::Equal => a == b,
        Relation::NotEqual => a != b,
        Relation::Less => a < b,
        Relation::Greater => a > b,
    }
}

pub(super) fn holds(all: &All, compare: &Compare<'_>) -> bool {
    let one = |kept: Option<&Kept>| {
        let of = |part: fn(&Kept) -> u64| kept.map_or(0, part);
        match compare.test {
            Test::Exists(exists) => kept.is_some() == exists,
            Test::Revision(relation, other) => related(of(|it| it.revision), relation, other.0),
            Test::Created(relation, other) => related(of(|it| it.created), relation, other.0),
            Test::Version(relation, other) => related(of(|it| it.version), relation, other),
            Test::Lease(relation, other) => related(of(|it| it.lease), relation, other),
            Test::Value(relation, other) => {
                kept.is_some_and(|kept| related(&kept.value[..], relation, other))
            }
        }
    };
    let mut found = all.iter().filter(|(key, _)| compare.keys.contains(key)).peekable();
    if found.peek().is_none() { one(None) } else { found.all(|(_, kept)| one(Some(kept))) }
}

/// What the model says of one operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Got(Option<Kept>),
    Put,
    Replaced(Option<Kept>),
    Removed(u64, Vec<(Vec<u8>, Kept)>, u64),
    Ranged(Vec<(Vec<u8>, Kept)>, bool, u64, u64),
    Nested(bool, usize),
}

#[derive(Default)]
pub(super) struct Model {
    /// The keys at each revision.
    pub(super) states: Vec<All>,
    /// The events of each revision.
    pub(super) events: Vec<Vec<Event>>,
    pub(super) leases: BTreeSet<u64>,
    pub(super) floor: u64,
}

/// The operations that are executed, in order, with their place in the outermost list.
pub(super) fn path<'p>(
    all: &All,
    parts: &'p [Part],
    top: Option<usize>,
    to: &mut Vec<(usize, Way<'p>)>,
) {
    for (index, part) in parts.iter().enumerate() {
        let at = top.unwrap_or(index);
        match part {
            Part::Operation(operation) => to.push((at, Way::Operation(operation))),
            Part::Nested(plan) => {
                let succeeded = plan.compares.iter().all(|compare| holds(all, compare));
                let place = to.len();
                to.push((at, Way::Nested(succeeded, 0)));
                let list = if succeeded { &plan.then } else { &plan.otherwise };
                path(all, list, Some(at), to);
                let count = to.len() - place - 1;
                to[place].1 = Way::Nested(succeeded, count);
            }
        }
    }
}

pub(super) enum Way<'p> {
    Operation(&'p TransactionOperation<'static>),
    Nested(bool, usize),
}

impl Model {
    pub(super) fn latest(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    pub(super) fn now(&self) -> &All {
        self.states.last().expect("it begins with an empty state")
    }

    /// Executes a transaction; returns whether its compares held, and its results.
    #[allow(clippy::type_complexity)]
    pub(super) fn transact(&mut self, plan: &Plan) -> (bool, Result<Vec<Said>, (u32, Unfit)>) {
        let before = self.now().clone();
        let succeeded = plan.compares.iter().all(|compare| holds(&before, compare));
        let mut steps = Vec::new();
        let list = if succeeded { &plan.then } else { &plan.otherwise };
        path(&before, list, None, &mut steps);
        for (at, step) in &steps {
            let Way::Operation(TransactionOperation::PutWith { key, value, attach, .. }) = step
            else {
                continue;
            };
            let keeps = value.is_none() || *attach == PutAttach::AsBefore;
            if keeps && !before.contains_key(*key) {
                return (succeeded, Err((*at as u32, Unfit::NoKey)));
            }
            if let PutAttach::To(Attach::Lease(lease)) = attach
                && !self.leases.contains(&lease.0)
            {
                return (succeeded, Err((*at as u32, Unfit::NoLease)));
            }
        }
        for (at, step) in &steps {
            let Way::Operation(TransactionOperation::Range { options, .. }) = step else {
                continue;
            };
            match options.at {
                Some(asked) if asked.0 > self.latest() => {
                    return (succeeded, Err((*at as u32, Unfit::NotYet)));
                }
                Some(asked) if asked.0 < self.floor => {
                    return (succeeded, Err((*at as u32, Unfit::Compacted)));
                }
                _ => {}
            }
        }
        let next = self.latest() + 1;
        let (mut all, mut events, mut said) = (before, Vec::new(), Vec::new());
        for (_, step) in &steps {
            said.push(self.execute(step, next, &mut all, &mut events));
        }
        self.add(all, events);
        (succeeded, Ok(said))
    }

    /// Adds a revision, if anything has changed.
    pub(super) fn add(&mut self, all: All, events: Vec<Event>) {
        if !events.is_empty() {
            self.states.push(all);
            self.events.push(events);
        }
    }

    fn execute(&self, step: &Way<'_>, next: u64, all: &mut All, events: &mut Vec<Event>) -> Said {
        let operation = match step {
            Way::Nested(succeeded, count) => return Said::Nested(*succeeded, *count),
            Way::Operation(operation) => *operation,
        };
        match operation {
            TransactionOperation::Get(key) => Said::Got(all.get(*key).cloned()),
            TransactionOperation::Put(key, value) => {
                put(all, events, next, key, value.to_vec(), 0);
                Said::Put
            }
            TransactionOperation::PutWith { key, value, attach, previous } => {
                let old = all.get(*key).cloned();
                let value = value.map(<[u8]>::to_vec);
                let value = value.unwrap_or_else(|| old.clone().expect("checked").value);
                let lease = match attach {
                    PutAttach::Nothing => 0,
                    PutAttach::To(Attach::Lease(lease)) => lease.0,
                    PutAttach::To(Attach::Ttl(_)) => unreachable!("not generated"),
                    PutAttach::AsBefore => old.as_ref().expect("checked").lease,
                };
                put(all, events, next, key, value, lease);
                Said::Replaced(old.filter(|_| *previous))
            }
            TransactionOperation::DeleteWith { keys, previous } => {
                let gone: Vec<_> = all.keys().filter(|key| keys.contains(key)).cloned().collect();
                let removed = delete(all, events, gone);
                let reached = if events.is_empty() { next - 1 } else { next };
                let (count, none) = (removed.len() as u64, Vec::new());
                Said::Removed(count, if *previous { removed } else { none }, reached)
            }
            TransactionOperation::Range { keys, options } => {
                let reached = if events.is_empty() { next - 1 } else { next };
                let at = options.at.map_or(&*all, |at| &self.states[at.0 as usize]);
                let (found, more, count) = ranged(at, keys, options);
                Said::Ranged(found, more, count, reached)
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn put(
    all: &mut All,
    events: &mut Vec<Event>,
    revision: u64,
    key: &[u8],
    value: Vec<u8>,
    lease: u64,
) {
    let old = all.get(key).cloned();
    let (created, version) =
        old.as_ref().map_or((revision, 1), |old| (old.created, old.version + 1));
    let kept = Kept { value, lease, created, revision, version };
    all.insert(key.to_vec(), kept.clone());
    events.push((key.to_vec(), Some(kept), old));
}

pub(super) fn delete(
    all: &mut All,
    events: &mut Vec<Event>,
    keys: Vec<Vec<u8>>,
) -> Vec<(Vec<u8>, Kept)> {
    let mut removed = Vec::new();
    for key in keys {
        let old = all.remove(&key).expect("it exists");
        events.push((key.clone(), None, Some(old.clone())));
        removed.push((key, old));
    }
    removed
}

pub(super) fn ranged(
    all: &All,
    keys: &Keys<'_>,
    options: &RangeOptions,
) -> (Vec<(Vec<u8>, Kept)>, bool, u64) {
    let inside: Vec<_> = all.iter().filter(|(key, _)| keys.contains(key)).collect();
    if options.part == RangePart::Count {
        return (Vec::new(), false, inside.len() as u64);
    }
    let passes = |(_, kept): &&(&Vec<u8>, &Kept)| {
        options.pass(Revision(kept.revision), Revision(kept.created))
    };
    let mut passing: Vec<_> =
        inside.iter().filter(passes).map(|(key, kept)| ((*key).clone(), (*kept).clone())).collect();
    let limit = if options.keys_max == 0 { usize::MAX } else { options.keys_max as usize };
    let more = passing.len() > limit;
    passing.truncate(limit);
    if options.part == RangePart::Keys {
        passing.iter_mut().for_each(|(_, kept)| kept.value.clear());
    }
    (passing, more, inside.len() as u64)
}
