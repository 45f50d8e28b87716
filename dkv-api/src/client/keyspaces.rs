//! Keyspaces: the handle of one, and their administration.

use std::sync::Arc;

use dkv_base::id::KeyspaceId;
use dkv_wire::message::{Answer, KeyspaceUse, RequestBody};
use dkv_wire::network::{
    DEFAULT_KEYSPACE, KeyspaceChange, KeyspaceSettings, NetworkView, ShardInfo,
};

use super::{Client, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;

/// The keyspace of a handle.
#[derive(Debug)]
pub(super) struct OwnKeyspace {
    pub(super) id: KeyspaceId,
    pub(super) name: String,
}

impl Default for OwnKeyspace {
    fn default() -> Self {
        Self { id: KeyspaceId::DEFAULT, name: DEFAULT_KEYSPACE.to_owned() }
    }
}

impl OwnKeyspace {
    /// Names the keyspace in an error that says that there is none.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::NoKeyspace { name } if name.is_empty() => {
                Error::NoKeyspace { name: self.name.clone() }
            }
            error => error,
        }
    }
}

impl Client {
    /// Returns a handle for the keys of a keyspace. It shares connections and sessions with this
    /// client, whose own keyspace stays what it is. A client begins with the keyspace `default`.
    ///
    /// The handle stands for the keyspace that has the name now, as far as this client knows: once
    /// that is dropped, every request ends with [`Error::NoKeyspace`], also if another one is
    /// created under the name.
    ///
    /// # Errors
    /// [`Error::NoKeyspace`] if there is none; [`Error::Unavailable`] if neither the coordinator
    /// nor the server can say.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let orders = client.keyspace("orders").await?;
    /// orders.write("planet", "Mars").await?;
    /// assert!(client.read("planet").await.is_err(), "another key of that name");
    /// # Ok(()) }
    /// ```
    pub async fn keyspace(&self, name: &str) -> Result<Self, Error> {
        let id = match self.keyspace_id_of(name).await {
            // The name is taken for what it was when the coordinator or the server last answered.
            Err(Error::Unavailable(why)) => {
                let known = self.cached_view();
                let known = known.and_then(|view| view.keyspace_named(name).map(|it| it.id));
                known.ok_or(Error::Unavailable(why))?
            }
            found => found?,
        };
        let keyspace = Arc::new(OwnKeyspace { id, name: name.to_owned() });
        Ok(Self { inner: Arc::clone(&self.inner), keyspace, user: self.user })
    }

    /// Returns the name of this handle's keyspace.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// assert_eq!(client.keyspace_name(), "default");
    /// assert_eq!(client.keyspace("orders").await?.keyspace_name(), "orders");
    /// # Ok(()) }
    /// ```
    pub fn keyspace_name(&self) -> &str {
        &self.keyspace.name
    }

    /// Returns the id of this handle's keyspace.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let view = client.view().await?;
    /// println!("{} shards", view.shards_of(client.keyspace_id()).len());
    /// # Ok(()) }
    /// ```
    pub fn keyspace_id(&self) -> KeyspaceId {
        self.keyspace.id
    }

