//! Watches: the changes of a key or of a range of keys, as they happen.
//!
//! Each shard has a task. It finds the nearest replica, opens a stream of its own there, and reads
//! the changes after its position; see [`stream`]. When the node dies, falls silent, ends the
//! stream or loses the shard, the task goes on at another replica after the last revision that it
//! has shown. [`position`] decides and is plain data. The frames of all shards come together in
//! [`event_queue`], which hands them out one change at a time and keeps the token.
//!
//! A watch promises:
//!
//! - Each change after its position comes exactly once, however often it moves.
//! - Within a shard the changes come in the order of revisions. Between shards there is no order.
//! - It ends only with an error: [`Error::Compacted`] if it was away for so long that the history
//!   after its position is gone.
//!
//! Deliberately missing: a queue. A consumer that does not read stops the nodes from sending; what
//! it has not read is in their histories.

mod event_queue;
mod position;
mod stream;
mod token;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dkv_base::id::{GroupId, LeaseId, Revision, Stamp};
use dkv_base::supervise::caught;
use dkv_wire::limits::KEY_BYTES_MAX;
use dkv_wire::message::{KeyRange, Version, VersionExpiry};
use dkv_wire::network::ShardInfo;
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

use self::event_queue::EventQueue;
use self::position::ShardPosition;
use self::stream::{Receiver, Shared};
use crate::client::{Client, checked_key};
use crate::error::Error;
use crate::history::{check_shard, only_shard};

pub use self::token::{TokenFormError, WatchToken};

/// How to watch; see [`Client::watch`].
///
/// # Examples
/// ```
/// use dkv_api::{Revision, WatchOptions};
///
/// let from_now_on = WatchOptions::default();
/// let from_the_past = WatchOptions::default().from("1:500,2:33".parse::<dkv_api::WatchToken>()?);
/// let one_shard = WatchOptions::default().from(Revision(500)).previous(true);
/// # Ok::<(), dkv_api::TokenFormError>(())
/// ```
#[must_use = "options do nothing until they are passed to a watch"]
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Shows what changed after this position; by default, after the watch has begun.
    pub from: Option<WatchToken>,
    /// Whether each change comes with the version before it; false by default.
    pub previous: bool,
    /// Time to wait for the watch to begin; the client's timeout by default.
    pub timeout: Option<Duration>,
    /// Memory for events that the consumer has not read, in bytes; 16 MiB by default, which is the
    /// most. A single change may take more.
    pub room_bytes: Option<usize>,
}

impl WatchOptions {
    /// Shows what changed after a position.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{Revision, WatchOptions};
    /// let options = WatchOptions::default().from(Revision(500));
    /// ```
    pub fn from(self, token: impl Into<WatchToken>) -> Self {
        Self { from: Some(token.into()), ..self }
    }

    /// Sets whether each change comes with the version before it.
    ///
    /// # Examples
    /// ```
    /// let options = dkv_api::WatchOptions::default().previous(true);
    /// ```
    pub fn previous(self, previous: bool) -> Self {
        Self { previous, ..self }
    }

    /// Sets the time to wait for the watch to begin. After that it has no time limit.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let options = dkv_api::WatchOptions::default().timeout(Duration::from_secs(1));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets the memory for events that the consumer has not read, in bytes. Who has many watches
    /// gives each less.
    ///
    /// # Examples
    /// ```
    /// let options = dkv_api::WatchOptions::default().room_bytes(256 * 1024);
    /// ```
    pub fn room_bytes(self, room_bytes: usize) -> Self {
        Self { room_bytes: Some(room_bytes), ..self }
    }
}

/// A change of a key.
///
/// # Examples
/// ```
/// # fn example(change: dkv_api::KeyChange) {
/// match &change.value {
///     Some(value) => println!("{:?} = {value:?} at {}", change.key, change.revision),
///     None => println!("{:?} was deleted at {}", change.key, change.revision),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The shard of the key.
    pub shard: GroupId,
    /// The key.
    pub key: Bytes,
    /// The new value; `None` if the key was deleted.
    pub value: Option<Bytes>,
    /// The revision of the change.
    pub revision: Revision,
    /// The revision of the write that created the key; that of the change for a deletion.
    pub created: Revision,
    /// The number of writes of the key since it was created, this one included; zero for a
    /// deletion.
    pub version: u64,
    /// The stamp of the change.
    pub stamp: Stamp,
    /// The lease that the key is attached to; zero if there is none.
    pub lease: LeaseId,
    /// The expiry of its own that the key has.
    pub expiry: Option<VersionExpiry>,
    /// The version before it, if the watch asked for it, it existed and is still kept.
    pub previous: Option<Version>,
}

