use dkv_base::id::{GroupId, NodeId, Revision, Term};
use dkv_wire::message::ReplicaStatus;
use uuid::Uuid;

use super::*;

/// Returns what node 1 says of a group of three voters, and whether it hears the others.
fn group(role: GroupRole, leader: Option<u128>, heard: [bool; 2]) -> GroupStatus {
    let node = |number| NodeId(Uuid::from_u128(number));
    let replica =
        |(node, is_heard)| ReplicaStatus { node, matched_index: 0, silent_ms: Some(20), is_heard };
    let others = [2, 3].map(node).into_iter().zip(heard);
    GroupStatus {
        group: GroupId(1),
        role,
        term: Term(1),
        leader: leader.map(node),
        voters: [1, 2, 3].map(node).to_vec(),
        halves: Vec::new(),
        learners: Vec::new(),
        last_index: 0,
        applied_index: 0,
        checkpoint_index: 0,
        purged_index: 0,
        keys: 0,
        bytes: 0,
        revision: Revision(0),
        state_hash: 0,
        replicas: others.map(replica).collect(),
    }
}

#[test]
fn a_leader_that_hears_no_majority_leads_nobody() {
    let leads = |heard| group(GroupRole::Leader, Some(1), heard).has_leader();
    assert!(leads([true, true]) && leads([false, true]));
    assert!(!leads([false, false]));
}

#[test]
fn a_leader_of_a_changing_group_needs_a_majority_of_each_half() {
    let node = |number| NodeId(Uuid::from_u128(number));
    let mut changing = group(GroupRole::Leader, Some(1), [true, false]);
    changing.halves = vec![vec![node(1), node(2), node(3)], vec![node(1), node(3)]];
    assert!(!changing.has_leader());
    changing.halves[1] = vec![node(1), node(2)];
    assert!(changing.has_leader());
    assert_eq!(changing.spare(|_| true), Some(0));
}

#[test]
fn a_follower_says_what_it_knows() {
    let silence = [false, false];
    assert!(group(GroupRole::Follower, Some(2), silence).has_leader());
    assert!(!group(GroupRole::Follower, None, silence).has_leader());
    assert!(!group(GroupRole::Candidate, None, silence).has_leader());
}
