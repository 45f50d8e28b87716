//! The server's side of every conversation: reads requests, consults the registry, writes answers.
//!
//! The acceptor admits two kinds of peers. A *joiner* has proved nothing: it may send one small
//! frame within a few seconds, and the number of joiners is limited. The *holder of a certificate*
//! may send any number of requests on a few streams. The role in its certificate decides what it
//! may ask, and nothing that it says.

mod admin;
mod connections;
mod enrolment;
mod nodes;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant as StdInstant;

use dkv_base::audit;
use dkv_base::id::HolderId;
use dkv_base::log_limit::LogLimit;
use dkv_base::platform;
use dkv_base::slots::Slots;
use dkv_base::sync::lock;
use dkv_wire::acceptor::{Acceptor, Peer};
use dkv_wire::certificate::Authority;
use dkv_wire::codec::decode;
use dkv_wire::frame::{FrameReader, FrameWriter};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::SERVER_FRAME_BYTES_MAX;
use dkv_wire::message::{ServerAnswer, ServerRefusal, ServerRequest};
use dkv_wire::quic::Close;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info};

use self::connections::HolderConnections;
use self::nodes::LoggedVerdicts;
use crate::books::Books;
use crate::clock;
use crate::limits::{
    ADDRESS_JOINERS_MAX, JOINERS_MAX, LOGGED_SENDERS_MAX, REQUEST_BYTES_MAX, SIGNING_MAX,
    STREAMS_MAX,
};
use crate::local_tokens::LocalTokens;
use crate::reachability::ReachabilityProbe;
use crate::registry_store::{RegistryStore, UpdateError};

/// Answers all peers.
pub(crate) struct Service {
    authority: Arc<Authority>,
    store: RegistryStore,
    books: Books,
    acceptor: Arc<Acceptor>,
    local_tokens: LocalTokens,
    reachability: ReachabilityProbe,
    started: Instant,
    /// Identifies this run of the server in the questions by which nodes prove that they are alive.
    run: u64,
    joiners: Arc<Slots>,
    signing: Semaphore,
    connections: HolderConnections,
    logged_verdicts: LoggedVerdicts,
    /// Limits what those who are refused can write to the log.
    refused_holders: Mutex<LogLimit<HolderId>>,
    refused_joiners: Mutex<LogLimit<IpAddr>>,
}

impl Service {
    pub(crate) fn new(
        authority: Arc<Authority>,
        store: RegistryStore,
        books: Books,
        acceptor: Arc<Acceptor>,
        local_tokens: LocalTokens,
        reachability: ReachabilityProbe,
    ) -> Self {
        Self {
            authority,
            store,
            books,
            acceptor,
            local_tokens,
            reachability,
            started: Instant::now(),
            run: platform::random_u64(),
            joiners: Arc::new(Slots::new(JOINERS_MAX, ADDRESS_JOINERS_MAX)),
            signing: Semaphore::new(SIGNING_MAX),
            connections: HolderConnections::default(),
            logged_verdicts: LoggedVerdicts::default(),
            refused_holders: Mutex::new(LogLimit::new(LOGGED_SENDERS_MAX)),
            refused_joiners: Mutex::new(LogLimit::new(LOGGED_SENDERS_MAX)),
        }
    }

    /// Serves one peer until its connection closes.
    pub(crate) async fn serve(self: Arc<Self>, connection: quinn::Connection, peer: Peer) {
        match peer {
            Peer::Joining => self.serve_joiner(&connection).await,
            Peer::Certified(identity) => self.serve_holder(&connection, identity).await,
        }
    }