impl KeyChange {
    /// Returns the time of the change, by the network's clock.
    ///
    /// # Examples
    /// ```
    /// # fn example(change: dkv_api::KeyChange) {
    /// println!("changed at {:?}", change.time());
    /// # }
    /// ```
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + self.stamp.since_1970()
    }
}

/// Everything that a watch shows of a shard from one revision through another; see
/// [`Watch::next_page`].
///
/// # Examples
/// ```
/// # fn example(page: dkv_api::WatchPage) {
/// println!("{} changes through revision {}", page.changes.len(), page.through);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchPage {
    /// The shard.
    pub shard: GroupId,
    /// The changes, in the order in which they were made. All of a revision are in one page.
    pub changes: Vec<KeyChange>,
    /// The watch has shown every change up to this revision.
    pub through: Revision,
}

/// What a watch shows.
///
/// # Examples
/// ```
/// use dkv_api::WatchEvent;
///
/// # fn example(event: WatchEvent) {
/// match event {
///     WatchEvent::Change(change) => println!("{:?} changed", change.key),
///     WatchEvent::Progress { shard, revision } => println!("{shard} is at {revision}"),
///     _ => {}
/// }
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key was put or deleted.
    Change(Box<KeyChange>),
    /// The watch has shown everything in a shard through a revision.
    Progress {
        /// The shard.
        shard: GroupId,
        /// The revision.
        revision: Revision,
    },
}

impl Client {
    /// Watches a key or a range of keys. When this returns, the watch has begun: every later change
    /// comes, exactly once, in the order of revisions within a shard.
    ///
    /// Each shard is watched at its nearest replica. When that fails, the watch goes on at another
    /// one, without a gap and without a repetition. It never ends by itself, except with an error.
    /// [Session](crate::Level::Session) reads of this client are not older than what its watches
    /// have shown.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the position does not fit the network: it must name each watched
    /// shard, or be a plain revision where only one is watched. [`Error::Unavailable`] if there is
    /// no position and no replica of a shard answered in time. With one the watch begins at once,
    /// and waits for replicas.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, WatchEvent, WatchOptions};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let users = KeyRange::Prefix("user/".into());
    /// let mut watch = client.watch(users, WatchOptions::default()).await?;
    /// while let WatchEvent::Change(change) = watch.next().await? {
    ///     println!("{:?} changed; go on from {}", change.key, watch.token());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn watch(&self, keys: KeyRange, options: WatchOptions) -> Result<Watch, Error> {
        check_range(&keys)?;
        let within = options.timeout.unwrap_or(self.timeout());
        let view = self.view().await?;
        let all = self.shards(&view)?;
        let shards: Vec<GroupId> = match &keys {
            KeyRange::Key(key) => vec![self.shard_of(&view, key)?.group],
            KeyRange::Prefix(_) | KeyRange::Range(..) => {
                all.iter().map(|shard| shard.group).collect()
            }
        };
        let from = positions(all, &shards, options.from.as_ref())?;
        let (shared, receiver) = Shared::new(self.clone(), options.room_bytes);
        let (mut tasks, mut starts) = (JoinSet::new(), Vec::new());
        for (shard, from) in from {
            let position = ShardPosition::new(shard, keys.clone(), options.previous, from);
            let (started, start) = watch::channel(from);
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                let task = stream::run(Arc::clone(&shared), position, started);
                if let Err(panicked) = caught(task).await {
                    let why = format!("the watch's task {panicked}; this is a bug in dkv");
                    tracing::error!("{why}");
                    shared.end(Error::Unavailable(why));
                }
            });
            starts.push((shard, start));
        }
        let begin = async {
            let mut token = WatchToken::default();
            for (shard, mut start) in starts {
                // If the task has ended, its error is the first event.
                let Ok(known) = start.wait_for(Option::is_some).await else { break };
                token.advance(shard, known.unwrap_or_default());
            }
            token
        };
        let Ok(token) = tokio::time::timeout(within, begin).await else {
            let why = shared.last_failure().unwrap_or_else(|| "no replica answers".to_owned());
            return Err(Error::Unavailable(format!("the watch did not begin in time: {why}")));
        };
        Ok(Watch { _tasks: tasks, receiver, queue: EventQueue::new(token), ended: false })
    }
}

