//! Commands: what clients put into the log of a shard.

use super::commit::{AttemptId, Commitment, Decide, Prepare, TransactOver};
use super::lease::{Attach, Expire, LeaseCommand};
use super::transaction::Transact;
use dkv_base::id::{HolderId, NodeId, Number, Revision, Serial, SessionId, Stamp};
use serde::{Deserialize, Serialize};

/// A command in the log of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// Opens a session, so that the shard executes each of its writes once. The first node that
    /// receives it turns it into [`OpenSessionOf`](Self::OpenSessionOf) before it enters the log.
    OpenSession(SessionId),
    /// A write in an open session.
    #[serde(borrow)]
    Write(Write<'a>),
    /// An eventual write, from the outbox of the node that accepted it.
    #[serde(borrow)]
    Deposited(Deposited<'a>),
    /// Opens a session on behalf of a certificate holder; the sessions of a holder are limited
    /// together. Only nodes send this, in place of a client's [`OpenSession`](Self::OpenSession).
    OpenSessionOf {
        /// The session.
        session: SessionId,
        /// The holder that asked for it.
        holder: HolderId,
    },
    /// Forgets the history before a revision. Only nodes send this: by the shard's policy, or for
    /// an administrator. A floor that is not above the present one has no effect.
    Compact {
        /// The earliest revision at which the shard can be read from then on; at most its latest.
        floor: Revision,
    },
    /// A transaction in an open session.
    #[serde(borrow)]
    Transact(Transact<'a>),
    /// A put in an open session that attaches its key to a lease or gives it an expiry.
    #[serde(borrow)]
    WriteAttached(WriteAttached<'a>),
    /// A change of a lease, in an open session.
    Lease(LeaseCommand),
    /// Deletes what has ended. Only nodes send this.
    Expire(Expire),
    /// Cuts the history: later writes are stamped after the moment. Only nodes send this, for a
    /// snapshot.
    Cut {
        /// The moment.
        moment: Stamp,
    },
    /// A transaction over several shards in an open session. It never enters a log as it is: the
    /// primary of its home drives it by the commands that follow, which only nodes send.
    #[serde(borrow)]
    TransactOver(TransactOver<'a>),
    /// Prepares an attempt at a transaction in one of its shards.
    #[serde(borrow)]
    Prepare(Prepare<'a>),
    /// Decides an attempt, in its home.
    Decide(Decide),
    /// Ends an attempt in a shard other than its home. Without effect if it is not prepared there.
    Finish {
        /// The attempt.
        id: AttemptId,
        /// How it is committed; `None` if it is aborted.
        committed: Option<Commitment>,
    },
    /// Asks the home what has become of an attempt. It is aborted if its time is over, or if the
    /// home has never seen it.
    Resolve {
        /// The attempt.
        id: AttemptId,
        /// Whether to abort it even if its time is not over.
        abort: bool,
    },
    /// Tells the home that a committed attempt is finished in all other shards.
    Forget(AttemptId),
}

/// An eventual write on its way from an outbox, identified by (node, number). A shard accepts those
/// of a node in order, each once. For each key the write with the latest stamp wins.
///
/// Numbers grow by one. When the node starts they resume far above all earlier ones, so that a node
/// that has lost the end of its outbox uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposited<'a> {
    /// The node that owns the outbox.
    pub node: NodeId,
    /// The number of the write among those to this shard.
    pub number: Number,
    /// The number of the write before it in the outbox, which the shard must have accepted first;
    /// zero if there is none.
    pub after: Number,
    /// Its stamp.
    pub stamp: Stamp,
    /// The key.
    #[serde(borrow, with = "serde_bytes")]
    pub key: &'a [u8],
    /// The operation.
    #[serde(borrow)]
    pub operation: Operation<'a>,
}

/// One write, identified by (session, serial). A shard executes it at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write<'a> {
    /// The session.
    pub session: SessionId,
    /// The number of the write among the session's writes to this shard, from one.
    pub serial: Serial,
    /// Every serial below this one is settled: the client will never ask for its outcome again.
    pub settled: Serial,
    /// The latest stamp of an eventual write that the client has made or seen; this write is later.
    /// Zero if there is none.
    pub after: Stamp,
    /// The condition under which to execute it.
    pub condition: Condition,
    /// The key: 1 to [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) arbitrary bytes.
    #[serde(borrow, with = "serde_bytes")]
    pub key: &'a [u8],
    /// The operation.
    #[serde(borrow)]
    pub operation: Operation<'a>,
}

/// A put that attaches its key. The answer is that of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAttached<'a> {
    /// The write; its operation is a put.
    #[serde(borrow)]
    pub write: Write<'a>,
    /// What to attach the key to.
    pub attach: Attach,
}

/// The operation of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation<'a> {
    /// Stores a value.
    #[serde(borrow, with = "serde_bytes")]
    Put(&'a [u8]),
    /// Removes the key.
    Delete,
}

/// The condition of a write. If it does not hold, the write has no effect and is refused with
/// [`Refusal::Conflict`](super::Refusal::Conflict).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// No condition.
    Always,
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
    /// Only if the key exists and was last written at this revision.
    Revision(Revision),
}