    async fn serve_holder(self: Arc<Self>, connection: &quinn::Connection, identity: Identity) {
        if identity.network != self.store.snapshot().network() {
            return Close::Denied.close(connection, "a certificate of another network");
        }
        let Some(_slot) = self.connections.open(identity.holder) else {
            return Close::Busy.close(connection, "too many connections of one certificate");
        };
        self.record_sighting(identity).await;
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
            // The stream ends here: the next frame boundary is unknown.
            writer.send(&ServerAnswer::Refused(ServerRefusal::Invalid(why))).await?;
        }
        let mut stream = writer.into_inner();
        let _ = stream.finish();
        // Dropping the stream before the peer has read everything would lose the answer.
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
        let what = admin::asked(&request);
        let answer = self.dispatch(identity, address, request).await;
        answer.unwrap_or_else(|refusal| {
            if let ServerRefusal::Denied(why) = &refusal {
                audit::denied(self.audited(identity, address), what, why);
            } else if let Some(before) =
                lock(&self.refused_holders).note(identity.holder, StdInstant::now())
            {
                info!(%identity, %refusal, before, "refused");
            }
            ServerAnswer::Refused(refusal)
        })
    }

    async fn dispatch(
        &self,
        identity: Identity,
        address: SocketAddr,
        request: ServerRequest,
    ) -> Result<ServerAnswer, ServerRefusal> {
        if self.acceptor.is_denied(identity.holder) {
            return Err(ServerRefusal::Denied("removed from the network".into()));
        }
        match request {
            ServerRequest::Lookup => {
                Ok(ServerAnswer::View(self.store.snapshot().view().cloned().map(Box::new)))
            }
            ServerRequest::Status => Ok(self.status()),
            ServerRequest::Register { name, address, region, control } => {
                self.register(identity, name, address, region, control).await
            }
            ServerRequest::Report(report) => self.report(identity, report).await,
            ServerRequest::Stand(stand) => self.check_run(identity, *stand).await,
            ServerRequest::Renew { public_key } => self.renew(identity, &public_key).await,
            ServerRequest::BearersSeen(seen) => self.record_bearers_seen(identity, seen).await,
            ServerRequest::CreateToken { role, life_s, uses, name, user } => {
                self.create_token(identity, address, role, life_s, uses, name, user).await
            }
            ServerRequest::CreateBearer { rights, life, name, user } => {
                self.create_bearer(identity, address, rights, life, name, user).await
            }
            ServerRequest::ListHolders => self.list_holders(identity),
            ServerRequest::ListTokens => self.list_tokens(identity),
            ServerRequest::RevokeToken(token) => self.revoke_token(identity, address, token).await,
            ServerRequest::Keep { node, run } => self.keep_run(identity, address, node, run).await,
            ServerRequest::Log(change) => self.log(identity, address, change),
            ServerRequest::Enlist => self.enlist(identity, address).await,
        }
    }

    fn status(&self) -> ServerAnswer {
        let uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let version = env!("CARGO_PKG_VERSION");
        let status = self.store.snapshot().status(version, uptime_ms, clock::now_ms());
        ServerAnswer::Status(Box::new(status))
    }

    /// Records that the holder of a certificate was heard from.
    async fn record_sighting(&self, identity: Identity) {
        let now_ms = clock::now_ms();
        if identity.role != Role::Server
            && self.store.snapshot().is_sighting_due(identity.holder, now_ms)
        {
            // This fails only while the server is stopping.
            let _ = self.store.update(move |next| next.handle_seen(identity, now_ms)).await;
        }
    }
}

/// Merges the two ways in which an update can fail.
fn flatten<T>(answer: Result<Result<T, ServerRefusal>, UpdateError>) -> Result<T, ServerRefusal> {
    answer.map_err(|failure| match &failure {
        UpdateError::Waiting(why) => ServerRefusal::Waiting(why.to_string()),
        UpdateError::Rejected(_) => ServerRefusal::Invalid(failure.to_string()),
        UpdateError::Write(_) | UpdateError::Stopping => {
            ServerRefusal::Storage(failure.to_string())
        }
    })?
}

/// The refusal of a request that takes another role.
fn denied(required: Role, role: Role) -> ServerRefusal {
    ServerRefusal::Denied(format!(
        "this requires a certificate of role {required}, and yours has role {role}"
    ))
}