/// A running watch, from [`Client::watch`].
///
/// It is a [`Stream`] of results, which ends after the first error. Dropping it ends the watch.
///
/// # Examples
/// ```
/// # async fn example(mut watch: dkv_api::Watch) -> Result<(), dkv_api::Error> {
/// let event = watch.next().await?;
/// println!("{event:?}; to go on after it: {}", watch.token());
/// # Ok(()) }
/// ```
#[must_use = "a watch shows nothing until its events are read"]
pub struct Watch {
    /// Aborted when the watch is dropped.
    _tasks: JoinSet<()>,
    receiver: Receiver,
    queue: EventQueue<OwnedSemaphorePermit>,
    ended: bool,
}

impl Watch {
    /// Returns the next event, for which it waits. May be cancelled without losing an event.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the history after the position is gone; [`Error::NotYet`] if a shard
    /// has not reached the position; [`Error::Denied`] if the network refuses this client;
    /// [`Error::Unavailable`] if the client was closed. The watch is over then.
    ///
    /// # Examples
    /// ```
    /// # async fn example(mut watch: dkv_api::Watch) -> Result<(), dkv_api::Error> {
    /// loop {
    ///     println!("{:?}", watch.next().await?);
    /// }
    /// # }
    /// ```
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        let next = std::future::poll_fn(|context| self.poll_event(context)).await;
        next.unwrap_or_else(|| Err(Error::Unavailable("the watch is over".into())))
    }

    /// Returns all that the watch has to show next: whole revisions, or progress alone. Waits for
    /// it. May be cancelled without losing an event.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    ///
    /// # Examples
    /// ```
    /// # async fn example(mut watch: dkv_api::Watch) -> Result<(), dkv_api::Error> {
    /// let page = watch.next_page().await?;
    /// println!("{} changes through revision {}", page.changes.len(), page.through);
    /// # Ok(()) }
    /// ```
    pub async fn next_page(&mut self) -> Result<WatchPage, Error> {
        let next = std::future::poll_fn(|context| self.poll_page(context)).await;
        next.unwrap_or_else(|| Err(Error::Unavailable("the watch is over".into())))
    }

    /// Returns the position after the events that were returned so far. It names whole revisions:
    /// between two changes of one revision it is still the revision before.
    ///
    /// # Examples
    /// ```
    /// # async fn example(mut watch: dkv_api::Watch) -> Result<(), dkv_api::Error> {
    /// watch.next().await?;
    /// std::fs::write("position", watch.token().to_string()).ok();
    /// # Ok(()) }
    /// ```
    pub fn token(&self) -> &WatchToken {
        self.queue.token()
    }

    fn poll_page(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WatchPage, Error>>> {
        loop {
            if let Some((page, _)) = self.queue.take() {
                return Poll::Ready(Some(Ok(page)));
            }
            match ready!(self.poll_more(context)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Waits until the queue has something; nothing comes after an error.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.receiver.poll_recv(context)) {
            Some(Ok(shown)) => {
                self.queue.push(shown);
                Some(Ok(()))
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            None => {
                self.ended = true;
                None
            }
        })
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WatchEvent, Error>>> {
        loop {
            if let Some(event) = self.queue.pop() {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(self.poll_more(context)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("token", self.token()).finish_non_exhaustive()
    }
}

/// Checks that keys can be watched.
fn check_range(keys: &KeyRange) -> Result<(), Error> {
    let longest = match keys {
        KeyRange::Key(key) => return checked_key(key).map(drop),
        KeyRange::Prefix(prefix) => prefix.len(),
        KeyRange::Range(from, to) => from.len().max(to.len()),
    };
    if longest > KEY_BYTES_MAX {
        let (bytes, limit) = (longest as u64, KEY_BYTES_MAX as u64);
        return Err(Error::TooLarge { what: "key".into(), bytes, limit });
    }
    Ok(())
}

/// Returns the position of each watched shard, out of all those of the keyspace.
///
/// # Errors
/// The token does not fit the shards.
fn positions(
    all: &[ShardInfo],
    shards: &[GroupId],
    token: Option<&WatchToken>,
) -> Result<Vec<(GroupId, Option<Revision>)>, Error> {
    let Some(token) = token else {
        return Ok(shards.iter().map(|&shard| (shard, None)).collect());
    };
    if let Some(revision) = token.plain() {
        return match shards {
            [only] => Ok(vec![(*only, Some(revision))]),
            _ => {
                let advice = "give a position for each, as in 1:500,2:33";
                only_shard(all, advice).map(|only| vec![(only, Some(revision))])
            }
        };
    }
    token.iter().try_for_each(|(shard, _)| check_shard(all, shard))?;
    let of = |&shard: &GroupId| match token.revision(shard) {
        Some(revision) => Ok((shard, Some(revision))),
        None => Err(Error::Invalid(format!(
            "the position {token} does not name shard {shard}, which is watched"
        ))),
    };
    shards.iter().map(of).collect()
}
