use uuid::Uuid;

use super::*;

/// Whether a replica may go that the nodes 1 to `count` shall have, if those in `confirmed` say so.
fn may_go(count: u128, confirmed: &[u128]) -> bool {
    let node = |number| NodeId(Uuid::from_u128(number));
    let holders: Vec<NodeId> = (1..=count).map(node).collect();
    is_majority(&confirmed.iter().copied().map(node).collect(), &holders)
}

#[test]
fn only_a_majority_of_the_holders_has_a_replica_deleted() {
    for (count, confirmed, may) in [
        (1, &[1][..], true),
        (2, &[1], false),
        (2, &[1, 2], true),
        (3, &[1], false),
        (3, &[1, 3], true),
        (4, &[1, 2], false),
        (4, &[1, 2, 4], true),
        (5, &[1, 2], false),
        (5, &[3, 4, 5], true),
    ] {
        assert_eq!(may_go(count, confirmed), may, "{count} {confirmed:?}");
    }
}

#[test]
fn a_liar_has_no_replica_deleted() {
    // It claims to be the primary, and nobody confirms it.
    for count in 2..=7 {
        assert!(!may_go(count, &[1]), "{count}");
    }
    // A node that shall not have the shard counts for nothing, not even as the primary.
    for (count, confirmed) in [(1, &[9][..]), (2, &[9, 1]), (3, &[9, 1]), (3, &[9, 8, 1])] {
        assert!(!may_go(count, confirmed), "{count} {confirmed:?}");
    }
    // Nor does anybody's word delete a shard that the directory gives to nobody.
    assert!(!may_go(0, &[1]));
}
