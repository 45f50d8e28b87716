//! The service Election.

use futures::StreamExt;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::{Answers, Etcd};
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn campaign(
        &self,
        _: &Context,
        _: CampaignRequest,
    ) -> Result<CampaignResponse, EtcdError> {
        Err(EtcdError::unimplemented("elections are not offered yet"))
    }

    pub async fn proclaim(
        &self,
        _: &Context,
        _: ProclaimRequest,
    ) -> Result<ProclaimResponse, EtcdError> {
        Err(EtcdError::unimplemented("elections are not offered yet"))
    }

    pub async fn leader(&self, _: &Context, _: LeaderRequest) -> Result<LeaderResponse, EtcdError> {
        Err(EtcdError::unimplemented("elections are not offered yet"))
    }

    pub async fn resign(&self, _: &Context, _: ResignRequest) -> Result<ResignResponse, EtcdError> {
        Err(EtcdError::unimplemented("elections are not offered yet"))
    }

    pub fn observe(&self, _: Context, _: LeaderRequest) -> Answers<LeaderResponse> {
        let error = EtcdError::unimplemented("elections are not offered yet");
        futures::stream::once(async { Err(error) }).boxed()
    }
}
