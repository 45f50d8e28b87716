//! Replies of a node.

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId, Number, Revision, Stamp, Term};
use serde::{Deserialize, Serialize};

use super::placement::{Placement, Remainder};
use super::read::{Level, Reach};
use super::scan::Page;
use super::status::NodeStatus;
use crate::network::NetworkView;

/// What a reply says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The shard.
    pub shard: GroupId,
    /// Of a write: its number. Of a read: that of the write which stored the value, or for a key
    /// that does not exist the shard's latest.
    pub revision: Revision,
    /// The level that was served.
    pub level: Level,
    /// Who answered.
    pub node: NodeId,
    /// The shard's term when it answered.
    pub term: Term,
    /// How old the answer may be, in milliseconds; zero for strong answers, `None` if the node
    /// cannot know.
    pub staleness_ms: Option<u64>,
    /// Of a read: the moment of the write that it shows. Of a write: a moment not before its own.
    pub stamp: Stamp,
    /// The number of the write in the outbox of this node, if it was accepted and is not known to
    /// be ordered yet. It has no revision then. Of a page: that of the last such write that it
    /// shows.
    pub pending: Option<Number>,
}

/// A value and the write that stored it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// The write that stored it.
    pub revision: Revision,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Refusal>,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`RequestBody::View`](super::RequestBody::View).
    View(Box<NetworkView>),
    /// To [`RequestBody::Status`](super::RequestBody::Status).
    Status(Box<NodeStatus>),
    /// To [`RequestBody::Read`](super::RequestBody::Read); no value if the key does not exist.
    Value(Receipt, Option<Stored>),
    /// To [`RequestBody::Scan`](super::RequestBody::Scan); the receipt has the shard's latest
    /// revision at the moment of the page, a moment not before any write that the page shows, and
    /// the last write in the node's outbox that it shows.
    Page(Receipt, Page),
    /// To a write that was done; `existed` tells whether the key was there before. A delete of a
    /// key that was not there is done too, without an effect.
    Written {
        /// About the write.
        receipt: Receipt,
        /// Whether the key was there before.
        existed: bool,
    },
    /// To [`RequestBody::Read`](super::RequestBody::Read) at
    /// [`ReadMode::All`](super::ReadMode::All).
    ValueEverywhere(Receipt, Option<Stored>, Reach),
    /// To a write that was to wait for every replica. It stands, whoever is missing.
    WrittenEverywhere {
        /// About the write.
        receipt: Receipt,
        /// Whether the key was there before.
        existed: bool,
        /// Who has it.
        reach: Reach,
    },
    /// To [`RequestBody::Committed`](super::RequestBody::Committed): everything up to that entry
    /// was committed.
    Committed {
        /// Index of the entry.
        index: u64,
        /// The shard's term.
        term: Term,
    },
    /// To [`RequestBody::Reach`](super::RequestBody::Reach): it is applied.
    Reached {
        /// Whether it was not yet when it was asked.
        was_behind: bool,
    },
    /// To [`Command::OpenSession`](super::Command::OpenSession), and to everything that has no more
    /// to say.
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
    /// To [`RequestBody::Member`](super::RequestBody::Member).
    Member(bool),
    /// To [`RequestBody::Remainder`](super::RequestBody::Remainder).
    Remainder(Remainder),
}

/// Why a request came to nothing, and with which consequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// This node does not lead the group. No effect; ask the one that does.
    #[error("not the primary")]
    NotPrimary {
        /// Who is, as far as this node knows.
        primary: Option<NodeId>,
    },
    /// The write's condition does not hold. No effect.
    #[error("condition does not hold; the key is {}", match .current {
        Some(revision) => format!("at revision {revision}"),
        None => "absent".to_owned(),
    })]
    Conflict {
        /// About the decision.
        receipt: Receipt,
        /// The revision that the key is at, if it exists.
        current: Option<Revision>,
    },
    /// The stamp of an eventual write is none, too far from the node's clock, or far behind what
    /// the node has for the key. No effect; another stamp, from here on.
    #[error("the stamp of the write is too far from the node's clock")]
    Clock {
        /// What the node's clock shows.
        now: Stamp,
    },
    /// This replica is further behind than the read allows, and could not catch up. No effect; ask
    /// another one.
    #[error("this replica is behind: it is at revision {revision}{}", match .staleness_ms {
        Some(ms) => format!(" and at most {ms} ms old"),
        None => ", of unknown age".to_owned(),
    })]
    Behind {
        /// The shard's revision there.
        revision: Revision,
        /// How old that may be.
        staleness_ms: Option<u64>,
    },
    /// The shard does not know the session, or no longer this serial. This attempt had no effect;
    /// an earlier one may have had.
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
        /// What was sent.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// More is under way than the node can take. No effect.
    #[error("overloaded, retry after {retry_after_ms} ms")]
    Overloaded {
        /// When to come again.
        retry_after_ms: u32,
    },
    /// The request could not be served now. No effect.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The request was begun and its outcome is not known. It may have had, or may yet have, its
    /// effect; asking again with the same serial settles it.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The certificate does not allow this. No effect.
    #[error("denied: {0}")]
    Denied(String),
    /// The read must show eventual writes that nobody will ever have: the node that had taken them
    /// was removed before it had delivered them. No effect.
    #[error("eventual writes were lost: node {node} was removed before it had delivered them")]
    Lost {
        /// Whose outbox they were in.
        node: NodeId,
        /// The last of them that the read must show.
        number: Number,
    },
}
