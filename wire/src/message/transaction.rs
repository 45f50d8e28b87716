//! Transactions: compares, and one of two lists of operations, in one shard and one entry of its
//! log.
//!
//! A transaction takes effect as a whole and at one revision. Its compares, and its reads before it
//! has written the key itself, see the state before it; later reads see what it wrote.

use bytes::Bytes;
use dkv_base::id::{Revision, Serial, SessionId, Stamp};
use serde::{Deserialize, Serialize};

use super::history::Version;
use super::keys::Keys;
use super::lease::Attach;

/// A transaction on its way into the log, identified by (session, serial) like a write. A shard
/// executes it at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transact<'a> {
    /// The session.
    pub session: SessionId,
    /// Its number among the session's writes to this shard, from one.
    pub serial: Serial,
    /// Every serial below this one is settled.
    pub settled: Serial,
    /// The latest stamp of an eventual write that the client has made or seen; this one is later.
    pub after: Stamp,
    /// An encoded [`Transaction`].
    #[serde(borrow, with = "serde_bytes")]
    pub body: &'a [u8],
}

/// What a transaction does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction<'a> {
    /// All of these must hold for `then` to be executed.
    #[serde(borrow)]
    pub compares: Vec<Compare<'a>>,
    /// The operations if they do.
    #[serde(borrow)]
    pub then: Vec<TransactionOperation<'a>>,
    /// The operations if one does not.
    #[serde(borrow)]
    pub otherwise: Vec<TransactionOperation<'a>>,
}

/// A condition on every key of a range that exists, or on one key whether it exists or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare<'a> {
    /// The keys.
    #[serde(borrow)]
    pub keys: Keys<'a>,
    /// The condition.
    #[serde(borrow)]
    pub test: Test<'a>,
}

/// The condition of a compare. A key that does not exist has zero for every number, and fails every
/// test of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test<'a> {
    /// Whether the key exists; for a range, whether any key does.
    Exists(bool),
    /// The revision of the last write of the key.
    Revision(Relation, Revision),
    /// The revision of the write that created the key.
    Created(Relation, Revision),
    /// The number of writes of the key since it was created.
    Version(Relation, u64),
    /// The value, in the order of bytes.
    Value(Relation, #[serde(borrow, with = "serde_bytes")] &'a [u8]),
}

/// How the key's part relates to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is less.
    Less,
    /// It is greater.
    Greater,
}

/// One operation of a transaction. No key may be written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionOperation<'a> {
    /// Reads a key.
    #[serde(borrow, with = "serde_bytes")]
    Get(&'a [u8]),
    /// Reads the first keys of a range.
    List {
        /// The range.
        #[serde(borrow)]
        keys: Keys<'a>,
        /// Most keys, capped at [`SCAN_KEYS_MAX`](crate::limits::SCAN_KEYS_MAX).
        keys_max: u32,
    },
    /// Stores a value.
    Put(
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
    ),
    /// Removes a key.
    #[serde(borrow, with = "serde_bytes")]
    Delete(&'a [u8]),
    /// Removes all keys of a range.
    #[serde(borrow)]
    DeleteAll(Keys<'a>),
    /// Adds to the number that is a key's value, in decimal digits with an optional minus sign; a
    /// key that does not exist counts as zero. The number and the result are within 64 signed bits.
    Increment {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The number to add.
        by: i64,
    },
    /// Appends bytes to a key's value; a key that does not exist counts as empty.
    Append {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The bytes.
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// Stores a value and attaches its key to a lease or gives it an expiry. The result is that of
    /// a put.
    PutAttached {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The value.
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
        /// What to attach the key to.
        attach: Attach,
    },
}

impl<'a> TransactionOperation<'a> {
    /// Returns the keys that the operation reads or writes.
    pub fn keys(&self) -> Keys<'a> {
        match *self {
            Self::Get(key)
            | Self::Put(key, _)
            | Self::PutAttached { key, .. }
            | Self::Delete(key)
            | Self::Increment { key, .. }
            | Self::Append { key, .. } => Keys::Key(key),
            Self::List { keys, .. } | Self::DeleteAll(keys) => keys,
        }
    }

    /// Returns the keys that the operation writes, if it does.
    pub fn written(&self) -> Option<Keys<'a>> {
        match self {
            Self::Get(_) | Self::List { .. } => None,
            Self::Put(..)
            | Self::PutAttached { .. }
            | Self::Delete(_)
            | Self::DeleteAll(_)
            | Self::Increment { .. }
            | Self::Append { .. } => Some(self.keys()),
        }
    }
}

/// The result of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// The key that a get read; `None` if it does not exist.
    Got(Option<Version>),
    /// The keys that a list read.
    Listed {
        /// The keys, in order.
        keys: Vec<(Bytes, Version)>,
        /// Whether there are more.
        more: bool,
    },
    /// The version that a put made.
    Put {
        /// The revision of the write that created the key.
        created: Revision,
        /// The number of writes of the key since then, this one included.
        version: u64,
    },
    /// The number of keys that a delete removed.
    Deleted(u64),
    /// The version that an increment or an append made.
    Changed(Version),
}

/// Why an operation of a transaction could not be executed. The transaction had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unfit {
    /// The value that is to be incremented is no number.
    #[error("the value is not a decimal number of 64 bits")]
    NotANumber,
    /// The result of the increment has more than 64 bits.
    #[error("the result is not within 64 bits")]
    Overflow,
    /// The result of the append is over the limit of a value.
    #[error("the value would be longer than a value may be")]
    TooLong,
    /// The lease does not exist.
    #[error("the lease does not exist; it may have ended")]
    NoLease,
    /// The compares, or the operations up to this one, need too much at once.
    #[error("the transaction would compare, read or write more than 32 MiB")]
    TooMuch,
}
