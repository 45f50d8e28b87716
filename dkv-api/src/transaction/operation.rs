//! The operations of a transaction.

use bytes::Bytes;
use dkv_wire::codec;
use dkv_wire::message::{self, KeyRange, RangeOptions};

use super::Transaction;
use super::compare::keys_to_wire;
use crate::attach::Attach;

/// One operation of a transaction.
///
/// # Examples
/// ```
/// use dkv_api::TransactionOperation;
///
/// let count = TransactionOperation::increment("visits", 1);
/// assert!(matches!(count, TransactionOperation::Increment { by: 1, .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionOperation {
    /// Reads a key.
    Get(Bytes),
    /// Reads the first keys of a range.
    List {
        /// The range. More than one key needs a network with one shard.
        keys: KeyRange,
        /// Most keys.
        keys_max: u32,
    },
    /// Stores a value.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Removes all keys of a range. More than one key needs a network with one shard.
    DeleteAll(KeyRange),
    /// Adds to the number that is a key's value, in decimal digits with an optional minus sign; a
    /// key that does not exist counts as zero. The number and the result are within 64 signed bits.
    Increment {
        /// The key.
        key: Bytes,
        /// The number to add.
        by: i64,
    },
    /// Appends bytes to a key's value; a key that does not exist counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// The bytes.
        bytes: Bytes,
    },
    /// Stores a value, and attaches its key to a lease or gives it a time to live.
    PutAttached {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// How long the key will live.
        attach: Attach,
    },
    /// Stores a value or a new attachment, and can tell what was there. Needs a keyspace with one
    /// shard.
    PutWith {
        /// The key.
        key: Bytes,
        /// The value; `None` keeps that of the key, which must exist.
        value: Option<Bytes>,
        /// How long the key will live.
        attach: PutAttach,
        /// Whether the result has the version before.
        previous: bool,
    },
    /// Removes all keys of a range, and can tell what they were. Needs a keyspace with one shard.
    DeleteWith {
        /// The range.
        keys: KeyRange,
        /// Whether the result has the versions before.
        previous: bool,
    },
    /// Reads a range. Needs a keyspace with one shard.
    Range {
        /// The range.
        keys: KeyRange,
        /// Which keys of it, and what of them.
        options: RangeOptions,
    },
    /// Executes another transaction as a part of this one. Its compares see the state before the
    /// whole. Needs a keyspace with one shard.
    Nested(NestedTransaction),
}

/// How long a key lives that a put of a transaction stores.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use dkv_api::{Attach, PutAttach};
///
/// let soon_gone = PutAttach::To(Attach::Ttl(Duration::from_secs(30)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutAttach {
    /// Until it is deleted.
    Nothing,
    /// As this says.
    To(Attach),
    /// As long as before; the key must exist.
    AsBefore,
}

impl PutAttach {
    fn to_wire(self) -> message::PutAttach {
        match self {
            Self::Nothing => message::PutAttach::Nothing,
            Self::To(attach) => message::PutAttach::To(attach.to_wire()),
            Self::AsBefore => message::PutAttach::AsBefore,
        }
    }
}

/// A transaction within another; see [`TransactionOperation::nested`].
///
/// # Examples
/// ```
/// use dkv_api::{NestedTransaction, Transaction, TransactionOperation};
///
/// let inner = Transaction::new().then(TransactionOperation::get("color"));
/// let nested = NestedTransaction::from(inner);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedTransaction {
    body: Bytes,
}

impl From<Transaction> for NestedTransaction {
    fn from(transaction: Transaction) -> Self {
        Self { body: codec::encode(&transaction.to_wire()) }
    }
}

