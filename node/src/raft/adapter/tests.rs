use openraft::raft::AppendEntriesRequest;
use openraft::{EntryPayload, Membership};

use super::super::codec::log_id;
use super::super::{Entry, Vote};
use super::*;
use crate::raft::test_replica::{TestReplica, credentials, new_authority, puts};

/// A client that waits for a leader at the replica that becomes it is served there, and does not go
/// on waiting for another leader.
#[tokio::test]
async fn who_waits_for_a_leader_is_served_by_the_one_who_becomes_it() {
    let replica = TestReplica::start().await;
    let raft = &replica.raft;
    // Members this far apart have fifteen seconds to agree on a leader.
    replica.time_scale.set_round_trip(Duration::from_secs(5));
    let propose = propose(raft, &replica.time_scale, puts(1));
    let propose = tokio::time::timeout(Duration::from_secs(10), propose);
    let elect = async {
        // Elect only after the proposal has found no leader.
        tokio::task::yield_now().await;
        initialize(raft, &[replica.id].into()).await
    };
    let (proposed, elected) = tokio::join!(biased; propose, elect);
    elected.unwrap();
    let (term, _) = proposed.expect("in time").unwrap();
    assert_eq!(term, Term(1));
}

/// The time in an entry is that of its term.
#[tokio::test]
async fn an_entry_for_one_term_is_of_no_other() {
    let replica = TestReplica::start().await;
    let (raft, time_scale) = (&replica.raft, &replica.time_scale);
    initialize(raft, &[replica.id].into()).await.unwrap();
    let (_, first, _) = propose_at(raft, time_scale, None, puts(1)).await.unwrap();
    for term in [Term(0), Term(2)] {
        let proposed = propose_at(raft, time_scale, Some(term), puts(1)).await;
        assert!(matches!(proposed, Err(ProposeError::NotLeader(_))), "{term:?}: {proposed:?}");
    }
    let (term, index, _) = propose_at(raft, time_scale, Some(Term(1)), puts(1)).await.unwrap();
    assert_eq!(term, Term(1));
    assert_eq!(index, first + 1, "what was refused is not in the log");
}

/// A replica that was started anew must not stand for election before it knows what its predecessor
/// knew, although its log may name it as the only member, as a founder's does.
#[tokio::test]
async fn a_replica_that_may_not_stand_does_not_do_so_at_its_start_either() {
    let replica = TestReplica::start_with(&credentials(&new_authority()), false).await;
    let members = BTreeMap::from([(replica.id, EmptyNode {})]);
    let members = Membership::new(vec![BTreeSet::from([replica.id])], members).unwrap();
    let entry = Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(members) };
    // A leader of the group, which the replica may not know yet, fills its log.
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(1, NodeId::random()),
        prev_log_id: None,
        leader_commit: Some(entry.log_id),
        entries: vec![entry],
    };
    let answer = replica.raft.append_entries(request).await.unwrap();
    assert!(answer.is_success(), "{answer:?}");
    // By then openraft has checked its timer many times, and would have elected the replica.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut metrics = MetricsWatch::of(&replica.raft);
    assert_eq!(metrics.borrow().current_term, 1);
    replica.raft.runtime_config().elect(true);
    let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
    tokio::time::timeout(Duration::from_secs(20), leads).await.unwrap().unwrap();
}
