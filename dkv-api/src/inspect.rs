//! What single replicas have, of one key or of all keys of a node.
//!
//! This is for people who want to see how far replicas differ. Each replica is asked separately and
//! answers at once with what it has; nothing is compared or repaired.

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId};
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{
    Answer, Page, Pair, ReadBounds, ReadMode, Receipt, RequestBody, Span, Stored,
};
use dkv_wire::network::{NetworkView, NodeState};

use crate::client::{Client, checked_key, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;
use crate::status::answer_timeout;

/// What one replica has of a key; see [`Client::read_replicas`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// for replica in client.read_replicas("color").await? {
///     match replica.found {
///         Ok((receipt, value)) => println!("{}: {value:?} at {}", replica.node, receipt.revision),
///         Err(error) => println!("{}: {error}", replica.node),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ReplicaValue {
    /// The node of the replica.
    pub node: NodeId,
    /// The receipt and the value, `None` if the replica does not have the key; or why the node did
    /// not answer.
    pub found: Result<(Receipt, Option<Bytes>), Error>,
}

impl Client {
    /// Returns what each replica has of a key, in the order of the shard's voters and learners.
    ///
    /// Each replica has one to four seconds to answer. A node whose outbox holds a later eventual
    /// write of the key shows that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if neither the coordinator nor the server says where the replicas
    /// are.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// for replica in client.read_replicas("planet").await? {
    ///     println!("{}: {:?}", client.names(&[replica.node])[0], replica.found);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn read_replicas(&self, key: impl AsRef<[u8]>) -> Result<Vec<ReplicaValue>, Error> {
        let key = checked_key(key.as_ref())?;
        let view = self.refresh().await?;
        let shard = self.shard_of(&view, &key)?;
        let mode = ReadMode::Eventual(ReadBounds::default());
        let body = RequestBody::Read { shard: shard.group, key, mode };
        let asked = shard.voters.iter().chain(&shard.learners).map(async |node| {
            let found = match self.ask_one(&view, *node, body.clone()).await {
                Ok(Answer::Value(receipt, stored)) => {
                    Ok((receipt, stored.map(|Stored { value, .. }| value)))
                }
                Ok(_) => Err(wrong_answer()),
                Err(error) => Err(error),
            };
            ReplicaValue { node: *node, found }
        });
        Ok(futures::future::join_all(asked).await)
    }

    /// Returns keys of a shard after a given key, as one node has them, and whether there are more.
    ///
    /// Writes that wait in the node's outbox are included, with revision zero. If the node has no
    /// replica of the shard, they are all that is returned.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node does not answer.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Bytes, GroupId, NodeId};
    ///
    /// # async fn example(client: &dkv_api::Client, node: NodeId, shard: GroupId)
    /// #     -> Result<(), dkv_api::Error> {
    /// let (pairs, more) = client.replica_page(node, shard, Bytes::new()).await?;
    /// # Ok(()) }
    /// ```
    pub async fn replica_page(
        &self,
        node: NodeId,
        shard: GroupId,
        after: Bytes,
    ) -> Result<(Vec<Pair>, bool), Error> {
        let view = self.view().await?;
        let span = Span {
            prefix: Bytes::new(),
            after,
            keys_max: SCAN_KEYS_MAX as u32,
            bytes_max: SCAN_BYTES_MAX as u32,
            values: true,
        };
        let body = RequestBody::Scan { shard, span, mode: ReadMode::Held };
        match self.ask_one(&view, node, body).await? {
            Answer::Page(_, Page { pairs, more }) => Ok((pairs, more)),
            _ => Err(wrong_answer()),
        }
    }

    async fn ask_one(
        &self,
        view: &NetworkView,
        node: NodeId,
        body: RequestBody,
    ) -> Result<Answer, Error> {
        let state = view.node(node).map_or(NodeState::Down, |node| node.state);
        self.request(RequestKind::Direct { node, body }, Some(answer_timeout(state))).await
    }
}
