//! Log entries, as the state machine applies them. Whatever they are, two replicas reach the same
//! state, a refused entry changes nothing, and the state survives a checkpoint.

use bytes::Bytes;
use dkv_api::Uuid;
use dkv_base::id::{
    GroupId, HolderId, NetworkId, NodeId, Number, Revision, Serial, SessionId, Stamp,
};
use dkv_state::{
    Announcement, BatchBuilder, DirectoryCommand, DirectoryEntry, Engine, EngineOptions,
    GroupState, MemoryStore,
};
use dkv_wire::codec::encode_vec;
use dkv_wire::message::{Command, Condition, Deposited, Operation, Write};
use dkv_wire::network::Settings;

use crate::parts::{Parts, join};

pub(super) fn read(input: &[u8]) {
    let mut parts = Parts::new(input);
    let group = GroupId(u32::from(parts.byte() % 2));
    let (mut state, mut twin) = (GroupState::new(group), GroupState::new(group));
    while let Some(entry) = parts.piece() {
        let before = state.hash();
        let outcome = state.apply(entry);
        assert_eq!(outcome, twin.apply(entry));
        if outcome.is_err() {
            assert_eq!(state.hash(), before, "a corrupt entry changed the state");
        }
        assert_eq!(state.hash(), twin.hash());
    }
    let options = EngineOptions { reserve_bytes: 0, ..EngineOptions::default() };
    let engine = Engine::in_memory(&MemoryStore::new(), options).expect("an engine in memory");
    let store = engine.group(group).expect("a group");
    store.checkpoint(&state.take_changes(Bytes::from_static(b"here"))).expect("a checkpoint");
    let (loaded, meta) = GroupState::load(&store).expect("what was written");
    assert_eq!(loaded.hash(), state.hash());
    let counts = meta.expect("a moment").counts;
    assert!(!group.is_shard() || counts == state.counts(), "{counts:?}");
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Batches of a shard.
pub(super) fn batches() -> Vec<Vec<u8>> {
    let session = SessionId(id(1));
    let write = |serial, condition, key: &'static [u8], operation| {
        encode_vec(&Command::Write(Write {
            session,
            serial: Serial(serial),
            settled: Serial(serial / 2),
            after: Stamp(0),
            condition,
            key,
            operation,
        }))
    };
    let deposited = |number, stamp, key: &'static [u8], operation| {
        let (node, after) = (NodeId(id(9)), Number(u64::saturating_sub(number, 1)));
        let (number, stamp) = (Number(number), Stamp(stamp));
        encode_vec(&Command::Deposited(Deposited { node, number, after, stamp, key, operation }))
    };
    let commands = [
        encode_vec(&Command::OpenSession(session)),
        write(1, Condition::Always, b"a", Operation::Put(b"one")),
        write(2, Condition::Absent, b"b", Operation::Put(b"two")),
        write(3, Condition::Revision(Revision(1)), b"a", Operation::Put(b"three")),
        write(3, Condition::Revision(Revision(1)), b"a", Operation::Put(b"three")),
        write(4, Condition::Present, b"b", Operation::Delete),
        encode_vec(&Command::OpenSession(SessionId(id(2)))),
        deposited(1, 7, b"a", Operation::Put(b"late")),
        deposited(2, u64::MAX, b"c", Operation::Delete),
        deposited(4, 9, b"c", Operation::Put(b"too early")),
    ];
    let batch = |(at, commands): (usize, &[Vec<u8>])| {
        let mut builder = BatchBuilder::new(1000 * at as u64, Stamp(1 << 20));
        commands.iter().for_each(|command| builder.push(command));
        builder.finish().to_vec()
    };
    commands.chunks(2).enumerate().map(batch).collect()
}

/// Entries of the control group.
pub(super) fn changes() -> Vec<Vec<u8>> {
    let announcement = |number: u16| Announcement {
        id: NodeId(id(number.into())),
        name: format!("n{number}"),
        address: ([127, 0, 0, 1], 4400 + number).into(),
        region: None,
    };
    let founder = announcement(1);
    let commands = [
        DirectoryCommand::Create {
            network: NetworkId(id(9)),
            settings: Settings { shards: 2, ..Settings::default() },
            founder: founder.clone(),
        },
        DirectoryCommand::Announce(announcement(2)),
        DirectoryCommand::Announce(announcement(3)),
        DirectoryCommand::ShardStarted(GroupId(1)),
        DirectoryCommand::SetMembers {
            group: GroupId(1),
            voters: [founder.id, NodeId(id(2)), NodeId(id(3))].into(),
            learners: [].into(),
        },
        DirectoryCommand::Leave(NodeId(id(2))),
        DirectoryCommand::Retire(NodeId(id(3))),
        DirectoryCommand::Deny(HolderId(id(7))),
        DirectoryCommand::Remove(NodeId(id(3))),
    ];
    let entry = |(at, command)| encode_vec(&DirectoryEntry { time_ms: at as u64, command });
    commands.into_iter().enumerate().map(entry).collect()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seed = |kind: u8, entries: Vec<Vec<u8>>| {
        [&[kind], &join(entries.iter().map(Vec::as_slice))[..]].concat()
    };
    vec![seed(0, changes()), seed(1, batches()), seed(1, changes()), seed(0, batches())]
}
