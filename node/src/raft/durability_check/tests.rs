use std::sync::Arc;

use bytes::Bytes;
use dkv_wire::codec::encode;

use super::super::codec::log_id;
use super::super::test_replica::{SHARD, TestReplica};
use super::*;
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{Wal, WalOptions};

/// Returns a log that ends at entry 10, with a vote for `leader` in term 5.
async fn log(leader: NodeId) -> (TestReplica, DurabilityCheck, GroupLog) {
    let replica = TestReplica::start().await;
    let options = WalOptions { segment_bytes: 64 * 1024, ..WalOptions::default() };
    let wal = Wal::open(Arc::new(MemoryDisk::new()), options, Box::new(|_| ())).unwrap();
    let log = wal.group(SHARD);
    let vote = encode(&Vote::new_committed(5, leader));
    log.save_vote(vote, Box::new(|_| ())).unwrap();
    let entries = (0..=10).map(|index| (index, Bytes::from_static(b"entry"))).collect();
    log.append(entries, Box::new(|_| ())).unwrap();
    let durability = DurabilityCheck::new(log.clone(), replica.state_machine.clone(), 0, SECRET);
    (replica, durability, log)
}

const SECRET: &[u8] = b"the secret of this node";

/// Returns what a leader reports that received this acknowledgement.
fn acknowledged(durability: &DurabilityCheck, term: u64, index: u64) -> Acknowledged {
    let (term, last) = (Term(term), Some(log_id(term, index)));
    Acknowledged { term, index, seal: durability.seal(term, last).unwrap() }
}

/// Any peer with a node's certificate can send an acknowledgement, but only this node can have
/// sealed it.
#[tokio::test]
async fn a_promise_that_was_never_made_is_not_broken() {
    let leader = NodeId::random();
    let (replica, durability, log) = log(leader).await;
    let other =
        DurabilityCheck::new(log, replica.state_machine.clone(), 0, b"another node's secret");
    let of_other = acknowledged(&other, 5, 11).seal;
    let lies = [
        Acknowledged { term: Term(u64::MAX), index: u64::MAX, seal: Seal([0; 16]) },
        Acknowledged { term: Term(5), index: 11, seal: of_other },
        // Its own seal, but made for a lower index.
        Acknowledged { index: 11, ..acknowledged(&durability, 5, 10) },
        Acknowledged { term: Term(6), ..acknowledged(&durability, 5, 11) },
    ];
    for lie in lies {
        let why = durability.check(leader, Some(lie)).unwrap_err().to_string();
        assert!(why.starts_with("this node has never acknowledged"), "{why}");
    }
    assert!(tokio::time::timeout(Duration::ZERO, durability.broken()).await.is_err());
    // After a restart the node recognizes its own acknowledgement.
    let again =
        DurabilityCheck::new(durability.log().clone(), replica.state_machine.clone(), 0, SECRET);
    assert!(again.check(leader, Some(acknowledged(&durability, 5, 11))).is_err());
    assert!(again.broken().await.to_string().contains("under its own seal"));
}

#[tokio::test]
async fn less_than_was_acknowledged_is_a_broken_promise() {
    let leader = NodeId::random();
    let (_replica, durability, log) = log(leader).await;
    let check = |term, index| {
        durability.check(leader, Some(acknowledged(&durability, term, index))).is_ok()
    };
    assert!(durability.check(leader, None).is_ok());
    assert!(check(5, 10) && check(5, 3));
    // For the leader of an earlier term: entries after it may have been dropped.
    assert!(check(4, 11));
    // A node that does not lead that term.
    let other = Some(acknowledged(&durability, 5, 11));
    assert!(durability.check(NodeId::random(), other).is_ok());
    assert!(tokio::time::timeout(Duration::ZERO, durability.broken()).await.is_err());

    // Purged entries are in the state.
    log.purge(10, Bytes::from_static(b"ten"), Box::new(|_| ())).unwrap();
    assert!(check(5, 10));
    assert!(!check(5, 11));
    // The vote of term 6 is missing too: it was given before anything was acknowledged.
    assert!(!check(6, 11));
    let why = durability.broken().await.to_string();
    assert!(why.contains("ends at entry 10") && why.contains("acknowledged entry 11"), "{why}");
}

#[tokio::test]
async fn a_replica_in_the_place_of_another_has_a_say_once_it_knows_as_much() {
    let leader = NodeId::random();
    let (replica, _, log) = log(leader).await;
    let durability =
        |owed| DurabilityCheck::new(log.clone(), replica.state_machine.clone(), owed, SECRET);
    assert!(durability(0).are_known() && durability(10).are_known());
    let durability = durability(12);
    // Nor must it answer for what the earlier replica acknowledged.
    let word = Some(acknowledged(&durability, 5, 12));
    for index in 11..=12 {
        assert!(!durability.are_known());
        assert!(durability.check(leader, word).is_ok());
        log.append(vec![(index, Bytes::from_static(b"entry"))], Box::new(|_| ())).unwrap();
    }
    assert!(durability.are_known());
    assert!(durability.check(leader, Some(acknowledged(&durability, 5, 13))).is_err());
}

#[tokio::test]
async fn a_replica_that_begins_has_promised_nothing() {
    let (replica, _, _) = log(NodeId::random()).await;
    let wal = Wal::open(Arc::new(MemoryDisk::new()), WalOptions::default(), Box::new(|_| ()));
    let durability =
        DurabilityCheck::new(wal.unwrap().group(SHARD), replica.state_machine.clone(), 0, SECRET);
    let word = Some(acknowledged(&durability, 5, 11));
    assert!(durability.check(NodeId::random(), word).is_ok());
}

#[tokio::test]
async fn a_leader_is_followed_until_a_vote_for_another_is_on_its_way() {
    let leader = NodeId::random();
    let (_replica, durability, log) = log(leader).await;
    assert!(durability.follows(&Vote::new_committed(5, leader)));
    assert!(!durability.follows(&Vote::new(5, leader)), "one who stands does not lead");
    assert!(!durability.follows(&Vote::new_committed(4, leader)));
    assert!(!durability.follows(&Vote::new_committed(5, NodeId::random())));
    assert_eq!(durability.followed(leader), Some(Term(5)));
    assert_eq!(durability.followed(NodeId::random()), None);
    log.save_vote(encode(&Vote::new(6, NodeId::random())), Box::new(|_| ())).unwrap();
    assert!(!durability.follows(&Vote::new_committed(5, leader)));
    assert_eq!(durability.followed(leader), None);
}
