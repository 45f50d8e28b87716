//! Users and policies: whose rights limit a client, and their administration.

use dkv_wire::identity::Role;
use dkv_wire::message::{
    Answer, PolicyAct, PolicyChange, PolicyLimits, PolicyList, PolicyRule, RequestBody,
};
use dkv_wire::message::{ServerAnswer, ServerRequest};
use dkv_wire::user::User;

use super::{Client, wrong_answer};
use crate::error::Error;
use crate::options::TokenOptions;
use crate::router::RequestKind;

impl Client {
    /// Returns a handle that asks for a user: it may do what this client may and what the policies
    /// of the user allow. A face of the network uses it for its callers. The nodes check both with
    /// every request, and a change of the policies also ends the watches of the handle.
    ///
    /// Administration is nobody's but one's own: with this handle it ends with [`Error::Denied`].
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let alice = client.acting_for("alice".parse()?);
    /// let read = alice.read("planet").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn acting_for(&self, user: User) -> Self {
        Self { user: Some(user), ..self.clone() }
    }

    /// Returns the user for whom this handle asks, if [`acting_for`](Self::acting_for) made it.
    pub(crate) fn user(&self) -> Option<User> {
        self.user
    }

    /// Returns the policies of the network if this client is an administrator; otherwise those that
    /// limit it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the coordinator does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let known = client.policies().await?;
    /// match known.user {
    ///     None => println!("limited by its role alone"),
    ///     Some(user) => println!("{user}: {} policies", known.policies.len()),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn policies(&self) -> Result<PolicyList, Error> {
        match self.request(RequestKind::Control(RequestBody::Policies), None).await? {
            Answer::Policies(policies) => Ok(*policies),
            _ => Err(wrong_answer()),
        }
    }

    /// Creates a policy with these rules, granted to nobody. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is another policy of that name, or a rule is not allowed;
    /// [`Error::Denied`] without that role; [`Error::NotEverywhere`] if not all nodes are known to
    /// apply it yet. After [`Error::Unknown`] it is safe to call again.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Bytes, PolicyRule};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let prefix = Bytes::from_static(b"billing/");
    /// let rule = PolicyRule { keyspace: None, prefix, rights: "read,watch".parse()? };
    /// client.create_policy("billing-readers", vec![rule]).await?;
    /// client.grant_policy("billing-readers", "alice".parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_policy(&self, name: &str, rules: Vec<PolicyRule>) -> Result<(), Error> {
        self.change_policy(name, PolicyAct::Create(rules)).await
    }

    /// Sets the rights of a policy for a keyspace and a prefix, in the place of those that it has
    /// for exactly these; without rights, removes that rule. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such policy, or the rule is not allowed; otherwise as for
    /// [`create_policy`](Self::create_policy).
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Bytes, PolicyRule};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let prefix = Bytes::from_static(b"billing/");
    /// let rule = PolicyRule { keyspace: None, prefix, rights: "read".parse()? };
    /// client.set_policy("billing-readers", rule).await?;
    /// # Ok(()) }
    /// ```
    pub async fn set_policy(&self, name: &str, rule: PolicyRule) -> Result<(), Error> {
        self.change_policy(name, PolicyAct::Set(rule)).await
    }

    /// Drops a policy, and takes it from all users. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// As for [`create_policy`](Self::create_policy). There need not be such a policy.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client.drop_policy("billing-readers").await?;
    /// # Ok(()) }
    /// ```
    pub async fn drop_policy(&self, name: &str) -> Result<(), Error> {
        self.change_policy(name, PolicyAct::Drop).await
    }

    /// Grants a policy to a user, whether or not a credential names that user yet. Requires
    /// [`Role::Admin`].
    ///
    /// # Errors
    /// As for [`set_policy`](Self::set_policy).
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.grant_policy("billing-readers", "alice".parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub async fn grant_policy(&self, name: &str, user: User) -> Result<(), Error> {
        self.change_policy(name, PolicyAct::Grant(user)).await
    }

    /// Takes a policy from a user. Requires [`Role::Admin`].
    ///
    /// # Errors
    /// As for [`set_policy`](Self::set_policy).
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// client.revoke_policy("billing-readers", "alice".parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub async fn revoke_policy(&self, name: &str, user: User) -> Result<(), Error> {
        self.change_policy(name, PolicyAct::Revoke(user)).await
    }

    /// Sets what a policy limits its users to at each node, in the place of what it did before.
    /// Requires [`Role::Admin`].
    ///
    /// # Errors
    /// As for [`set_policy`](Self::set_policy); [`Error::Invalid`] for a limit out of its bounds.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::PolicyLimits;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let limits = PolicyLimits { requests: Some(100), ..PolicyLimits::default() };
    /// client.limit_policy("billing-readers", limits).await?;
    /// # Ok(()) }
    /// ```
    pub async fn limit_policy(&self, name: &str, limits: PolicyLimits) -> Result<(), Error> {
        self.change_policy(name, PolicyAct::Limit(limits)).await
    }

    async fn change_policy(&self, name: &str, act: PolicyAct) -> Result<(), Error> {
        let change = PolicyChange { policy: name.to_owned(), act };
        let body = RequestBody::ChangePolicy(change);
        self.control(body).await
    }

    /// Creates a join token and returns its text, which cannot be retrieved again. Requires
    /// [`Role::Admin`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is not allowed, and for a user in the token of a node;
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if a token may exist whose text is
    /// lost.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Role, TokenOptions};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let options = TokenOptions { user: Some("alice".parse()?), ..TokenOptions::default() };
    /// let token = client.create_token_with(Role::Client, options).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_token_with(
        &self,
        role: Role,
        options: TokenOptions,
    ) -> Result<String, Error> {
        let TokenOptions { life, uses, name, user } = options;
        let life_s = life.map(|life| life.as_secs());
        let request = ServerRequest::CreateToken { role, life_s, uses, name, user };
        match self.ask_server(request).await? {
            ServerAnswer::Token(text) => Ok(text),
            _ => Err(wrong_answer()),
        }
    }
}
