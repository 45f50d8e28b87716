//! Replies of a node.

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, NodeId, Number, Revision, Stamp, Term};
use serde::{Deserialize, Serialize};

use super::books::BooksPage;
use super::commit::{PartReceipt, PrepareAnswer, Resolution};
use super::diagnosis::{Diagnosis, LogFilter};
use super::history::{Cut, Version, Versions};
use super::keyspace::KeyspaceUse;
use super::lease::{KeyExpiry, LeaseStatus};
use super::placement::{Placement, Remainder};
use super::policy::{LimitKind, PolicyList};
use super::read::{Level, Reach};
use super::scan::{Page, RangePage};
use super::status::NodeStatus;
use super::transaction::{BadTransaction, OperationResult, Unfit};
use crate::network::NetworkView;

/// The receipt of a reply: how and where it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The shard.
    pub shard: GroupId,
    /// For a write, its revision. For a read, the revision of the write that stored the value, or
    /// the shard's latest if the key does not exist.
    pub revision: Revision,
    /// The level at which it was served.
    pub level: Level,
    /// The node that answered.
    pub node: NodeId,
    /// The shard's term when it answered.
    pub term: Term,
    /// Greatest possible age of the answer, in milliseconds: zero for strong answers, `None` if the
    /// node cannot know.
    pub staleness_ms: Option<u64>,
    /// For a read, the stamp of the write that it shows. For a write, a stamp not before its own.
    pub stamp: Stamp,
    /// The number of an accepted eventual write in this node's outbox, as long as the shard is not
    /// known to have ordered it; the write has no revision then. For a page, the number of the last
    /// such write that it shows.
    pub pending: Option<Number>,
}

/// A value and the write that stored it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// The revision of the write that stored it.
    pub revision: Revision,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The id of the request.
    pub id: u64,
    /// The outcome.
    pub result: Result<Answer, Refusal>,
}

