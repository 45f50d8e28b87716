//! The service Maintenance.

/// The version of etcd whose interface this is.
pub(crate) const VERSION: &str = "3.6.8";
/// The version of the cluster.
pub(crate) const CLUSTER_VERSION: &str = "3.6.0";

use futures::StreamExt;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Answers;
use crate::etcd::Etcd;
use crate::proto::etcdserverpb::*;

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn alarm(&self, _: &Context, _: AlarmRequest) -> Result<AlarmResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub async fn status(&self, _: &Context, _: StatusRequest) -> Result<StatusResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub async fn defragment(
        &self,
        _: &Context,
        _: DefragmentRequest,
    ) -> Result<DefragmentResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub async fn hash(&self, _: &Context, _: HashRequest) -> Result<HashResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub async fn hash_kv(
        &self,
        _: &Context,
        _: HashKvRequest,
    ) -> Result<HashKvResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub async fn move_leader(
        &self,
        _: &Context,
        _: MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub async fn downgrade(
        &self,
        _: &Context,
        _: DowngradeRequest,
    ) -> Result<DowngradeResponse, EtcdError> {
        Err(EtcdError::unimplemented("maintenance is not offered yet"))
    }

    pub fn snapshot(&self, _: Context, _: SnapshotRequest) -> Answers<SnapshotResponse> {
        let error = EtcdError::unimplemented("snapshots are not offered");
        futures::stream::once(async { Err(error) }).boxed()
    }
}
