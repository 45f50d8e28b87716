//! Commands: what clients put into the log of a shard.

use dkv_base::id::{HolderId, NodeId, Number, Revision, Serial, SessionId, Stamp};
use serde::{Deserialize, Serialize};

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

/// When a write is done. Otherwise it is a [`Refusal::Conflict`](super::Refusal::Conflict) and has
/// no effect.
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
