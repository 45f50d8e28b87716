//! Requests of administrators, and the use of bearer tokens that gateways report.

use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::audit::{self, Act, What, Who};
use dkv_base::id::{HolderId, NodeId};
use dkv_base::logging::brief;
use dkv_base::logging::level::{self, LevelError};
use dkv_wire::bearer::{self, Bearer, Rights};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::message::{
    BearerLife, HolderKind, LogChange, LogFilter, RunChoice, ServerAnswer, ServerRefusal,
    ServerRequest,
};
use dkv_wire::token::Token;
use dkv_wire::user::User;
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
        let what = What::new("create token", format!("{} ({role}{whose})", token.id));
        let act = self.begin(identity, address, what);
        let (id, hash) = (token.id, token.secret_hash());
        let created = self.books.update(move |next| {
            let (name, now_ms) = (name.clone(), clock::now_ms());
            next.handle_create_token(id, hash, role, life_s, uses, name, user, now_ms)
        });
        act.settled(flatten(created.await))?;
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
            let what = What::new("log", format!("\"{}\"", brief(&filter)));
            let act = self.begin(identity, address, what);
            let life = for_ms.map(Duration::from_millis);
            let changed = act.settled(level::change(&filter, life).map_err(not_logged));
            if let Some(passing) = changed? {
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
        let what = What::new("revoke token", token.to_string());
        let act = self.begin(identity, address, what);
        let revoked = self.books.update(move |next| next.handle_revoke_token(token)).await;
        act.settled(flatten(revoked))?;
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
        let target = format!("{holder} ({rights:?}, {life:?}{whose})");
        let act = self.begin(identity, address, What::new("create bearer token", target));
        let created = self.books.update(move |next| {
            let (kind, name) = (HolderKind::Bearer(rights), name.clone());
            let (made_by, now_ms) = (identity.holder, clock::now_ms());
            next.handle_create_bearer(holder, kind, life, name, user, made_by, now_ms)
        });
        let expires_ms = act.settled(flatten(created.await))?;
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
            RunChoice::Address(address) => format!("of node {node} at {address}"),
            RunChoice::Start(start) => format!("{start} of node {node}"),
        };
        let act = self.begin(identity, address, What::new("keep the run", kept));
        let kept = self.store.update(move |next| next.handle_keep_run(node, run, clock::now_ms()));
        act.settled(flatten(kept.await))?;
        Ok(ServerAnswer::Done)
    }

    /// Tells that an administrator begins an act.
    fn begin(&self, identity: Identity, address: SocketAddr, what: What) -> Act {
        audit::act(self.audited(identity, address), what)
    }

    /// The holder of a certificate in the audit log, with its name from the inventory.
    pub(super) fn audited(&self, identity: Identity, address: SocketAddr) -> Who {
        let name = self.store.snapshot().name_of(identity.holder).map(str::to_owned);
        Who { name, ..identity.audited(None, address) }
    }
}

/// What a request asks for, in the audit log.
pub(super) fn asked(request: &ServerRequest) -> What {
    match request {
        ServerRequest::Lookup => What::new("look up the nodes", ""),
        ServerRequest::Status => What::new("show the server's status", ""),
        ServerRequest::Register { name, .. } => {
            What::new("register a node", brief(name.as_deref().unwrap_or_default()))
        }
        ServerRequest::Report(_) => What::new("report as the coordinator", ""),
        ServerRequest::Stand(_) => What::new("ask which run of a node goes on", ""),
        ServerRequest::Renew { .. } => What::new("renew a certificate", ""),
        ServerRequest::BearersSeen(_) => What::new("report the use of bearer tokens", ""),
        ServerRequest::CreateToken { role, .. } => What::new("create token", role.to_string()),
        ServerRequest::CreateBearer { .. } => What::new("create bearer token", ""),
        ServerRequest::ListHolders => What::new("list holders", ""),
        ServerRequest::ListTokens => What::new("list tokens", ""),
        ServerRequest::RevokeToken(token) => What::new("revoke token", token.to_string()),
        ServerRequest::Keep { node, .. } => What::new("keep a run", format!("of node {node}")),
        ServerRequest::Log(_) => What::new("show or change the log's filter", ""),
        ServerRequest::Enlist => What::new("enlist as a server", ""),
    }
}

fn require_admin(identity: Identity) -> Result<(), ServerRefusal> {
    if identity.role == Role::Admin { Ok(()) } else { Err(denied(Role::Admin, identity.role)) }
}

fn not_logged(error: LevelError) -> ServerRefusal {
    ServerRefusal::Invalid(error.to_string())
}
