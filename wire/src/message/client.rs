//! What a client asks a node, and what it is told.

use std::net::SocketAddr;
use std::ops::Bound;

use bytes::Bytes;
use dkv_base::id::{GroupId, HolderId, NodeId, Number, Revision, Serial, SessionId, Stamp, Term};
use serde::{Deserialize, Serialize};

use super::placement::{Measures, Placement, Remainder};
use super::status::NodeStatus;
use crate::network::NetworkView;
use crate::region::Region;

/// One request on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, repeated in the reply; unique among those under way on the stream.
    pub id: u64,
    /// Time that the client will wait, in milliseconds. What has not been begun by then is dropped;
    /// what has been is brought to its end, whether or not anybody still waits for it.
    pub deadline_ms: u32,
    /// Whether a node that does not serve it itself passes it on to the one that does, and the
    /// answer back; otherwise it says where to go.
    pub forward: bool,
    /// What is asked.
    pub body: RequestBody,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// The network as this node sees it.
    View,
    /// How this node and its replicas are.
    Status,
    /// The value of a key.
    Read {
        /// The key's shard.
        shard: GroupId,
        /// The key.
        key: Bytes,
        /// What the answer must guarantee, and who may give it.
        mode: ReadMode,
    },
    /// Keys of a shard in order, as many as fit a page.
    Scan {
        /// The shard.
        shard: GroupId,
        /// Which keys, and how many.
        span: Span,
        /// What the answer must guarantee, and who may give it.
        mode: ReadMode,
    },
    /// A command for the log of a shard.
    Propose {
        /// The key's shard.
        shard: GroupId,
        /// Whether the answer waits for every replica rather than for a quorum.
        everywhere: bool,
        /// An encoded [`Command`]: it goes into the log as it came.
        command: Bytes,
    },
    /// An eventual write: keep it, and bring it to the primary when that can be reached.
    Deposit {
        /// The key's shard.
        shard: GroupId,
        /// Its moment. The client keeps it through all attempts: what comes twice is done once.
        /// Zero asks for the time: [`Refusal::Clock`].
        stamp: Stamp,
        /// Whether an attempt with this stamp may have been taken. Otherwise the write must not be
        /// far behind what the node has for the key: [`Refusal::Clock`] if it is.
        again: bool,
        /// The key.
        key: Bytes,
        /// The value; nothing for a delete.
        value: Option<Bytes>,
    },
    /// From a node that holds a replica: what had been committed in a shard when this was asked.
    Committed {
        /// The shard.
        shard: GroupId,
        /// The term in which the asker follows the node that is asked, by the vote that it has put
        /// into its log last. With it a voter confirms the primary that it asks.
        followed: Option<Term>,
    },
    /// From the primary: answer once this replica has applied that entry.
    Reach {
        /// The shard.
        shard: GroupId,
        /// Index of the entry.
        index: u64,
    },
    /// From a node: this is my name, my address and my region, now.
    Announce {
        /// What people call it.
        name: String,
        /// Where it listens.
        address: SocketAddr,
        /// The region that it is in, if it was told.
        region: Option<Region>,
    },
    /// From a node: I am stopping in good order.
    Leaving,
    /// From an administrator: this node shall never take part again.
    RemoveNode(NodeId),
    /// From an administrator: refuse this certificate holder from now on.
    Revoke(HolderId),
    /// From a node: how it and the groups that it leads are.
    Measures(Box<Measures>),
    /// From a node that the directory does not name for a shard any more: whether the shard still
    /// counts on it.
    Departed(GroupId),
    /// From the coordinator: hand a shard over to that node.
    HandOver {
        /// The shard.
        shard: GroupId,
        /// Who should lead it.
        to: NodeId,
    },
    /// From an administrator: empty this node, or use it again.
    Drain {
        /// Which node.
        node: NodeId,
        /// Whether it is to be emptied.
        on: bool,
    },
    /// From an administrator: even out what the nodes hold and lead, now.
    Rebalance,
    /// Where replicas are and where they are going.
    Placement {
        /// Whether to tell what is going to be done besides what is under way.
        forecast: bool,
    },
    /// From a node: whether that node is a member of a group by the log of the one that is asked.
    Member {
        /// Which group.
        group: GroupId,
        /// Which node.
        node: NodeId,
    },
    /// From the coordinator, to a node that is to be emptied: what is left there.
    Remainder {
        /// The entry of the directory that the node must have applied before it answers.
        applied: u64,
    },
}

