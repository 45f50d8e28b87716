//! The rules that a transaction has to keep, as far as a client can check them.

use bytes::Bytes;
use dkv_wire::limits;
use dkv_wire::message::{Keys, Transaction, TransactionOperation};

use crate::client::checked_key;
use crate::error::Error;

/// Checks a transaction; returns its keys, and whether it has ranges of keys.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::TooLarge`], as a node would refuse it.
pub(super) fn checked(transaction: &Transaction<'_>) -> Result<(Vec<Bytes>, bool), Error> {
    let Transaction { compares, then, otherwise } = transaction;
    for (what, count) in
        [("compares", compares.len()), ("operations", then.len()), ("operations", otherwise.len())]
    {
        let most = limits::TRANSACTION_OPERATIONS_MAX;
        if count > most {
            let why = format!("a transaction has at most {most} {what}, not {count}");
            return Err(Error::Invalid(why));
        }
    }
    let mut found = Found::default();
    for compare in compares {
        found.add(&compare.keys)?;
    }
    for operations in [then, otherwise] {
        let mut written: Vec<Keys<'_>> = Vec::new();
        for operation in operations {
            let (keys, writes, bytes) = parts(operation);
            found.add(&keys)?;
            if bytes > limits::VALUE_BYTES_MAX {
                let (bytes, limit) = (bytes as u64, limits::VALUE_BYTES_MAX as u64);
                return Err(Error::TooLarge { what: "value".into(), bytes, limit });
            }
            if !writes {
                continue;
            }
            if let Some(twice) = written.iter().find(|other| overlap(other, &keys)) {
                return Err(written_twice(*twice, keys));
            }
            written.push(keys);
        }
    }
    Ok((found.keys, found.ranges))
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

/// Returns the keys of an operation, whether it writes them, and the bytes that it has for them.
fn parts<'a>(operation: &TransactionOperation<'a>) -> (Keys<'a>, bool, usize) {
    match *operation {
        TransactionOperation::Get(key) => (Keys::Key(key), false, 0),
        TransactionOperation::List { keys, .. } => (keys, false, 0),
        TransactionOperation::Put(key, value)
        | TransactionOperation::PutAttached { key, value, .. } => {
            (Keys::Key(key), true, value.len())
        }
        TransactionOperation::Append { key, bytes } => (Keys::Key(key), true, bytes.len()),
        TransactionOperation::Delete(key) | TransactionOperation::Increment { key, .. } => {
            (Keys::Key(key), true, 0)
        }
        TransactionOperation::DeleteAll(keys) => (keys, true, 0),
    }
}

/// Returns whether two ranges may have a key in common: then one of them begins in the other.
fn overlap(a: &Keys<'_>, b: &Keys<'_>) -> bool {
    a.contains(b.first()) || b.contains(a.first())
}

fn written_twice(a: Keys<'_>, b: Keys<'_>) -> Error {
    Error::Invalid(match (a, b) {
        (Keys::Key(key), _) | (_, Keys::Key(key)) => {
            format!("the transaction writes key \"{}\" twice", String::from_utf8_lossy(key))
        }
        _ => "the transaction deletes keys twice".to_owned(),
    })
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
                vec![
                    TransactionOperation::DeleteAll(Keys::Prefix(b"a")),
                    TransactionOperation::DeleteAll(Keys::Range(b"ab", b"b")),
                ],
                "deletes keys twice",
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
