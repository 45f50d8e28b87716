//! Snapshots: all keys as they were at one moment.
//!
//! A snapshot takes two rounds, which trust no clock. Each shard first tells the latest stamp that
//! it has given a write; the latest of all is the moment. Then each shard *cuts* its history at the
//! moment: it names its revision, and stamps every later write after the moment. Writes that came
//! between the two rounds with a later stamp are left out by that stamp.
//!
//! So a snapshot has every write that was acknowledged before it began, and none that began after
//! it ended. Any replica that has reached a cut serves it, for as long as its shard keeps its
//! history from there on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dkv_base::id::{GroupId, Revision, Stamp};
use dkv_wire::message::{Answer, Cut};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::client::{Client, checked_key, wrong_answer};
use crate::error::Error;
use crate::history::{ValueAt, value_at};
use crate::router::RequestKind;
use crate::scan::{Scan, ScanOptions};
use crate::watch::WatchToken;

/// Shards that are asked at the same time.
const SHARDS_AT_ONCE: usize = 32;

/// All keys as they were at one moment; see [`Client::snapshot`].
///
/// # Examples
/// ```
/// use dkv_api::ScanOptions;
///
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let snapshot = client.snapshot().await?;
/// let mut scan = snapshot.scan(ScanOptions::default());
/// while let Some(pair) = scan.next().await? {
///     println!("{:?} = {:?}", pair.key, pair.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    client: Client,
    token: SnapshotToken,
}

/// A snapshot in a form that can be kept and handed on, as text as well.
///
/// # Examples
/// ```
/// use dkv_api::SnapshotToken;
///
/// let token: SnapshotToken = "7040:1=500,2=498-490".parse()?;
/// assert_eq!(token.to_string(), "7040:1=500,2=498-490");
/// # Ok::<(), dkv_api::SnapshotTokenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotToken {
    moment: Stamp,
    cuts: Arc<BTreeMap<GroupId, Cut>>,
}

/// The part that a shard has in a snapshot: its writes up to a revision, without those that are
/// stamped after the moment.
///
/// # Examples
/// ```
/// # fn example(token: &dkv_api::SnapshotToken) {
/// for cut in token.cuts() {
///     println!("shard {} through revision {}", cut.shard, cut.revision);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotCut {
    /// The shard.
    pub shard: GroupId,
    /// The revision of the last write that may be in the snapshot.
    pub revision: Revision,
    /// Every write up to this revision is in the snapshot.
    pub base: Revision,
}

impl SnapshotToken {
    /// Returns the moment of the snapshot: no write in it is stamped later.
    ///
    /// # Examples
    /// ```
    /// let token: dkv_api::SnapshotToken = "7040:1=500".parse()?;
    /// assert_eq!(token.moment().0, 7040);
    /// # Ok::<(), dkv_api::SnapshotTokenError>(())
    /// ```
    pub fn moment(&self) -> Stamp {
        self.moment
    }

    /// Returns the parts of the shards, in the order of their ids.
    ///
    /// # Examples
    /// ```
    /// let token: dkv_api::SnapshotToken = "7040:1=500,2=498-490".parse()?;
    /// assert_eq!(token.cuts().map(|cut| cut.base.0).collect::<Vec<_>>(), [500, 490]);
    /// # Ok::<(), dkv_api::SnapshotTokenError>(())
    /// ```
    pub fn cuts(&self) -> impl Iterator<Item = SnapshotCut> {
        let parts = self.cuts.iter();
        parts.map(|(&shard, &Cut { revision, base, .. })| SnapshotCut { shard, revision, base })
    }

    /// Returns the position from which a watch shows every change that is not in the snapshot, and
    /// perhaps some that are.
    ///
    /// # Examples
    /// ```
    /// let token: dkv_api::SnapshotToken = "7040:1=500,2=498-490".parse()?;
    /// assert_eq!(token.changes_since().to_string(), "1:500,2:490");
    /// # Ok::<(), dkv_api::SnapshotTokenError>(())
    /// ```
    pub fn changes_since(&self) -> WatchToken {
        let mut position = WatchToken::default();
        self.cuts().for_each(|cut| position.advance(cut.shard, cut.base));
        position
    }
}