impl RequestBody {
    /// Whether a request that was sent and not answered may have changed what anybody can see, so
    /// that nobody may say that nothing was changed.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Propose { .. }
            | Self::Deposit { .. }
            | Self::Announce { .. }
            | Self::Leaving
            | Self::RemoveNode(_)
            | Self::Revoke(_)
            | Self::HandOver { .. }
            | Self::Drain { .. }
            | Self::Rebalance => true,
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
            | Self::Remainder { .. } => false,
        }
    }
}

/// Some of the keys of a shard, in the order of their bytes, and how much of them makes a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// They begin with this.
    pub prefix: Bytes,
    /// They come after this key, which need not exist; empty for all.
    pub after: Bytes,
    /// Most keys of a page; what is over [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX) is taken
    /// to be that.
    pub keys_max: u32,
    /// A page ends when it has so many bytes of keys and values, and holds one pair at least; over
    /// [`SCAN_BYTES_MAX`](crate::limits::SCAN_BYTES_MAX) is taken to be that.
    pub bytes_max: u32,
    /// Whether values are wanted too.
    pub values: bool,
}

impl Span {
    /// The keys that there are from where it begins on, in the order of their bytes; those that
    /// begin with its prefix come first.
    pub fn range(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = match self.after.as_ref() {
            after if after >= self.prefix.as_ref() && !after.is_empty() => Bound::Excluded(after),
            _ => Bound::Included(self.prefix.as_ref()),
        };
        (from, Bound::Unbounded)
    }
}

/// A key that a scan found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// The write that stored its value; zero while that waits in the outbox of the node that
    /// answers.
    pub revision: Revision,
    /// The value, if it was asked for.
    pub value: Option<Bytes>,
}

/// A part of a scan: what a shard had at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of their keys.
    pub pairs: Vec<Pair>,
    /// Whether there were more keys after these.
    pub more: bool,
}

/// What a read or a write guarantees. docs/consistency.md says it precisely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Linearizable: not older than any write or strong read that was finished before it began.
    Strong,
    /// What one replica has at once, and how old that may be.
    Eventual,
    /// Eventual, and never older than what the asking client has written or seen. Nodes know it as
    /// eventual with a bound, which is what a receipt says then.
    Session,
    /// Strong, and every replica has it.
    All,
}

impl Level {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Eventual => "eventual",
            Self::Session => "session",
            Self::All => "all",
        }
    }
}

/// What the answer to a read must guarantee, and who may give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadMode {
    /// Strong, from the primary; any other node says who that is.
    Primary,
    /// Strong, from whichever replica is asked: it asks the primary how far to go.
    Replica,
    /// From the replica that is asked, as it is, within bounds.
    Eventual(ReadBounds),
    /// Strong, from the primary, and after it every replica that can be reached has as much.
    All,
    /// Of a scan: what this node has and nobody else's, be it no more than what waits in its
    /// outbox.
    Held,
}

/// How much an eventual answer may be behind. A replica that is further behind first goes as far as
/// the primary, if it can, and otherwise answers [`Refusal::Behind`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBounds {
    /// How old it may be, in milliseconds.
    pub max_staleness_ms: Option<u64>,
    /// The revision that the shard must have reached there.
    pub at_least: Revision,
    /// Eventual writes that must be there: of these outboxes, all up to these numbers.
    pub deposits: Vec<(NodeId, Number)>,
}

impl ReadBounds {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a replica keeps within those of age and revision.
    pub fn allow(&self, revision: Revision, staleness_ms: Option<u64>) -> bool {
        let fresh =
            self.max_staleness_ms.is_none_or(|most| staleness_ms.is_some_and(|ms| ms <= most));
        fresh && revision >= self.at_least
    }
}

/// How far an answer at [`Level::All`] got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Replicas that were behind when they were asked, and are not any more.
    pub mended: Vec<NodeId>,
    /// Replicas of which it is not known that they have it.
    pub missing: Vec<NodeId>,
}

