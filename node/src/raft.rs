//! Raft: openraft, bound to our log, our state and our connections.
//!
//! This is the only module that names openraft. A `Replica` of the `replica` module drives one
//! [`Raft`] through the functions here. No other module needs to know how entries are encoded
//! ([`codec`]), how they reach the disk ([`log_store`]) and the state ([`state_machine`],
//! [`snapshot`]), or how they reach the other members ([`transport`] sends, [`handlers`] receives).
//!
//! A term has at most one leader (openraft's standard leader id). A candidate stands only after a
//! pre-vote, and a leader hands over on request. Votes and entries share one write-ahead log, so
//! that they become durable in the order in which they were submitted.

mod heartbeat;
mod codec;
mod last_contact;
mod adapter;
mod forget_leader;
mod staleness;
mod read_index;
mod lease_times;
mod log_store;
mod entry_times;
mod checkpointed;
mod state_machine;
mod transport;
#[cfg(test)]
pub(crate) mod test_replica;
mod fifo_watch;
mod validation;
mod refusal;
mod call_error;
mod durability_check;
mod propose_error;
mod runtime;
mod handlers;
mod snapshot;
pub(crate) mod fuzzing;
mod membership;
mod metrics_watch;
pub(crate) mod offline;

pub(crate) use adapter::{
    Leader, OperationError, initialize, next_leader, propose, propose_at, start, take_step,
    turnover_wait, voters,
};
#[cfg(test)]
pub(crate) use codec::log_id;
pub(crate) use entry_times::BatchTimes;
pub(crate) use fifo_watch::Receiver as FifoReceiver;
pub(crate) use heartbeat::quiescence::QUIESCENT_SLOWDOWN;
pub(crate) use heartbeat::time_scaling::TimeScale;
use log_store::LogStore;
pub(crate) use openraft::{Config, ConfigError, ServerState};
pub(crate) use read_index::{confirm_leadership, confirmed_by, patience};
pub(crate) use state_machine::{
    HistoryQuery, LOOK_UPS_MAX, LeaseQuery, Lookup, LookupError, LookupResult, RangeQuery,
    StateMachine, StateMachineHandle, WatchPage, borrowed,
};
pub(crate) use transport::{AppendStreams, Network};

pub(crate) use durability_check::DurabilityCheck;
pub(crate) use handlers::{
    RaftPeer, ReplicaHandle, serve_append, serve_calls, serve_heartbeats, serve_snapshot,
};
pub(crate) use heartbeat::coalescing::HeartbeatCoalescer;
pub(crate) use membership::{Configured, configured, electorate, may_vote};
pub(crate) use metrics_watch::MetricsWatch;
pub(crate) use propose_error::ProposeError;
pub(crate) use snapshot::SnapshotData;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::NodeId;
use dkv_wire::network::Settings;
use serde::{Deserialize, Serialize};

/// The type of a node id, under the name that openraft's traits need.
pub(crate) type RaftNodeId = NodeId;

/// The encoded commands of one entry: a batch of a shard, or a command of the directory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    /// The types with which our groups run.
    #[derive(Serialize, Deserialize)]
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = RaftNodeId,
        Node = openraft::EmptyNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = runtime::Runtime,
);

/// The result of applying an entry, for its proposer.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// No result: a blank entry, or a change of membership.
    None,
    /// The results of a shard: one for each command of the batch.
    Shard(Vec<dkv_state::CommandResult>),
    /// The result of the control group.
    Directory(dkv_state::DirectoryResult),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Shard(results) => write!(f, "{} results", results.len()),
            Self::Directory(result) => write!(f, "{result:?}"),
        }
    }
}

/// An outcome never leaves its process; openraft requires these traits all the same.
impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self::None)
    }
}

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, SnapshotData>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;

/// Returns openraft's configuration for the settings of a network.
///
/// # Errors
/// If the settings contradict each other.
pub(crate) fn config(settings: &Settings) -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name: "dkv".to_owned(),
        // The node's `heartbeat_ticker` sends the heartbeats. This interval only bounds how long an
        // answer may take, and sets how often openraft checks its timers: every 13/64 of it.
        heartbeat_interval: 2 * settings.heartbeat_ms,
        enable_heartbeat: false,
        election_timeout_min: settings.election_min_ms,
        election_timeout_max: settings.election_max_ms,
        enable_pre_vote: Some(true),
        // A restarted leader stands for election like every other member: its record of its own
        // leadership may be older than the leadership of another node.
        enable_leader_restore: Some(false),
        // An entry is a batch: a few of them fill a frame, and the byte limit in `log_store`
        // applies first.
        max_payload_entries: 256,
        // openraft merges by count, not by bytes: eight requests stay far below the limit of one
        // append.
        max_append_entries: Some(8),
        // Snapshots and purges depend on the bytes of the log, which openraft does not see; the
        // node's `log_retention` task triggers them.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        // A learner that lacks at most this many entries has caught up; see
        // `dkv_state::reconciler`.
        replication_lag_threshold: 64,
        install_snapshot_timeout: 60_000,
        // A member that has less than it acknowledged starts over instead of making its leader
        // panic. For a voter this is not enough: see `durability_check`.
        allow_log_reversion: Some(true),
        backoff: "20ms, 50ms, 100ms, ..500ms".to_owned(),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}
