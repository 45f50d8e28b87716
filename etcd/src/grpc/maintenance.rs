//! The service Maintenance.

use tonic::{Request, Response, Status};

use super::{Shell, Stream, unary_methods};
use crate::method::Method;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};

#[tonic::async_trait]
impl Maintenance for Shell {
    type SnapshotStream = Stream<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.server_stream(Method::Snapshot, request, |etcd, context, message| {
            etcd.snapshot(context, message)
        })
    }

    unary_methods! {
        Alarm alarm(AlarmRequest) -> AlarmResponse;
        Status status(StatusRequest) -> StatusResponse;
        Defragment defragment(DefragmentRequest) -> DefragmentResponse;
        Hash hash(HashRequest) -> HashResponse;
        HashKv hash_kv(HashKvRequest) -> HashKvResponse;
        MoveLeader move_leader(MoveLeaderRequest) -> MoveLeaderResponse;
        Downgrade downgrade(DowngradeRequest) -> DowngradeResponse;
    }
}