/// A command in the log of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// Makes the shard remember a session, so that its writes are executed once each. A node makes
    /// an [`OpenSessionOf`](Self::OpenSessionOf) of it before it goes into the log.
    OpenSession(SessionId),
    /// A write of an open session.
    #[serde(borrow)]
    Write(Write<'a>),
    /// An eventual write, from the outbox of the node that took it.
    #[serde(borrow)]
    Deposited(Deposited<'a>),
    /// Opens a session in the name of a holder, whose sessions are counted together. Only nodes say
    /// this: the first one that gets a client's [`OpenSession`](Self::OpenSession) makes it of
    /// that.
    OpenSessionOf {
        /// The session.
        session: SessionId,
        /// Who asked for it.
        holder: HolderId,
    },
}

/// An eventual write on its way from an outbox. (node, number) names it: a shard takes them in
/// order, each once. Of what a shard has for a key, the later stamp stays.
///
/// Numbers grow by one, but begin anew far above all earlier ones when the node starts, so that one
/// that has lost the end of its outbox gives no number a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposited<'a> {
    /// Whose outbox.
    pub node: NodeId,
    /// Which of its writes to this shard.
    pub number: Number,
    /// The write before it in the outbox, without which it is not taken; zero for the first.
    pub after: Number,
    /// Its moment.
    pub stamp: Stamp,
    /// The key.
    #[serde(borrow, with = "serde_bytes")]
    pub key: &'a [u8],
    /// What to do.
    #[serde(borrow)]
    pub operation: Operation<'a>,
}

/// One write. (session, serial) names it: a shard executes it at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write<'a> {
    /// Whose write.
    pub session: SessionId,
    /// Which of that session's writes to this shard; from one.
    pub serial: Serial,
    /// Every serial below this one is settled for the client: it will never ask for them again.
    pub settled: Serial,
    /// The latest moment that the client has seen in an eventual write, its own or another's: this
    /// one is later. Zero if it has seen none.
    pub after: Stamp,
    /// When to do it.
    pub condition: Condition,
    /// The key, 1 to [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) bytes of anything.
    #[serde(borrow, with = "serde_bytes")]
    pub key: &'a [u8],
    /// What to do.
    #[serde(borrow)]
    pub operation: Operation<'a>,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation<'a> {
    /// Stores a value.
    #[serde(borrow, with = "serde_bytes")]
    Put(&'a [u8]),
    /// Removes the key.
    Delete,
}

/// When a write is done. Otherwise it is a [`Refusal::Conflict`] and has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
    /// Only if the key exists and was last written at this revision.
    Revision(Revision),
}

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
    /// To [`RequestBody::View`].
    View(Box<NetworkView>),
    /// To [`RequestBody::Status`].
    Status(Box<NodeStatus>),
    /// To [`RequestBody::Read`]; no value if the key does not exist.
    Value(Receipt, Option<Stored>),
    /// To [`RequestBody::Scan`]; the receipt has the shard's latest revision at the moment of the
    /// page, a moment not before any write that the page shows, and the last write in the node's
    /// outbox that it shows.
    Page(Receipt, Page),
    /// To a write that was done; `existed` tells whether the key was there before. A delete of a
    /// key that was not there is done too, without an effect.
    Written {
        /// About the write.
        receipt: Receipt,
        /// Whether the key was there before.
        existed: bool,
    },
    /// To [`RequestBody::Read`] at [`ReadMode::All`].
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
    /// To [`RequestBody::Committed`]: everything up to that entry was committed.
    Committed {
        /// Index of the entry.
        index: u64,
        /// The shard's term.
        term: Term,
    },
    /// To [`RequestBody::Reach`]: it is applied.
    Reached {
        /// Whether it was not yet when it was asked.
        was_behind: bool,
    },
    /// To [`Command::OpenSession`], and to everything that has no more to say.
    Done,
    /// To [`RequestBody::Departed`]: by this entry of its log, which is committed, the shard does
    /// not count on the node that asks.
    Departed {
        /// Index of the entry.
        index: u64,
        /// The term in which the node that answers leads the shard.
        term: Term,
    },
    /// To [`RequestBody::Placement`].
    Placement(Box<Placement>),
    /// To [`RequestBody::Member`].
    Member(bool),
    /// To [`RequestBody::Remainder`].
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
