//! Enrolment: admits joiners, and signs and renews certificates.

use std::net::SocketAddr;
use std::time::Instant as StdInstant;

use dkv_base::audit::{self, Outcome, What, Who};
use dkv_base::id::HolderId;
use dkv_base::slots::{self, Busy, BusyFlag};
use dkv_base::sync::lock;
use dkv_wire::certificate::{end_of, identity_of};
use dkv_wire::codec::{DecodeError, decode};
use dkv_wire::frame::{FrameError, FrameReader, FrameWriter};
use dkv_wire::identity::{Identity, Role};
use dkv_wire::limits::{JOIN_FRAME_BYTES_MAX, RECERTIFY_WITHIN};
use dkv_wire::message::{
    JoinAnswer, JoinRefusal, JoinRequest, Joining, ReadmitRequest, RecertifyRequest, ServerAnswer,
    ServerRefusal,
};
use dkv_wire::quic::{Close, proof_material};
use dkv_wire::user::User;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, info};
use uuid::Uuid;

use super::{Service, denied};
use crate::clock;
use crate::limits::{
    ANSWER_TIMEOUT, FAR_ANSWER_TIMEOUT, JOIN_TIMEOUT, JOINERS_KEPT, SIGNING_TIMEOUT,
};
use crate::registry::Registry;
use crate::registry_store::UpdateError;

/// Why a joiner's conversation ended without an answer. Each one breaks the protocol, and closes
/// the connection.
#[derive(Debug, thiserror::Error)]
enum ConversationError {
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Write(#[from] std::io::Error),
    #[error("ended the conversation without a request")]
    NoRequest,
    #[error("did not take its answer")]
    NotTaken,
}

/// What a joiner asks for, in the audit log.
fn asked(request: &Joining) -> What {
    match request {
        Joining::Join(JoinRequest { token, .. }) => What::new("join by token", token.to_string()),
        Joining::Recertify(_) => What::new("join again", ""),
        Joining::Readmit(ReadmitRequest { token, .. }) => {
            What::new("join again by token", token.to_string())
        }
    }
}

/// The place of a joiner among the others of its address.
struct KeptPlace {
    flag: BusyFlag,
    busy: Option<Busy>,
}

impl KeptPlace {
    /// Lets the joiner lose its place to no other from here on: its token may be used up, so it
    /// could not come again.
    ///
    /// Clients and readers leave some places to others: their tokens are often for many uses, so
    /// one bearer could keep everybody out.
    ///
    /// # Errors
    /// `Busy` if it has lost its place already, or if too many keep theirs.
    fn keep(&mut self, role: Role) -> Result<(), JoinRefusal> {
        let kept = match role {
            Role::Client | Role::Reader => self.flag.begin_beside(JOINERS_KEPT),
            Role::Node | Role::Admin | Role::Server => self.flag.begin(),
        };
        self.busy = Some(kept.ok_or(JoinRefusal::Busy)?);
        Ok(())
    }
}

impl Service {
    pub(super) async fn serve_joiner(&self, connection: &quinn::Connection) {
        let Some(mut place) = self.joiners.take(connection.remote_address().ip()) else {
            return Close::Busy.close(connection, "too many joiners at once");
        };
        let kept = KeptPlace { flag: place.busy_flag(), busy: None };
        let served = tokio::select! {
            biased;
            served = timeout(JOIN_TIMEOUT, self.answer_joiner(connection, kept)) => served,
            () = place.lost() => {
                return Close::Busy.close(connection, "too many joiners from this address");
            }
        };
        match served {
            Ok(Ok(())) => Close::Done.close(connection, "joined"),
            Ok(Err(error)) => {
                debug!(address = %connection.remote_address(), %error, "turned a joiner away");
                Close::Protocol.close(connection, &error.to_string());
            }
            Err(_) => Close::Protocol.close(connection, "joining took too long"),
        }
    }

