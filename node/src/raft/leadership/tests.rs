use uuid::Uuid;

use super::*;

fn nodes(numbers: &[u128]) -> BTreeSet<NodeId> {
    numbers.iter().map(|number| NodeId(Uuid::from_u128(*number))).collect()
}

fn confirmed(voters: &[&[u128]], by: &[u128]) -> bool {
    let vote = Vote::new_committed(3, NodeId(Uuid::from_u128(1)));
    let voters = voters.iter().map(|voters| nodes(voters)).collect();
    Claim { vote, voters, committed: 7 }.is_confirmed_by(&nodes(by))
}

#[test]
fn a_majority_confirms_and_nobody_else_counts() {
    assert!(confirmed(&[&[1]], &[1]));
    for (voters, by, is_enough) in [
        (&[1, 2, 3][..], &[1][..], false),
        (&[1, 2, 3], &[1, 3], true),
        (&[1, 2, 3, 4], &[1, 4], false),
        (&[1, 2, 3, 4], &[1, 2, 4], true),
        // A leader that is to go has no vote of its own.
        (&[2, 3, 4], &[1, 2], false),
        (&[2, 3, 4], &[1, 2, 4], true),
        (&[1, 2, 3], &[1, 5, 6, 7], false),
    ] {
        assert_eq!(confirmed(&[voters], by), is_enough, "{by:?} of {voters:?}");
    }
}

#[test]
fn of_a_joint_configuration_both_halves_confirm() {
    let (old, new) = (&[1, 2, 3][..], &[3, 4, 5][..]);
    assert!(!confirmed(&[old, new], &[1, 2]));
    assert!(!confirmed(&[old, new], &[1, 4, 5]));
    assert!(confirmed(&[old, new], &[1, 3, 4]));
}
