//! Requests of administrators, and the use of bearer tokens that gateways report.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::{HolderId, NodeId};
use dkv_base::logging::level::{self, LevelError};
use dkv_base::logging::{AUDIT, brief};
use dkv_wire::bearer::{self, Bearer, Rights};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{
    BearerLife, HolderKind, LogChange, LogFilter, RunChoice, ServerAnswer, ServerRefusal,
};
use dkv_wire::token::Token;
use dkv_wire::user::User;
use tracing::info;
use uuid::Uuid;

use super::{Service, denied, flatten};
use crate::clock;

impl Service {
    #[expect(clippy::too_many_arguments, reason = "the fields of a token, and who asks")]
    pub(super) async fn create_token(
        &self,
        identity: Identity,
        address: SocketAddr,
        role: Role,
        life_s: Option<u64>,
        uses: Option<u32>,
        name: Option<String>,
        user: Option<User>,
    ) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        let token = Token::generate(role, self.authority.fingerprint());
        let whose = user.map(|user| format!(" of user {user}")).unwrap_or_default();
        let action = format!("create token {} ({role}{whose})", token.id);
        self.log_action(identity, address, &action);
        let (id, hash) = (token.id, token.secret_hash());
        let created = self.books.update(move |next| {
            let (name, now_ms) = (name.clone(), clock::now_ms());
            next.handle_create_token(id, hash, role, life_s, uses, name, user, now_ms)
        });
        flatten(created.await)?;
        Ok(ServerAnswer::Token(token.to_string()))
    }

    /// Tells what the server logs, after a change of that if there is one.
    pub(super) fn log(
        &self,
        identity: Identity,
        address: SocketAddr,
        change: Option<LogChange>,
    ) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        if let Some(LogChange { filter, for_ms }) = change {
            self.log_action(identity, address, &format!("log \"{}\"", brief(&filter)));
            let life = for_ms.map(Duration::from_millis);
            if let Some(passing) = level::change(&filter, life).map_err(not_logged)? {
                tokio::spawn(passing.end());
            }
        }
        let level::Levels { filter, then } = level::levels().map_err(not_logged)?;
        let then = then.map(|(filter, left)| (filter, left.as_millis() as u64));
        Ok(ServerAnswer::Log(LogFilter { filter, then }))
    }

    pub(super) fn list_tokens(&self, identity: Identity) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        Ok(ServerAnswer::Tokens(self.store.snapshot().tokens()))
    }

    pub(super) async fn revoke_token(
        &self,
        identity: Identity,
        address: SocketAddr,
        token: Uuid,
    ) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        self.log_action(identity, address, &format!("revoke token {token}"));
        flatten(self.books.update(move |next| next.handle_revoke_token(token)).await)?;
        // Tidiness only: the token admits nobody from here on.
        self.local_tokens.remove(token);
        Ok(ServerAnswer::Done)
    }

    /// Signs a bearer token for HTTP. The server keeps only its entry in the inventory, not its
    /// text.
    pub(super) async fn create_bearer(
        &self,
        identity: Identity,
        address: SocketAddr,
        rights: Rights,
        life: BearerLife,
        name: Option<String>,
        user: Option<User>,
    ) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        let holder = HolderId::random();
        let whose = user.map(|user| format!(", user {user}")).unwrap_or_default();
        let action = format!("create bearer token {holder} ({rights:?}, {life:?}{whose})");
        self.log_action(identity, address, &action);
        let created = self.books.update(move |next| {
            let (kind, name) = (HolderKind::Bearer(rights), name.clone());
            let (made_by, now_ms) = (identity.holder, clock::now_ms());
            next.handle_create_bearer(holder, kind, life, name, user, made_by, now_ms)
        });
        let expires_ms = flatten(created.await)?;
        let network = self.authority.network();
        let bearer = Bearer { network, holder, rights, expires_ms, user };
        match bearer::sign(&self.authority, &bearer) {
            Ok(text) => Ok(ServerAnswer::Bearer(text, holder)),
            Err(error) => Err(ServerRefusal::Invalid(error.to_string())),
        }
    }

    pub(super) fn list_holders(&self, identity: Identity) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        Ok(ServerAnswer::Holders(self.store.snapshot().holders()))
    }

    /// Records when bearer tokens were last used. Every client may report this, since any may run a
    /// gateway.
    pub(super) async fn record_bearers_seen(
        &self,
        identity: Identity,
        seen: Vec<(HolderId, u64)>,
    ) -> Result<ServerAnswer, ServerRefusal> {
        if !matches!(identity.role, Role::Client | Role::Reader | Role::Admin) {
            return Err(denied(Role::Client, identity.role));
        }
        let recorded =
            self.store.update(move |next| next.handle_bearers_seen(&seen, clock::now_ms()));
        recorded.await.map_err(|failure| ServerRefusal::Storage(failure.to_string()))?;
        Ok(ServerAnswer::Done)
    }

    /// Keeps one run of a node and dismisses the others.
    pub(super) async fn keep_run(
        &self,
        identity: Identity,
        address: SocketAddr,
        node: NodeId,
        run: RunChoice,
    ) -> Result<ServerAnswer, ServerRefusal> {
        require_admin(identity)?;
        let kept = match run {
            RunChoice::Address(address) => format!("keep the run of node {node} at {address}"),
            RunChoice::Start(start) => format!("keep the run {start} of node {node}"),
        };
        self.log_action(identity, address, &kept);
        let kept = self.store.update(move |next| next.handle_keep_run(node, run, clock::now_ms()));
        flatten(kept.await)?;
        Ok(ServerAnswer::Done)
    }

    /// Logs who does what, with the holder's name from the inventory.
    fn log_action(&self, identity: Identity, address: SocketAddr, action: &str) {
        let registry = self.store.snapshot();
        let name = registry.name_of(identity.holder).unwrap_or("-");
        info!(target: AUDIT, by = %identity, name, %address, "administrative act: {action}");
    }
}

fn require_admin(identity: Identity) -> Result<(), ServerRefusal> {
    if identity.role == Role::Admin { Ok(()) } else { Err(denied(Role::Admin, identity.role)) }
}

fn not_logged(error: LevelError) -> ServerRefusal {
    ServerRefusal::Invalid(error.to_string())
}
