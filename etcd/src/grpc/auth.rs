//! The service Auth.

use super::{Shell, unary_methods};
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::proto::etcdserverpb::*;

#[tonic::async_trait]
impl Auth for Shell {
    unary_methods! {
        AuthEnable auth_enable(AuthEnableRequest) -> AuthEnableResponse;
        AuthDisable auth_disable(AuthDisableRequest) -> AuthDisableResponse;
        AuthStatus auth_status(AuthStatusRequest) -> AuthStatusResponse;
        Authenticate authenticate(AuthenticateRequest) -> AuthenticateResponse;
        UserAdd user_add(AuthUserAddRequest) -> AuthUserAddResponse;
        UserGet user_get(AuthUserGetRequest) -> AuthUserGetResponse;
        UserList user_list(AuthUserListRequest) -> AuthUserListResponse;
        UserDelete user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
        UserChangePassword
            user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
        UserGrantRole user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
        UserRevokeRole user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
        RoleAdd role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
        RoleGet role_get(AuthRoleGetRequest) -> AuthRoleGetResponse;
        RoleList role_list(AuthRoleListRequest) -> AuthRoleListResponse;
        RoleDelete role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
        RoleGrantPermission role_grant_permission(AuthRoleGrantPermissionRequest)
            -> AuthRoleGrantPermissionResponse;
        RoleRevokePermission role_revoke_permission(AuthRoleRevokePermissionRequest)
            -> AuthRoleRevokePermissionResponse;
    }
}
