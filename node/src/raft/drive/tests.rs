use super::*;
use crate::raft::rig::{Replica, puts};

/// Whoever waits for a leader at the replica that becomes it is served, and does not wait on for another.
#[tokio::test]
async fn who_waits_for_a_leader_is_served_by_the_one_who_becomes_it() {
    let replica = Replica::start().await;
    let raft = &replica.raft;
    // Members this far apart have fifteen seconds to agree on a leader.
    replica.pace.set_round_trip(Duration::from_secs(5));
    let propose = propose(raft, &replica.pace, puts(1));
    let propose = tokio::time::timeout(Duration::from_secs(10), propose);
    let elect = async {
        // Only once the proposal has found nobody who leads.
        tokio::task::yield_now().await;
        initialize(raft, replica.id).await
    };
    let (proposed, elected) = tokio::join!(biased; propose, elect);
    elected.unwrap();
    let (term, _) = proposed.expect("in time").unwrap();
    assert_eq!(term, Term(1));
}
