//! The service Lock.

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn lock(&self, _: &Context, _: LockRequest) -> Result<LockResponse, EtcdError> {
        Err(EtcdError::unimplemented("locks are not offered yet"))
    }

    pub async fn unlock(&self, _: &Context, _: UnlockRequest) -> Result<UnlockResponse, EtcdError> {
        Err(EtcdError::unimplemented("locks are not offered yet"))
    }
}