impl TransactionOperation {
    /// Executes another transaction as a part of this one. The results of its operations follow its
    /// own in [`Transacted::results`](crate::Transacted::results).
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Compare, Transaction, TransactionOperation};
    ///
    /// let log_if_watched = Transaction::new()
    ///     .when(Compare::exists("watched"))
    ///     .then(TransactionOperation::append("log", "blue\n"));
    /// let change = Transaction::new()
    ///     .then(TransactionOperation::put("color", "blue"))
    ///     .then(TransactionOperation::nested(log_if_watched));
    /// ```
    pub fn nested(transaction: Transaction) -> Self {
        Self::Nested(transaction.into())
    }

    /// Stores a value, and attaches its key to a lease or gives it a time to live.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::{Attach, TransactionOperation};
    ///
    /// let for_a_minute = Attach::Ttl(Duration::from_secs(60));
    /// let put = TransactionOperation::put_attached("color", "blue", for_a_minute);
    /// ```
    pub fn put_attached(key: impl AsRef<[u8]>, value: impl Into<Bytes>, attach: Attach) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        Self::PutAttached { key, value: value.into(), attach }
    }

    /// Reads a key.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// let operation = TransactionOperation::get("color");
    /// assert!(operation.is_read());
    /// ```
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        Self::Get(Bytes::copy_from_slice(key.as_ref()))
    }

    /// Stores a value.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// let operation = TransactionOperation::put("color", "blue");
    /// assert_eq!(operation.first_key(), b"color");
    /// ```
    pub fn put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::Put(Bytes::copy_from_slice(key.as_ref()), value.into())
    }

    /// Removes a key.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// let operation = TransactionOperation::delete("color");
    /// assert_eq!(operation.name(), "delete");
    /// ```
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete(Bytes::copy_from_slice(key.as_ref()))
    }

    /// Adds to a number.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// let operation = TransactionOperation::increment("visits", -1);
    /// assert_eq!(operation.name(), "increment");
    /// ```
    pub fn increment(key: impl AsRef<[u8]>, by: i64) -> Self {
        Self::Increment { key: Bytes::copy_from_slice(key.as_ref()), by }
    }

    /// Appends to a value.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// let operation = TransactionOperation::append("log", "blue\n");
    /// assert_eq!(operation.first_key(), b"log");
    /// ```
    pub fn append(key: impl AsRef<[u8]>, bytes: impl Into<Bytes>) -> Self {
        Self::Append { key: Bytes::copy_from_slice(key.as_ref()), bytes: bytes.into() }
    }

    /// Returns the name of the operation: `get`, `list`, `put`, `delete`, `delete-all`,
    /// `increment`, `append`, `range` or `transaction`.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// assert_eq!(TransactionOperation::get("color").name(), "get");
    /// ```
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get(_) => "get",
            Self::List { .. } => "list",
            Self::Put(..) | Self::PutAttached { .. } | Self::PutWith { .. } => "put",
            Self::Delete(_) => "delete",
            Self::DeleteAll(_) | Self::DeleteWith { .. } => "delete-all",
            Self::Range { .. } => "range",
            Self::Nested(_) => "transaction",
            Self::Increment { .. } => "increment",
            Self::Append { .. } => "append",
        }
    }

    /// Returns whether it changes nothing. A nested transaction may change something.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::TransactionOperation;
    ///
    /// assert!(TransactionOperation::get("color").is_read());
    /// assert!(!TransactionOperation::delete("color").is_read());
    /// ```
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::List { .. } | Self::Range { .. })
    }

    /// Returns its key, or the beginning of its range; nothing for a nested transaction.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, TransactionOperation};
    ///
    /// let all = TransactionOperation::DeleteAll(KeyRange::Prefix("user/".into()));
    /// assert_eq!(all.first_key(), b"user/");
    /// ```
    pub fn first_key(&self) -> &[u8] {
        match self {
            Self::Get(key)
            | Self::Put(key, _)
            | Self::Delete(key)
            | Self::Increment { key, .. }
            | Self::Append { key, .. }
            | Self::PutAttached { key, .. }
            | Self::PutWith { key, .. } => key,
            Self::List { keys, .. }
            | Self::DeleteAll(keys)
            | Self::DeleteWith { keys, .. }
            | Self::Range { keys, .. } => match keys {
                KeyRange::Key(first) | KeyRange::Prefix(first) | KeyRange::Range(first, _) => first,
            },
            Self::Nested(_) => &[],
        }
    }
}

pub(super) fn operations_to_wire(
    all: &[TransactionOperation],
) -> Vec<message::TransactionOperation<'_>> {
    all.iter().map(operation_to_wire).collect()
}

fn operation_to_wire(operation: &TransactionOperation) -> message::TransactionOperation<'_> {
    use message::TransactionOperation as Wire;

    match operation {
        TransactionOperation::Get(key) => Wire::Get(key),
        TransactionOperation::List { keys, keys_max } => {
            Wire::List { keys: keys_to_wire(keys), keys_max: *keys_max }
        }
        TransactionOperation::Put(key, value) => Wire::Put(key, value),
        TransactionOperation::Delete(key) => Wire::Delete(key),
        TransactionOperation::DeleteAll(keys) => Wire::DeleteAll(keys_to_wire(keys)),
        TransactionOperation::Increment { key, by } => Wire::Increment { key, by: *by },
        TransactionOperation::Append { key, bytes } => Wire::Append { key, bytes },
        TransactionOperation::PutAttached { key, value, attach } => {
            Wire::PutAttached { key, value, attach: attach.to_wire() }
        }
        TransactionOperation::PutWith { key, value, attach, previous } => Wire::PutWith {
            key,
            value: value.as_deref(),
            attach: attach.to_wire(),
            previous: *previous,
        },
        TransactionOperation::DeleteWith { keys, previous } => {
            Wire::DeleteWith { keys: keys_to_wire(keys), previous: *previous }
        }
        TransactionOperation::Range { keys, options } => {
            Wire::Range { keys: keys_to_wire(keys), options: *options }
        }
        TransactionOperation::Nested(nested) => Wire::Nested(&nested.body),
    }
}
