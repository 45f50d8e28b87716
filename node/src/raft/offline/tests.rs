use std::sync::Arc;

use dkv_base::id::GroupId;

use super::*;
use crate::common::clock::NodeClock;
use dkv_state::{Engine, EngineOptions, MemoryStore};
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{Wal, WalOptions};

const SHARD: GroupId = GroupId(1);

/// A stopped node with a replica of one shard.
struct Stopped {
    disk: MemoryDisk,
    store: MemoryStore,
    wal: Wal,
}

impl Stopped {
    /// Makes a replica whose first entry names these voters, followed by empty entries of the term
    /// 1 and of each of these terms.
    async fn new(voters: &[NodeId], terms: &[u64], committed: u64) -> Self {
        let (disk, store) = (MemoryDisk::new(), MemoryStore::default());
        let stopped = Self { wal: open(&disk), disk, store };
        let log = stopped.log();
        let configuration =
            Membership::new_with_defaults(vec![voters.iter().copied().collect()], []);
        // As openraft begins a group.
        let mut entries =
            vec![Entry { log_id: log_id(0, 0), payload: EntryPayload::Membership(configuration) }];
        entries.push(Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank });
        entries.extend(terms.iter().zip(2..).map(|(term, index)| Entry {
            log_id: log_id(*term, index),
            payload: EntryPayload::Blank,
        }));
        let entries = entries.iter().map(|entry| (entry.log_id.index, encode_entry(entry)));
        let entries = entries.collect();
        durably(|done| log.append(entries, done)).await.unwrap();
        log.save_committed(encode(&Some(log_id(1, committed)))).unwrap();
        let vote = encode(&Vote::new(terms.last().copied().unwrap_or(1), voters[0]));
        durably(|done| log.save_vote(vote, done)).await.unwrap();
        stopped
    }

    fn log(&self) -> GroupLog {
        self.wal.group(SHARD)
    }

    /// Closes the log and opens it again.
    fn reopen(&mut self) {
        self.wal.close();
        self.wal = open(&self.disk);
    }

    fn read(&self) -> OnDisk {
        self.read_without(None)
    }

    fn read_without(&self, unfinished: Option<Unfinished>) -> OnDisk {
        let engine = Engine::in_memory(&self.store, EngineOptions::default()).unwrap();
        let state = StateMachine::load(engine.group(SHARD).unwrap(), NodeClock::default()).unwrap();
        read(&self.log(), &state, unfinished).unwrap()
    }
}

fn open(disk: &MemoryDisk) -> Wal {
    let options = WalOptions { segment_bytes: 1024 * 1024, ..WalOptions::default() };
    Wal::open(Arc::new(disk.clone()), options, Box::new(|_| ())).unwrap()
}

fn ids() -> [NodeId; 3] {
    [NodeId::random(), NodeId::random(), NodeId::random()]
}

#[tokio::test]
async fn a_rewritten_log_has_one_voter_and_all_that_it_had() {
    let nodes = ids();
    let mut replica = Stopped::new(&nodes, &[1, 1, 4], 2).await;
    let before = replica.read();
    assert_eq!((before.term, before.last, before.committed), (4, (4, 4), 2));
    assert_eq!(before.voters, [BTreeSet::from(nodes)]);
    let end = rewrite(&replica.log(), before.last, nodes[2], 99, Vec::new()).await.unwrap();
    replica.reopen();
    let after = replica.read();
    assert_eq!((after.term, after.last, after.committed), (99, (99, end), end));
    assert_eq!(end, 5);
    assert_eq!(after.voters, [BTreeSet::from([nodes[2]])]);
    assert_eq!(after.members, BTreeSet::from([nodes[2]]));
    assert_eq!(replica.log().read(1..=4).unwrap().len(), 4);
}

