//! The rules that a transaction has to keep whatever the state is: its size, its depth, and that no
//! put meets another write of its key.
//!
//! A nested transaction is bytes within those of its parent. It is decoded level by level, so that
//! no message makes the decoder go deep.

use std::collections::BTreeSet;

use super::{Compare, Transaction, TransactionOperation};
use crate::codec;
use crate::limits::{
    TRANSACTION_DEPTH_MAX, TRANSACTION_NESTED_MAX, TRANSACTION_OPERATIONS_MAX,
    TRANSACTION_PARTS_MAX,
};
use crate::message::keys::Keys;

/// Why a transaction is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTransaction {
    /// A list is too long.
    #[error("a transaction has at most {TRANSACTION_OPERATIONS_MAX} {what}, not {count}")]
    TooMany {
        /// "compares" or "operations".
        what: &'static str,
        /// Their number.
        count: usize,
    },
    /// All lists together are too long.
    #[error(
        "a transaction has at most {TRANSACTION_PARTS_MAX} compares and operations, those of \
         transactions within it included"
    )]
    TooLong,
    /// There are too many transactions in it.
    #[error(
        "a transaction has at most {TRANSACTION_NESTED_MAX} others within it, and those are within \
         each other at most {TRANSACTION_DEPTH_MAX} times"
    )]
    TooDeep,
    /// A key is put and written again on one way through the transaction.
    #[error("the transaction writes key \"{}\" twice", String::from_utf8_lossy(.0))]
    WrittenTwice(Vec<u8>),
    /// It cannot be decoded.
    #[error("{0}")]
    Malformed(String),
}

impl<'a> Transaction<'a> {
    /// Decodes a transaction.
    ///
    /// # Errors
    /// [`BadTransaction::Malformed`].
    pub fn decode(body: &'a [u8]) -> Result<Self, BadTransaction> {
        codec::decode(body).map_err(|error| BadTransaction::Malformed(error.to_string()))
    }

    /// Checks the rules, and calls `compare` and `operation` with each compare and each operation,
    /// those of nested transactions included.
    ///
    /// # Errors
    /// [`BadTransaction`], or what the functions return.
    pub fn visit<E: From<BadTransaction>>(
        &self,
        mut compare: impl FnMut(&Compare<'a>) -> Result<(), E>,
        mut operation: impl FnMut(&TransactionOperation<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut seen = Seen { parts: 0, nested: 0 };
        seen.visit(self, 0, &mut compare, &mut operation)?;
        Ok(())
    }

    /// Returns all compares and all operations, those of nested transactions included, as far as
    /// the transaction is valid.
    pub fn parts(&self) -> (Vec<Compare<'a>>, Vec<TransactionOperation<'a>>) {
        let (mut compares, mut operations) = (Vec::new(), Vec::new());
        let visited: Result<(), BadTransaction> = self.visit(
            |compare| {
                compares.push(*compare);
                Ok(())
            },
            |operation| {
                operations.push(*operation);
                Ok(())
            },
        );
        // The transaction was checked before.
        _ = visited;
        (compares, operations)
    }
}

/// The keys that a list of operations may write.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<Keys<'a>>,
}

impl<'a> Writes<'a> {
    /// Adds those of an operation that is executed together with these.
    fn add(&mut self, other: Self) -> Result<(), BadTransaction> {
        let twice = |key: &[u8]| Err(BadTransaction::WrittenTwice(key.to_vec()));
        for put in &other.puts {
            if self.puts.contains(put) || self.deletes.iter().any(|keys| keys.contains(put)) {
                return twice(put);
            }
        }
        for deleted in &other.deletes {
            let put = self.puts.range(deleted.first()..).next();
            if let Some(put) = put.filter(|put| deleted.contains(put)) {
                return twice(put);
            }
        }
        self.either(other);
        Ok(())
    }

    /// Adds those of an operation that is executed in the place of these.
    fn either(&mut self, other: Self) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

struct Seen {
    parts: usize,
    nested: usize,
}

impl Seen {
    fn visit<'a, E: From<BadTransaction>>(
        &mut self,
        transaction: &Transaction<'a>,
        depth: usize,
        compare: &mut impl FnMut(&Compare<'a>) -> Result<(), E>,
        operation: &mut impl FnMut(&TransactionOperation<'a>) -> Result<(), E>,
    ) -> Result<Writes<'a>, E> {
        let Transaction { compares, then, otherwise } = transaction;
        for (what, count) in [
            ("compares", compares.len()),
            ("operations", then.len()),
            ("operations", otherwise.len()),
        ] {
            if count > TRANSACTION_OPERATIONS_MAX {
                return Err(BadTransaction::TooMany { what, count }.into());
            }
        }
        self.parts += compares.len() + then.len() + otherwise.len();
        if self.parts > TRANSACTION_PARTS_MAX {
            return Err(BadTransaction::TooLong.into());
        }
        for it in compares {
            compare(it)?;
        }
        let mut either = Writes::default();
        for operations in [then, otherwise] {
            let mut all = Writes::default();
            for it in operations {
                operation(it)?;
                let mut own = Writes::default();
                match it {
                    TransactionOperation::Nested(body) => {
                        self.nested += 1;
                        if self.nested > TRANSACTION_NESTED_MAX || depth >= TRANSACTION_DEPTH_MAX {
                            return Err(BadTransaction::TooDeep.into());
                        }
                        let nested = Transaction::decode(body)?;
                        own = self.visit(&nested, depth + 1, compare, operation)?;
                    }
                    TransactionOperation::Delete(key) => own.deletes.push(Keys::Key(key)),
                    TransactionOperation::DeleteAll(keys)
                    | TransactionOperation::DeleteWith { keys, .. } => own.deletes.push(*keys),
                    other => {
                        if let Some(Keys::Key(key)) = other.written() {
                            own.puts.insert(key);
                        }
                    }
                }
                all.add(own)?;
            }
            either.either(all);
        }
        Ok(either)
    }
}
