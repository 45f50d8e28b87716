//! Put, DeleteRange and Compact.

use dkv_api::{Error, OperationResult, Transaction, WriteOptions};

use super::txn::{
    check_delete, check_put, check_size, delete_operation, delete_response, put_operation,
    put_response, wrong_result,
};
use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Etcd, own_revision};
use crate::lease::lease_id;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse,
};

impl Etcd {
    /// Stores a value.
    ///
    /// # Errors
    /// The request is malformed; the lease, or the key whose value or lease is to be kept, does not
    /// exist. Nothing was done then. A timeout if the outcome is not known.
    pub async fn put(&self, context: &Context, put: PutRequest) -> Result<PutResponse, EtcdError> {
        check_put(&put)?;
        check_size(&put)?;
        self.check_leader(context).await?;
        if !put.ignore_value && !put.ignore_lease && !put.prev_kv {
            return self.put_plainly(context, put).await;
        }
        let operation = put_operation(&put)?;
        let done = match self.execute(context, Transaction::new().then(operation)).await {
            // etcd looks for the lease of a single put before it looks for the key.
            Err(error) if error == EtcdError::KEY_NOT_FOUND => {
                return Err(self.lease_error(&put).await.unwrap_or(error));
            }
            done => done?,
        };
        let header = self.header(&done.receipt, done.receipt.revision);
        match done.results.map(|results| results.into_iter().next()) {
            Some(Some(OperationResult::Replaced { previous })) => {
                Ok(put_response(&put, previous, Some(header)))
            }
            // It is stored, and nobody knows any more what was there.
            None => Err(EtcdError::TIMEOUT),
            Some(_) => Err(wrong_result()),
        }
    }

    /// Returns the error if the lease of a put does not exist.
    async fn lease_error(&self, put: &PutRequest) -> Option<EtcdError> {
        let lease = lease_id(put.lease)?;
        let store = self.store().await.ok()?;
        match store.lease(lease).await {
            Err(Error::NoLease { .. }) => Some(EtcdError::LEASE_NOT_FOUND),
            _ => None,
        }
    }

    async fn put_plainly(
        &self,
        context: &Context,
        put: PutRequest,
    ) -> Result<PutResponse, EtcdError> {
        let mut options = WriteOptions::default();
        if put.lease != 0 {
            options = options.lease(lease_id(put.lease).ok_or(EtcdError::LEASE_NOT_FOUND)?);
        }
        if let Some(left) = context.time_left() {
            options = options.timeout(left);
        }
        let store = self.store().await?;
        let written = store.write_with(&put.key, put.value, options).await;
        let written = written.map_err(|error| self.failed(error))?;
        let header = self.header(&written.receipt, written.receipt.revision);
        Ok(PutResponse { header: Some(header), prev_kv: None })
    }

    /// Deletes a range of keys, at one revision.
    ///
    /// # Errors
    /// The request is malformed; the range has more than one transaction may delete. A timeout if
    /// the outcome is not known.
    pub async fn delete_range(
        &self,
        context: &Context,
        delete: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, EtcdError> {
        check_delete(&delete)?;
        check_size(&delete)?;
        self.check_leader(context).await?;
        let operation = delete_operation(&delete);
        let done = self.execute(context, Transaction::new().then(operation)).await?;
        let header = self.header(&done.receipt, done.receipt.revision);
        match done.results.map(|results| results.into_iter().next()) {
            Some(Some(result)) => {
                let (answer, _) = delete_response(result).ok_or_else(wrong_result)?;
                Ok(DeleteRangeResponse { header: Some(header), ..answer })
            }
            None => Err(EtcdError::TIMEOUT),
            Some(None) => Err(wrong_result()),
        }
    }

    /// Forgets the history before a revision. The network frees the room bit by bit, `physical` or
    /// not, so that nobody waits for it.
    ///
    /// # Errors
    /// The history is compacted there already, or the revision is not there yet.
    pub async fn compact(
        &self,
        context: &Context,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, EtcdError> {
        self.check_leader(context).await?;
        if request.revision < 0 {
            return Err(EtcdError::COMPACTED);
        }
        let floor = own_revision(request.revision).unwrap_or_default();
        let act = self.act(context, &format!("compact to revision {}", request.revision));
        let store = self.store().await?;
        let done = match act.settled(store.compact(floor).await) {
            Ok(done) => done,
            Err(Error::NotYet { .. }) => return Err(EtcdError::FUTURE_REV),
            Err(error) => return Err(self.failed(error)),
        };
        // An empty history can be compacted to its beginning.
        if done.before >= floor && done.before.0 > 0 {
            return Err(EtcdError::COMPACTED);
        }
        let header = self.header(&done.receipt, done.receipt.revision);
        Ok(CompactionResponse { header: Some(header) })
    }
}
