//! Transactions of the in-memory store: keys only, no ranges.

use bytes::Bytes;
use dkv_api::{
    Compare, Error, KeyRange, LeaseId, Level, OperationResult, Relation, Revision, Stamp, Test,
    Transacted, Transaction, TransactionOperation, Unfit, Version,
};

use super::leases::check_attach;
use super::{Inner, receipt};

/// Executes a transaction.
pub(super) fn execute(inner: &mut Inner, transaction: &Transaction) -> Result<Transacted, Error> {
    let succeeded = transaction.compares().iter().all(|compare| holds(inner, compare));
    let operations = transaction.operations(succeeded);
    let changed = operations.iter().any(|operation| !operation.is_read());
    let revision = Revision(inner.revision + u64::from(changed));
    let (mut results, mut writes, mut attached) = (Vec::new(), Vec::new(), Vec::new());
    for (number, operation) in operations.iter().enumerate() {
        let key = operation.first_key();
        let found = latest(inner, key);
        let mut change = |value: Option<Bytes>| {
            let existed = found.as_ref().filter(|_| value.is_some());
            let version = Version {
                revision,
                created: existed.map_or(revision, |found| found.created),
                version: match value {
                    Some(_) => existed.map_or(0, |found| found.version) + 1,
                    None => 0,
                },
                stamp: Stamp::default(),
                value,
                lease: LeaseId::default(),
                expiry: None,
            };
            writes.push((key.to_vec(), version.clone()));
            version
        };
        let unfit = |why| Error::Unfit { operation: number as u32, why };
        results.push(match operation {
            TransactionOperation::Get(_) => OperationResult::Got(found),
            TransactionOperation::Put(_, value) => {
                let Version { created, version, .. } = change(Some(value.clone()));
                OperationResult::Put { created, version }
            }
            TransactionOperation::PutAttached { value, attach, .. } => {
                if check_attach(inner, Some(*attach)).is_err() {
                    return Err(unfit(Unfit::NoLease));
                }
                attached.push((key.to_vec(), *attach));
                let Version { created, version, .. } = change(Some(value.clone()));
                OperationResult::Put { created, version }
            }
            TransactionOperation::Delete(_) => {
                change(None);
                OperationResult::Deleted(found.is_some().into())
            }
            TransactionOperation::Increment { by, .. } => {
                let text = value_of(found.as_ref(), b"0");
                let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                let number: i64 = number.ok_or_else(|| unfit(Unfit::NotANumber))?;
                let sum = number.checked_add(*by).ok_or_else(|| unfit(Unfit::Overflow))?;
                OperationResult::Changed(change(Some(sum.to_string().into())))
            }
            TransactionOperation::Append { bytes, .. } => {
                let whole = [value_of(found.as_ref(), b"").as_ref(), bytes.as_ref()].concat();
                OperationResult::Changed(change(Some(whole.into())))
            }
            _ => return Err(Error::SeveralShards),
        });
    }
    inner.revision = revision.0;
    for (key, version) in writes {
        match &version.value {
            Some(value) => drop(inner.values.insert(key.clone(), (value.clone(), revision.0))),
            None => drop(inner.values.remove(&key)),
        }
        inner.changes.push((key, version));
    }
    inner.attached.extend(attached);
    let receipt = receipt(inner.revision, Level::Strong);
    Ok(Transacted { succeeded, changed, results: Some(results), receipt, parts: Vec::new() })
}

fn latest(inner: &Inner, key: &[u8]) -> Option<Version> {
    let (_, version) = inner.changes.iter().rev().find(|(changed, _)| changed == key)?;
    version.value.is_some().then(|| version.clone())
}

fn value_of(found: Option<&Version>, default: &'static [u8]) -> Bytes {
    let value = found.and_then(|version| version.value.clone());
    value.unwrap_or_else(|| Bytes::from_static(default))
}

fn holds(inner: &Inner, compare: &Compare) -> bool {
    let KeyRange::Key(key) = compare.keys() else { return false };
    let found = latest(inner, key);
    let of = |part: fn(&Version) -> u64| found.as_ref().map_or(0, part);
    match compare.test() {
        Test::Exists(exists) => found.is_some() == *exists,
        Test::Revision(relation, other) => relates(of(|it| it.revision.0), *relation, other.0),
        Test::Created(relation, other) => relates(of(|it| it.created.0), *relation, other.0),
        Test::Version(relation, other) => relates(of(|it| it.version), *relation, *other),
        Test::Lease(relation, other) => relates(of(|it| it.lease.0), *relation, *other),
        Test::Value(relation, other) => {
            let value = found.as_ref().and_then(|version| version.value.as_ref());
            value.is_some_and(|value| relates(value, *relation, other))
        }
    }
}

fn relates<T: Ord>(one: T, relation: Relation, other: T) -> bool {
    match relation {
        Relation::Equal => one == other,
        Relation::NotEqual => one != other,
        Relation::Less => one < other,
        Relation::Greater => one > other,
    }
}