/// A text is no token of a snapshot.
///
/// # Examples
/// ```
/// let wrong = "7040".parse::<dkv_api::SnapshotToken>().unwrap_err();
/// assert!(wrong.to_string().contains("7040:1=500,2=498-490"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the token of a snapshot, which looks like 7040:1=500,2=498-490")]
#[non_exhaustive]
pub struct SnapshotTokenError;

impl Client {
    /// Takes a snapshot: all keys as they are at one moment between the beginning and the end of
    /// this call. It costs two rounds to every shard and an entry in each log, and no copy of
    /// anything: it can be read for as long as every shard keeps its history from that moment on.
    ///
    /// Every write that was acknowledged before the call began is in it, and none that began after
    /// it ended. If two writes go to different shards during the call, the later may be in it
    /// without the earlier.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a shard has no primary in time; [`Error::Compacted`] if a shard
    /// forgets its history faster than a snapshot can be taken; [`Error::Denied`] if the
    /// certificate may not read.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let snapshot = client.snapshot().await?;
    /// client.write("planet", "Venus").await?;
    /// let before = snapshot.read("planet").await?;
    /// assert_ne!(before.value, "Venus");
    /// # Ok(()) }
    /// ```
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let deadline = Instant::now() + self.timeout();
        let left = || Some(deadline.saturating_duration_since(Instant::now()));
        let view = self.view().await?;
        let shards: Vec<GroupId> = self.shards(&view)?.iter().map(|shard| shard.group).collect();
        let (moment, cuts) = loop {
            let moment = stream::iter(shards.clone())
                .map(|shard| self.latest_stamp(shard, left()))
                .buffer_unordered(SHARDS_AT_ONCE)
                .try_fold(Stamp(0), |latest, stamp| std::future::ready(Ok(latest.max(stamp))))
                .await?;
            let cuts: Result<BTreeMap<_, _>, Error> = stream::iter(shards.clone())
                .map(|shard| self.cut(shard, moment, left()))
                .buffer_unordered(SHARDS_AT_ONCE)
                .try_collect()
                .await;
            match cuts {
                // A shard has forgotten the moment already: take a later one.
                Err(Error::Compacted { .. }) if Instant::now() < deadline => {}
                cuts => break (moment, cuts?),
            }
        };
        let token = SnapshotToken { moment, cuts: Arc::new(cuts) };
        Ok(Snapshot { client: self.clone(), token })
    }

    /// Returns the snapshot of a token. Sends nothing: whether it can still be read turns out when
    /// it is.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let token = client.snapshot().await?.token().clone();
    /// let same = client.snapshot_of(token);
    /// # Ok(()) }
    /// ```
    pub fn snapshot_of(&self, token: SnapshotToken) -> Snapshot {
        Snapshot { client: self.clone(), token }
    }

    /// Returns the latest stamp of a shard, as of a moment after this call began.
    async fn latest_stamp(
        &self,
        shard: GroupId,
        timeout: Option<Duration>,
    ) -> Result<Stamp, Error> {
        let kind = RequestKind::Locate { shard, latest: true, avoid: Vec::new() };
        match self.request(kind, timeout).await? {
            Answer::Page(receipt, _) => Ok(receipt.stamp),
            _ => Err(wrong_answer()),
        }
    }

    async fn cut(
        &self,
        shard: GroupId,
        moment: Stamp,
        timeout: Option<Duration>,
    ) -> Result<(GroupId, Cut), Error> {
        match self.request(RequestKind::Cut { shard, moment }, timeout).await? {
            Answer::Cut(_, cut) if cut.moment == moment && cut.base <= cut.revision => {
                Ok((shard, cut))
            }
            _ => Err(wrong_answer()),
        }
    }
}

