//! Leases and expiry compared with a naive model, whatever is stored, loaded and evicted between.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, LeaseId, Number, Revision, Serial, Stamp};
use dkv_wire::limits::{EXPIRE_KEYS_MAX, HOLDER_LEASES_MAX};
use dkv_wire::message::{
    Attach, Command, Condition, Deposited, Expire, KeyRange, LeaseAction, LeaseCommand, Operation,
    Transact, Transaction, TransactionOperation, Unfit, Write, WriteAttached,
};
use dkv_wire::{codec, limits};
use proptest::prelude::*;

use super::super::shard::leases::{FoundExpiry, grant_number};
use super::super::{
    Applied, BatchBuilder, CommandResult, Engine, EngineOptions, GroupState, GroupStore,
    MemoryStore, ShardState,
};
use super::{batch_at, install, node, open, session, uuid, write};

/// No value stays in memory that a checkpoint has.
const OPTIONS: EngineOptions = EngineOptions { reserve_bytes: 0, value_bytes: 0 };
const SHARD: GroupId = GroupId(1);
const KEYS: [&[u8]; 4] = [b"a", b"aa", b"b", b"ab"];
const TTL_MS: u64 = 1000;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: usize,
        attach: Option<Attach>,
    },
    Delete {
        key: usize,
    },
    /// As a transaction.
    PutAttached {
        key: usize,
        attach: Attach,
    },
    Increment {
        key: usize,
    },
    Deposit {
        key: usize,
        delete: bool,
    },
    Grant {
        lease: u64,
    },
    Revoke {
        lease: u64,
    },
    ExpireKeys,
    ExpireLease {
        lease: u64,
        is_it: bool,
    },
    Wait {
        ms: u64,
    },
    Checkpoint,
    FailedCheckpoint,
    Evict,
    /// Loads the state from the last checkpoint and applies what came after.
    Reload,
    /// Sends the last checkpoint to another engine, loads the state there, and applies what came
    /// after.
    Transfer,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let lease = || 1..4_u64;
    let attach = move || {
        prop_oneof![
            lease().prop_map(|lease| Attach::Lease(LeaseId(lease))),
            (100..400_u64).prop_map(Attach::Ttl),
        ]
    };
    prop_oneof![
        6 => (key(), prop::option::of(attach()))
            .prop_map(|(key, attach)| Step::Put { key, attach }),
        2 => key().prop_map(|key| Step::Delete { key }),
        3 => (key(), attach()).prop_map(|(key, attach)| Step::PutAttached { key, attach }),
        2 => key().prop_map(|key| Step::Increment { key }),
        1 => (key(), any::<bool>()).prop_map(|(key, delete)| Step::Deposit { key, delete }),
        3 => lease().prop_map(|lease| Step::Grant { lease }),
        1 => lease().prop_map(|lease| Step::Revoke { lease }),
        3 => Just(Step::ExpireKeys),
        2 => (lease(), prop::bool::weighted(0.8))
            .prop_map(|(lease, is_it)| Step::ExpireLease { lease, is_it }),
        3 => (1..200_u64).prop_map(|ms| Step::Wait { ms }),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::FailedCheckpoint),
        1 => Just(Step::Evict),
        1 => Just(Step::Reload),
        1 => Just(Step::Transfer),
    ]
}

/// What the model says of a key: its value, and what it is attached to (a deadline for an expiry).
#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: u64,
    attached: Option<Attach>,
}

struct Pair {
    store: GroupStore,
    _engine: Engine,
    state: GroupState,
    /// The same entries, and nothing else.
    plain: GroupState,
    since_checkpoint: Vec<Bytes>,
    entries: u64,
    clock_ms: u64,
    keys: BTreeMap<usize, Held>,
    /// The leases, with the number of their grant.
    leases: BTreeMap<u64, u64>,
    revision: u64,
    deposits: u64,
    /// Every version that was made, with its lease.
    made: Vec<(u64, usize, u64)>,
}

impl Pair {
    fn new() -> Self {
        let engine = Engine::in_memory(&MemoryStore::default(), OPTIONS).expect("an engine");
        let store = engine.group(SHARD).expect("a store");
        Self {
            state: GroupState::load(&store).expect("empty").0,
            store,
            _engine: engine,
            plain: GroupState::new(SHARD),
            since_checkpoint: Vec::new(),
            entries: 0,
            clock_ms: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: 0,
            deposits: 0,
            made: Vec::new(),
        }
    }

