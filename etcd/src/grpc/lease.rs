//! The service Lease.

use tonic::{Request, Response, Status, Streaming};

use super::{Shell, Stream, unary_methods};
use crate::method::Method;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

#[tonic::async_trait]
impl Lease for Shell {
    type LeaseKeepAliveStream = Stream<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.bidi_stream(Method::LeaseKeepAlive, request, |etcd, context, requests| {
            etcd.lease_keep_alive(context, requests)
        })
    }

    unary_methods! {
        LeaseGrant lease_grant(LeaseGrantRequest) -> LeaseGrantResponse;
        LeaseRevoke lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse;
        LeaseTimeToLive lease_time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse;
        LeaseLeases lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse;
    }
}