    /// Creates a keyspace, and returns once all its shards have primaries.
    ///
    /// Requires [`Role::Admin`](crate::Role::Admin).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name is taken or not allowed, or a setting is out of bounds;
    /// [`Error::Denied`] without that role; [`Error::Unknown`] if it may have been created, with
    /// the reason why it does not serve yet.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::KeyspaceSettings;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let settings = KeyspaceSettings { shards: 1, ..KeyspaceSettings::default() };
    /// client.create_keyspace("orders", settings).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_keyspace(
        &self,
        name: &str,
        settings: KeyspaceSettings,
    ) -> Result<(), Error> {
        let (creation, name) = (dkv_base::platform::random_uuid(), name.to_owned());
        self.change_keyspaces(RequestBody::CreateKeyspace { creation, name, settings }).await
    }

    /// Changes the settings of a keyspace.
    ///
    /// Requires [`Role::Admin`](crate::Role::Admin).
    ///
    /// # Errors
    /// [`Error::NoKeyspace`] if there is none of that name; [`Error::Invalid`] if a setting is out
    /// of bounds; [`Error::Denied`] without that role. After [`Error::Unknown`] it is safe to call
    /// again.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::KeyspaceChange;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let one_gib = Some(Some(1 << 30));
    /// let change = KeyspaceChange { quota_bytes: one_gib, ..KeyspaceChange::default() };
    /// client.set_keyspace("orders", change).await?;
    /// # Ok(()) }
    /// ```
    pub async fn set_keyspace(&self, name: &str, change: KeyspaceChange) -> Result<(), Error> {
        let keyspace = self.keyspace_id_of(name).await?;
        self.change_keyspaces(RequestBody::SetKeyspace { keyspace, change }).await
    }

    /// Drops a keyspace with all its keys and their history, for good.
    ///
    /// Requires [`Role::Admin`](crate::Role::Admin).
    ///
    /// # Errors
    /// [`Error::NoKeyspace`] if there is none of that name; [`Error::Invalid`] for `default`, which
    /// cannot be dropped; [`Error::Denied`] without that role. After [`Error::Unknown`] it is safe
    /// to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client.drop_keyspace("orders").await?;
    /// # Ok(()) }
    /// ```
    pub async fn drop_keyspace(&self, name: &str) -> Result<(), Error> {
        let keyspace = self.keyspace_id_of(name).await?;
        self.drop_keyspace_by_id(keyspace).await
    }

    /// Does what [`drop_keyspace`](Self::drop_keyspace) does, with the keyspace of an id: not with
    /// another one that has been given its name meanwhile. One that was dropped before is no error.
    ///
    /// # Errors
    /// [`Error::Denied`] without the rights of an administrator, [`Error::Unavailable`] or
    /// [`Error::Unknown`] if the coordinator does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let orders = client.keyspace("orders").await?;
    /// // ... somebody confirms that it may go ...
    /// client.drop_keyspace_by_id(orders.keyspace_id()).await?;
    /// # Ok(()) }
    /// ```
    pub async fn drop_keyspace_by_id(&self, keyspace: KeyspaceId) -> Result<(), Error> {
        self.change_keyspaces(RequestBody::DropKeyspace(keyspace)).await
    }

    /// Lists the keyspaces, with the size of what they hold.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the coordinator does not answer.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// for keyspace in client.list_keyspaces().await? {
    ///     println!("{}: {} bytes", keyspace.keyspace.name, keyspace.bytes);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn list_keyspaces(&self) -> Result<Vec<KeyspaceUse>, Error> {
        match self.request(RequestKind::Control(RequestBody::Keyspaces), None).await? {
            Answer::Keyspaces(keyspaces) => Ok(keyspaces),
            _ => Err(wrong_answer()),
        }
    }

    /// Sends a change to the coordinator, and then learns what has become of it.
    async fn change_keyspaces(&self, body: RequestBody) -> Result<(), Error> {
        self.request(RequestKind::Control(body), None).await?;
        // The change is made, whether or not this client sees it at once.
        let _ = self.refresh().await;
        Ok(())
    }

    /// Returns the id of the keyspace that has this name now.
    async fn keyspace_id_of(&self, name: &str) -> Result<KeyspaceId, Error> {
        if name == DEFAULT_KEYSPACE {
            return Ok(KeyspaceId::DEFAULT);
        }
        // The server's view, with which a client begins, may be older than the coordinator's.
        self.view().await?;
        let view = self.refresh().await?;
        let found = view.keyspace_named(name).map(|keyspace| keyspace.id);
        found.ok_or_else(|| Error::NoKeyspace { name: name.to_owned() })
    }

    /// Returns the shard of a key in this handle's keyspace.
    pub(crate) fn shard_of<'a>(
        &self,
        view: &'a NetworkView,
        key: &[u8],
    ) -> Result<&'a ShardInfo, Error> {
        view.shard_of(self.keyspace.id, key).ok_or_else(|| self.no_shard(view))
    }

    /// Returns the shards of this handle's keyspace, of which there is at least one.
    pub(crate) fn shards<'a>(&self, view: &'a NetworkView) -> Result<&'a [ShardInfo], Error> {
        match view.shards_of(self.keyspace.id) {
            [] => Err(self.no_shard(view)),
            shards => Ok(shards),
        }
    }

    fn no_shard(&self, view: &NetworkView) -> Error {
        if view.shards.is_empty() {
            Error::Unavailable("the network has no shards yet".into())
        } else {
            Error::NoKeyspace { name: self.keyspace.name.clone() }
        }
    }
}
