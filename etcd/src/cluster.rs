//! The service Cluster.

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::proto::etcdserverpb::*;

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn member_add(
        &self,
        _: &Context,
        _: MemberAddRequest,
    ) -> Result<MemberAddResponse, EtcdError> {
        Err(EtcdError::unimplemented("members are not offered yet"))
    }

    pub async fn member_remove(
        &self,
        _: &Context,
        _: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, EtcdError> {
        Err(EtcdError::unimplemented("members are not offered yet"))
    }

    pub async fn member_update(
        &self,
        _: &Context,
        _: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, EtcdError> {
        Err(EtcdError::unimplemented("members are not offered yet"))
    }

    pub async fn member_list(
        &self,
        _: &Context,
        _: MemberListRequest,
    ) -> Result<MemberListResponse, EtcdError> {
        Err(EtcdError::unimplemented("members are not offered yet"))
    }

    pub async fn member_promote(
        &self,
        _: &Context,
        _: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, EtcdError> {
        Err(EtcdError::unimplemented("members are not offered yet"))
    }
}
