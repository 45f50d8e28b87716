//! What etcd checks of a transaction before it is executed, in etcd's order.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use dkv_api::KeyRange;
use prost::Message;

use crate::error::EtcdError;
use crate::kv::plan::{RangePlan, key_range};
use crate::limits::{REQUEST_BYTES_MAX, TXN_NESTED_MAX, TXN_OPS_MAX, TXN_PARTS_MAX};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

/// Checks a transaction.
///
/// # Errors
/// As etcd's; [`EtcdError::TOO_MANY_OPS`] too if all its lists together are too long.
pub(super) fn check(request: &TxnRequest) -> Result<(), EtcdError> {
    let mut size = Size::default();
    check_txn(request, TXN_OPS_MAX, &mut size)?;
    for operations in [&request.success, &request.failure] {
        writes(operations)?;
    }
    Ok(())
}

#[derive(Default)]
struct Size {
    parts: usize,
    nested: usize,
}

fn check_txn(request: &TxnRequest, ops_max: usize, size: &mut Size) -> Result<(), EtcdError> {
    let TxnRequest { compare, success, failure } = request;
    let longest = compare.len().max(success.len()).max(failure.len());
    size.parts += compare.len() + success.len() + failure.len();
    if longest > ops_max || size.parts > TXN_PARTS_MAX || size.nested > TXN_NESTED_MAX {
        return Err(EtcdError::TOO_MANY_OPS);
    }
    if compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EMPTY_KEY);
    }
    for operation in success.iter().chain(failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => RangePlan::new(range).map(drop)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(nested)) => {
                size.nested += 1;
                check_txn(nested, ops_max - longest, size)?;
            }
            None => return Err(EtcdError::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// Checks a put.
///
/// # Errors
/// As etcd's.
pub(in crate::kv) fn check_put(put: &PutRequest) -> Result<(), EtcdError> {
    if put.key.is_empty() {
        return Err(EtcdError::EMPTY_KEY);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(EtcdError::VALUE_PROVIDED);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(EtcdError::LEASE_PROVIDED);
    }
    Ok(())
}

/// Checks a delete.
///
/// # Errors
/// As etcd's.
pub(in crate::kv) fn check_delete(delete: &DeleteRangeRequest) -> Result<(), EtcdError> {
    if delete.key.is_empty() { Err(EtcdError::EMPTY_KEY) } else { Ok(()) }
}

/// The keys that operations may write.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

/// Returns what a list of operations may write.
///
/// # Errors
/// [`EtcdError::DUPLICATE_KEY`] if a key is put and written again on one way through the list. etcd
/// overlooks a delete after a put if both are in different nested transactions.
fn writes(operations: &[RequestOp]) -> Result<Writes, EtcdError> {
    let mut all = Writes::default();
    for operation in operations {
        let mut own = Writes::default();
        match &operation.request {
            Some(Request::RequestPut(put)) => _ = own.puts.insert(put.key.clone()),
            Some(Request::RequestDeleteRange(delete)) => {
                own.deletes.extend(key_range(&delete.key, &delete.range_end));
            }
            Some(Request::RequestTxn(nested)) => {
                for operations in [&nested.success, &nested.failure] {
                    // One of both lists is executed.
                    let Writes { puts, deletes } = writes(operations)?;
                    own.puts.extend(puts);
                    own.deletes.extend(deletes);
                }
            }
            Some(Request::RequestRange(_)) | None => {}
        }
        let meets = |put: &Bytes, writes: &Writes| {
            writes.puts.contains(put) || writes.deletes.iter().any(|keys| keys.contains(put))
        };
        let after = own.puts.iter().any(|put| meets(put, &all));
        let before = own.deletes.iter().any(|keys| all.puts.iter().any(|put| keys.contains(put)));
        if after || before {
            return Err(EtcdError::DUPLICATE_KEY);
        }
        all.puts.extend(own.puts);
        all.deletes.extend(own.deletes);
    }
    Ok(all)
}

/// Checks that a request that goes into the log is not too large.
pub(in crate::kv) fn check_size(request: &impl Message) -> Result<(), EtcdError> {
    if request.encoded_len() > REQUEST_BYTES_MAX {
        return Err(EtcdError::REQUEST_TOO_LARGE);
    }
    Ok(())
}
