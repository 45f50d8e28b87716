//! Put, DeleteRange and Compact.

use bytes::Bytes;
use dkv_api::{
    Attach, OperationResult, Revision, Transacted, Transaction, TransactionOperation, Version,
};
use prost::Message;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Etcd, own_revision};
use crate::kv::pages::key_value;
use crate::kv::plan::key_range;
use crate::lease::lease_id;
use crate::limits::REQUEST_BYTES_MAX;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse,
};
use crate::proto::mvccpb::KeyValue;

impl Etcd {
    /// Stores a value.
    ///
    /// # Errors
    /// The request is malformed or too large, or its lease does not exist.
    pub async fn put(&self, _: &Context, request: PutRequest) -> Result<PutResponse, EtcdError> {
        if request.key.is_empty() {
            return Err(EtcdError::EMPTY_KEY);
        }
        if request.ignore_value && !request.value.is_empty() {
            return Err(EtcdError::VALUE_PROVIDED);
        }
        if request.ignore_lease && request.lease != 0 {
            return Err(EtcdError::LEASE_PROVIDED);
        }
        check_size(&request)?;
        if request.ignore_value || request.ignore_lease {
            return Err(EtcdError::unimplemented(
                "ignore_value and ignore_lease are not offered yet",
            ));
        }
        let PutRequest { key, value, lease, prev_kv, .. } = request;
        let put = match lease {
            0 => TransactionOperation::put(&key, value),
            id => {
                let lease = lease_id(id).ok_or(EtcdError::LEASE_NOT_FOUND)?;
                TransactionOperation::put_attached(&key, value, Attach::Lease(lease))
            }
        };
        let mut transaction = Transaction::new();
        if prev_kv {
            transaction = transaction.then(TransactionOperation::get(&key));
        }
        let done = self.transact(transaction.then(put)).await?;
        let previous = match done.results.and_then(|results| results.into_iter().next()) {
            Some(OperationResult::Got(Some(version))) if prev_kv => Some(pair(key, version)),
            _ => None,
        };
        let header = Some(self.header(&done.receipt, done.receipt.revision));
        Ok(PutResponse { header, prev_kv: previous })
    }

    /// Deletes a range of keys.
    ///
    /// # Errors
    /// The request is malformed or too large.
    pub async fn delete_range(
        &self,
        _: &Context,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, EtcdError> {
        if request.key.is_empty() {
            return Err(EtcdError::EMPTY_KEY);
        }
        check_size(&request)?;
        let Some(keys) = key_range(&request.key, &request.range_end) else {
            let header = Some(self.moment().await?);
            return Ok(DeleteRangeResponse { header, ..DeleteRangeResponse::default() });
        };
        let mut transaction = Transaction::new();
        if request.prev_kv {
            let list = TransactionOperation::List { keys: keys.clone(), keys_max: u32::MAX };
            transaction = transaction.then(list);
        }
        let done = self.transact(transaction.then(TransactionOperation::DeleteAll(keys))).await?;
        let (mut deleted, mut prev_kvs) = (0, Vec::new());
        for result in done.results.into_iter().flatten() {
            match result {
                OperationResult::Listed { keys, .. } => {
                    prev_kvs = keys.into_iter().map(|(key, version)| pair(key, version)).collect();
                }
                OperationResult::Deleted(number) => deleted = number as i64,
                _ => {}
            }
        }
        let header = Some(self.header(&done.receipt, done.receipt.revision));
        Ok(DeleteRangeResponse { header, deleted, prev_kvs })
    }

    /// Forgets the history before a revision.
    ///
    /// # Errors
    /// The revision is compacted already or not there yet.
    pub async fn compact(
        &self,
        _: &Context,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, EtcdError> {
        let revision = own_revision(request.revision).unwrap_or(Revision(0));
        let store = self.store().await?;
        store.compact(revision).await.map_err(|error| self.failed(error))?;
        Ok(CompactionResponse { header: Some(self.moment().await?) })
    }

    async fn transact(&self, transaction: Transaction) -> Result<Transacted, EtcdError> {
        let store = self.store().await?;
        store.transact(transaction).await.map_err(|error| match error {
            dkv_api::Error::Unfit { why: dkv_api::Unfit::NoLease, .. } => {
                EtcdError::LEASE_NOT_FOUND
            }
            error => self.failed(error),
        })
    }
}

fn pair(key: Bytes, version: Version) -> KeyValue {
    let Version { revision, created, version, value, lease, .. } = version;
    key_value(key, value.unwrap_or_default(), (created, revision, version), lease)
}

/// Checks that a request that goes into the log is not too large.
pub(crate) fn check_size(request: &impl Message) -> Result<(), EtcdError> {
    if request.encoded_len() > REQUEST_BYTES_MAX {
        return Err(EtcdError::REQUEST_TOO_LARGE);
    }
    Ok(())
}
