//! The service Cluster.

use super::{Shell, unary_methods};
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

#[tonic::async_trait]
impl Cluster for Shell {
    unary_methods! {
        MemberAdd member_add(MemberAddRequest) -> MemberAddResponse;
        MemberRemove member_remove(MemberRemoveRequest) -> MemberRemoveResponse;
        MemberUpdate member_update(MemberUpdateRequest) -> MemberUpdateResponse;
        MemberList member_list(MemberListRequest) -> MemberListResponse;
        MemberPromote member_promote(MemberPromoteRequest) -> MemberPromoteResponse;
    }
}
