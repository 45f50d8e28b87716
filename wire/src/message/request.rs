//! Requests to a node.

use std::net::SocketAddr;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, KeyspaceId, LeaseId, NodeId, Revision, Stamp, Term};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::books::{BookKey, BooksChange, BooksVersion};
use super::diagnosis::LogChange;
use super::history::Cut;
use super::keys::KeyRange;
use super::placement::Measures;
use super::policy::PolicyChange;
use super::read::ReadMode;
use super::scan::Span;
use super::transaction::RangeOptions;
use crate::network::{KeyspaceChange, KeyspaceSettings};
use crate::region::Region;
use crate::user::User;

/// One request on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client and repeated in the reply. Unique among the requests in progress on the
    /// stream.
    pub id: u64,
    /// Time for which the client will wait, in milliseconds. A request that has not begun by then
    /// is dropped; one that has is completed, whether or not the client still waits.
    pub deadline_ms: u32,
    /// Whether a node that cannot serve the request forwards it to the one that can and returns the
    /// answer. Otherwise it replies which node that is.
    pub forward: bool,
    /// The user for whom the sender asks: the node serves only what this user may, too. A gateway
    /// names its bearer's, and a node that forwards a request that of the sender.
    pub user: Option<User>,
    /// The request itself.
    pub body: RequestBody,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// The network as this node sees it.
    View,
    /// The status of this node and its replicas.
    Status,
    /// The value of a key.
    Read {
        /// The key's shard.
        shard: GroupId,
        /// The key.
        key: Bytes,
        /// The guarantee that the answer must give, and which replica may answer.
        mode: ReadMode,
    },
    /// One page of the keys of a shard, in order.
    Scan {
        /// The shard.
        shard: GroupId,
        /// The keys to return, and the size of the page.
        span: Span,
        /// The guarantee that the answer must give, and which replica may answer.
        mode: ReadMode,
    },
    /// A command for the log of a shard.
    Propose {
        /// The key's shard.
        shard: GroupId,
        /// Whether the answer waits for every replica rather than for a quorum.
        everywhere: bool,
        /// An encoded [`Command`](super::Command), which goes into the log unchanged.
        command: Bytes,
    },
    /// An eventual write, which the node stores and delivers to the primary once it can reach it.
    Deposit {
        /// The key's shard.
        shard: GroupId,
        /// The stamp of the write. The client keeps it through all attempts, so that a repeated
        /// write takes effect once. Zero asks for the time:
        /// [`Refusal::Clock`](super::Refusal::Clock).
        stamp: Stamp,
        /// Whether an earlier attempt with this stamp may have been accepted. If not, the stamp
        /// must not be far behind what the node has for the key:
        /// [`Refusal::Clock`](super::Refusal::Clock).
        again: bool,
        /// The key.
        key: Bytes,
        /// The value; `None` for a delete.
        value: Option<Bytes>,
    },
    /// From a node with a replica: how far the shard had committed when this was asked.
    Committed {
        /// The shard.
        shard: GroupId,
        /// The term in which the asker follows this node, by the last vote in its log. With it a
        /// voter confirms the leadership of the primary.
        followed: Option<Term>,
    },
    /// From the primary: answer once this replica has applied an entry.
    Reach {
        /// The shard.
        shard: GroupId,
        /// Index of the entry.
        index: u64,
    },
    /// From a node: its current name, address and region.
    Announce {
        /// The name of the node.
        name: String,
        /// The address at which it listens.
        address: SocketAddr,
        /// Its region, if it has one.
        region: Option<Region>,
    },
    /// From a node: it is stopping in good order.
    Leaving,
    /// From an administrator: remove this node for good.
    RemoveNode(NodeId),
    /// From an administrator: refuse this holder of a certificate or token from now on.
    Revoke(HolderId),
    /// From a node: measurements of itself and of the groups that it leads.
    Measures(Box<Measures>),
    /// From a node that the directory no longer assigns to a shard: whether the shard still counts
    /// it as a member.
    Departed(GroupId),
    /// From the coordinator: transfer the leadership of a shard to another node.
    HandOver {
        /// The shard.
        shard: GroupId,
        /// The new leader.
        to: NodeId,
    },
    /// From an administrator: drain a node, or put it back into use.
    Drain {
        /// The node.
        node: NodeId,
        /// Whether to drain it.
        on: bool,
    },
    /// From an administrator: rebalance replicas and leaderships now.
    Rebalance,
    /// The placement of replicas, and the moves in progress.
    Placement {
        /// Whether to include the moves that are planned after those in progress.
        forecast: bool,
    },
    /// From a node: whether a node is a member of a group, by the log of the node asked.
    Member {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// From the coordinator to a node being drained: what is left on it.
    Remainder {
        /// Index of the control group's entry that the node must have applied before it answers.
        applied: u64,
    },
    /// The value of a key at a cut. Any replica that has reached it gives the same answer.
    ReadAt {
        /// The key's shard.
        shard: GroupId,
        /// The key.
        key: Bytes,
        /// The cut.
        at: Cut,
    },
    /// One page of the keys of a shard at a cut, in order.
    ScanAt {
        /// The shard.
        shard: GroupId,
        /// The keys to return, and the size of the page.
        span: Span,
        /// The cut.
        at: Cut,
    },
    /// The versions of a key that the shard keeps, newest first.
    History {
        /// The key's shard.
        shard: GroupId,
        /// The key.
        key: Bytes,
        /// Only versions before this revision; zero for all.
        before: Revision,
        /// Most versions to return, capped at [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX).
        versions_max: u32,
    },
    /// Forget the history of a shard before this revision.
    Compact {
        /// The shard.
        shard: GroupId,
        /// The earliest revision at which the shard can be read from then on.
        floor: Revision,
    },
    /// Gives a lease its full time again. The primary answers after a quorum round.
    KeepAlive {
        /// The shard.
        shard: GroupId,
        /// The lease.
        lease: LeaseId,
    },
    /// The leases of a shard, in the order of their ids; strong, from the primary.
    Leases {
        /// The shard.
        shard: GroupId,
        /// Only leases after this one; zero for all.
        after: LeaseId,
        /// Most leases to return, capped at [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX).
        leases_max: u32,
    },
    /// One lease, and its keys in the order of their bytes; strong, from the primary.
    LeaseInfo {
        /// The shard.
        shard: GroupId,
        /// The lease.
        lease: LeaseId,
        /// Only keys after this one; empty for all.
        after: Bytes,
        /// Most keys to return, capped at [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX).
        keys_max: u32,
    },
    /// How long a key will live; strong, from the primary.
    KeyTtl {
        /// The key's shard.
        shard: GroupId,
        /// The key.
        key: Bytes,
    },
    /// The cut of a shard at a moment. The writes that the shard applies from then on are stamped
    /// after the moment.
    Cut {
        /// The shard.
        shard: GroupId,
        /// The moment, at most as far ahead of the node's clock as the stamp of a write may be.
        moment: Stamp,
    },
    /// From an administrator: create a keyspace. The answer comes once its shards have primaries.
    CreateKeyspace {
        /// Chosen at random by the client and kept through all attempts, so that a repeated request
        /// finds its own keyspace.
        creation: Uuid,
        /// The name.
        name: String,
        /// The settings.
        settings: KeyspaceSettings,
    },
    /// From an administrator: change the settings of a keyspace.
    SetKeyspace {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The change.
        change: KeyspaceChange,
    },
    /// From an administrator: drop a keyspace with everything in it.
    DropKeyspace(KeyspaceId),
    /// The keyspaces and their use.
    Keyspaces,
    /// The keys of a range with their versions, as of one revision. Eventual writes that wait in an
    /// outbox do not show.
    Range {
        /// The shard.
        shard: GroupId,
        /// The range.
        keys: KeyRange,
        /// Only keys after this one; empty for all. The count does not depend on it.
        after: Bytes,
        /// Which keys to return, and what of them. With a revision, a replica answers as soon as it
        /// has reached it, and keeps within `mode` beside.
        options: RangeOptions,
        /// The answer ends once it has this many bytes, and holds at least one key.
        bytes_max: u32,
        /// Whether to count all keys of the range.
        count: bool,
        /// The guarantee that the answer must give, and which replica may answer.
        mode: ReadMode,
    },
    /// From an administrator: make another node the primary of a shard.
    MovePrimary {
        /// The shard.
        shard: GroupId,
        /// The new primary, one of the shard's voters.
        to: NodeId,
    },
    /// From an administrator: what this node logs, and a change of that.
    Log(Option<LogChange>),
    /// The circumstances of this node.
    Diagnose,
    /// From a registration server: the books, as the coordinator has them.
    Books {
        /// Only records after this one; `None` for all.
        after: Option<BookKey>,
        /// The version that the server has. If it is the current one, no records are returned.
        known: Option<BooksVersion>,
    },
    /// From a registration server: change the books.
    ChangeBooks(Box<BooksChange>),
    /// The policies: all for an administrator, or else those of the user who asks.
    Policies,
    /// From an administrator: change a policy.
    ChangePolicy(PolicyChange),
    /// From an administrator: deny a node at once, and remove it as soon as no group counts on it,
    /// without waiting for anything that it says or has.
    ExpelNode(NodeId),
    /// From a node: whether a node may lead a group, by the log and the directory of the node that
    /// is asked.
    MayLead {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
}

impl RequestBody {
    /// Whether the request may have had a visible effect if it was sent and not answered. Its
    /// outcome is then unknown.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Propose { .. }
            | Self::Deposit { .. }
            | Self::Announce { .. }
            | Self::Leaving
            | Self::RemoveNode(_)
            | Self::ExpelNode(_)
            | Self::Revoke(_)
            | Self::HandOver { .. }
            | Self::Drain { .. }
            | Self::Rebalance
            | Self::MovePrimary { .. }
            | Self::Log(Some(_))
            | Self::Compact { .. }
            | Self::ChangePolicy(_)
            | Self::CreateKeyspace { .. }
            | Self::SetKeyspace { .. }
            | Self::DropKeyspace(_)
            | Self::ChangeBooks(_) => true,
            Self::View
            | Self::Status
            | Self::Read { .. }
            | Self::Scan { .. }
            | Self::Committed { .. }
            | Self::Reach { .. }
            | Self::Measures(_)
            | Self::Departed(_)
            | Self::Placement { .. }
            | Self::Member { .. }
            | Self::MayLead { .. }
            | Self::Remainder { .. }
            | Self::ReadAt { .. }
            | Self::ScanAt { .. }
            | Self::History { .. }
            | Self::Cut { .. }
            // A lease that is kept alive without an answer ends later, which it may do anyway.
            | Self::KeepAlive { .. }
            | Self::Leases { .. }
            | Self::LeaseInfo { .. }
            | Self::KeyTtl { .. }
            | Self::Range { .. }
            | Self::Log(None)
            | Self::Diagnose
            | Self::Books { .. }
            | Self::Policies
            | Self::Keyspaces => false,
        }
    }
}
