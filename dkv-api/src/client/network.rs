//! What a client may ask about the network itself, and have done to it.

use std::time::Duration;

use dkv_base::id::{HolderId, NodeId};
use dkv_wire::bearer::{Rights, Verifier};
use dkv_wire::identity::Role;
use dkv_wire::message::{
    Answer, BearerLife, HolderInfo, Placement, RequestBody, RunChoice, ServerAnswer, ServerRequest,
    TokenInfo,
};
use dkv_wire::network::NetworkView;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Client, other_kind};
use crate::error::Error;
use crate::options::NetworkStatus;
use crate::router::Work;
use crate::shared::Shared;

/// Time between two attempts to get the first view.
const VIEW_EVERY: Duration = Duration::from_millis(200);
/// Time that a coordinator has to answer before the server is asked for its view.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

impl Client {
    /// The network as this client last saw it; waits for the first view.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none in time, because nobody has bootstrapped the network
    /// or nobody answers.
    pub async fn view(&self) -> Result<NetworkView, Error> {
        let deadline = Instant::now() + self.inner.timeout;
        loop {
            if let Some(view) = self.cached_view() {
                return Ok(view);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let failed = match self.inner.shared.lookup(left).await {
                Ok(()) => continue,
                Err(why) => why,
            };
            if deadline.saturating_duration_since(Instant::now()) <= VIEW_EVERY {
                return Err(Error::Unavailable(failed));
            }
            tokio::time::sleep(VIEW_EVERY).await;
        }
    }

    /// Asks the coordinator, or else the server, for the newest view and returns it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if nobody answers or nobody has bootstrapped the network.
    pub async fn refresh(&self) -> Result<NetworkView, Error> {
        if self.cached_view().is_none() {
            return self.view().await;
        }
        let asked = self.request(Work::Control(RequestBody::View), Some(REFRESH_TIMEOUT)).await;
        match asked {
            Ok(_) => self.view().await,
            Err(error) => match self.inner.shared.lookup(self.inner.timeout).await {
                Ok(()) => self.view().await,
                Err(_) => Err(error),
            },
        }
    }

    fn cached_view(&self) -> Option<NetworkView> {
        self.inner.shared.with(|router, _| router.view().map(|view| (**view).clone()))
    }

    /// Asks the server and every node how they are, in parallel; each has about a second.
    pub async fn status(&self) -> NetworkStatus {
        crate::status::gather(self).await
    }

    /// Removes a node from the network for good: it is refused from now on, whatever it shows.
    /// Needs [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is right to ask again.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), Error> {
        self.request(Work::Control(RequestBody::RemoveNode(node)), None).await.map(|_| ())
    }

    /// Has a node emptied, or used again: `on` says which. Others take its replicas; it stays a
    /// node, and is empty when [`NodePlaces::may_stop`](crate::NodePlaces) says so. Needs
    /// [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is right to ask again.
    pub async fn drain_node(&self, node: NodeId, on: bool) -> Result<(), Error> {
        self.request(Work::Control(RequestBody::Drain { node, on }), None).await.map(|_| ())
    }

    /// Has replicas and primaries evened out at once, and as far as it goes. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is right to ask again.
    pub async fn rebalance(&self) -> Result<(), Error> {
        self.request(Work::Control(RequestBody::Rebalance), None).await.map(|_| ())
    }

    /// Where replicas are and what is on its way; with `forecast` also what would be done by a
    /// [`rebalance`](Self::rebalance).
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no coordinator answers.
    pub async fn placement(&self, forecast: bool) -> Result<Placement, Error> {
        match self.request(Work::Control(RequestBody::Placement { forecast }), None).await? {
            Answer::Placement(placement) => Ok(*placement),
            _ => Err(other_kind()),
        }
    }

    /// Refuses a certificate holder from now on. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is right to ask again.
    pub async fn revoke(&self, holder: HolderId) -> Result<(), Error> {
        self.request(Work::Control(RequestBody::Revoke(holder)), None).await.map(|_| ())
    }

    /// Makes a join token and returns its text, which nobody can be told again. Needs
    /// [`Role::Admin`]. Without `life` (whole seconds) it lives for good, without `uses` it admits
    /// any number.
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if a token may have been made whose
    /// text is lost.
    pub async fn create_token(
        &self,
        role: Role,
        life: Option<Duration>,
        uses: Option<u32>,
    ) -> Result<String, Error> {
        self.create_named_token(role, life, uses, None).await
    }

