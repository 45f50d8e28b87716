use dkv_base::id::{GroupId, NodeId, Revision, Term};
use dkv_wire::message::ReplicaStatus;
use uuid::Uuid;

use super::*;

/// Returns what node 1 says of a group of three voters, and how long it has not heard the others.
fn group(role: GroupRole, leader: Option<u128>, silent_ms: [Option<u64>; 2]) -> GroupStatus {
    let node = |number| NodeId(Uuid::from_u128(number));
    let replica = |(node, silent_ms)| ReplicaStatus { node, matched_index: 0, silent_ms };
    let others = [2, 3].map(node).into_iter().zip(silent_ms);
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
    let leads = |silent_ms| group(GroupRole::Leader, Some(1), silent_ms).has_leader();
    assert!(leads([Some(20), Some(30)]));
    assert!(leads([Some(90_000), Some(30)]));
    assert!(!leads([Some(90_000), Some(3000)]));
    assert!(!leads([None, None]));
}

#[test]
fn a_follower_says_what_it_knows() {
    let silence = [None, None];
    assert!(group(GroupRole::Follower, Some(2), silence).has_leader());
    assert!(!group(GroupRole::Follower, None, silence).has_leader());
    assert!(!group(GroupRole::Candidate, None, silence).has_leader());
}
