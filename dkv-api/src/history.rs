//! History: values at earlier revisions, the versions of a key, and compaction.
//!
//! A shard keeps the versions of its keys back to its *floor*. A read at a revision has one answer,
//! whichever replica gives it, so the nearest replica answers that has reached the revision.
//!
//! Revisions are those of a shard. A key's shard follows from the key; a request about all keys
//! names the shard, unless the network has only one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision, Stamp};
use dkv_wire::message::{Answer, Receipt, Version};
use dkv_wire::network::ShardInfo;
use tokio::time::Instant;

use crate::client::{Client, checked_key, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;

/// Versions in one answer.
const PAGE_VERSIONS: u32 = 256;

/// The value of a key at a revision; see [`Client::read_at`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let old = client.read_at("planet", dkv_api::Revision(17)).await?;
/// println!("{:?}, written at revision {}", old.value, old.revision);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueAt {
    /// The value.
    pub value: Bytes,
    /// The revision of the write that stored it.
    pub revision: Revision,
    /// The revision of the write that created the key.
    pub created: Revision,
    /// The number of writes of the key from its creation through that of the value.
    pub version: u64,
    /// The stamp of the write that stored the value.
    pub stamp: Stamp,
    /// The receipt of the read.
    pub receipt: Receipt,
}

impl ValueAt {
    /// Returns the time of the write that stored the value, by the network's clock.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let old = client.read_at("planet", dkv_api::Revision(17)).await?;
    /// println!("written at {:?}", old.time());
    /// # Ok(()) }
    /// ```
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + self.stamp.since_1970()
    }
}

/// Which versions of a key to return; see [`Client::history`].
///
/// # Examples
/// ```
/// use dkv_api::{HistoryOptions, Revision};
///
/// let all = HistoryOptions::default();
/// let ten_older = HistoryOptions::default().before(Revision(500)).limit(10);
/// ```
#[must_use = "options do nothing until they are passed to a request"]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Returns only versions before this revision; all by default.
    pub before: Option<Revision>,
    /// Greatest number of versions; no limit by default.
    pub limit: Option<usize>,
    /// Time to wait for the whole answer; the client's timeout by default.
    pub timeout: Option<Duration>,
}

impl HistoryOptions {
    /// Returns only versions before `revision`.
    ///
    /// # Examples
    /// ```
    /// # use dkv_api::{HistoryOptions, Revision};
    /// let older = HistoryOptions::default().before(Revision(500));
    /// ```
    pub fn before(self, revision: Revision) -> Self {
        Self { before: Some(revision), ..self }
    }

    /// Sets the greatest number of versions.
    ///
    /// # Examples
    /// ```
    /// let latest = dkv_api::HistoryOptions::default().limit(10);
    /// ```
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sets the time to wait for the whole answer.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let options = dkv_api::HistoryOptions::default().timeout(Duration::from_secs(1));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

/// The outcome of a compaction; see [`Client::compact`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let done = client.compact(dkv_api::Revision(500)).await?;
/// println!("the history began at revision {}", done.before);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The earliest revision at which the shard could be read before. If it was not below the one
    /// that was asked for, nothing has changed.
    pub before: Revision,
    /// The receipt, with the shard's latest revision.
    pub receipt: Receipt,
}

/// The versions of a key; see [`Client::history`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let history = client.history("planet", dkv_api::HistoryOptions::default()).await?;
/// println!("{} versions since revision {}", history.versions.len(), history.floor);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The versions, newest first. One without a value is a deletion.
    pub versions: Vec<Version>,
    /// Whether the limit left out older versions.
    pub more: bool,
    /// The earliest revision at which the shard can still be read.
    pub floor: Revision,
    /// The shard of the key.
    pub shard: GroupId,
}

