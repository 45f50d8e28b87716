//! Txn: compares, and one of two lists of operations.

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::proto::etcdserverpb::{TxnRequest, TxnResponse};

impl Etcd {
    /// Executes a transaction.
    pub async fn txn(&self, _: &Context, _: TxnRequest) -> Result<TxnResponse, EtcdError> {
        Err(EtcdError::unimplemented("transactions are not offered yet"))
    }
}
