//! Replicas with different histories are equal: one that only applied entries; one that was stopped
//! and loaded again and again and has little memory for values; one that got snapshots from the
//! first instead of entries and has even less.

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wire::message::{Condition, Operation};
use proptest::prelude::*;

use super::super::{
    Announcement, Applied, DirectoryCommand, DirectoryEntry, Engine, EngineOptions, Found,
    GroupState, GroupStore, Row,
};
use super::{batch, install, node, open, session, uuid, write};

const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: u64::MAX };
const SHARD: GroupId = GroupId(1);

/// Session, serial (zero opens the session), how far behind it settles, key, and length of the
/// value.
type LoggedCommand = (u8, u64, u64, u8, Option<u16>);

#[derive(Clone, Debug)]
enum Event {
    Apply {
        forward_ms: u64,
        commands: Vec<LoggedCommand>,
    },
    /// Stop the second replica without warning, and start it from its checkpoint and the log.
    Restart {
        checkpoint: bool,
    },
    /// Send the third replica a snapshot.
    Snapshot,
    /// Fail a checkpoint of the second replica, and apply a batch meanwhile.
    FailedCheckpoint {
        commands: Vec<LoggedCommand>,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let command = (0..4_u8, 0..10_u64, 0..4_u64, 0..12_u8, any::<Option<u16>>());
    let commands = proptest::collection::vec(command, 0..20);
    // Long jumps of the clock, so that sessions expire.
    let forward = prop_oneof![Just(0_u64), Just(3), Just(61_000), Just(3_700_000)];
    prop_oneof![
        6 => (forward, commands.clone())
            .prop_map(|(forward_ms, commands)| Event::Apply { forward_ms, commands }),
        2 => any::<bool>().prop_map(|checkpoint| Event::Restart { checkpoint }),
        1 => Just(Event::Snapshot),
        1 => commands
            .prop_map(|commands| Event::FailedCheckpoint { commands }),
    ]
}

fn encode(command: &LoggedCommand) -> Vec<u8> {
    let (who, serial, behind, key, value) = command;
    let session = session(char::from(b'a' + who));
    if *serial == 0 {
        return open(session);
    }
    let value = value.map(|length| vec![*key; usize::from(length) % 3000]);
    let operation = value.as_deref().map_or(Operation::Delete, Operation::Put);
    let settled = serial.saturating_sub(*behind);
    write(session, *serial, settled, Condition::Always, &[*key; 3], operation)
}

/// A replica with its store; the position is the number of applied entries.
struct Replica {
    directory: tempfile::TempDir,
    engine: Option<Engine>,
    options: EngineOptions,
    state: GroupState,
    applied: usize,
}

impl Replica {
    fn new(value_bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = EngineOptions { value_bytes, ..OPTIONS };
        let engine = Engine::open(directory.path(), options).expect("a new engine");
        let (state, meta) =
            GroupState::load(&engine.group(SHARD).expect("a store")).expect("empty");
        assert!(meta.is_none());
        Self { directory, engine: Some(engine), options, state, applied: 0 }
    }

    fn store(&self) -> GroupStore {
        self.engine.as_ref().expect("open").group(SHARD).expect("a store")
    }

    fn position(&self) -> Bytes {
        Bytes::from((self.applied as u64).to_le_bytes().to_vec())
    }

    fn checkpoint(&mut self) {
        let changes = self.state.take_changes(self.position());
        self.store().checkpoint(&changes).expect("room and no error");
        let shard = self.state.as_shard_mut().expect("a shard");
        shard.checkpointed(changes.generation(), changes.meta().revision);
        self.evict();
    }

    fn evict(&mut self) {
        let shard = self.state.as_shard_mut().expect("a shard");
        let mut ends = 0;
        while shard.memory_is_exceeded() && ends < 3 {
            ends += usize::from(shard.evict(2));
        }
        // If all values are durable, or were read back from the checkpoint, all of them can be
        // evicted.
        assert!(self.options.value_bytes == u64::MAX || ends < 3 || shard.changed_rows() > 0);
    }

    /// Returns all rows, in memory or not. Some of the evicted ones come back into memory.
    fn rows(&mut self) -> Vec<(Vec<u8>, Row)> {
        let (store, shard) = (self.store(), self.state.as_shard_mut().expect("a shard"));
        let found: Vec<_> = shard.iter().map(|(key, found)| (key.to_vec(), found)).collect();
        let rows = found.into_iter().map(|(key, found)| match found {
            Found::Row(row) => (key, row),
            Found::Stored(revision) => {
                let row = store.get(&key).expect("readable").expect("stored");
                assert_eq!(row.origin.revision, revision);
                if key[0] % 3 == 0 {
                    assert!(shard.promote(&key, &row));
                }
                (key, row)
            }
        });
        rows.collect()
    }

    fn load(&mut self) {
        let (state, meta) = GroupState::load(&self.store()).expect("what was stored is whole");
        self.applied = meta.map_or(0, |meta| {
            u64::from_le_bytes(meta.applied.as_ref().try_into().expect("eight bytes")) as usize
        });
        self.state = state;
    }