    fn apply(&mut self, command: Vec<u8>) -> CommandResult {
        self.entries += 1;
        let stamp = Stamp(self.entries << 20);
        let entry = batch_at(self.clock_ms, stamp, &[open(session('s')), command]);
        let result = apply(&self.store, &mut self.state, &entry);
        assert_eq!(apply(&self.store, &mut self.plain, &entry), result);
        self.since_checkpoint.push(entry);
        result
    }

    /// What the model attaches a key to; `None` if the lease does not exist.
    fn resolve(&self, attach: Attach) -> Option<Attach> {
        match attach {
            Attach::Ttl(ttl_ms) => Some(Attach::Ttl(self.clock_ms + ttl_ms)),
            Attach::Lease(lease) => self.leases.contains_key(&lease.0).then_some(attach),
        }
    }

    fn set(&mut self, key: usize, attached: Option<Attach>) {
        self.revision += 1;
        let lease = match attached {
            Some(Attach::Lease(lease)) => lease.0,
            _ => 0,
        };
        self.made.push((self.revision, key, lease));
        self.keys.insert(key, Held { value: self.entries, attached });
    }

    fn remove(&mut self, ended: impl Fn(&Held) -> bool) -> usize {
        let keys: Vec<_> =
            self.keys.iter().filter(|(_, held)| ended(held)).map(|(key, _)| *key).collect();
        self.revision += u64::from(!keys.is_empty());
        for key in &keys {
            self.keys.remove(key);
        }
        keys.len()
    }

    fn transact(&mut self, operation: TransactionOperation<'_>) -> CommandResult {
        let serial = Serial(self.entries + 1);
        let then = vec![operation];
        let body = codec::encode_vec(&Transaction { then, ..Transaction::default() });
        let (session, settled, after, body) = (session('s'), serial, Stamp(0), &body[..]);
        let transact = Transact { session, serial, settled, after, body };
        self.apply(codec::encode_vec(&Command::Transact(transact)))
    }

    fn end(&mut self, lease: u64) -> usize {
        self.leases.remove(&lease);
        self.remove(|held| held.attached == Some(Attach::Lease(LeaseId(lease))))
    }

    fn change_lease(&mut self, lease: u64, action: LeaseAction) -> CommandResult {
        let serial = Serial(self.entries + 1);
        let (session, lease) = (session('s'), LeaseId(lease));
        let change = LeaseCommand { session, serial, settled: serial, lease, action };
        self.apply(codec::encode_vec(&Command::Lease(change)))
    }

