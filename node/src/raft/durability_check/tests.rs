use std::sync::Arc;

use bytes::Bytes;
use dkv_wire::codec::encode;

use super::super::codec::log_id;
use super::super::test_replica::{Replica, SHARD};
use super::*;
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{Wal, WalOptions};

/// A log that ends at entry 10, with a vote for `leader` in term 5.
async fn log(leader: NodeId) -> (Replica, Promises, GroupLog) {
    let replica = Replica::start().await;
    let options = WalOptions { segment_bytes: 64 * 1024, ..WalOptions::default() };
    let wal = Wal::open(Arc::new(MemoryDisk::new()), options, Box::new(|_| ())).unwrap();
    let log = wal.group(SHARD);
    let vote = encode(&Vote::new_committed(5, leader));
    log.save_vote(vote, Box::new(|_| ())).unwrap();
    let entries = (0..=10).map(|index| (index, Bytes::from_static(b"entry"))).collect();
    log.append(entries, Box::new(|_| ())).unwrap();
    let promises = Promises::new(log.clone(), replica.machine.clone(), 0, SECRET);
    (replica, promises, log)
}

const SECRET: &[u8] = b"the secret of this node";

/// What a leader tells that was given it.
fn acknowledged(promises: &Promises, term: u64, index: u64) -> Acknowledged {
    let (term, last) = (Term(term), Some(log_id(term, index)));
    Acknowledged { term, index, seal: promises.seal(term, last).unwrap() }
}

/// Whoever has a node's certificate can say it; only this node can have said it.
#[tokio::test]
async fn a_promise_that_was_never_made_is_not_broken() {
    let leader = NodeId::random();
    let (replica, promises, log) = log(leader).await;
    let other = Promises::new(log, replica.machine.clone(), 0, b"another node's secret");
    let of_other = acknowledged(&other, 5, 11).seal;
    let lies = [
        Acknowledged { term: Term(u64::MAX), index: u64::MAX, seal: Seal([0; 16]) },
        Acknowledged { term: Term(5), index: 11, seal: of_other },
        // Its own seal, on less.
        Acknowledged { index: 11, ..acknowledged(&promises, 5, 10) },
        Acknowledged { term: Term(6), ..acknowledged(&promises, 5, 11) },
    ];
    for lie in lies {
        let why = promises.check(leader, Some(lie)).unwrap_err();
        assert!(why.starts_with("this node has never acknowledged"), "{why}");
    }
    assert!(tokio::time::timeout(Duration::ZERO, promises.broken()).await.is_err());
    // After a restart it knows its word again.
    let again = Promises::new(promises.log().clone(), replica.machine.clone(), 0, SECRET);
    assert!(again.check(leader, Some(acknowledged(&promises, 5, 11))).is_err());
    assert!(again.broken().await.contains("under its own seal"));
}

#[tokio::test]
async fn less_than_was_acknowledged_is_a_broken_promise() {
    let leader = NodeId::random();
    let (_replica, promises, log) = log(leader).await;
    let check =
        |term, index| promises.check(leader, Some(acknowledged(&promises, term, index))).is_ok();
    assert!(promises.check(leader, None).is_ok());
    assert!(check(5, 10) && check(5, 3));
    // The leader of an earlier term: what came after it may have been dropped.
    assert!(check(4, 11));
    // Somebody who does not lead that term.
    let other = Some(acknowledged(&promises, 5, 11));
    assert!(promises.check(NodeId::random(), other).is_ok());
    assert!(tokio::time::timeout(Duration::ZERO, promises.broken()).await.is_err());

    // What was purged is in the state.
    log.purge(10, Bytes::from_static(b"ten"), Box::new(|_| ())).unwrap();
    assert!(check(5, 10));
    assert!(!check(5, 11));
    // The vote is gone too: it was given before anything was acknowledged.
    assert!(!check(6, 11));
    let why = promises.broken().await;
    assert!(why.contains("ends at entry 10") && why.contains("acknowledged entry 11"), "{why}");
}

#[tokio::test]
async fn a_replica_in_the_place_of_another_has_a_say_once_it_knows_as_much() {
    let leader = NodeId::random();
    let (replica, _, log) = log(leader).await;
    let promises = |owed| Promises::new(log.clone(), replica.machine.clone(), owed, SECRET);
    assert!(promises(0).are_known() && promises(10).are_known());
    let promises = promises(12);
    // Nor is it held to what the other one acknowledged.
    let word = Some(acknowledged(&promises, 5, 12));
    for index in 11..=12 {
        assert!(!promises.are_known());
        assert!(promises.check(leader, word).is_ok());
        log.append(vec![(index, Bytes::from_static(b"entry"))], Box::new(|_| ())).unwrap();
    }
    assert!(promises.are_known());
    assert!(promises.check(leader, Some(acknowledged(&promises, 5, 13))).is_err());
}

#[tokio::test]
async fn a_replica_that_begins_has_promised_nothing() {
    let (replica, _, _) = log(NodeId::random()).await;
    let wal = Wal::open(Arc::new(MemoryDisk::new()), WalOptions::default(), Box::new(|_| ()));
    let promises = Promises::new(wal.unwrap().group(SHARD), replica.machine.clone(), 0, SECRET);
    let word = Some(acknowledged(&promises, 5, 11));
    assert!(promises.check(NodeId::random(), word).is_ok());
}

#[tokio::test]
async fn a_leader_is_followed_until_a_vote_for_another_is_on_its_way() {
    let leader = NodeId::random();
    let (_replica, promises, log) = log(leader).await;
    assert!(promises.follows(&Vote::new_committed(5, leader)));
    assert!(!promises.follows(&Vote::new(5, leader)), "one who stands does not lead");
    assert!(!promises.follows(&Vote::new_committed(4, leader)));
    assert!(!promises.follows(&Vote::new_committed(5, NodeId::random())));
    assert_eq!(promises.followed(leader), Some(Term(5)));
    assert_eq!(promises.followed(NodeId::random()), None);
    log.save_vote(encode(&Vote::new(6, NodeId::random())), Box::new(|_| ())).unwrap();
    assert!(!promises.follows(&Vote::new_committed(5, leader)));
    assert_eq!(promises.followed(leader), None);
}
