//! Txn: compares, and one of two lists of operations.
//!
//! A transaction of etcd is one of the network. What etcd does with the answer of a range (another
//! order, and then the limit) is done here.

mod rules;

use dkv_api::{
    Attach, KeyRange, OperationResult, PutAttach, RangeOptions, RangePart, Revision, Transacted,
    Transaction, TransactionOperation, Unfit, Version,
};

pub(super) use self::rules::{check_delete, check_put, check_size};

use super::compares::compare;
use super::order::Sorted;
use super::pages::key_at;
use super::plan::{Part, RangePlan, key_range};
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Etcd, etcd_revision};
use crate::lease::lease_id;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::proto::mvccpb::KeyValue;

/// Checks a transaction before it is executed.
///
/// # Errors
/// It breaks a rule, or is too large.
pub(crate) fn check_txn(request: &TxnRequest) -> Result<(), EtcdError> {
    rules::check(request)?;
    check_size(request)
}

impl Etcd {
    /// Executes a transaction.
    ///
    /// # Errors
    /// The transaction breaks a rule; a key or a lease that a put needs does not exist; a range is
    /// of a revision that is compacted or not there yet. Nothing was done then. A timeout if its
    /// outcome is not known.
    pub async fn txn(
        &self,
        context: &Context,
        request: TxnRequest,
    ) -> Result<TxnResponse, EtcdError> {
        check_txn(&request)?;
        self.check_leader(context).await?;
        let done = self.execute(context, transaction(&request)?).await?;
        let header = self.header(&done.receipt, done.receipt.revision);
        let list = if done.succeeded { &request.success } else { &request.failure };
        let Some(results) = done.results else { return Err(EtcdError::TIMEOUT) };
        let mut results = results.into_iter();
        let mut responses = Vec::with_capacity(list.len());
        for operation in list {
            responses.push(response(operation, &mut results, done.receipt.revision)?);
        }
        Ok(TxnResponse { header: Some(header), succeeded: done.succeeded, responses })
    }

    /// Executes a transaction of the network.
    pub(super) async fn execute(
        &self,
        context: &Context,
        transaction: Transaction,
    ) -> Result<Transacted, EtcdError> {
        let transaction = match context.time_left() {
            Some(left) => transaction.timeout(left),
            None => transaction,
        };
        let store = self.store().await?;
        store.transact(transaction).await.map_err(|error| match error {
            dkv_api::Error::Unfit { why, .. } => unfit(why),
            error => self.failed(error),
        })
    }
}

fn unfit(why: Unfit) -> EtcdError {
    match why {
        Unfit::NoKey => EtcdError::KEY_NOT_FOUND,
        Unfit::NoLease => EtcdError::LEASE_NOT_FOUND,
        Unfit::Compacted => EtcdError::COMPACTED,
        Unfit::NotYet => EtcdError::FUTURE_REV,
        why => EtcdError::new(Code::ResourceExhausted, format!("etcdserver: {why}")),
    }
}

fn transaction(request: &TxnRequest) -> Result<Transaction, EtcdError> {
    let mut transaction = Transaction::new();
    for wanted in request.compare.iter().filter_map(compare) {
        transaction = transaction.when(wanted);
    }
    for operation in &request.success {
        transaction = transaction.then(own_operation(operation)?);
    }
    for operation in &request.failure {
        transaction = transaction.otherwise(own_operation(operation)?);
    }
    Ok(transaction)
}

fn own_operation(operation: &RequestOp) -> Result<TransactionOperation, EtcdError> {
    Ok(match &operation.request {
        Some(Request::RequestRange(range)) => range_operation(range)?,
        Some(Request::RequestPut(put)) => put_operation(put)?,
        Some(Request::RequestDeleteRange(delete)) => delete_operation(delete),
        Some(Request::RequestTxn(nested)) => TransactionOperation::nested(transaction(nested)?),
        None => return Err(EtcdError::KEY_NOT_FOUND),
    })
}

/// Returns the operation of a put.
pub(super) fn put_operation(put: &PutRequest) -> Result<TransactionOperation, EtcdError> {
    let attach = match (put.ignore_lease, put.lease) {
        (true, _) => PutAttach::AsBefore,
        (false, 0) => PutAttach::Nothing,
        (false, id) => {
            PutAttach::To(Attach::Lease(lease_id(id).ok_or(EtcdError::LEASE_NOT_FOUND)?))
        }
    };
    let value = (!put.ignore_value).then(|| put.value.clone());
    Ok(TransactionOperation::PutWith { key: put.key.clone(), value, attach, previous: put.prev_kv })
}

/// Returns the operation of a delete. One of no keys counts a key.
pub(super) fn delete_operation(delete: &DeleteRangeRequest) -> TransactionOperation {
    match key_range(&delete.key, &delete.range_end) {
        Some(keys) => TransactionOperation::DeleteWith { keys, previous: delete.prev_kv },
        None => count_of(delete.key.clone(), None),
    }
}