    async fn answer_joiner(
        &self,
        connection: &quinn::Connection,
        mut place: KeptPlace,
    ) -> Result<(), ConversationError> {
        let (send, receive) = connection.accept_bi().await?;
        let mut reader = FrameReader::new(receive, JOIN_FRAME_BYTES_MAX);
        let frame = reader.next().await?.ok_or(ConversationError::NoRequest)?;
        let request = decode(&frame)?;
        let what = asked(&request);
        let is_renewal = matches!(request, Joining::Recertify(_));
        let answer = match request {
            Joining::Join(request) => self.join(request, &mut place).await,
            Joining::Recertify(request) => self.recertify(connection, request, None).await,
            Joining::Readmit(ReadmitRequest { again, token, secret }) => {
                self.recertify(connection, again, Some((token, secret, &mut place))).await
            }
        };
        let address = connection.remote_address();
        match &answer {
            Ok(joined) => {
                let JoinAnswer { network, role, holder, certificate } = joined;
                let user =
                    identity_of(&certificate[..].into()).ok().and_then(|identity| identity.user);
                let (network, role, holder) = (*network, *role, *holder);
                let joined = Identity { network, role, holder, user };
                let who = joined.audited(None, address);
                // With a certificate that it has, anybody may join again, over and over; and tokens
                // for clients may be used by thousands.
                let is_rated = is_renewal || matches!(role, Role::Client | Role::Reader);
                let act = match is_rated {
                    true => audit::rated("joined", who, what),
                    false => audit::told("joined", who, what),
                };
                act.ended(Outcome::Done);
            }
            // Anybody can cause this, so it must not fill the disk with logs.
            Err(refusal @ JoinRefusal::Busy) => debug!(%refusal, %address, "refused to join"),
            Err(
                refusal @ (JoinRefusal::Unknown
                | JoinRefusal::Denied
                | JoinRefusal::Lapsed
                | JoinRefusal::Certificate
                | JoinRefusal::Expired
                | JoinRefusal::UsedUp),
            ) => {
                // As this: the audit log has some of them and counts the others.
                let who = Who { address: Some(address.into()), ..Who::default() };
                audit::denied(who, what, &refusal.to_string());
            }
            // Anybody can cause some of the others, too, and a stolen token does for the rest.
            Err(refusal) => {
                let sender = slots::group(address.ip());
                let untold = lock(&self.refused_joiners).note(sender, StdInstant::now());
                if let Some(before) = untold {
                    info!(%refusal, %address, before, "refused to join");
                }
            }
        }
        let mut writer = FrameWriter::new(send);
        // The joiner may be far away.
        let patience = ANSWER_TIMEOUT.max((connection.rtt() * 3).min(FAR_ANSWER_TIMEOUT));
        // At once, unless the joiner grants the stream no bytes.
        let sent = timeout(patience, writer.send(&answer)).await;
        sent.map_err(|_| ConversationError::NotTaken)??;
        let mut stream = writer.into_inner();
        let _ = stream.finish();
        // From here on it may lose its place to others: one that does not take its answer would
        // hold it until the time limit.
        place.busy = None;
        // The joiner closes the stream once it has the answer.
        let _ = timeout(patience, stream.stopped()).await;
        Ok(())
    }

    /// Waits for a turn to compute: to verify a proof, or to sign. No joiner waits for the
    /// control group with a turn, because anybody can cause that wait.
    async fn signing_turn(&self) -> Result<SemaphorePermit<'_>, JoinRefusal> {
        match timeout(SIGNING_TIMEOUT, self.signing.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(JoinRefusal::Busy),
        }
    }

    async fn join(
        &self,
        request: JoinRequest,
        place: &mut KeptPlace,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let JoinRequest { token, secret, public_key } = request;
        let registry = self.store.snapshot();
        let (role, user) = self.check_token(token, &secret).await?;
        let holder = HolderId::random();
        let identity = Identity { network: registry.network(), role, holder, user };
        // Signed before the token is used, so that an unusable key costs no use. Handed out after
        // the use is durable, so that a crash in between costs a use but never exceeds the count.
        let certificate = {
            let _turn = self.signing_turn().await?;
            self.authority.sign(identity, &public_key, clock::now())
        };
        let certificate = certificate.map_err(|_| JoinRefusal::Key)?;
        place.keep(role)?;
        self.use_token(token, secret, holder).await?;
        Ok(JoinAnswer { network: identity.network, role, holder, certificate })
    }

