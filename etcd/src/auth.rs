//! The service Auth: users, roles and what they may do.
//!
//! [`needs`] is the table of what a request needs, and [`guard`] checks each request. Users, roles
//! and tokens themselves are in [`access`](crate::access), and what the faces of a network have of
//! them together in [`shared`](crate::shared).

mod guard;
mod needs;
mod standing;

use data_encoding::BASE64;
use dkv_base::audit::{self, Act, CallerAddress, What, Who};
use dkv_base::logging::brief;

pub(crate) use self::guard::{Asker, token};
pub(crate) use self::needs::Guarded;
pub(crate) use self::standing::StandingRight;
use crate::access::Change;
use crate::access::passwords::{NO_HASH, is_usual};
use crate::access::permissions::Permission;
use crate::access::state::{AuthState, ROOT};
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::Etcd;
use crate::limits::SHARED_BYTES_RESERVED;
use crate::proto::authpb;
use crate::proto::authpb::permission::Type;
use crate::proto::etcdserverpb::*;

#[allow(missing_docs, reason = "as in the proto file")]
impl Etcd {
    pub async fn auth_enable(
        &self,
        context: &Context,
        _: AuthEnableRequest,
    ) -> Result<AuthEnableResponse, EtcdError> {
        self.change(context, "turn authentication on", AuthState::enable).await?;
        Ok(AuthEnableResponse { header: self.known_header().await.ok() })
    }

    pub async fn auth_disable(
        &self,
        context: &Context,
        _: AuthDisableRequest,
    ) -> Result<AuthDisableResponse, EtcdError> {
        self.change(context, "turn authentication off", AuthState::disable).await?;
        Ok(AuthDisableResponse { header: self.known_header().await.ok() })
    }

    pub async fn auth_status(
        &self,
        _: &Context,
        _: AuthStatusRequest,
    ) -> Result<AuthStatusResponse, EtcdError> {
        let rules = self.latest_rules().await?;
        Ok(AuthStatusResponse {
            header: self.known_header().await.ok(),
            enabled: rules.state.auth.enabled,
            auth_revision: rules.state.auth.revision,
        })
    }