    fn take(&mut self, step: &Step) {
        let serial = self.entries + 1;
        let value = serial.to_string();
        let put = Operation::Put(value.as_bytes());
        match *step {
            Step::Put { key, attach } => {
                let session = session('s');
                let plain = write(session, serial, serial, Condition::Always, KEYS[key], put);
                let Some(attach) = attach else {
                    self.apply(plain);
                    return self.set(key, None);
                };
                let (serial, settled) = (Serial(serial), Serial(serial));
                let (after, condition) = (Stamp(0), Condition::Always);
                let write = Write {
                    session,
                    serial,
                    settled,
                    after,
                    condition,
                    key: KEYS[key],
                    operation: put,
                };
                let attached = WriteAttached { write, attach };
                let result = self.apply(codec::encode_vec(&Command::WriteAttached(attached)));
                match (self.resolve(attach), attach) {
                    (Some(attached), _) => self.set(key, Some(attached)),
                    (None, Attach::Lease(lease)) => {
                        assert_eq!(result, CommandResult::NoLease { lease });
                    }
                    (None, Attach::Ttl(_)) => unreachable!("every time is good"),
                }
            }
            Step::Delete { key } => {
                let delete = Operation::Delete;
                let session = session('s');
                self.apply(write(session, serial, serial, Condition::Always, KEYS[key], delete));
                self.revision += u64::from(self.keys.remove(&key).is_some());
            }
            Step::PutAttached { key, attach } => {
                let value = value.as_bytes();
                let put = TransactionOperation::PutAttached { key: KEYS[key], value, attach };
                let result = self.transact(put);
                match self.resolve(attach) {
                    Some(attached) => self.set(key, Some(attached)),
                    None => {
                        let (operation, why) = (0, Unfit::NoLease);
                        assert_eq!(result, CommandResult::Unfit { operation, why });
                    }
                }
            }
            Step::Increment { key } => {
                let before = self.keys.get(&key).cloned();
                self.transact(TransactionOperation::Increment { key: KEYS[key], by: 1 });
                let (value, attached) = before.map_or((0, None), |it| (it.value, it.attached));
                self.set(key, attached);
                self.keys.get_mut(&key).expect("just set").value = value + 1;
            }
            Step::Deposit { key, delete } => {
                let (after, node) = (Number(self.deposits), node('d'));
                self.deposits += 1;
                let operation = if delete { Operation::Delete } else { put };
                let deposited = Deposited {
                    node,
                    number: Number(self.deposits),
                    after,
                    // Later than every write before it, and earlier than those after it.
                    stamp: Stamp((self.entries << 20) + (1 << 19)),
                    key: KEYS[key],
                    operation,
                };
                self.apply(codec::encode_vec(&Command::Deposited(deposited)));
                if delete {
                    self.revision += u64::from(self.keys.remove(&key).is_some());
                } else {
                    self.set(key, None);
                }
            }
            Step::Grant { lease } => {
                let result = self.change_lease(lease, LeaseAction::Grant { ttl_ms: TTL_MS });
                let revision = Revision(self.revision);
                let expected = match self.leases.entry(lease) {
                    Entry::Occupied(_) => CommandResult::LeaseExists { lease: LeaseId(lease) },
                    Entry::Vacant(entry) => {
                        entry.insert(grant_number(session('s'), Serial(serial)));
                        CommandResult::Granted { revision }
                    }
                };
                assert_eq!(result, expected);
            }
            Step::Revoke { lease } => {
                let result = self.change_lease(lease, LeaseAction::Revoke);
                if self.leases.contains_key(&lease) {
                    let (deleted, left) = (self.end(lease) as u16, 0);
                    let revision = Revision(self.revision);
                    assert_eq!(result, CommandResult::Revoked { revision, deleted, left });
                } else {
                    let lease = LeaseId(lease);
                    assert_eq!(result, CommandResult::NoLease { lease });
                }
            }
            Step::ExpireKeys => {
                let result = self.apply(codec::encode_vec(&Command::Expire(Expire::Keys)));
                let now = self.clock_ms;
                let is_due =
                    |held: &Held| matches!(held.attached, Some(Attach::Ttl(at)) if at <= now);
                let (deleted, more) = (self.remove(is_due) as u32, false);
                assert_eq!(result, CommandResult::Expired { deleted, more });
            }
            Step::ExpireLease { lease, is_it } => {
                let known = self.leases.get(&lease).copied();
                let grant = known.unwrap_or_default() ^ u64::from(!is_it);
                let expire = Expire::Lease { lease: LeaseId(lease), grant };
                let result = self.apply(codec::encode_vec(&Command::Expire(expire)));
                let is_it = is_it && known.is_some();
                let (deleted, more) = (if is_it { self.end(lease) as u32 } else { 0 }, false);
                assert_eq!(result, CommandResult::Expired { deleted, more });
            }
            Step::Wait { ms } => self.clock_ms += ms,
            Step::Checkpoint => {
                let changes = self.state.take_changes(Bytes::new());
                let (generation, revision) = (changes.generation(), changes.meta().revision);
                self.store.checkpoint(&changes).expect("written");
                let shard = self.state.as_shard_mut().expect("a shard");
                shard.checkpointed(generation, revision);
                self.since_checkpoint.clear();
            }
            Step::FailedCheckpoint => {
                let changes = self.state.take_changes(Bytes::new());
                self.state.restore_changes(changes);
            }
            Step::Evict => {
                self.state.as_shard_mut().expect("a shard").evict(3);
            }
            Step::Reload => self.reload(),
            Step::Transfer => self.transfer(),
        }
    }

    fn reload(&mut self) {
        let (mut state, _) = GroupState::load(&self.store).expect("whole");
        let shard = state.as_shard_mut().expect("a shard");
        let revision = shard.revision();
        let generation = shard.take_changes(Bytes::new()).generation();
        shard.checkpointed(generation, revision);
        for entry in &self.since_checkpoint {
            apply(&self.store, &mut state, entry);
        }
        self.state = state;
    }

    fn transfer(&mut self) {
        let Some(mut reader) = self.store.snapshot().expect("readable") else { return };
        let engine = Engine::in_memory(&MemoryStore::default(), OPTIONS).expect("an engine");
        let store = engine.group(SHARD).expect("a store");
        let mut installer = store.install().expect("begun");
        while let Some(chunk) = reader.next_chunk().expect("readable") {
            installer.write_chunk(&chunk).expect("taken");
        }
        install(installer, reader.meta()).expect("its rows have its hash");
        (self.store, self._engine) = (store, engine);
        self.reload();
    }