fn count_of(key: bytes::Bytes, at: Option<Revision>) -> TransactionOperation {
    let options = RangeOptions { part: RangePart::Count, at, ..RangeOptions::default() };
    TransactionOperation::Range { keys: KeyRange::Key(key), options }
}

fn range_operation(range: &RangeRequest) -> Result<TransactionOperation, EtcdError> {
    let plan = RangePlan::new(range)?;
    let Some(keys) = plan.keys.clone() else { return Ok(count_of(range.key.clone(), plan.at)) };
    let part = plan.part_to_read();
    // The first keys of another order may be anywhere.
    let keys_max = plan.limit.filter(|_| plan.order.is_none()).unwrap_or_default() as u64;
    let (at, written, created) = (plan.at, plan.written, plan.created);
    let options = RangeOptions { keys_max, part, at, written, created };
    Ok(TransactionOperation::Range { keys, options })
}

fn inner_header(revision: Revision) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: etcd_revision(revision), ..ResponseHeader::default() })
}

/// Returns the answer to an operation, from the results of the network; `own` is the revision of
/// the transaction.
fn response(
    operation: &RequestOp,
    results: &mut std::vec::IntoIter<OperationResult>,
    own: Revision,
) -> Result<ResponseOp, EtcdError> {
    let result = results.next().ok_or_else(wrong_result)?;
    let response = match (operation.request.as_ref(), result) {
        (
            Some(Request::RequestRange(range)),
            OperationResult::Ranged { keys, more, count, revision },
        ) => Response::ResponseRange(range_response(range, keys, more, count, revision)?),
        (Some(Request::RequestPut(put)), OperationResult::Replaced { previous }) => {
            Response::ResponsePut(put_response(put, previous, inner_header(own)))
        }
        (Some(Request::RequestDeleteRange(_)), result) => {
            let (answer, revision) = delete_response(result).ok_or_else(wrong_result)?;
            let header = inner_header(revision);
            Response::ResponseDeleteRange(DeleteRangeResponse { header, ..answer })
        }
        (Some(Request::RequestTxn(nested)), OperationResult::Nested { succeeded, .. }) => {
            let list = if succeeded { &nested.success } else { &nested.failure };
            let mut responses = Vec::with_capacity(list.len());
            for operation in list {
                responses.push(response(operation, results, own)?);
            }
            let header = Some(ResponseHeader::default());
            Response::ResponseTxn(TxnResponse { header, succeeded, responses })
        }
        _ => return Err(wrong_result()),
    };
    Ok(ResponseOp { response: Some(response) })
}

/// Returns the answer to a put, from the version before.
pub(super) fn put_response(
    put: &PutRequest,
    previous: Option<Version>,
    header: Option<ResponseHeader>,
) -> PutResponse {
    let prev_kv = previous.map(|version| key_at(put.key.clone(), version));
    PutResponse { header, prev_kv }
}

/// Returns the answer to a delete, without its header, and the revision after it.
pub(super) fn delete_response(result: OperationResult) -> Option<(DeleteRangeResponse, Revision)> {
    let (deleted, previous, revision) = match result {
        OperationResult::Removed { deleted, previous, revision } => (deleted, previous, revision),
        // It stands for a delete of no keys.
        OperationResult::Ranged { revision, .. } => (0, Vec::new(), revision),
        _ => return None,
    };
    let prev_kvs = previous.into_iter().map(|(key, version)| key_at(key, version)).collect();
    let deleted = i64::try_from(deleted).unwrap_or(i64::MAX);
    Some((DeleteRangeResponse { header: None, deleted, prev_kvs }, revision))
}

fn range_response(
    range: &RangeRequest,
    keys: Vec<(bytes::Bytes, Version)>,
    mut more: bool,
    count: u64,
    revision: Revision,
) -> Result<RangeResponse, EtcdError> {
    let plan = RangePlan::new(range)?;
    let mut kvs: Vec<KeyValue> =
        keys.into_iter().map(|(key, version)| key_at(key, version)).collect();
    if let Some(order) = plan.order {
        let mut sorted = Sorted::new(order, plan.limit);
        sorted.add(kvs);
        (kvs, more) = sorted.finish();
    }
    if plan.part == Part::Keys {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    let count = match plan.keys {
        Some(_) => i64::try_from(count).unwrap_or(i64::MAX),
        None => 0,
    };
    Ok(RangeResponse { header: inner_header(revision), kvs, more, count })
}

/// Returns the error that a result of the network is none of its operation.
pub(super) fn wrong_result() -> EtcdError {
    EtcdError::new(Code::Internal, "etcdserver: a result is of another kind")
}
