//! Administration: nodes, tokens and certificate holders.

use std::time::Duration;

use dkv_base::id::{GroupId, HolderId, NodeId};
use dkv_wire::bearer::{Rights, Verifier};
use dkv_wire::identity::Role;
use dkv_wire::message::{
    Answer, BearerLife, HolderInfo, RequestBody, RunChoice, ServerAnswer, ServerRequest, TokenInfo,
};
use dkv_wire::user::User;
use uuid::Uuid;

use super::{Client, wrong_answer};
use crate::driver::Driver;
use crate::error::Error;
use crate::options::TokenOptions;
use crate::router::RequestKind;

impl Client {
    /// Removes a node from the network for good: the network refuses it from now on.
    ///
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let view = client.refresh().await?;
    /// if let Some(node) = view.nodes.iter().find(|node| node.name == "n3") {
    ///     client.remove_node(node.id).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn remove_node(&self, node: NodeId) -> Result<(), Error> {
        self.control(RequestBody::RemoveNode(node)).await
    }

    /// Denies a node at once, and removes it from the network for good as soon as no shard counts
    /// on it, without waiting for it: what only that node has is lost.
    ///
    /// This is for nodes that are not to be trusted, as their key or a token for nodes was stolen.
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::NotEverywhere`] if not all nodes are known to
    /// refuse it yet. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client, thief: dkv_api::NodeId)
    /// #     -> Result<(), dkv_api::Error> {
    /// client.expel_node(thief).await?;
    /// # Ok(()) }
    /// ```
    pub async fn expel_node(&self, node: NodeId) -> Result<(), Error> {
        self.control(RequestBody::ExpelNode(node)).await
    }

    /// Drains a node if `on`, or puts it back to use.
    ///
    /// Other nodes take over its replicas. The drained node stays in the network; it is empty when
    /// [`NodePlaces::may_stop`](crate::NodePlaces) says so. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client, node: dkv_api::NodeId)
    /// #     -> Result<(), dkv_api::Error> {
    /// client.drain_node(node, true).await?;
    /// # Ok(()) }
    /// ```
    pub async fn drain_node(&self, node: NodeId, on: bool) -> Result<(), Error> {
        self.control(RequestBody::Drain { node, on }).await
    }

    /// Balances replicas and primaries over the nodes now, and as evenly as possible.
    ///
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client.rebalance().await?;
    /// # Ok(()) }
    /// ```
    pub async fn rebalance(&self) -> Result<(), Error> {
        self.control(RequestBody::Rebalance).await
    }

    /// Makes a node the primary of a shard, of which it has to be a voter. Balancing may move the
    /// primary again later.
    ///
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such shard, or the node has no vote in it;
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if the node has not taken over in
    /// time: it may still.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client, to: dkv_api::NodeId)
    /// #     -> Result<(), dkv_api::Error> {
    /// let view = client.view().await?;
    /// client.move_primary(view.shards[0].group, to).await?;
    /// # Ok(()) }
    /// ```
    pub async fn move_primary(&self, shard: GroupId, to: NodeId) -> Result<(), Error> {
        self.control(RequestBody::MovePrimary { shard, to }).await
    }

    /// Revokes a certificate holder or a bearer token: the network refuses it from now on.
    ///
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::NotEverywhere`] if not all nodes are known to
    /// refuse the holder yet. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client, stolen: dkv_api::HolderId)
    /// #     -> Result<(), dkv_api::Error> {
    /// client.revoke(stolen).await?;
    /// # Ok(()) }
    /// ```
    pub async fn revoke(&self, holder: HolderId) -> Result<(), Error> {
        self.control(RequestBody::Revoke(holder)).await
    }

    /// Creates a join token and returns its text, which cannot be retrieved again.
    ///
    /// Without `life` (whole seconds) the token never expires; without `uses` it admits any number
    /// of holders. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if a token may exist whose text is
    /// lost.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use dkv_api::Role;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let hour = Duration::from_secs(3600);
    /// let token = client.create_token(Role::Node, Some(hour), Some(1)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_token(
        &self,
        role: Role,
        life: Option<Duration>,
        uses: Option<u32>,
    ) -> Result<String, Error> {
        self.create_named_token(role, life, uses, None).await
    }

    /// Creates a join token with a name, under which the token and the holders that it admits are
    /// listed; see [`create_token`](Self::create_token).
    ///
    /// # Errors
    /// As for `create_token`; [`Error::Invalid`] for a name that is not allowed.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::Role;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let name = Some("billing".to_owned());
    /// let token = client.create_named_token(Role::Client, None, None, name).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_named_token(
        &self,
        role: Role,
        life: Option<Duration>,
        uses: Option<u32>,
        name: Option<String>,
    ) -> Result<String, Error> {
        let options = TokenOptions { life, uses, name, user: None };
        self.create_token_with(role, options).await
    }

    /// Creates a bearer token for HTTP clients of a gateway. Returns its text, and the id that
    /// [`revoke`](Self::revoke) takes.
    ///
    /// The network does not store the text, but [`list_holders`](Self::list_holders) lists the
    /// token. Without `life` (whole seconds) it is valid for 90 days. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if a token may exist whose text is
    /// lost.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::Rights;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let (text, holder) = client.create_bearer(Rights::Read, None).await?;
    /// client.revoke(holder).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_bearer(
        &self,
        rights: Rights,
        life: Option<Duration>,
    ) -> Result<(String, HolderId), Error> {
        let life =
            life.map_or(BearerLife::Usual, |life| BearerLife::Seconds(life.as_secs().max(1)));
        self.create_bearer_with(rights, life, None).await
    }

    /// Creates a bearer token with any life, and with a name under which it is listed; see
    /// [`create_bearer`](Self::create_bearer).
    ///
    /// # Errors
    /// As for `create_bearer`; [`Error::Invalid`] for a name that is not allowed.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{BearerLife, Rights};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let name = Some("dashboard".to_owned());
    /// let created = client.create_bearer_with(Rights::Read, BearerLife::Endless, name).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_bearer_with(
        &self,
        rights: Rights,
        life: BearerLife,
        name: Option<String>,
    ) -> Result<(String, HolderId), Error> {
        self.create_bearer_for(rights, life, name, None).await
    }

    /// Creates a bearer token whose bearer is a user, if one is given: it may do only what the
    /// policies of the user allow. For the rest see
    /// [`create_bearer_with`](Self::create_bearer_with).
    ///
    /// # Errors
    /// As for `create_bearer_with`.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{BearerLife, Rights};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let alice = Some("alice".parse()?);
    /// let life = BearerLife::Usual;
    /// let (text, id) = client.create_bearer_for(Rights::Write, life, None, alice).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_bearer_for(
        &self,
        rights: Rights,
        life: BearerLife,
        name: Option<String>,
        user: Option<User>,
    ) -> Result<(String, HolderId), Error> {
        let request = ServerRequest::CreateBearer { rights, life, name, user };
        match self.ask_server(request).await? {
            ServerAnswer::Bearer(text, holder) => Ok((text, holder)),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns whether the network refuses a holder, as far as this client knows.
    ///
    /// # Examples
    /// ```
    /// # fn example(client: &dkv_api::Client, holder: dkv_api::HolderId) {
    /// assert!(!client.is_denied(holder));
    /// # }
    /// ```
    pub fn is_denied(&self, holder: HolderId) -> bool {
        let denies = |view: &dkv_wire::network::NetworkView| view.denied.contains(&holder);
        self.inner.driver.with(|router, _| router.view().is_some_and(|view| denies(view)))
    }

    /// Returns the verifier of this network's bearer tokens; `None` if this client has no
    /// credentials.
    ///
    /// # Examples
    /// ```
    /// # fn example(client: &dkv_api::Client) {
    /// if let Some(verifier) = client.verifier() {
    ///     println!("this gateway can check tokens by itself: {verifier:?}");
    /// }
    /// # }
    /// ```
    pub fn verifier(&self) -> Option<Verifier> {
        let credentials = self.inner.driver.endpoint.credentials()?;
        Verifier::new(credentials.identity.network, &credentials.authority).ok()
    }

    /// Lists all join tokens, without their secrets. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// for token in client.list_tokens().await? {
    ///     println!("{token:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        match self.ask_server(ServerRequest::ListTokens).await? {
            ServerAnswer::Tokens(tokens) => Ok(tokens),
            _ => Err(wrong_answer()),
        }
    }

    /// Lists everything that was issued a certificate or a bearer token, including what was
    /// revoked. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let holders = client.list_holders().await?;
    /// println!("{} revoked", holders.iter().filter(|holder| holder.revoked).count());
    /// # Ok(()) }
    /// ```
    pub async fn list_holders(&self) -> Result<Vec<HolderInfo>, Error> {
        match self.ask_server(ServerRequest::ListHolders).await? {
            ServerAnswer::Holders(mut holders) => {
                // A revocation reaches the nodes a moment before it reaches the server.
                for holder in &mut holders {
                    holder.revoked |= self.is_denied(holder.id);
                }
                Ok(holders)
            }
            _ => Err(wrong_answer()),
        }
    }

    /// Reports to the server when bearer tokens were last presented, in milliseconds since 1970,
    /// for [`list_holders`](Self::list_holders). Gateways call it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the server does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client, holder: dkv_api::HolderId)
    /// #     -> Result<(), dkv_api::Error> {
    /// client.report_bearers_seen(vec![(holder, 1_700_000_000_000)]).await?;
    /// # Ok(()) }
    /// ```
    pub async fn report_bearers_seen(&self, seen: Vec<(HolderId, u64)>) -> Result<(), Error> {
        self.ask_server(ServerRequest::BearersSeen(seen)).await.map(|_| ())
    }

    /// Revokes a join token, so that it admits no more holders.
    ///
    /// The holders that it has admitted stay; [`list_holders`](Self::list_holders) lists them.
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// for token in client.list_tokens().await? {
    ///     client.revoke_token(token.id).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn revoke_token(&self, token: Uuid) -> Result<(), Error> {
        self.ask_server(ServerRequest::RevokeToken(token)).await.map(|_| ())
    }

    /// Chooses which run of a node continues, where two of its processes run or its data directory
    /// is an older copy. The other runs end.
    ///
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Denied`] without that role; [`Error::Invalid`] if the choice matches no run that
    /// was heard a moment ago, or several.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{NodeId, RunChoice};
    ///
    /// # async fn example(client: &dkv_api::Client, node: NodeId, run: RunChoice)
    /// #     -> Result<(), dkv_api::Error> {
    /// client.keep_run(node, run).await?;
    /// # Ok(()) }
    /// ```
    pub async fn keep_run(&self, node: NodeId, run: RunChoice) -> Result<(), Error> {
        self.ask_server(ServerRequest::Keep { node, run }).await.map(|_| ())
    }

    /// Sends a request without a result to the coordinator.
    pub(super) async fn control(&self, body: RequestBody) -> Result<(), Error> {
        match self.request(RequestKind::Control(body), None).await? {
            Answer::NotEverywhere(missing) => {
                Err(Error::NotEverywhere { missing: self.names(&missing) })
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn ask_server(&self, request: ServerRequest) -> Result<ServerAnswer, Error> {
        let Driver { server, endpoint, .. } = &*self.inner.driver;
        let asked = server.ask(endpoint, &request, self.inner.timeout).await;
        asked.map_err(|error| error.into_error(request.has_effect()))
    }
}