    fn check(&self) {
        let shard = self.state.as_shard().expect("a shard");
        assert_eq!(self.state.hash(), self.plain.hash());
        assert_eq!(shard.revision(), Revision(self.revision));
        for (key, name) in KEYS.iter().enumerate() {
            let attached = match shard.expiry(name) {
                FoundExpiry::Absent => {
                    assert_eq!(self.keys.get(&key), None);
                    continue;
                }
                FoundExpiry::Never => None,
                FoundExpiry::At { deadline_ms, .. } => Some(Attach::Ttl(deadline_ms)),
                FoundExpiry::Lease(lease) => Some(Attach::Lease(lease.id)),
            };
            assert_eq!(self.keys.get(&key).map(|held| held.attached), Some(attached));
        }
        let leases: Vec<_> = shard.leases_after(LeaseId(0)).collect();
        assert_eq!(leases.len(), self.leases.len());
        for lease in leases {
            assert_eq!(Some(&lease.grant), self.leases.get(&lease.id.0));
            let is_of = |held: &&Held| held.attached == Some(Attach::Lease(lease.id));
            assert_eq!(lease.keys, self.keys.values().filter(is_of).count());
            assert_eq!(lease.keys, shard.lease_keys(lease.id, &[]).count());
        }
        let deadlines = self.keys.values().filter_map(|held| match held.attached {
            Some(Attach::Ttl(at)) => Some(at),
            _ => None,
        });
        assert_eq!(shard.next_deadline_ms(), deadlines.min());
        for (revision, key, lease) in &self.made {
            let found = shard.get_at(KEYS[*key], Revision(*revision)).expect("kept");
            assert_eq!(found.expect("made then").lease, LeaseId(*lease), "of {revision}");
        }
    }
}

/// Applies an entry as a replica does: it first reads the values that are not in memory.
fn apply(store: &GroupStore, state: &mut GroupState, entry: &[u8]) -> CommandResult {
    let mut needed = state.as_shard().expect("a shard").needed(entry).expect("a batch");
    for key in std::mem::take(&mut needed.stored) {
        let row = store.get(&key).expect("readable").expect("stored");
        needed.rows.insert(key, row);
    }
    match state.apply_with(entry, &needed).expect("a batch") {
        Applied::Shard(results) => results[1],
        Applied::Control(_) => unreachable!("it is a shard"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn leases_and_expiry_do_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(step);
            pair.check();
        }
    }
}

/// A shard with a session, on which many commands are applied at once.
struct Shard {
    state: ShardState,
    serial: u64,
}

impl Shard {
    fn new() -> Self {
        let mut state = ShardState::new();
        let open = Command::OpenSessionOf { session: session('s'), holder: HolderId(uuid('h')) };
        state.apply(&batch_at(1, Stamp(1), &[codec::encode_vec(&open)])).expect("a batch");
        Self { state, serial: 0 }
    }