    /// Returns a token for a password.
    ///
    /// # Errors
    /// Authentication is off; there is no such user, or the password is another one.
    pub async fn authenticate(
        &self,
        context: &Context,
        request: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, EtcdError> {
        let AuthenticateRequest { name, password } = request;
        let _place = context.take_login()?;
        let rules = self.latest_rules().await?;
        if !rules.state.auth.enabled {
            return Err(EtcdError::AUTH_NOT_ENABLED);
        }
        let hash = match rules.state.auth.password(&name) {
            Some(None) => {
                log_failed_login(context, &name);
                let why = "auth: authentication failed, password was given for no password user";
                return Err(EtcdError::new(Code::Unknown, why));
            }
            Some(Some(hash)) => hash.to_owned(),
            None => NO_HASH.to_owned(),
        };
        if !self.auth().hashing.matches(password, hash).await? {
            log_failed_login(context, &name);
            return Err(EtcdError::AUTH_FAILED);
        }
        if let Some(signer) = self.auth().tokens.signer()
            && rules.state.auth.signer(&signer.id).is_none()
        {
            self.change_shared_within(SHARED_BYTES_RESERVED, |shared| {
                shared.auth.add_signer(signer)
            })
            .await?;
        }
        // The token counts for the password that was checked: a change meanwhile makes it invalid.
        let token = self.auth().tokens.make(&rules.state.auth, &name)?;
        Ok(AuthenticateResponse { header: self.known_header().await.ok(), token })
    }

    pub async fn user_add(
        &self,
        context: &Context,
        request: AuthUserAddRequest,
    ) -> Result<AuthUserAddResponse, EtcdError> {
        let AuthUserAddRequest { name, password, options, hashed_password } = request;
        let hash = match options.is_some_and(|options| options.no_password) {
            true => None,
            false => Some(self.password_hash(password, &hashed_password).await?),
        };
        let text = format!("add the user {}", brief(&name));
        self.change(context, &text, |state| state.add_user(&name, hash.clone())).await?;
        Ok(AuthUserAddResponse { header: self.known_header().await.ok() })
    }

    pub async fn user_get(
        &self,
        _: &Context,
        request: AuthUserGetRequest,
    ) -> Result<AuthUserGetResponse, EtcdError> {
        let roles = self.latest_rules().await?.state.auth.roles_of(&request.name)?;
        Ok(AuthUserGetResponse { header: self.known_header().await.ok(), roles })
    }

    pub async fn user_list(
        &self,
        _: &Context,
        _: AuthUserListRequest,
    ) -> Result<AuthUserListResponse, EtcdError> {
        let users = self.latest_rules().await?.state.auth.users();
        Ok(AuthUserListResponse { header: self.known_header().await.ok(), users })
    }

    pub async fn user_delete(
        &self,
        context: &Context,
        request: AuthUserDeleteRequest,
    ) -> Result<AuthUserDeleteResponse, EtcdError> {
        let name = request.name;
        let text = format!("delete the user {}", brief(&name));
        self.change(context, &text, |state| state.delete_user(&name)).await?;
        Ok(AuthUserDeleteResponse { header: self.known_header().await.ok() })
    }

    pub async fn user_change_password(
        &self,
        context: &Context,
        request: AuthUserChangePasswordRequest,
    ) -> Result<AuthUserChangePasswordResponse, EtcdError> {
        let AuthUserChangePasswordRequest { name, password, hashed_password } = request;
        let hash = self.password_hash(password, &hashed_password).await?;
        let text = format!("change the password of the user {}", brief(&name));
        self.change(context, &text, |state| state.change_password(&name, hash.clone())).await?;
        Ok(AuthUserChangePasswordResponse { header: self.known_header().await.ok() })
    }

    pub async fn user_grant_role(
        &self,
        context: &Context,
        request: AuthUserGrantRoleRequest,
    ) -> Result<AuthUserGrantRoleResponse, EtcdError> {
        let AuthUserGrantRoleRequest { user, role } = request;
        let text = format!("grant the role {} to the user {}", brief(&role), brief(&user));
        self.change(context, &text, |state| state.grant_role(&user, &role)).await?;
        Ok(AuthUserGrantRoleResponse { header: self.known_header().await.ok() })
    }

    pub async fn user_revoke_role(
        &self,
        context: &Context,
        request: AuthUserRevokeRoleRequest,
    ) -> Result<AuthUserRevokeRoleResponse, EtcdError> {
        let AuthUserRevokeRoleRequest { name, role } = request;
        let text = format!("revoke the role {} from the user {}", brief(&role), brief(&name));
        self.change(context, &text, |state| state.revoke_role(&name, &role)).await?;
        Ok(AuthUserRevokeRoleResponse { header: self.known_header().await.ok() })
    }

    pub async fn role_add(
        &self,
        context: &Context,
        request: AuthRoleAddRequest,
    ) -> Result<AuthRoleAddResponse, EtcdError> {
        let name = request.name;
        let text = format!("add the role {}", brief(&name));
        self.change(context, &text, |state| state.add_role(&name)).await?;
        Ok(AuthRoleAddResponse { header: self.known_header().await.ok() })
    }

    pub async fn role_get(
        &self,
        _: &Context,
        request: AuthRoleGetRequest,
    ) -> Result<AuthRoleGetResponse, EtcdError> {
        let rules = self.latest_rules().await?;
        let permissions = rules.state.auth.permissions_of(&request.role)?;
        let perm = match request.role == ROOT {
            true => vec![authpb::Permission {
                perm_type: Type::Readwrite.into(),
                key: bytes::Bytes::new(),
                range_end: bytes::Bytes::from_static(&[0]),
            }],
            false => permissions.iter().map(Permission::message).collect(),
        };
        Ok(AuthRoleGetResponse { header: self.known_header().await.ok(), perm })
    }

    pub async fn role_list(
        &self,
        _: &Context,
        _: AuthRoleListRequest,
    ) -> Result<AuthRoleListResponse, EtcdError> {
        let roles = self.latest_rules().await?.state.auth.roles();
        Ok(AuthRoleListResponse { header: self.known_header().await.ok(), roles })
    }

    pub async fn role_delete(
        &self,
        context: &Context,
        request: AuthRoleDeleteRequest,
    ) -> Result<AuthRoleDeleteResponse, EtcdError> {
        let role = request.role;
        let text = format!("delete the role {}", brief(&role));
        self.change(context, &text, |state| state.delete_role(&role)).await?;
        Ok(AuthRoleDeleteResponse { header: self.known_header().await.ok() })
    }

    pub async fn role_grant_permission(
        &self,
        context: &Context,
        request: AuthRoleGrantPermissionRequest,
    ) -> Result<AuthRoleGrantPermissionResponse, EtcdError> {
        let AuthRoleGrantPermissionRequest { name, perm } = request;
        let perm = perm.ok_or(EtcdError::PERMISSION_NOT_GIVEN)?;
        let permission = Permission::new(&perm).ok_or(EtcdError::INVALID_AUTH_MGMT)?;
        let text = format!("grant a permission to the role {}", brief(&name));
        self.change(context, &text, |state| state.grant_permission(&name, permission.clone()))
            .await?;
        Ok(AuthRoleGrantPermissionResponse { header: self.known_header().await.ok() })
    }

    pub async fn role_revoke_permission(
        &self,
        context: &Context,
        request: AuthRoleRevokePermissionRequest,
    ) -> Result<AuthRoleRevokePermissionResponse, EtcdError> {
        let AuthRoleRevokePermissionRequest { role, key, range_end } = request;
        let text = format!("revoke a permission from the role {}", brief(&role));
        self.change(context, &text, |state| state.revoke_permission(&role, &key, &range_end))
            .await?;
        Ok(AuthRoleRevokePermissionResponse { header: self.known_header().await.ok() })
    }

    /// Tells an act of a caller who was permitted to do it, and changes the users and roles.
    async fn change(
        &self,
        context: &Context,
        what: &str,
        mut change: impl FnMut(&mut AuthState) -> Change,
    ) -> Result<(), EtcdError> {
        let act = self.act(context, what);
        act.settled(self.change_shared(|shared| change(&mut shared.auth)).await)
    }

    /// Tells that an act begins which only administrators may do. Names in it are [`brief`].
    pub(crate) fn act(&self, context: &Context, what: &str) -> Act {
        audit::act(self.caller(context), What { act: what.to_owned().into(), ..What::default() })
    }

    /// Returns the caller for the audit log.
    pub(super) fn caller(&self, context: &Context) -> Who {
        let rules = self.shared().known().filter(|known| known.is_enabled());
        let user = rules.and_then(|known| self.user_of(&known.rules, context).ok()).flatten();
        let user = user.or_else(|| context.certificate_name.clone());
        audited(context, user.as_deref())
    }

    /// Returns the hash of a password, or the one that the caller has made. An empty password has
    /// one that no password matches.
    async fn password_hash(&self, password: String, hashed: &str) -> Result<String, EtcdError> {
        if password.is_empty() {
            let hash = BASE64.decode(hashed.as_bytes()).ok();
            let hash = hash.and_then(|hash| String::from_utf8(hash).ok());
            let hash = hash.filter(|hash| is_usual(hash));
            let why = "etcdserver: the hash is not one of bcrypt, in base64";
            return hash.ok_or_else(|| EtcdError::new(Code::InvalidArgument, why));
        }
        self.auth().hashing.hash(password).await
    }
}

/// Tells that somebody showed no password of a user. Nothing has bounded the name.
fn log_failed_login(context: &Context, name: &str) {
    let what = What::new("log in", "");
    audit::denied(audited(context, Some(name)), what, "a login failed");
}

/// Returns a caller for the audit log.
fn audited(context: &Context, user: Option<&str>) -> Who {
    let address = context.address().map(CallerAddress::Ip);
    Who { at: Some("etcd"), user: user.map(brief), address, ..Who::default() }
}
