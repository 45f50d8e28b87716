//! An in-memory replica for tests of what binds it together: openraft with our log and our state,
//! without any other member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dkv_base::id::{GroupId, NetworkId, NodeId, Serial, SessionId, Stamp, Term};
use dkv_wire::acceptor::Acceptor;
use dkv_wire::certificate::{Authority, Credentials, generate_key};
use dkv_wire::codec::{encode, encode_vec};
use dkv_wire::identity::Identity;
use dkv_wire::message::{Command, Condition, Operation, Write};
use dkv_wire::network::Settings;
use dkv_wire::quic::Endpoint;
use openraft::raft::AppendEntriesRequest;
use openraft::{EmptyNode, Membership};
use tempfile::TempDir;

use super::codec::log_id;
use super::snapshot::Position;
use super::{
    AppendStreams, DurabilityCheck, HeartbeatCoalescer, MetricsWatch, Network, Raft, ReplicaHandle,
    SnapshotMeta, StateMachine, StateMachineHandle, StoredMembership, TimeScale, Vote, config,
};
use crate::common::clock::NodeClock;
use crate::net::peers::Peers;
use dkv_state::{BatchBuilder, Engine, EngineOptions, GroupState, GroupStore, Meta};
use dkv_wal::disk::MemoryDisk;
use dkv_wal::{Wal, WalOptions};

/// The shard that all tests here use.
pub(super) const SHARD: GroupId = GroupId(1);

/// One replica of a shard.
pub(super) struct TestReplica {
    pub(super) raft: Raft,
    pub(super) state_machine: StateMachineHandle,
    pub(super) durability: DurabilityCheck,
    pub(super) engine: Engine,
    pub(super) peers: Peers,
    pub(super) append_streams: AppendStreams,
    pub(super) time_scale: TimeScale,
    pub(super) id: NodeId,
    _directory: TempDir,
}

impl TestReplica {
    /// Starts a replica that is not a member of any group yet.
    pub(super) async fn start() -> Self {
        Self::start_as(&credentials(&new_authority())).await
    }

    /// Starts a replica that holds these credentials.
    pub(super) async fn start_as(credentials: &Credentials) -> Self {
        Self::start_with(credentials, true).await
    }

    /// Starts a replica that holds these credentials and stands for election only if `elects`.
    pub(super) async fn start_with(credentials: &Credentials, elects: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = open_engine(&directory);
        let options = WalOptions { segment_bytes: 1024 * 1024, ..WalOptions::default() };
        let wal = Wal::open(Arc::new(MemoryDisk::new()), options, Box::new(|_| ())).unwrap();
        let state_machine =
            StateMachine::load(engine.group(SHARD).unwrap(), NodeClock::default()).unwrap();
        let handle = state_machine.handle();
        let endpoint = Endpoint::dial_only(Some(credentials.clone())).unwrap();
        let peers = Peers::new(endpoint, Arc::new(Acceptor::default()));
        let id = credentials.identity.as_node().unwrap();
        let config = config(&Settings::default()).unwrap();
        let heartbeats = HeartbeatCoalescer::new(id, peers.clone());
        let append_streams = AppendStreams::default();
        let patience = std::time::Duration::from_millis(config.heartbeat_interval);
        let time_scale = TimeScale::new(patience, heartbeats.ticks());
        let network = Network::new(
            SHARD,
            id,
            peers.clone(),
            heartbeats,
            append_streams.clone(),
            time_scale.clone(),
        );
        let log = wal.group(SHARD);
        let raft = super::start(id, config, log, state_machine, network, &time_scale, elects)
            .await
            .unwrap();
        let durability = DurabilityCheck::new(wal.group(SHARD), handle.clone(), 0, b"secret");
        let state_machine = handle;
        let _directory = directory;
        Self {
            raft,
            state_machine,
            durability,
            engine,
            peers,
            append_streams,
            time_scale,
            id,
            _directory,
        }
    }

    /// Returns this replica as the other members see it.
    pub(super) fn member(&self) -> ReplicaHandle {
        let (raft, state_machine) = (self.raft.clone(), self.state_machine.clone());
        ReplicaHandle::new(raft, state_machine, self.durability.clone(), self.time_scale.clone())
    }

