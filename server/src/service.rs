//! The server's side of every conversation: reads requests, asks the registry, writes answers.
//!
//! Two kinds of peers come through the gate. A *joiner* has proved nothing: it may send one small
//! frame, within a few seconds, and only so many of them at once. The *holder of a certificate* may
//! send any number of requests on any of a few streams; what it may ask follows from the role in
//! its certificate, and from nothing that it says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use dkv_base::id::{HolderId, NodeId};
use dkv_base::places::Places;
use dkv_base::platform;
use dkv_wire::bearer::{self, Bearer, Rights};
use dkv_wire::certificate::{Authority, end_of};
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::gate::{Gate, Peer};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::{JOIN_FRAME_BYTES_MAX, RECERTIFY_WITHIN, SERVER_FRAME_BYTES_MAX};
use dkv_wire::message::{BearerLife, HolderKind};
use dkv_wire::message::{
    JoinAnswer, JoinRefusal, JoinRequest, Joining, ReadmitRequest, RecertifyRequest,
};
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest, Stand};
use dkv_wire::quic::{Close, proof_material};
use dkv_wire::run::{Boot, PAST_MAX, Verdict};
use dkv_wire::token::Token;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::callback::CallBack;
use crate::clock;
use crate::keeper::{Keeper, NotKept};
use crate::leaving::LeftTokens;
use crate::limits::{
    ADDRESS_JOINERS_MAX, HOLDER_CONNECTIONS_MAX, JOIN_TIMEOUT, JOINERS_MAX, REQUEST_BYTES_MAX,
    RUNS_MAX, SIGNING_MAX, SIGNING_TIMEOUT, STREAMS_MAX,
};
use crate::registry::Effects;

/// Answers everybody.
pub(crate) struct Service {
    authority: Arc<Authority>,
    keeper: Keeper,
    gate: Arc<Gate>,
    left_tokens: LeftTokens,
    call_back: CallBack,
    started: Instant,
    joiners: Arc<Places>,
    /// Names this run of the server to the nodes that it asks whether they live.
    run: u64,
    /// What was last written to the log of the runs of a node, by run.
    logged: Mutex<HashMap<NodeId, Vec<(Boot, Verdict)>>>,
    signing: Semaphore,
    holders: Mutex<HashMap<HolderId, usize>>,
}

impl Service {
    pub(crate) fn new(
        authority: Arc<Authority>,
        keeper: Keeper,
        gate: Arc<Gate>,
        left_tokens: LeftTokens,
        call_back: CallBack,
    ) -> Self {
        Self {
            authority,
            keeper,
            gate,
            left_tokens,
            call_back,
            started: Instant::now(),
            joiners: Arc::new(Places::new(JOINERS_MAX, ADDRESS_JOINERS_MAX)),
            run: platform::random_u64(),
            logged: Mutex::default(),
            signing: Semaphore::new(SIGNING_MAX),
            holders: Mutex::default(),
        }
    }

    /// Talks to one peer until its connection closes.
    pub(crate) async fn talk(self: Arc<Self>, connection: quinn::Connection, peer: Peer) {
        match peer {
            Peer::Joining => self.talk_to_joiner(&connection).await,
            Peer::Certified(identity) => self.talk_to_holder(&connection, identity).await,
        }
    }

    async fn talk_to_joiner(&self, connection: &quinn::Connection) {
        let Some(mut place) = self.joiners.take(connection.remote_address().ip()) else {
            return Close::Busy.close(connection, "too many are joining at once");
        };
        let served = tokio::select! {
            biased;
            served = timeout(JOIN_TIMEOUT, self.serve_joiner(connection)) => served,
            () = place.lost() => {
                return Close::Busy.close(connection, "too many are joining from this address");
            }
        };
        match served {
            Ok(Ok(())) => Close::Done.close(connection, "joined"),
            Ok(Err(why)) => {
                debug!(address = %connection.remote_address(), why, "turned a joiner away");
                Close::Protocol.close(connection, &why);
            }
            Err(_) => Close::Protocol.close(connection, "joining took too long"),
        }
    }