#[tokio::test]
async fn a_replica_that_is_behind_or_differs_gets_the_same_log() {
    let nodes = ids();
    for theirs in [&[1, 1][..], &[], &[1, 1, 2, 2, 2, 2, 2, 2], &[1, 1, 4, 4]] {
        let keeper = Stopped::new(&nodes, &[1, 1, 4, 4], 4).await;
        let mut other = Stopped::new(&nodes, theirs, 1).await;
        let (kept, disk) = (keeper.read(), other.read());
        let possible = alignment(&keeper.log(), &other.log(), &disk).unwrap();
        assert!(matches!(possible, Alignment::From(_)), "{theirs:?}");
        let end = rewrite(&keeper.log(), kept.last, nodes[0], 99, Vec::new()).await.unwrap();
        let (from, to) = (keeper.log(), other.log());
        align(&from, &to, &disk, nodes[0], 99).await.unwrap();
        other.reopen();
        assert_eq!(other.log().read(..).unwrap(), keeper.log().read(..).unwrap(), "{theirs:?}");
        let aligned = other.read();
        assert_eq!((aligned.last, aligned.committed), ((99, end), end));
        assert_eq!(aligned.voters, [BTreeSet::from([nodes[0]])], "{theirs:?}");
    }
}

#[tokio::test]
async fn a_replica_that_lacks_purged_entries_or_has_committed_others_stays_as_it_is() {
    let nodes = ids();
    let keeper = Stopped::new(&nodes, &[1, 1, 4, 4], 4).await;
    let differs = Stopped::new(&nodes, &[1, 1, 2, 2], 4).await;
    let both = alignment(&keeper.log(), &differs.log(), &differs.read()).unwrap();
    assert_eq!(both, Alignment::Diverged);
    let behind = Stopped::new(&nodes, &[1], 1).await;
    let purged = encode(&log_id(1, 3));
    durably(|done| keeper.log().purge(3, purged, done)).await.unwrap();
    let before = behind.log().read(..).unwrap();
    let (from, to, disk) = (keeper.log(), behind.log(), behind.read());
    assert_eq!(alignment(&from, &to, &disk).unwrap(), Alignment::Behind);
    align(&from, &to, &disk, nodes[0], 99).await.unwrap();
    assert_eq!(behind.log().read(..).unwrap(), before);
}

#[tokio::test]
async fn an_unfinished_recovery_is_undone_without_a_trace_but_its_vote() {
    let nodes = ids();
    for theirs in [&[1, 1, 4, 4][..], &[1, 1], &[1, 1, 2, 2, 2, 2, 2, 2]] {
        let mut keeper = Stopped::new(&nodes, &[1, 1, 4, 4], 4).await;
        let mut other = Stopped::new(&nodes, theirs, 1).await;
        let (kept, disk) = (keeper.read(), other.read());
        let unfinished = Unfinished { first: kept.last.1 + 1, term: 99, committed: 4 };
        // Before anything was written there is nothing to undo.
        assert_eq!(keeper.read_without(Some(unfinished)), kept);
        undo(&keeper.log(), unfinished).await.unwrap();
        let commands = vec![Bytes::from_static(b"not a command, and never applied")];
        rewrite(&keeper.log(), kept.last, nodes[0], 99, commands).await.unwrap();
        align(&keeper.log(), &other.log(), &disk, nodes[0], 99).await.unwrap();
        for (replica, committed) in [(&mut keeper, 4), (&mut other, 1)] {
            let unfinished = Unfinished { committed, ..unfinished };
            let expected = OnDisk { term: 99, committed, ..kept.clone() };
            replica.reopen();
            assert_eq!(replica.read_without(Some(unfinished)), expected, "{theirs:?}");
            undo(&replica.log(), unfinished).await.unwrap();
            replica.reopen();
            assert_eq!(replica.read(), expected, "{theirs:?}");
        }
    }
}

#[tokio::test]
async fn a_group_that_begins_anew_has_one_voter_and_a_late_term() {
    let nodes = ids();
    let mut replica = Stopped::new(&nodes, &[1, 1, 4, 4], 4).await;
    forget(&replica.log()).await.unwrap();
    begin_anew(&replica.log(), nodes[1], 99).await.unwrap();
    replica.reopen();
    let begun = replica.read();
    assert_eq!((begun.term, begun.last, begun.committed), (99, (99, 0), 0));
    assert_eq!(begun.voters, [BTreeSet::from([nodes[1]])]);
}