    /// Signs a new certificate for a holder that proves its key. If the old one expired long ago,
    /// a token is required too, because the key may have been stolen since.
    async fn recertify(
        &self,
        connection: &quinn::Connection,
        request: RecertifyRequest,
        token: Option<(Uuid, [u8; 32], &mut KeptPlace)>,
    ) -> Result<JoinAnswer, JoinRefusal> {
        let turn = self.signing_turn().await?;
        let material = proof_material(connection).ok_or(JoinRefusal::Certificate)?;
        let RecertifyRequest { certificate, proof } = request;
        let (identity, public_key) = self
            .authority
            .recognise(&certificate, &material, &proof)
            .map_err(|_| JoinRefusal::Certificate)?;
        if self.store.snapshot().denied().any(|denied| denied == identity.holder) {
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
        drop(turn);
        match token {
            Some((token, secret, place)) => {
                // The holder stays who it was: the token vouches for that role and that user.
                let granted = self.check_token(token, &secret).await?;
                if granted != (identity.role, identity.user) {
                    return Err(JoinRefusal::Unknown);
                }
                place.keep(identity.role)?;
                self.use_token(token, secret, identity.holder).await?;
            }
            None => self.record_certificate(identity).await,
        }
        let Identity { network, role, holder, user: _ } = identity;
        Ok(JoinAnswer { network, role, holder, certificate })
    }

    /// Returns the role that a token grants now, and the user that its bearer is. A token that this
    /// server does not know may have been created at another one a moment ago.
    async fn check_token(
        &self,
        token: Uuid,
        secret: &[u8; 32],
    ) -> Result<(Role, Option<User>), JoinRefusal> {
        let check = || self.store.snapshot().check_token(token, secret, clock::now_ms());
        match check() {
            Err(JoinRefusal::Unknown) => {}
            checked => return checked,
        }
        self.books.refresh().await;
        match check() {
            // A new server knows no token until it has had the books.
            Err(JoinRefusal::Unknown) if !self.store.snapshot().may_hand_over() => {
                let why = "this server does not have the books of the network yet";
                Err(JoinRefusal::Waiting(why.to_owned()))
            }
            checked => checked,
        }
    }

    /// Counts a use of a token, durably.
    async fn use_token(
        &self,
        token: Uuid,
        secret: [u8; 32],
        holder: HolderId,
    ) -> Result<(), JoinRefusal> {
        let join =
            move |next: &mut Registry| next.handle_join(token, &secret, holder, clock::now_ms());
        let counted = self.books.update(join);
        counted.await.map_err(|failure| match failure {
            UpdateError::Waiting(why) => JoinRefusal::Waiting(why.to_string()),
            // The books have room: the server's own inventory is full before they are. So it is no
            // reason for the joiner to give up.
            UpdateError::Rejected(_) => JoinRefusal::Waiting(failure.to_string()),
            UpdateError::Write(_) | UpdateError::Stopping => {
                JoinRefusal::Storage(failure.to_string())
            }
        })??;
        Ok(())
    }

    /// Renews the certificate of a connected holder.
    pub(super) async fn renew(
        &self,
        identity: Identity,
        public_key: &[u8],
    ) -> Result<ServerAnswer, ServerRefusal> {
        let certificate = self
            .authority
            .sign(identity, public_key, clock::now())
            .map_err(|error| ServerRefusal::Invalid(error.to_string()))?;
        self.record_certificate(identity).await;
        Ok(ServerAnswer::Certificate(certificate))
    }

    /// Records a new certificate in the inventory. A failed write does not fail the renewal, nor
    /// does a control group without a majority: that would let the holder's certificate expire.
    async fn record_certificate(&self, identity: Identity) {
        let record = move |next: &mut Registry| next.handle_certified(identity, clock::now_ms());
        let registry = self.store.snapshot();
        if registry.is_kept_by_control_group() {
            // A holder that renews over and over does not keep the control group busy.
            if registry.is_renewal_news(identity.holder, clock::now_ms()) {
                self.books.update_later(record);
            }
        } else if let Err(error) = self.books.update(record).await {
            debug!(%identity, %error, "cannot record a renewed certificate");
        }
    }

    /// Hands everything that a new server needs to it, the authority's key included. The connection
    /// is encrypted, and both ends have proved who they are.
    pub(super) async fn enlist(
        &self,
        identity: Identity,
        address: SocketAddr,
    ) -> Result<ServerAnswer, ServerRefusal> {
        if identity.role != Role::Server {
            return Err(denied(Role::Server, identity.role));
        }
        if !self.store.snapshot().is_server(identity.holder) {
            self.books.refresh().await;
        }
        let registry = self.store.snapshot();
        if !registry.is_server(identity.holder) {
            let why = "no server's token has admitted this server".to_owned();
            return Err(ServerRefusal::Denied(why));
        }
        let enlistment = registry.enlistment(self.authority.key_der().into()).ok_or_else(|| {
            ServerRefusal::Invalid("the control group does not have the books yet".into())
        })?;
        let server = identity.holder;
        let what = What::new("get the authority's key as a new server", server.to_string());
        audit::told("act", self.audited(identity, address), what).ended(Outcome::Done);
        Ok(ServerAnswer::Enlisted(Box::new(enlistment)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dkv_base::slots::Slots;

    use super::*;
    use crate::limits::{ADDRESS_JOINERS_MAX, JOINERS_MAX};

    #[test]
    fn joiners_with_the_token_of_a_client_leave_places_to_others() {
        let slots = Arc::new(Slots::new(JOINERS_MAX, ADDRESS_JOINERS_MAX));
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let taken: Vec<_> = (0..ADDRESS_JOINERS_MAX).map(|_| slots.take(address)).collect();
        let mut places: Vec<_> = taken
            .iter()
            .map(|slot| KeptPlace { flag: slot.as_ref().unwrap().busy_flag(), busy: None })
            .collect();
        let mut kept = |role| {
            places
                .iter_mut()
                .filter(|it| it.busy.is_none())
                .map(move |it| it.keep(role))
                .filter(Result::is_ok)
                .count()
        };
        assert_eq!(kept(Role::Client), ADDRESS_JOINERS_MAX - JOINERS_KEPT);
        assert_eq!(kept(Role::Reader), 0);
        assert_eq!(kept(Role::Admin), JOINERS_KEPT);
        // One that has its answer leaves its place.
        places[0].busy = None;
        assert!(slots.take(address).is_some());
    }
}
