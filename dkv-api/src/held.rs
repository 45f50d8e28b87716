//! What single replicas have: of one key, or of all keys of a node.
//!
//! It is for people who want to see how far replicas differ. Each is asked by itself and answers at
//! once, from what it has; nothing is compared or repaired on the way.

use bytes::Bytes;
use dkv_base::id::{GroupId, NodeId};
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{
    Answer, Page, Pair, ReadBounds, ReadMode, Receipt, RequestBody, Span, Stored,
};
use dkv_wire::network::{NetworkView, NodeState};

use crate::client::{checked_key, other_kind};
use crate::router::Work;
use crate::status::patience;
use crate::{Client, Error};

/// What one replica has of a key.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which node.
    pub node: NodeId,
    /// The value and about it, nothing if it has none, or why there is no answer.
    pub found: Result<(Receipt, Option<Bytes>), Error>,
}

impl Client {
    /// What each replica has of a key, in the order of their nodes; each has some seconds to
    /// answer. A node whose outbox has a later write of the key shows that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if nobody says where the replicas are.
    pub async fn search(&self, key: impl AsRef<[u8]>) -> Result<Vec<Held>, Error> {
        let key = checked_key(key.as_ref())?;
        let view = self.refresh().await?;
        let shard = view.shard_of(&key).ok_or_else(no_shard)?;
        let mode = ReadMode::Eventual(ReadBounds::default());
        let body = RequestBody::Read { shard: shard.group, key, mode };
        let asked = shard.voters.iter().chain(&shard.learners).map(async |node| {
            let found = match self.ask_one(&view, *node, body.clone()).await {
                Ok(Answer::Value(receipt, stored)) => {
                    Ok((receipt, stored.map(|Stored { value, .. }| value)))
                }
                Ok(_) => Err(other_kind()),
                Err(error) => Err(error),
            };
            Held { node: *node, found }
        });
        Ok(futures::future::join_all(asked).await)
    }

    /// Keys of a shard that come after a key, as that node has them, and whether there are more.
    /// What waits in its outbox is there too, under revision zero; of a shard that it does not hold
    /// there is nothing else.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not answer.
    pub async fn page_of(
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
            _ => Err(other_kind()),
        }
    }

    async fn ask_one(
        &self,
        view: &NetworkView,
        node: NodeId,
        body: RequestBody,
    ) -> Result<Answer, Error> {
        let state = view.node(node).map_or(NodeState::Down, |node| node.state);
        self.request(Work::Direct { node, body }, Some(patience(state))).await
    }
}

fn no_shard() -> Error {
    Error::Unavailable("the network has no shards yet".into())
}