    /// As [`create_token`](Self::create_token), with a name under which the token and those whom it
    /// admits are listed.
    ///
    /// # Errors
    /// As there; [`Error::Invalid`] for a name that cannot be one.
    pub async fn create_named_token(
        &self,
        role: Role,
        life: Option<Duration>,
        uses: Option<u32>,
        name: Option<String>,
    ) -> Result<String, Error> {
        let life_s = life.map(|life| life.as_secs());
        let request = ServerRequest::CreateToken { role, life_s, uses, name };
        match self.ask_server(request).await? {
            ServerAnswer::Token(text) => Ok(text),
            _ => Err(other_kind()),
        }
    }

    /// Makes a bearer token for whoever speaks HTTP to a gateway of the network, and returns its
    /// text and the id under which [`revoke`](Self::revoke) ends it. Nobody keeps the text; that
    /// there is such a token is listed by [`list_holders`](Self::list_holders). Needs
    /// [`Role::Admin`]. Without `life` (whole seconds) it lives for 90 days.
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if a token may have been made whose
    /// text is lost.
    pub async fn create_bearer(
        &self,
        rights: Rights,
        life: Option<Duration>,
    ) -> Result<(String, HolderId), Error> {
        let life =
            life.map_or(BearerLife::Usual, |life| BearerLife::Seconds(life.as_secs().max(1)));
        self.create_bearer_with(rights, life, None).await
    }

    /// As [`create_bearer`](Self::create_bearer), with a name under which it is listed, and for
    /// good if that is wanted.
    ///
    /// # Errors
    /// As there; [`Error::Invalid`] for a name that cannot be one.
    pub async fn create_bearer_with(
        &self,
        rights: Rights,
        life: BearerLife,
        name: Option<String>,
    ) -> Result<(String, HolderId), Error> {
        let request = ServerRequest::CreateBearer { rights, life, name };
        match self.ask_server(request).await? {
            ServerAnswer::Bearer(text, holder) => Ok((text, holder)),
            _ => Err(other_kind()),
        }
    }

    /// Whether the network refuses a holder, as far as this client knows.
    pub fn is_denied(&self, holder: HolderId) -> bool {
        self.inner
            .shared
            .with(|router, _| router.view().is_some_and(|view| view.denied.contains(&holder)))
    }

    /// What judges the bearer tokens of this network; none if this client has no credentials.
    pub fn verifier(&self) -> Option<Verifier> {
        let credentials = self.inner.shared.endpoint.credentials()?;
        Verifier::new(credentials.identity.network, &credentials.authority).ok()
    }

    /// All join tokens, without their secrets. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role.
    pub async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        match self.ask_server(ServerRequest::ListTokens).await? {
            ServerAnswer::Tokens(tokens) => Ok(tokens),
            _ => Err(other_kind()),
        }
    }

    /// Everybody who was given a certificate or a bearer token, with those who were revoked. Needs
    /// [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role.
    pub async fn list_holders(&self) -> Result<Vec<HolderInfo>, Error> {
        match self.ask_server(ServerRequest::ListHolders).await? {
            ServerAnswer::Holders(mut holders) => {
                // The server hears of a revocation a moment after the network.
                for holder in &mut holders {
                    holder.revoked |= self.is_denied(holder.id);
                }
                Ok(holders)
            }
            _ => Err(other_kind()),
        }
    }

    /// Tells the server when bearer tokens were shown last, in milliseconds since 1970, for its
    /// list.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the server does not answer.
    pub async fn report_bearers_seen(&self, seen: Vec<(HolderId, u64)>) -> Result<(), Error> {
        self.ask_server(ServerRequest::BearersSeen(seen)).await.map(|_| ())
    }

    /// Makes a join token admit nobody any more. Who it has admitted stays, and is listed by
    /// [`list_holders`](Self::list_holders). Needs [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is right to ask again.
    pub async fn revoke_token(&self, token: Uuid) -> Result<(), Error> {
        self.ask_server(ServerRequest::RevokeToken(token)).await.map(|_| ())
    }

    /// Says which run of a node goes on, where two of its processes run or its data directory is an
    /// older copy. The others end. Needs [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role, [`Error::Invalid`] if it names no run that was heard a
    /// moment ago, or several.
    pub async fn keep_run(&self, node: NodeId, run: RunChoice) -> Result<(), Error> {
        self.ask_server(ServerRequest::Keep { node, run }).await.map(|_| ())
    }

    async fn ask_server(&self, request: ServerRequest) -> Result<ServerAnswer, Error> {
        let Shared { server, endpoint, .. } = &*self.inner.shared;
        let asked = server.ask(endpoint, &request, self.inner.timeout).await;
        asked.map_err(|error| error.into_error(request.has_effect()))
    }
}