/// The answer to a request that was served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`RequestBody::View`](super::RequestBody::View).
    View(Box<NetworkView>),
    /// To [`RequestBody::Status`](super::RequestBody::Status).
    Status(Box<NodeStatus>),
    /// To [`RequestBody::Read`](super::RequestBody::Read); `None` if the key does not exist.
    Value(Receipt, Option<Stored>),
    /// To [`RequestBody::Scan`](super::RequestBody::Scan); the receipt has the shard's latest
    /// revision at the moment of the page, a moment not before any write that the page shows, and
    /// the last write in the node's outbox that it shows.
    Page(Receipt, Page),
    /// To a write that was executed. The delete of a key that does not exist is executed too,
    /// without effect.
    Written {
        /// The receipt of the write.
        receipt: Receipt,
        /// Whether the key existed before.
        existed: bool,
    },
    /// To [`RequestBody::Read`](super::RequestBody::Read) at
    /// [`ReadMode::All`](super::ReadMode::All).
    ValueEverywhere(Receipt, Option<Stored>, Reach),
    /// To a write that waits for every replica. It is committed, whichever replicas are missing.
    WrittenEverywhere {
        /// The receipt of the write.
        receipt: Receipt,
        /// Whether the key existed before.
        existed: bool,
        /// The replicas that have it, and those that may not.
        reach: Reach,
    },
    /// To [`RequestBody::Committed`](super::RequestBody::Committed): all entries up to this one
    /// were committed.
    Committed {
        /// Index of the entry.
        index: u64,
        /// The shard's term.
        term: Term,
    },
    /// To [`RequestBody::Reach`](super::RequestBody::Reach): the entry is applied.
    Reached {
        /// Whether it was not applied yet when the request arrived.
        was_behind: bool,
    },
    /// To [`Command::OpenSession`](super::Command::OpenSession), and to all requests without a
    /// result.
    Done,
    /// To [`RequestBody::Departed`](super::RequestBody::Departed): by this entry of its log, which
    /// is committed, the shard does not count on the node that asks.
    Departed {
        /// Index of the entry.
        index: u64,
        /// The term in which the node that answers leads the shard.
        term: Term,
    },
    /// To [`RequestBody::Placement`](super::RequestBody::Placement).
    Placement(Box<Placement>),
    /// To [`RequestBody::Member`](super::RequestBody::Member) and
    /// [`RequestBody::MayLead`](super::RequestBody::MayLead).
    Member(bool),
    /// To [`RequestBody::Remainder`](super::RequestBody::Remainder).
    Remainder(Remainder),
    /// To [`RequestBody::ReadAt`](super::RequestBody::ReadAt); `None` if the key did not exist.
    VersionAt(Receipt, Option<Version>),
    /// To [`RequestBody::History`](super::RequestBody::History).
    Versions(Receipt, Versions),
    /// To a transaction that was executed.
    Transacted {
        /// The receipt. Its revision is that of the transaction's writes, or the shard's latest if
        /// it changed nothing.
        receipt: Receipt,
        /// Whether its compares held.
        succeeded: bool,
        /// Whether it changed anything.
        changed: bool,
        /// The results of the operations, in order; `None` if it was executed so long ago that the
        /// shard has forgotten them, or if the node that forwarded it had no room for them.
        results: Option<Vec<OperationResult>>,
        /// Which of the transactions within it succeeded, in the order in which they were executed:
        /// one bit for each, from the lowest on.
        path: u64,
    },
    /// To [`LeaseAction::Grant`](super::LeaseAction::Grant).
    Granted(Receipt),
    /// To [`LeaseAction::Revoke`](super::LeaseAction::Revoke): the lease has ended.
    Revoked {
        /// The receipt. Its revision is that of the deletions, or the shard's latest if there were
        /// none.
        receipt: Receipt,
        /// Keys that were deleted.
        deleted: u64,
        /// Keys that are still to be deleted, which begins at once. To revoke the lease again
        /// deletes more of them.
        left: u64,
    },
    /// To [`RequestBody::KeepAlive`](super::RequestBody::KeepAlive): the lease has its full time
    /// again.
    KeptAlive {
        /// The receipt.
        receipt: Receipt,
        /// That time, in milliseconds, counted from a moment after the request arrived.
        ttl_ms: u64,
    },
    /// To [`RequestBody::Leases`](super::RequestBody::Leases).
    Leases {
        /// The receipt.
        receipt: Receipt,
        /// The leases.
        leases: Vec<LeaseStatus>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`RequestBody::LeaseInfo`](super::RequestBody::LeaseInfo).
    Lease {
        /// The receipt.
        receipt: Receipt,
        /// The lease.
        status: LeaseStatus,
        /// Its keys.
        keys: Vec<Bytes>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`RequestBody::KeyTtl`](super::RequestBody::KeyTtl).
    KeyExpiry(Receipt, KeyExpiry),
    /// To [`RequestBody::Cut`](super::RequestBody::Cut). The receipt has the revision of the cut.
    Cut(Receipt, Cut),
    /// To [`RequestBody::Keyspaces`](super::RequestBody::Keyspaces).
    Keyspaces(Vec<KeyspaceUse>),
    /// To a transaction over several shards that was executed.
    TransactedOver {
        /// The receipt of its home. Its revision is that of the transaction's writes there, or the
        /// shard's latest if it changed nothing there.
        receipt: Receipt,
        /// Whether its compares held.
        succeeded: bool,
        /// Whether it changed anything.
        changed: bool,
        /// The receipts of the other shards.
        parts: Vec<PartReceipt>,
        /// The results of the operations, in order; `None` if they are too long, if the node had no
        /// room for them, or if this is the answer to a repetition. The revision of a version that
        /// the transaction made is zero outside its home, where it is not known yet.
        results: Option<Vec<OperationResult>>,
    },
    /// To [`Command::Prepare`](super::Command::Prepare).
    Prepared(PrepareAnswer),
    /// To [`Command::Resolve`](super::Command::Resolve), and to
    /// [`Command::Decide`](super::Command::Decide) if the attempt was aborted.
    Resolved(Resolution),
    /// To [`RequestBody::Range`](super::RequestBody::Range). The receipt has the latest revision of
    /// the state that answered, and the stamp of its latest write.
    Ranged(Receipt, RangePage),
    /// To [`RequestBody::Compact`](super::RequestBody::Compact).
    Compacted {
        /// The receipt, with the shard's latest revision.
        receipt: Receipt,
        /// The floor before. If it was not below the one that was asked for, nothing has changed.
        before: Revision,
    },
    /// To [`RequestBody::Log`](super::RequestBody::Log).
    Log(LogFilter),
    /// To [`RequestBody::Diagnose`](super::RequestBody::Diagnose).
    Diagnosis(Box<Diagnosis>),
    /// To [`RequestBody::Books`](super::RequestBody::Books).
    Books(Box<BooksPage>),
    /// To [`RequestBody::Policies`](super::RequestBody::Policies).
    Policies(Box<PolicyList>),
    /// To a request that changes what all nodes have to observe: it is done, and these nodes have
    /// not confirmed in time that they know.
    NotEverywhere(Vec<NodeId>),
}

impl From<BadTransaction> for Refusal {
    fn from(bad: BadTransaction) -> Self {
        Self::Invalid(bad.to_string())
    }
}

