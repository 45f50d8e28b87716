//! The service Auth: users, roles and what they may do.

use crate::context::Context;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::proto::etcdserverpb::*;

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn auth_enable(
        &self,
        _: &Context,
        _: AuthEnableRequest,
    ) -> Result<AuthEnableResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn auth_disable(
        &self,
        _: &Context,
        _: AuthDisableRequest,
    ) -> Result<AuthDisableResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn auth_status(
        &self,
        _: &Context,
        _: AuthStatusRequest,
    ) -> Result<AuthStatusResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn authenticate(
        &self,
        _: &Context,
        _: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_add(
        &self,
        _: &Context,
        _: AuthUserAddRequest,
    ) -> Result<AuthUserAddResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_get(
        &self,
        _: &Context,
        _: AuthUserGetRequest,
    ) -> Result<AuthUserGetResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_list(
        &self,
        _: &Context,
        _: AuthUserListRequest,
    ) -> Result<AuthUserListResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_delete(
        &self,
        _: &Context,
        _: AuthUserDeleteRequest,
    ) -> Result<AuthUserDeleteResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_change_password(
        &self,
        _: &Context,
        _: AuthUserChangePasswordRequest,
    ) -> Result<AuthUserChangePasswordResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_grant_role(
        &self,
        _: &Context,
        _: AuthUserGrantRoleRequest,
    ) -> Result<AuthUserGrantRoleResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn user_revoke_role(
        &self,
        _: &Context,
        _: AuthUserRevokeRoleRequest,
    ) -> Result<AuthUserRevokeRoleResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn role_add(
        &self,
        _: &Context,
        _: AuthRoleAddRequest,
    ) -> Result<AuthRoleAddResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn role_get(
        &self,
        _: &Context,
        _: AuthRoleGetRequest,
    ) -> Result<AuthRoleGetResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn role_list(
        &self,
        _: &Context,
        _: AuthRoleListRequest,
    ) -> Result<AuthRoleListResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn role_delete(
        &self,
        _: &Context,
        _: AuthRoleDeleteRequest,
    ) -> Result<AuthRoleDeleteResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn role_grant_permission(
        &self,
        _: &Context,
        _: AuthRoleGrantPermissionRequest,
    ) -> Result<AuthRoleGrantPermissionResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }

    pub async fn role_revoke_permission(
        &self,
        _: &Context,
        _: AuthRoleRevokePermissionRequest,
    ) -> Result<AuthRoleRevokePermissionResponse, EtcdError> {
        Err(EtcdError::unimplemented("authentication is not offered yet"))
    }
}