    async fn serve_joiner(&self, connection: &quinn::Connection) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let (send, receive) = connection.accept_bi().await.map_err(|error| text(&error))?;
        let mut reader = FrameReader::new(receive, JOIN_FRAME_BYTES_MAX);
        let frame = reader.next().await.map_err(|error| text(&error))?;
        let frame = frame.ok_or("ended the conversation without a request")?;
        let request: Joining = decode(&frame).map_err(|error| text(&error))?;
        let answer = match request {
            Joining::Join(request) => self.decide_join(request).await,
            Joining::Recertify(request) => self.decide_recertify(connection, request, None).await,
            Joining::Readmit(ReadmitRequest { again, token, secret }) => {
                self.decide_recertify(connection, again, Some((token, secret))).await
            }
        };
        match &answer {
            Ok(joined) => {
                let holder = joined.holder;
                info!(role = %joined.role, %holder, address = %connection.remote_address(), "joined");
            }
            // Anybody can cause these: they must not fill anybody's disk.
            Err(refusal @ (JoinRefusal::Unknown | JoinRefusal::Busy)) => {
                debug!(%refusal, address = %connection.remote_address(), "refused to join");
            }
            Err(refusal) => {
                info!(%refusal, address = %connection.remote_address(), "refused to join");
            }
        }
        let mut writer = FrameWriter::new(send);
        writer.send(&answer).await.map_err(|error| text(&error))?;
        // The joiner has its answer if it closes the stream; if it stays silent the time limit ends
        // it.
        let mut stream = writer.into_inner();
        let _ = stream.finish();
        let _ = stream.stopped().await;
        Ok(())
    }

    async fn decide_join(&self, request: JoinRequest) -> Result<JoinAnswer, JoinRefusal> {
        let turn = timeout(SIGNING_TIMEOUT, self.signing.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(JoinRefusal::Busy) };
        let JoinRequest { token, secret, public_key } = request;
        let registry = self.keeper.current();
        let role = registry.check_token(token, &secret, clock::now_ms())?;
        let holder = HolderId::random();
        let identity = Identity { network: registry.network(), role, holder };
        // Signed before the token is used, so that an unusable key costs nothing; handed out after
        // the use is counted, so that a crash in between costs a use and not the count.
        let certificate = self
            .authority
            .sign(identity, &public_key, clock::now())
            .map_err(|_| JoinRefusal::Key)?;
        let counted = self
            .keeper
            .change(move |registry| registry.handle_join(token, &secret, holder, clock::now_ms()));
        counted.await.map_err(|failure| JoinRefusal::Storage(failure.to_string()))??;
        Ok(JoinAnswer { network: identity.network, role, holder, certificate })
    }

    /// Signs a new certificate for who can prove to have been admitted before. One that expired
    /// long ago takes a token as well, for a key alone may be a thief's by then.
    async fn decide_recertify(
        &self,
        connection: &quinn::Connection,
        request: RecertifyRequest,
        token: Option<(Uuid, [u8; 32])>,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let turn = timeout(SIGNING_TIMEOUT, self.signing.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(JoinRefusal::Busy) };
        let material = proof_material(connection).ok_or(JoinRefusal::Certificate)?;
        let RecertifyRequest { certificate, proof } = request;
        let (identity, public_key) = self
            .authority
            .recognise(&certificate, &material, &proof)
            .map_err(|_| JoinRefusal::Certificate)?;
        if self.keeper.current().denied().any(|denied| denied == identity.holder) {
            return Err(JoinRefusal::Denied);
        }
        let end = end_of(&certificate).map_err(|_| JoinRefusal::Certificate)?;
        let since = clock::now().duration_since(end).unwrap_or_default();
        if token.is_none() && since > RECERTIFY_WITHIN {
            return Err(JoinRefusal::Lapsed);
        }
        let certificate = self
            .authority
            .sign(identity, &public_key, clock::now())
            .map_err(|_| JoinRefusal::Key)?;
        match token {
            Some((token, secret)) => {
                let (holder, now_ms) = (identity.holder, clock::now_ms());
                if self.keeper.current().check_token(token, &secret, now_ms)? != identity.role {
                    return Err(JoinRefusal::Unknown);
                }
                let counted = self.keeper.change(move |registry| {
                    registry.handle_join(token, &secret, holder, clock::now_ms())
                });
                counted.await.map_err(|failure| JoinRefusal::Storage(failure.to_string()))??;
            }
            None => self.note_certified(identity).await,
        }
        let Identity { network, role, holder } = identity;
        Ok(JoinAnswer { network, role, holder, certificate })
    }

    /// Notes a new certificate in the inventory. That the books cannot be written is no reason to
    /// let a holder's certificate end.
    async fn note_certified(&self, identity: Identity) {
        let noted = self
            .keeper
            .change(move |registry| registry.handle_certified(identity, clock::now_ms()));
        if let Err(error) = noted.await {
            debug!(%identity, %error, "a renewed certificate is not in the books");
        }
    }

    /// Notes that a holder was heard of.
    async fn note_seen(&self, identity: Identity) {
        let now_ms = clock::now_ms();
        if identity.role != Role::Server
            && self.keeper.current().is_news_of(identity.holder, now_ms)
        {
            // The server is stopping if this fails.
            let _ = self.keeper.change(move |books| books.handle_seen(identity, now_ms)).await;
        }
    }

    /// Says in the log who does what, by the name that people know.
    fn log_act(&self, identity: Identity, address: SocketAddr, act: &str) {
        let registry = self.keeper.current();
        let name = registry.name_of(identity.holder).unwrap_or("-");
        info!(by = %identity, name, %address, "administrative act: {act}");
    }

    async fn talk_to_holder(self: Arc<Self>, connection: &quinn::Connection, identity: Identity) {
        if identity.network != self.keeper.current().network() {
            return Close::Denied.close(connection, "a certificate of another network");
        }
        let Some(_place) = self.place_of(identity.holder) else {
            return Close::Busy.close(connection, "too many connections of one certificate");
        };
        self.note_seen(identity).await;
        connection.set_max_concurrent_bi_streams(STREAMS_MAX.into());
        let address = connection.remote_address();
        while let Ok((send, receive)) = connection.accept_bi().await {
            let service = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = service.serve_stream(identity, address, send, receive).await {
                    debug!(%identity, %error, "stream ended");
                }
            });
        }
    }

    async fn serve_stream(
        &self,
        identity: Identity,
        address: SocketAddr,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
    ) -> std::io::Result<()> {
        let is_node = identity.role == Role::Node;
        let limit = if is_node { SERVER_FRAME_BYTES_MAX } else { REQUEST_BYTES_MAX };
        let mut reader = FrameReader::new(receive, limit);
        let mut writer = FrameWriter::new(send);
        let unreadable = loop {
            let request = match reader.next().await {
                Ok(Some(frame)) => decode(&frame).map_err(|error| error.to_string()),
                Ok(None) => break None,
                Err(error) => Err(error.to_string()),
            };
            match request {
                Ok(request) => writer.send(&self.answer(identity, address, request).await).await?,
                Err(why) => break Some(why),
            }
        };
        if let Some(why) = unreadable {
            // What follows on the stream cannot be trusted to begin where a frame begins.
            writer.send(&ServerAnswer::Refused(ServerRefusal::Invalid(why))).await?;
        }
        let mut stream = writer.into_inner();
        let _ = stream.finish();
        // Not to be dropped before the peer has all of it.
        let _ = stream.stopped().await;
        Ok(())
    }

    /// Answers one request.
    async fn answer(
        &self,
        identity: Identity,
        address: SocketAddr,
        request: ServerRequest,
    ) -> ServerAnswer {
        let answer = self.decide(identity, address, request).await;
        answer.unwrap_or_else(|refusal| {
            info!(%identity, %refusal, "refused");
            ServerAnswer::Refused(refusal)
        })
    }

    async fn decide(
        &self,
        identity: Identity,
        address: SocketAddr,
        request: ServerRequest,
    ) -> Result<ServerAnswer, ServerRefusal> {
        if self.gate.is_denied(identity.holder) {
            return Err(ServerRefusal::Denied("removed from the network".into()));
        }
        match request {
            ServerRequest::Lookup => {
                Ok(ServerAnswer::View(self.keeper.current().view().cloned().map(Box::new)))
            }
            ServerRequest::Status => {
                let uptime_ms =
                    u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let version = env!("CARGO_PKG_VERSION");
                let status = self.keeper.current().status(version, uptime_ms, clock::now_ms());
                Ok(ServerAnswer::Status(Box::new(status)))
            }
            ServerRequest::Register { name, address, region, control } => {
                let node = must_be_node(identity)?;
                let registered = self.keeper.change(move |registry| {
                    let (name, now_ms) = (name.as_deref(), clock::now_ms());
                    let said = control.as_ref().map_or(Effects::default(), |control| {
                        registry.handle_control(node, control, now_ms)
                    });
                    let (answer, mut effects) =
                        registry.handle_register(node, name, address, region.clone(), now_ms);
                    effects.save |= said.save;
                    (answer, effects)
                });
                let admitted = kept(registered.await)?;
                self.call_back.call(node, address);
                Ok(ServerAnswer::Admitted(Box::new(admitted)))
            }
            ServerRequest::Report(report) => {
                let node = must_be_node(identity)?;
                let reported = self
                    .keeper
                    .change(move |registry| registry.handle_report(node, &report, clock::now_ms()));
                kept(reported.await).map(ServerAnswer::Confirmed)
            }
            ServerRequest::Renew { public_key } => {
                let certificate = self.authority.sign(identity, &public_key, clock::now());
                let certificate =
                    certificate.map_err(|error| ServerRefusal::Invalid(error.to_string()))?;
                self.note_certified(identity).await;
                Ok(ServerAnswer::Certificate(certificate))
            }
            ServerRequest::CreateToken { role, life_s, uses, name } => {
                must_be_admin(identity)?;
                let token = Token::generate(role, self.authority.fingerprint());
                self.log_act(identity, address, &format!("create token {} ({role})", token.id));
                self.create_token(token, life_s, uses, name).await.map(ServerAnswer::Token)
            }
            ServerRequest::CreateBearer { rights, life, name } => {
                must_be_admin(identity)?;
                let holder = HolderId::random();
                let act = format!("create bearer token {holder} ({rights:?}, {life:?})");
                self.log_act(identity, address, &act);
                self.create_bearer(identity.holder, holder, rights, life, name).await
            }
            ServerRequest::ListHolders => {
                must_be_admin(identity)?;
                Ok(ServerAnswer::Holders(self.keeper.current().holders()))
            }
            ServerRequest::BearersSeen(seen) => {
                if !matches!(identity.role, Role::Client | Role::Reader | Role::Admin) {
                    return Err(denied(Role::Client, identity.role));
                }
                let noted = self
                    .keeper
                    .change(move |registry| registry.handle_bearers_seen(&seen, clock::now_ms()));
                let noted = noted.await;
                noted.map_err(|failure| ServerRefusal::Storage(failure.to_string()))?;
                Ok(ServerAnswer::Done)
            }
            ServerRequest::ListTokens => {
                must_be_admin(identity)?;
                Ok(ServerAnswer::Tokens(self.keeper.current().tokens()))
            }
            ServerRequest::RevokeToken(token) => {
                must_be_admin(identity)?;
                self.log_act(identity, address, &format!("revoke token {token}"));
                self.revoke_token(token).await.map(|()| ServerAnswer::Done)
            }
            ServerRequest::Stand(stand) => self.stand(identity, *stand).await,
            ServerRequest::Keep { node, run } => {
                must_be_admin(identity)?;
                info!(%identity, %node, ?run, "an administrator says which run goes on");
                let keep =
                    self.keeper.change(move |books| books.handle_keep(node, run, clock::now_ms()));
                kept(keep.await)?;
                Ok(ServerAnswer::Done)
            }
        }
    }

    /// Says what to make of a run of a node.
    async fn stand(&self, identity: Identity, stand: Stand) -> Result<ServerAnswer, ServerRefusal> {
        let node = must_be_node(identity)?;
        if stand.run.past.len() > PAST_MAX {
            return Err(ServerRefusal::Invalid("it names too many earlier runs".into()));
        }
        let (server, boot, run, address) =
            (self.run, stand.run.boot, stand.run.start, stand.address);
        let stood = self
            .keeper
            .change(move |registry| registry.handle_stand(node, &stand, server, clock::now_ms()));
        let standing = kept(stood.await)?;
        match standing.verdict {
            _ if !self.is_news(node, boot, standing.verdict) => {}
            Verdict::Sound => {}
            Verdict::Older { start, .. } => {
                warn!(%node, %address, start = run, known = start, "an older copy of a node's directory");
            }
            Verdict::Twice { start } => {
                warn!(%node, %address, start = run, other = start, "two processes of a node run");
            }
            Verdict::Dismissed { start } => {
                info!(%node, %address, start = run, kept = start, "dismissed by an administrator");
            }
        }
        Ok(ServerAnswer::Stands(Box::new(standing)))
    }

    /// Whether this is not what was said of this run the last time.
    fn is_news(&self, node: NodeId, boot: Boot, verdict: Verdict) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = logged.entry(node).or_default();
        if runs.contains(&(boot, verdict)) {
            return false;
        }
        runs.retain(|(run, _)| *run != boot);
        if runs.len() == RUNS_MAX {
            runs.remove(0);
        }
        runs.push((boot, verdict));
        true
    }

    async fn create_token(
        &self,
        token: Token,
        life_s: Option<u64>,
        uses: Option<u32>,
        name: Option<String>,
    ) -> Result<String, ServerRefusal> {
        let (id, hash, role) = (token.id, token.secret_hash(), token.role);
        let created = self.keeper.change(move |registry| {
            let (name, now_ms) = (name.clone(), clock::now_ms());
            registry.handle_create_token(id, hash, role, life_s, uses, name, now_ms)
        });
        kept(created.await)?;
        Ok(token.to_string())
    }

    /// Its text is signed and forgotten; that there is such a token stays in the inventory.
    async fn create_bearer(
        &self,
        made_by: HolderId,
        holder: HolderId,
        rights: Rights,
        life: BearerLife,
        name: Option<String>,
    ) -> Result<ServerAnswer, ServerRefusal> {
        let entered = self.keeper.change(move |registry| {
            let (held, name) = (HolderKind::Bearer(rights), name.clone());
            registry.handle_create_bearer(holder, held, life, name, made_by, clock::now_ms())
        });
        let expires_ms = kept(entered.await)?;
        let network = self.authority.network();
        let bearer = Bearer { network, holder, rights, expires_ms };
        match bearer::sign(&self.authority, &bearer) {
            Ok(text) => Ok(ServerAnswer::Bearer(text, holder)),
            Err(error) => Err(ServerRefusal::Invalid(error.to_string())),
        }
    }

    async fn revoke_token(&self, token: Uuid) -> Result<(), ServerRefusal> {
        let revoked = self.keeper.change(move |registry| registry.handle_revoke_token(token));
        kept(revoked.await)?;
        // It admits nobody any more; that its text lies around no longer is a courtesy.
        self.left_tokens.take_back(token);
        Ok(())
    }

    /// A place among the connections of one holder; free again when it is dropped.
    fn place_of(&self, holder: HolderId) -> Option<Place<'_>> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let count = holders.entry(holder).or_default();
        if *count >= HOLDER_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Place { service: self, holder })
    }
}

struct Place<'a> {
    service: &'a Service,
    holder: HolderId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut holders = self.service.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = holders.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&self.holder);
            }
        }
    }
}

fn kept<T>(answer: Result<Result<T, ServerRefusal>, NotKept>) -> Result<T, ServerRefusal> {
    answer.map_err(|failure| ServerRefusal::Storage(failure.to_string()))?
}

fn must_be_node(identity: Identity) -> Result<NodeId, ServerRefusal> {
    identity.as_node().ok_or_else(|| denied(Role::Node, identity.role))
}

fn must_be_admin(identity: Identity) -> Result<(), ServerRefusal> {
    if identity.role == Role::Admin { Ok(()) } else { Err(denied(Role::Admin, identity.role)) }
}

fn denied(needed: Role, role: Role) -> ServerRefusal {
    ServerRefusal::Denied(format!(
        "this takes a certificate of role {needed}, and yours is of role {role}"
    ))
}