impl Client {
    /// Reads a key as it was at a revision of its shard. The nearest replica answers that has
    /// reached the revision; all give the same answer.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key did not exist then; [`Error::Compacted`] if the shard no
    /// longer keeps that revision, [`Error::NotYet`] if it has not reached it;
    /// [`Error::Unavailable`] if no replica answered in time.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let first = client.write("planet", "Mars").await?;
    /// client.write("planet", "Venus").await?;
    /// let old = client.read_at("planet", first.receipt.revision).await?;
    /// assert_eq!(old.value, "Mars");
    /// # Ok(()) }
    /// ```
    pub async fn read_at(
        &self,
        key: impl AsRef<[u8]>,
        revision: Revision,
    ) -> Result<ValueAt, Error> {
        let key = checked_key(key.as_ref())?;
        match self.request(RequestKind::ReadAt { key, at: revision.into() }, None).await? {
            Answer::VersionAt(receipt, found) => value_at(receipt, found),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns the versions of a key that its shard keeps, newest first: at least all that were
    /// written before this call began. Asks for as many pages as it takes.
    ///
    /// A key that never existed has none; that is no error.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no replica could answer in time: it needs the primary, as a strong
    /// read does.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::HistoryOptions;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let history = client.history("planet", HistoryOptions::default().limit(10)).await?;
    /// for version in history.versions {
    ///     match version.value {
    ///         Some(value) => println!("{}: {value:?}", version.revision),
    ///         None => println!("{}: deleted", version.revision),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn history(
        &self,
        key: impl AsRef<[u8]>,
        options: HistoryOptions,
    ) -> Result<History, Error> {
        let key = checked_key(key.as_ref())?;
        let HistoryOptions { before, limit, timeout } = options;
        let deadline = Instant::now() + timeout.unwrap_or(self.timeout());
        let left = || Some(deadline.saturating_duration_since(Instant::now()));
        let view = self.view().await?;
        let shard = self.shard_of(&view, &key)?.group;
        let mut before = before.unwrap_or_default();
        let limit = limit.unwrap_or(usize::MAX);
        let mut found = History { versions: Vec::new(), more: true, floor: Revision(0), shard };
        if options.before == Some(Revision(0)) {
            return Ok(History { more: false, ..found });
        }
        while found.more && found.versions.len() < limit {
            let versions_max = (limit - found.versions.len()).min(PAGE_VERSIONS as usize) as u32;
            let kind = RequestKind::History { key: key.clone(), before, versions_max };
            let Answer::Versions(_, page) = self.request(kind, left()).await? else {
                return Err(wrong_answer());
            };
            let mut order = found.versions.last().map_or(before, |version| version.revision);
            for version in &page.versions {
                if order != Revision(0) && version.revision >= order {
                    return Err(Error::Unavailable("a node's versions are not in order".into()));
                }
                order = version.revision;
            }
            if page.more && page.versions.is_empty() {
                let why = "a node's page of versions is empty and not the last one";
                return Err(Error::Unavailable(why.into()));
            }
            found.floor = found.floor.max(page.floor);
            found.more = page.more;
            found.versions.extend(page.versions);
            found.versions.truncate(limit);
            before = order;
        }
        Ok(found)
    }

    /// Forgets the history before a revision, in a keyspace with one shard. The shard can then no
    /// longer be read at earlier revisions; the newest value of each key stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the keyspace has several shards: see
    /// [`compact_shard`](Self::compact_shard). [`Error::NotYet`] if the shard has not reached the
    /// revision; [`Error::Denied`] for a client that may only read. After [`Error::Unknown`] it is
    /// safe to call again.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client.compact(dkv_api::Revision(500)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn compact(&self, revision: Revision) -> Result<Compacted, Error> {
        let shard = only_shard(self.shards(&self.view().await?)?, "name the shard to compact")?;
        self.compact_shard(shard, revision).await
    }

    /// Forgets the history of a shard before a revision; see [`compact`](Self::compact).
    ///
    /// # Errors
    /// As for [`compact`](Self::compact). [`Error::Invalid`] if there is no such shard.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// client.compact_shard(dkv_api::GroupId(2), dkv_api::Revision(500)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn compact_shard(
        &self,
        shard: GroupId,
        revision: Revision,
    ) -> Result<Compacted, Error> {
        check_shard(self.shards(&self.view().await?)?, shard)?;
        match self.request(RequestKind::Compact { shard, floor: revision }, None).await? {
            Answer::Compacted { receipt, before } => Ok(Compacted { before, receipt }),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns the receipt of a strong read of nothing, in a keyspace with one shard: its revision
    /// is the latest of a moment after this call began.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the keyspace has several shards; [`Error::Unavailable`] if no replica
    /// could answer in time.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// println!("at revision {}", client.latest().await?.revision);
    /// # Ok(()) }
    /// ```
    pub async fn latest(&self) -> Result<Receipt, Error> {
        let shard = only_shard(self.shards(&self.view().await?)?, "read a key of the shard")?;
        let kind = RequestKind::Locate { shard, latest: true, avoid: Vec::new() };
        match self.request(kind, None).await? {
            Answer::Page(receipt, _) => Ok(receipt),
            _ => Err(wrong_answer()),
        }
    }

    /// Returns the latest revision of a shard, as of a moment after this call began.
    pub(crate) async fn latest_revision(
        &self,
        shard: GroupId,
        timeout: Option<Duration>,
    ) -> Result<Revision, Error> {
        let kind = RequestKind::Locate { shard, latest: true, avoid: Vec::new() };
        match self.request(kind, timeout).await? {
            Answer::Page(receipt, _) => Ok(receipt.revision),
            _ => Err(wrong_answer()),
        }
    }
}

/// Returns the only shard of a keyspace.
///
/// # Errors
/// It has several; `advice` says what to do.
pub(crate) fn only_shard(shards: &[ShardInfo], advice: &str) -> Result<GroupId, Error> {
    match shards {
        [only] => Ok(only.group),
        shards => Err(Error::Invalid(format!(
            "the keyspace has {} shards, and each has revisions of its own; {advice}",
            shards.len()
        ))),
    }
}

/// Checks that a shard is one of these, which belong to one keyspace.
pub(crate) fn check_shard(shards: &[ShardInfo], shard: GroupId) -> Result<(), Error> {
    if shards.iter().any(|known| known.group == shard) {
        return Ok(());
    }
    let first = shards.first().map_or(GroupId(0), |shard| shard.group);
    let last = shards.last().map_or(GroupId(0), |shard| shard.group);
    Err(Error::Invalid(format!("there is no shard {shard}; the shards are {first} to {last}")))
}

/// Returns the value of a version, if it has one.
pub(crate) fn value_at(receipt: Receipt, found: Option<Version>) -> Result<ValueAt, Error> {
    match found {
        Some(Version { revision, created, version, stamp, value: Some(value), .. }) => {
            Ok(ValueAt { value, revision, created, version, stamp, receipt })
        }
        _ => Err(Error::NotFound { receipt }),
    }
}
