//! The compares of a transaction in the terms of the network.
//!
//! etcd's revisions are those of the shard plus one, and a key that does not exist has zero for
//! every number in both. So a compare with a number is not always one with that number less one.

#[cfg(test)]
mod tests;

use dkv_api::{Compare, KeyRange, Relation, Revision, Test};

use crate::kv::plan::key_range;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::{self as pb};

/// A compare, or what it always says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Test(Test),
    Always,
    Never,
}

/// Returns a compare; `None` if it always holds.
pub(super) fn compare(wanted: &pb::Compare) -> Option<Compare> {
    let keys = key_range(&wanted.key, &wanted.range_end);
    let verdict = verdict(wanted);
    let Some(keys) = keys else {
        // A range without keys is compared as a key that does not exist.
        return if holds_for_nothing(&verdict) { None } else { Some(never(wanted)) };
    };
    match verdict {
        Verdict::Always => None,
        Verdict::Never => Some(never(wanted)),
        Verdict::Test(test) => Some(Compare::of(keys, test)),
    }
}

/// Returns a compare that never holds.
fn never(wanted: &pb::Compare) -> Compare {
    Compare::of(KeyRange::Key(wanted.key.clone()), Test::Version(Relation::Less, 0))
}

fn verdict(wanted: &pb::Compare) -> Verdict {
    let Ok(target) = CompareTarget::try_from(wanted.target) else { return Verdict::Always };
    let relation = CompareResult::try_from(wanted.result).ok().map(|result| match result {
        CompareResult::Equal => Relation::Equal,
        CompareResult::NotEqual => Relation::NotEqual,
        CompareResult::Less => Relation::Less,
        CompareResult::Greater => Relation::Greater,
    });
    let Some(relation) = relation else {
        // No relation that etcd knows: it holds, except for a value that does not exist.
        return match target {
            CompareTarget::Value => Verdict::Test(Test::Exists(true)),
            _ => Verdict::Always,
        };
    };
    // A part of another kind than the target's counts as zero or empty.
    match (target, &wanted.target_union) {
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => {
            Verdict::Test(Test::Value(relation, value.clone()))
        }
        (CompareTarget::Value, _) => Verdict::Test(Test::Value(relation, Vec::new().into())),
        (CompareTarget::Version, union) => {
            let number = match union {
                Some(TargetUnion::Version(number)) => *number,
                _ => 0,
            };
            number_test(relation, number, Test::Version)
        }
        (CompareTarget::Lease, union) => {
            let number = match union {
                Some(TargetUnion::Lease(number)) => *number,
                _ => 0,
            };
            number_test(relation, number, Test::Lease)
        }
        (CompareTarget::Create, union) => {
            let number = match union {
                Some(TargetUnion::CreateRevision(number)) => *number,
                _ => 0,
            };
            revision_test(relation, number, Test::Created)
        }
        (CompareTarget::Mod, union) => {
            let number = match union {
                Some(TargetUnion::ModRevision(number)) => *number,
                _ => 0,
            };
            revision_test(relation, number, Test::Revision)
        }
    }
}

/// Tests a number that is the same in both.
fn number_test(relation: Relation, number: i64, test: fn(Relation, u64) -> Test) -> Verdict {
    match u64::try_from(number) {
        Ok(number) => Verdict::Test(test(relation, number)),
        Err(_) => with_negative(relation),
    }
}

/// No number of a key is negative.
fn with_negative(relation: Relation) -> Verdict {
    match relation {
        Relation::Equal | Relation::Less => Verdict::Never,
        Relation::NotEqual | Relation::Greater => Verdict::Always,
    }
}

/// Tests a revision. That of a key that exists is at least 2 for etcd and 1 for the shard.
fn revision_test(relation: Relation, number: i64, test: fn(Relation, Revision) -> Test) -> Verdict {
    let of = |relation, number| Verdict::Test(test(relation, Revision(number)));
    match (number, relation) {
        (..0, relation) => with_negative(relation),
        (0, relation) => of(relation, 0),
        (1, Relation::Equal) => Verdict::Never,
        (1, Relation::NotEqual) => Verdict::Always,
        (1, Relation::Less) => of(Relation::Less, 1),
        (1, Relation::Greater) => of(Relation::Greater, 0),
        (number, relation) => of(relation, number as u64 - 1),
    }
}

/// Returns what a verdict is on a key that does not exist.
fn holds_for_nothing(verdict: &Verdict) -> bool {
    let with_zero = |relation, number: u64| match relation {
        Relation::Equal => number == 0,
        Relation::NotEqual => number != 0,
        Relation::Less => number > 0,
        Relation::Greater => false,
    };
    match verdict {
        Verdict::Always => true,
        Verdict::Never | Verdict::Test(Test::Value(..)) => false,
        Verdict::Test(Test::Exists(exists)) => !exists,
        Verdict::Test(
            Test::Revision(relation, Revision(number)) | Test::Created(relation, Revision(number)),
        ) => with_zero(*relation, *number),
        Verdict::Test(Test::Version(relation, number) | Test::Lease(relation, number)) => {
            with_zero(*relation, *number)
        }
    }
}
