//! The rules that a transaction has to keep, as far as a client can check them.

use std::cell::RefCell;

use bytes::Bytes;
use dkv_wire::limits;
use dkv_wire::message::{BadTransaction, Keys, OperationResult, Transaction, TransactionOperation};

use super::TransactionOperation as Operation;
use crate::client::checked_key;
use crate::error::Error;

/// Checks a transaction; returns its keys, and whether a keyspace must have one shard for it.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::TooLarge`], as a node would refuse it.
pub(super) fn checked(transaction: &Transaction<'_>) -> Result<(Vec<Bytes>, bool), Error> {
    let found = RefCell::new(Found::default());
    transaction.visit(
        |compare| found.borrow_mut().add(&compare.keys),
        |operation| {
            let mut found = found.borrow_mut();
            found.ranges |= operation.needs_one_shard();
            let bytes = match operation {
                // Its operations come one by one.
                TransactionOperation::Nested(_) => return Ok(()),
                TransactionOperation::Put(_, value)
                | TransactionOperation::PutAttached { value, .. }
                | TransactionOperation::Append { bytes: value, .. } => value.len(),
                TransactionOperation::PutWith { value, .. } => value.map_or(0, <[u8]>::len),
                _ => 0,
            };
            if bytes > limits::VALUE_BYTES_MAX {
                let (bytes, limit) = (bytes as u64, limits::VALUE_BYTES_MAX as u64);
                return Err(Error::TooLarge { what: "value".into(), bytes, limit });
            }
            found.add(&operation.keys())
        },
    )?;
    let Found { keys, ranges } = found.into_inner();
    Ok((keys, ranges))
}

impl From<BadTransaction> for Error {
    fn from(bad: BadTransaction) -> Self {
        Self::Invalid(bad.to_string())
    }
}

/// Returns whether a node's results are those of a list of operations, by their kinds.
pub(super) fn answers(asked: &[Operation], results: &[OperationResult]) -> bool {
    let mut rest = results;
    for operation in asked {
        let Some((first, after)) = rest.split_first() else { return false };
        rest = match (operation, first) {
            (Operation::Nested(_), OperationResult::Nested { results, .. }) => {
                match after.get(*results as usize..) {
                    Some(rest) => rest,
                    None => return false,
                }
            }
            (Operation::Nested(_), _) | (_, OperationResult::Nested { .. }) => return false,
            _ => after,
        };
    }
    rest.is_empty()
}

#[derive(Default)]
struct Found {
    keys: Vec<Bytes>,
    ranges: bool,
}

impl Found {
    fn add(&mut self, keys: &Keys<'_>) -> Result<(), Error> {
        let bounds = match *keys {
            Keys::Key(key) => {
                self.keys.push(checked_key(key)?);
                return Ok(());
            }
            Keys::Prefix(prefix) => [prefix, &[]],
            Keys::Range(from, to) => [from, to],
        };
        self.ranges = true;
        for bound in bounds.into_iter().filter(|bound| !bound.is_empty()) {
            checked_key(bound)?;
        }
        match *keys {
            Keys::Range(from, to) if !to.is_empty() && from >= to => {
                Err(Error::Invalid("the range ends before it begins".into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(then: Vec<TransactionOperation<'_>>) -> String {
        let transaction = Transaction { then, ..Transaction::default() };
        checked(&transaction).unwrap_err().to_string()
    }

    #[test]
    fn a_transaction_has_rules() {
        let put = |key| TransactionOperation::Put(key, b"v");
        for (then, says) in [
            (vec![put(b"")], "a key has at least one byte"),
            (vec![put(b"a"), TransactionOperation::Delete(b"a")], "writes key \"a\" twice"),
            (
                vec![put(b"ab"), TransactionOperation::DeleteAll(Keys::Prefix(b"a"))],
                "writes key \"ab\" twice",
            ),
            (
                vec![TransactionOperation::DeleteAll(Keys::Range(b"ab", b"b")), put(b"abc")],
                "writes key \"abc\" twice",
            ),
            (
                vec![TransactionOperation::List { keys: Keys::Range(b"b", b"a"), keys_max: 1 }],
                "the range ends before it begins",
            ),
            (vec![TransactionOperation::Get(b"k"); 129], "at most 128 operations, not 129"),
        ] {
            let said = wrong(then);
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn both_lists_may_write_a_key() {
        let then = vec![TransactionOperation::Get(b"a"), TransactionOperation::Delete(b"a")];
        let transaction = Transaction { compares: Vec::new(), otherwise: then.clone(), then };
        let (keys, ranges) = checked(&transaction).unwrap();
        assert_eq!((keys.len(), ranges), (4, false));
    }
}
