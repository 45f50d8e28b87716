use super::*;

fn wanted(target: CompareTarget, result: CompareResult, number: i64) -> pb::Compare {
    pb::Compare {
        key: "k".into(),
        target: target.into(),
        result: result.into(),
        target_union: Some(match target {
            CompareTarget::Create => TargetUnion::CreateRevision(number),
            CompareTarget::Mod => TargetUnion::ModRevision(number),
            CompareTarget::Version => TargetUnion::Version(number),
            _ => TargetUnion::Lease(number),
        }),
        ..pb::Compare::default()
    }
}

/// Judges a key with this number in the shard, where zero stands for a key that does not exist.
fn says(compare: Option<&Compare>, number: u64) -> bool {
    let Some(compare) = compare else { return true };
    let (relation, other) = match compare.test() {
        Test::Revision(relation, other) | Test::Created(relation, other) => (*relation, other.0),
        Test::Version(Relation::Less, 0) => return false,
        Test::Version(relation, other) | Test::Lease(relation, other) => (*relation, *other),
        other => panic!("{other:?}"),
    };
    match relation {
        Relation::Equal => number == other,
        Relation::NotEqual => number != other,
        Relation::Less => number < other,
        Relation::Greater => number > other,
    }
}

#[test]
fn every_number_is_compared_as_etcd_compares_it() {
    let results = [
        CompareResult::Equal,
        CompareResult::NotEqual,
        CompareResult::Less,
        CompareResult::Greater,
    ];
    let holds = |own: i64, result, other: i64| match result {
        CompareResult::Equal => own == other,
        CompareResult::NotEqual => own != other,
        CompareResult::Less => own < other,
        CompareResult::Greater => own > other,
    };
    for result in results {
        for other in -2..6_i64 {
            for own in 0..6_u64 {
                for target in [CompareTarget::Create, CompareTarget::Mod] {
                    let compare = compare(&wanted(target, result, other));
                    let theirs = if own == 0 { 0 } else { own as i64 + 1 };
                    let expected = holds(theirs, result, other);
                    assert_eq!(says(compare.as_ref(), own), expected, "{own} {result:?} {other}");
                }
                for target in [CompareTarget::Version, CompareTarget::Lease] {
                    let compare = compare(&wanted(target, result, other));
                    let expected = holds(own as i64, result, other);
                    assert_eq!(says(compare.as_ref(), own), expected, "{own} {result:?} {other}");
                }
            }
            // A range without keys.
            let mut empty = wanted(CompareTarget::Mod, result, other);
            empty.range_end = "a".into();
            assert_eq!(says(compare(&empty).as_ref(), 7), holds(0, result, other));
        }
    }
}
