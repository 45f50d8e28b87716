//! The services Lock and Election.

use tonic::{Request, Response, Status};

use super::{Shell, Stream, unary_methods};
use crate::method::Method;
use crate::proto::v3electionpb::election_server::Election;
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::proto::v3lockpb::lock_server::Lock;
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

#[tonic::async_trait]
impl Lock for Shell {
    unary_methods! {
        Lock lock(LockRequest) -> LockResponse;
        Unlock unlock(UnlockRequest) -> UnlockResponse;
    }
}

#[tonic::async_trait]
impl Election for Shell {
    type ObserveStream = Stream<LeaderResponse>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        self.server_stream(Method::Observe, request, |etcd, context, message| {
            etcd.observe(context, message)
        })
    }

    unary_methods! {
        Campaign campaign(CampaignRequest) -> CampaignResponse;
        Proclaim proclaim(ProclaimRequest) -> ProclaimResponse;
        Leader leader(LeaderRequest) -> LeaderResponse;
        Resign resign(ResignRequest) -> ResignResponse;
    }
}