    /// Returns the replica's store.
    pub(super) fn store(&self) -> GroupStore {
        self.engine.group(SHARD).unwrap()
    }

    /// Asserts that openraft has not given up.
    pub(super) fn assert_runs(&self) {
        let metrics = MetricsWatch::of(&self.raft);
        let metrics = metrics.borrow();
        assert!(metrics.running_state.is_ok(), "{:?}", metrics.running_state);
    }
}

/// Creates the authority of a new network.
pub(crate) fn new_authority() -> Authority {
    Authority::create(NetworkId::random(), SystemTime::now()).unwrap()
}

/// Creates the credentials of a new node.
pub(crate) fn credentials(authority: &Authority) -> Credentials {
    let (key, public_key) = generate_key().unwrap();
    let identity = Identity::node(authority.network(), NodeId::random());
    let certificate = authority.sign(identity, &public_key, SystemTime::now()).unwrap();
    Credentials::new(&certificate, authority.certificate(), key).unwrap()
}

fn open_engine(directory: &TempDir) -> Engine {
    Engine::open(directory.path(), EngineOptions { reserve_bytes: 0, ..EngineOptions::default() })
        .unwrap()
}

/// Tells a replica that another node leads in a later term.
pub(crate) async fn depose(raft: &Raft, leader: NodeId, term: Term) {
    let prev_log_id = MetricsWatch::of(raft).borrow().last_applied;
    let vote = Vote::new_committed(term.0, leader);
    let (leader_commit, entries) = (None, Vec::new());
    let request = AppendEntriesRequest { vote, prev_log_id, leader_commit, entries };
    raft.append_entries(request).await.unwrap();
}

/// A whole snapshot, as a leader sends it.
pub(super) struct Sent {
    pub(super) meta: SnapshotMeta,
    pub(super) store: Bytes,
    pub(super) chunks: Vec<Bytes>,
    pub(super) hash: u64,
    pub(super) clock_ms: u64,
}

/// Creates a snapshot of a shard that ends at that index and has `keys` keys.
pub(super) fn snapshot(index: u64, keys: u64) -> Sent {
    let directory = tempfile::tempdir().unwrap();
    let engine = open_engine(&directory);
    let store = engine.group(SHARD).unwrap();
    let (mut state, _) = GroupState::load(&store).unwrap();
    state.apply(&puts(keys)).unwrap();
    let members = BTreeMap::from([(NodeId::random(), EmptyNode {})]);
    let voters: BTreeSet<NodeId> = members.keys().copied().collect();
    let membership = Membership::new(vec![voters], members).unwrap();
    let position = Position {
        applied: Some(log_id(1, index)),
        membership: StoredMembership::new(Some(log_id(1, 1)), membership),
    };
    store.checkpoint(&state.take_changes(encode(&position))).unwrap();
    let mut reader = store.snapshot().unwrap().unwrap();
    let chunks = std::iter::from_fn(|| reader.next_chunk().unwrap()).collect();
    let store: &Meta = reader.meta();
    Sent {
        meta: SnapshotMeta { last_log_id: position.applied, last_membership: position.membership },
        store: Bytes::from(store.encode()),
        chunks,
        hash: state.hash(),
        clock_ms: state.clock_ms(),
    }
}

/// Builds a batch that opens a session and puts `keys` keys.
pub(super) fn puts(keys: u64) -> Bytes {
    let session = SessionId(uuid::Uuid::from_u128(7));
    let mut batch = BatchBuilder::new(1_000_000, Stamp(1));
    batch.push(&encode_vec(&Command::OpenSession(session)));
    for number in 0..keys {
        let key = format!("key {number}");
        let put = Write {
            session,
            serial: Serial(number + 1),
            settled: Serial(1),
            after: Stamp(0),
            condition: Condition::Always,
            key: key.as_bytes(),
            operation: Operation::Put(b"a value"),
        };
        batch.push(&encode_vec(&Command::Write(put)));
    }
    batch.finish()
}