    fn apply(&mut self, at_ms: u64, commands: &[Command<'_>]) -> Vec<CommandResult> {
        let mut batch = BatchBuilder::new(at_ms, Stamp(1));
        commands.iter().for_each(|command| batch.push(&codec::encode_vec(command)));
        self.state.apply(&batch.finish()).expect("a batch")
    }

    fn change(&mut self, lease: u64, action: LeaseAction) -> CommandResult {
        self.serial += 1;
        let (session, serial, lease) = (session('s'), Serial(self.serial), LeaseId(lease));
        let change = LeaseCommand { session, serial, settled: serial, lease, action };
        self.apply(1, &[Command::Lease(change)])[0]
    }

    fn put(&mut self, key: &str, attach: Attach) {
        self.serial += 1;
        let (session, serial) = (session('s'), Serial(self.serial));
        let (settled, after, condition) = (serial, Stamp(0), Condition::Always);
        let (key, operation) = (key.as_bytes(), Operation::Put(b"value"));
        let write = Write { session, serial, settled, after, condition, key, operation };
        self.apply(1, &[Command::WriteAttached(WriteAttached { write, attach })]);
    }
}

const GRANT: LeaseAction = LeaseAction::Grant { ttl_ms: TTL_MS };

#[test]
fn one_command_deletes_a_bounded_number_of_keys() {
    let mut shard = Shard::new();
    shard.change(7, GRANT);
    let count = 2 * EXPIRE_KEYS_MAX + 10;
    // The order of keys is another than that of their deadlines.
    let key = |number: usize| format!("{:04}", (number * 7919) % 10_000);
    for number in 0..count {
        shard.put(&format!("t{}", key(number)), Attach::Ttl(100 + number as u64));
        shard.put(&format!("l{}", key(number)), Attach::Lease(LeaseId(7)));
    }
    let written = shard.state.revision().0;
    let results = shard.apply(1_000_000, &[const { Command::Expire(Expire::Keys) }; 4]);
    let most = EXPIRE_KEYS_MAX as u32;
    let expired = |deleted, more| CommandResult::Expired { deleted, more };
    let expected = [(most, true), (most, true), (10, false), (0, false)];
    assert_eq!(results, expected.map(|(deleted, more)| expired(deleted, more)));
    assert_eq!(shard.state.revision(), Revision(written + 3), "each is one revision");
    let all = KeyRange::Prefix(Bytes::new());
    let changed = shard.state.changes(&all, Revision(written), false, 1).expect("kept");
    let keys: Vec<_> = changed.changes.iter().map(|change| &change.version.key).collect();
    assert_eq!((keys.len(), changed.more), (EXPIRE_KEYS_MAX, true), "whole revisions");
    assert!(keys.is_sorted());
    assert!(changed.changes.iter().all(|change| change.version.origin.version == 0));

    // The same for a lease that is revoked: it can be used no more, and its keys follow.
    let left = (count - EXPIRE_KEYS_MAX) as u32;
    let (revision, deleted) = (Revision(written + 4), EXPIRE_KEYS_MAX as u16);
    let revoked = shard.change(7, LeaseAction::Revoke);
    assert_eq!(revoked, CommandResult::Revoked { revision, deleted, left });
    assert_eq!(shard.change(7, GRANT), CommandResult::LeaseExists { lease: LeaseId(7) });
    shard.put("k", Attach::Lease(LeaseId(7)));
    assert_eq!(shard.state.expiry(b"k"), FoundExpiry::Absent);
    let ending: Vec<_> = shard.state.ending_leases().collect();
    let (lease, grant) = (LeaseId(7), ending[0].grant);
    assert!(ending[0].ending && ending[0].keys == left as usize);
    let expire = || Command::Expire(Expire::Lease { lease, grant });
    let rest = shard.apply(1, &[expire(), expire()]);
    assert_eq!(rest, [expired(most, true), expired(10, false)]);
    assert_eq!(shard.state.lease(lease), None);
    assert_eq!(shard.change(7, GRANT), CommandResult::Granted { revision: Revision(written + 6) });
}

#[test]
fn a_holder_has_a_bounded_number_of_leases() {
    let mut shard = Shard::new();
    for lease in 1..=HOLDER_LEASES_MAX as u64 {
        assert!(matches!(shard.change(lease, GRANT), CommandResult::Granted { .. }));
    }
    let another = HOLDER_LEASES_MAX as u64 + 1;
    assert_eq!(shard.change(another, GRANT), CommandResult::TooManyLeases { own: true });
    assert!(matches!(shard.change(1, LeaseAction::Revoke), CommandResult::Revoked { .. }));
    assert!(matches!(shard.change(another, GRANT), CommandResult::Granted { .. }));
    // Another holder has room.
    let open = Command::OpenSessionOf { session: session('t'), holder: HolderId(uuid('i')) };
    let lease = LeaseId(limits::LEASES_MAX as u64 * 2);
    let (session, serial) = (session('t'), Serial(1));
    let change = LeaseCommand { session, serial, settled: serial, lease, action: GRANT };
    let results = shard.apply(1, &[open, Command::Lease(change)]);
    assert!(matches!(results[1], CommandResult::Granted { .. }));
}

#[test]
fn news_tell_a_primary_what_it_may_have_to_end() {
    let mut shard = Shard::new();
    let news = |shard: &Shard| shard.state.lease_news();
    let mut before = news(&shard);
    let mut is_news = |shard: &Shard| {
        let now = news(shard);
        std::mem::replace(&mut before, now) < now
    };
    shard.change(7, GRANT);
    assert!(is_news(&shard));
    assert_eq!(shard.state.granted_after(0).count(), 1);
    let known = shard.state.lease_news();
    shard.put("a", Attach::Lease(LeaseId(7)));
    assert!(!is_news(&shard));
    shard.put("b", Attach::Ttl(500));
    assert!(is_news(&shard));
    shard.put("c", Attach::Ttl(600));
    assert!(!is_news(&shard), "it is not the first to end");
    shard.put("d", Attach::Ttl(400));
    assert!(is_news(&shard));
    shard.change(8, GRANT);
    let since: Vec<_> = shard.state.granted_after(known).map(|lease| lease.id.0).collect();
    assert_eq!(since, [8]);
    shard.change(7, LeaseAction::Revoke);
    assert_eq!(shard.state.granted_after(0).count(), 1);
}