/// Why a request was not served, by consequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// This node does not lead the group. No effect; ask the primary.
    #[error("not the primary")]
    NotPrimary {
        /// The primary, as far as this node knows.
        primary: Option<NodeId>,
    },
    /// The write's condition does not hold. No effect.
    #[error("condition does not hold; the key is {}", match .current {
        Some(revision) => format!("at revision {revision}"),
        None => "absent".to_owned(),
    })]
    Conflict {
        /// The receipt of the decision.
        receipt: Receipt,
        /// The revision of the key, if it exists.
        current: Option<Revision>,
    },
    /// The stamp of an eventual write is zero, too far from the node's clock, or far behind what
    /// the node has for the key. No effect; the client tries again with a later stamp.
    #[error("the stamp of the write is too far from the node's clock")]
    Clock {
        /// The time of the node's clock.
        now: Stamp,
    },
    /// This replica is further behind than the read allows and could not catch up. No effect; ask
    /// another replica.
    #[error("this replica is behind: it is at revision {revision}{}", match .staleness_ms {
        Some(ms) => format!(" and at most {ms} ms old"),
        None => ", of unknown age".to_owned(),
    })]
    Behind {
        /// The revision of this replica.
        revision: Revision,
        /// Its greatest possible age, in milliseconds.
        staleness_ms: Option<u64>,
    },
    /// The shard does not know the session, or no longer knows the serial. This attempt had no
    /// effect; an earlier one may have had.
    #[error("session expired")]
    SessionExpired,
    /// The request can never succeed. No effect.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Key or value is over the limit. No effect.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// "key" or "value".
        what: String,
        /// Its length, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The node has too many requests in progress. No effect.
    #[error("overloaded, retry after {retry_after_ms} ms")]
    Overloaded {
        /// Time after which to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The request could not be served now. No effect.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The request has begun and its outcome is not known. It may have taken effect, or may yet do
    /// so; repeating it with the same serial settles it.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The certificate does not allow this, or the policies of its user do not. No effect.
    #[error("denied: {0}")]
    Denied(String),
    /// The read must show eventual writes that are lost: the node that accepted them was removed
    /// before it had delivered them. No effect.
    #[error("eventual writes were lost: node {node} was removed before it had delivered them")]
    Lost {
        /// The node whose outbox held them.
        node: NodeId,
        /// The last of them that the read must show.
        number: Number,
    },
    /// The shard has forgotten its history at that revision. No effect.
    #[error("compacted: the history begins at revision {floor}")]
    Compacted {
        /// The earliest revision at which the shard can be read.
        floor: Revision,
    },
    /// The shard has not reached that revision. No effect.
    #[error("revision {asked} does not exist yet: the latest is {latest}")]
    NotYet {
        /// The revision that was asked for.
        asked: Revision,
        /// The latest one.
        latest: Revision,
    },
    /// An operation of a transaction cannot be executed. No effect.
    #[error("operation {} of the transaction: {why}", .operation + 1)]
    Unfit {
        /// The operation, counted from zero in the list that was to be executed.
        operation: u32,
        /// Why.
        why: Unfit,
    },
    /// The lease does not exist. No effect.
    #[error("lease {lease} does not exist; it may have ended")]
    NoLease {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease exists already. No effect.
    #[error("lease {lease} exists already")]
    LeaseExists {
        /// The lease.
        lease: LeaseId,
    },
    /// There are too many leases. No effect.
    #[error("{} have {limit} leases, and may not have more", match .own {
        true => "you",
        false => "the holders of all leases together",
    })]
    TooManyLeases {
        /// Whether all of them were granted to the holder that asks.
        own: bool,
        /// The limit in each shard.
        limit: u64,
    },
    /// The write would add to a shard that has reached its share of its keyspace's quota. No
    /// effect.
    #[error(
        "over quota: the shard has {used} bytes of keys and values, and its share of the \
         keyspace's quota is {limit}; deletes are still accepted"
    )]
    OverQuota {
        /// Size of the keys and values of the shard, in bytes.
        used: u64,
        /// The share of the shard in the quota, in bytes.
        limit: u64,
    },
    /// The shard was dropped with its keyspace, for good. No effect that anyone can see.
    #[error("shard {shard} was dropped with its keyspace")]
    Dropped {
        /// The shard.
        shard: GroupId,
    },
    /// The user has used up what its policies let it ask of this node in a second. No effect.
    #[error(
        "over the user's limit of {limit} a second at this node, retry after {retry_after_ms} ms"
    )]
    Limited {
        /// The limit that is used up.
        limit: LimitKind,
        /// Time after which to try again, in milliseconds.
        retry_after_ms: u32,
    },
}
