//! Put, DeleteRange and Compact.

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse,
};

impl Etcd {
    /// Stores a value.
    pub async fn put(&self, _: &Context, _: PutRequest) -> Result<PutResponse, EtcdError> {
        Err(EtcdError::unimplemented("writes are not offered yet"))
    }

    /// Deletes a range of keys.
    pub async fn delete_range(
        &self,
        _: &Context,
        _: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, EtcdError> {
        Err(EtcdError::unimplemented("writes are not offered yet"))
    }

    /// Forgets the history before a revision.
    pub async fn compact(
        &self,
        _: &Context,
        _: CompactionRequest,
    ) -> Result<CompactionResponse, EtcdError> {
        Err(EtcdError::unimplemented("writes are not offered yet"))
    }
}