    fn restart(&mut self) {
        self.engine = None;
        self.engine =
            Some(Engine::open(self.directory.path(), self.options).expect("it opens again"));
        self.load();
    }

    fn replay(&mut self, log: &[Bytes]) {
        for entry in &log[self.applied..] {
            self.state.apply(entry).expect("a batch");
            self.applied += 1;
        }
    }

    fn receive(&mut self, from: &Self) {
        let Some(mut reader) = from.store().snapshot().expect("readable") else { return };
        let mut installer = self.store().install().expect("room");
        while let Some(chunk) = reader.next_chunk().expect("readable") {
            installer.write_chunk(&chunk).expect("a chunk");
        }
        install(installer, reader.meta()).expect("a whole snapshot");
        self.load();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn replicas_are_equal(events in proptest::collection::vec(event(), 1..30)) {
        let mut time_ms = 1_000_000;
        let mut log = Vec::new();
        let (mut first, mut second, mut third) =
            (Replica::new(u64::MAX), Replica::new(6000), Replica::new(1000));
        for event in events {
            match event {
                Event::Apply { forward_ms, commands } => {
                    time_ms += forward_ms;
                    let commands: Vec<_> = commands.iter().map(encode).collect();
                    log.push(batch(time_ms, &commands));
                    first.replay(&log);
                    second.replay(&log);
                    second.evict();
                    continue;
                }
                Event::Restart { checkpoint } => {
                    if checkpoint {
                        second.checkpoint();
                    }
                    second.restart();
                    second.replay(&log);
                }
                Event::FailedCheckpoint { commands } => {
                    let changes = second.state.take_changes(second.position());
                    let commands: Vec<_> = commands.iter().map(encode).collect();
                    log.push(batch(time_ms, &commands));
                    first.replay(&log);
                    second.replay(&log);
                    second.state.restore_changes(changes);
                }
                Event::Snapshot => {
                    first.checkpoint();
                    third.receive(&first);
                    third.replay(&log);
                    prop_assert_eq!(first.state.hash(), third.state.hash());
                }
            }
            prop_assert_eq!(first.state.hash(), second.state.hash());
            prop_assert_eq!(first.rows(), second.rows());
        }
        // The replicas also answer the next writes alike, sessions included.
        third.replay(&log);
        second.checkpoint();
        second.restart();
        let probe = batch(time_ms, &(0..40).map(|n| {
            encode(&(n % 4, u64::from(n) / 4, 0, n % 12, Some(1)))
        }).collect::<Vec<_>>());
        let answers = [&mut first, &mut second, &mut third]
            .map(|replica| replica.state.apply(&probe).expect("a batch"));
        prop_assert_eq!(&answers[0], &answers[1]);
        prop_assert_eq!(&answers[0], &answers[2]);
        prop_assert!(matches!(&answers[0], Applied::Shard(results) if results.len() == 40));
        let rows = [&mut first, &mut second, &mut third].map(Replica::rows);
        prop_assert_eq!(&rows[0], &rows[1]);
        prop_assert_eq!(&rows[0], &rows[2]);
        prop_assert_eq!(first.state.hash(), second.state.hash());
        prop_assert_eq!(first.state.hash(), third.state.hash());
    }
}

#[test]
fn a_directory_is_stored_and_sent() {
    let directories = [tempfile::tempdir(), tempfile::tempdir()].map(|dir| dir.expect("one"));
    let engines = directories
        .each_ref()
        .map(|directory| Engine::open(directory.path(), OPTIONS).expect("a new engine"));
    let stores = engines.each_ref().map(|engine| engine.group(GroupId::CONTROL).expect("a store"));
    let (mut state, _) = GroupState::load(&stores[0]).expect("empty");
    let announce = |letter| Announcement {
        id: node(letter),
        name: letter.into(),
        address: "10.0.0.1:1".parse().expect("an address"),
        region: None,
    };
    let create = DirectoryCommand::Create {
        network: dkv_base::id::NetworkId(uuid('N')),
        settings: dkv_wire::network::Settings::default(),
        founder: announce('a'),
    };
    for (time_ms, command) in [(5, create), (6, DirectoryCommand::Announce(announce('b')))] {
        state.apply(&DirectoryEntry { time_ms, command }.encode()).expect("an entry");
        let changes = state.take_changes(Bytes::from_static(b"here"));
        stores[0].checkpoint(&changes).expect("room");
    }
    let mut reader = stores[0].snapshot().expect("readable").expect("stored");
    let mut installer = stores[1].install().expect("room");
    while let Some(chunk) = reader.next_chunk().expect("readable") {
        installer.write_chunk(&chunk).expect("a chunk");
    }
    install(installer, reader.meta()).expect("whole");
    for store in &stores {
        let (loaded, meta) = GroupState::load(store).expect("whole");
        assert_eq!(meta.expect("stored").applied.as_ref(), b"here");
        assert_eq!(loaded.hash(), state.hash());
        assert_eq!(loaded.as_directory().expect("a directory").nodes().len(), 2);
    }
}
