//! The service Lease.

use futures::StreamExt;

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::etcd::{Answers, Requests};
use crate::proto::etcdserverpb::*;

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn lease_grant(
        &self,
        _: &Context,
        _: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, EtcdError> {
        Err(EtcdError::unimplemented("leases are not offered yet"))
    }

    pub async fn lease_revoke(
        &self,
        _: &Context,
        _: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, EtcdError> {
        Err(EtcdError::unimplemented("leases are not offered yet"))
    }

    pub async fn lease_time_to_live(
        &self,
        _: &Context,
        _: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, EtcdError> {
        Err(EtcdError::unimplemented("leases are not offered yet"))
    }

    pub async fn lease_leases(
        &self,
        _: &Context,
        _: LeaseLeasesRequest,
    ) -> Result<LeaseLeasesResponse, EtcdError> {
        Err(EtcdError::unimplemented("leases are not offered yet"))
    }

    pub fn lease_keep_alive(
        &self,
        _: Context,
        _: Requests<LeaseKeepAliveRequest>,
    ) -> Answers<LeaseKeepAliveResponse> {
        let error = EtcdError::unimplemented("leases are not offered yet");
        futures::stream::once(async { Err(error) }).boxed()
    }
}