impl Snapshot {
    /// Reads a key as it was at the moment.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key did not exist then; [`Error::Compacted`] if its shard no
    /// longer keeps the moment; [`Error::Unavailable`] if no replica answered in time.
    ///
    /// # Examples
    /// ```
    /// # async fn example(snapshot: &dkv_api::Snapshot) -> Result<(), dkv_api::Error> {
    /// let then = snapshot.read("planet").await?;
    /// println!("{:?}, written at revision {}", then.value, then.revision);
    /// # Ok(()) }
    /// ```
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<ValueAt, Error> {
        let key = checked_key(key.as_ref())?;
        let view = self.client.view().await?;
        let shard = self.client.shard_of(&view, &key)?.group;
        let at = self.token.cuts.get(&shard).ok_or_else(|| of_another_network(shard))?;
        match self.client.request(RequestKind::ReadAt { key, at: *at }, None).await? {
            Answer::VersionAt(receipt, found) => value_at(receipt, found),
            _ => Err(wrong_answer()),
        }
    }

    /// Lists keys as they were at the moment, in the order of their bytes. The level of the options
    /// does not matter, and a revision must not be among them. Sends nothing before
    /// [`Scan::next`] is called.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::ScanOptions;
    ///
    /// # async fn example(snapshot: &dkv_api::Snapshot) -> Result<(), dkv_api::Error> {
    /// let mut users = snapshot.scan(ScanOptions::prefix("user/"));
    /// let page = users.page(100, 1024 * 1024).await?;
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, options: ScanOptions) -> Scan {
        Scan::of(self.client.clone(), options, Arc::clone(&self.token.cuts))
    }

    /// Returns the token of the snapshot.
    ///
    /// # Examples
    /// ```
    /// # fn example(snapshot: &dkv_api::Snapshot) {
    /// println!("dkv scan --snapshot {}", snapshot.token());
    /// # }
    /// ```
    pub fn token(&self) -> &SnapshotToken {
        &self.token
    }

    /// Returns the moment, by the network's clock.
    ///
    /// # Examples
    /// ```
    /// # fn example(snapshot: &dkv_api::Snapshot) {
    /// println!("as of {:?}", snapshot.time());
    /// # }
    /// ```
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + self.token.moment.since_1970()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("token", &self.token).finish_non_exhaustive()
    }
}

/// `MOMENT:SHARD=REVISION-BASE,...`, without the base where it is the revision.
impl fmt::Display for SnapshotToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.moment.0)?;
        for (index, (shard, cut)) in self.cuts.iter().enumerate() {
            let before = if index == 0 { ':' } else { ',' };
            write!(f, "{before}{}={}", shard.0, cut.revision.0)?;
            if cut.base != cut.revision {
                write!(f, "-{}", cut.base.0)?;
            }
        }
        Ok(())
    }
}

impl FromStr for SnapshotToken {
    type Err = SnapshotTokenError;

    fn from_str(text: &str) -> Result<Self, SnapshotTokenError> {
        let (moment, shards) = text.split_once(':').ok_or(SnapshotTokenError)?;
        let moment = Stamp(number(moment)?);
        let mut cuts = BTreeMap::new();
        for shard in shards.split(',') {
            let (group, revisions) = shard.split_once('=').ok_or(SnapshotTokenError)?;
            let (revision, base) = revisions.split_once('-').unwrap_or((revisions, revisions));
            let (revision, base) = (Revision(number(revision)?), Revision(number(base)?));
            let group = GroupId(number(group)?.try_into().map_err(|_| SnapshotTokenError)?);
            let cut = Cut { revision, base, moment };
            if base > revision || cuts.insert(group, cut).is_some() {
                return Err(SnapshotTokenError);
            }
        }
        Ok(Self { moment, cuts: Arc::new(cuts) })
    }
}

fn number(text: &str) -> Result<u64, SnapshotTokenError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SnapshotTokenError);
    }
    text.parse().map_err(|_| SnapshotTokenError)
}

fn of_another_network(shard: GroupId) -> Error {
    Error::Invalid(format!("the snapshot has no shard {shard}; it is of another network"))
}

#[cfg(test)]
mod tests;
