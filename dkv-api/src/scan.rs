//! Scans: the keys of all shards in one order.
//!
//! Keys are spread over the shards by their hash, so each shard has some of any range. A scan asks
//! all shards for a page in parallel and merges the pages. When it has returned all that it has of
//! a shard, it asks that shard for its next page. [`merge`] decides and is plain data; [`Scan`]
//! sends the requests.
//!
//! A page shows one moment of its shard, and different pages show different moments. So a scan
//! promises, for each key by itself:
//!
//! - Keys come in the order of their bytes, and none comes twice.
//! - A key that exists from before the scan begins until after it ends comes, with a value that it
//!   had at a moment in between.
//! - A key that is created or deleted during the scan may or may not come.
//!
//! A scan at a revision shows one moment: the revision of the only shard. That of a
//! [`Snapshot`](crate::Snapshot) shows one moment of all shards.
//!
//! Any other scan is not a snapshot: it may contain the later of two writes and not the earlier. At
//! [`Level::Eventual`] the moments may precede the scan, by up to
//! [`staleness_ms`](Scan::staleness_ms).

mod merge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision};
use dkv_wire::limits::KEY_BYTES_MAX;
use dkv_wire::message::{Answer, Cut, Level, Page, Pair, ReadBounds, Receipt, Span};
use futures::stream::{self, StreamExt};

use self::merge::Merge;
use crate::client::{Client, wrong_answer};
use crate::error::Error;
use crate::history::only_shard;
use crate::router::RequestKind;

/// Shards that are asked at the same time.
const SHARDS_AT_ONCE: usize = 32;

/// Which keys to list, and how; see [`Client::scan`].
///
/// # Examples
/// ```
/// use dkv_api::{Level, ScanOptions};
///
/// let everything = ScanOptions::default();
/// let next_users = ScanOptions::prefix("user/").after("user/1041").limit(100);
/// let keys_nearby = ScanOptions::default().values(false).level(Level::Eventual);
/// ```
#[must_use = "options do nothing until they are passed to a scan"]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Lists keys that begin with this; all by default.
    pub prefix: Bytes,
    /// Lists keys after this one, which need not exist; all by default.
    pub after: Bytes,
    /// Greatest number of keys; no limit by default.
    pub limit: Option<u64>,
    /// Whether to fetch the values; true by default.
    pub values: bool,
    /// What each page must guarantee; [`Level::Strong`] by default.
    pub level: Level,
    /// Lists the keys as they were at this revision; as they are by default.
    pub at: Option<Revision>,
    /// Time to wait for each page; the client's timeout by default.
    pub timeout: Option<Duration>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            prefix: Bytes::new(),
            after: Bytes::new(),
            limit: None,
            values: true,
            level: Level::Strong,
            at: None,
            timeout: None,
        }
    }
}

impl ScanOptions {
    /// Lists all keys that begin with `prefix`.
    ///
    /// # Examples
    /// ```
    /// let users = dkv_api::ScanOptions::prefix("user/");
    /// ```
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Lists only keys after `key`, which need not exist.
    ///
    /// # Examples
    /// ```
    /// let rest = dkv_api::ScanOptions::prefix("user/").after("user/1041");
    /// ```
    pub fn after(self, key: impl Into<Bytes>) -> Self {
        Self { after: key.into(), ..self }
    }

    /// Sets the greatest number of keys.
    ///
    /// # Examples
    /// ```
    /// let some = dkv_api::ScanOptions::default().limit(10);
    /// ```
    pub fn limit(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sets whether to fetch the values.
    ///
    /// # Examples
    /// ```
    /// let only_keys = dkv_api::ScanOptions::default().values(false);
    /// ```
    pub fn values(self, values: bool) -> Self {
        Self { values, ..self }
    }

    /// Sets what each page must guarantee.
    ///
    /// # Examples
    /// ```
    /// let nearby = dkv_api::ScanOptions::default().level(dkv_api::Level::Eventual);
    /// ```
    pub fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Lists the keys as they were at a revision, all at that one moment, whatever the level. Only
    /// in a keyspace with one shard, because each shard has revisions of its own.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{Revision, ScanOptions};
    ///
    /// let users_then = ScanOptions::prefix("user/").at(Revision(500));
    /// ```
    pub fn at(self, revision: Revision) -> Self {
        Self { at: Some(revision), ..self }
    }

    /// Sets the time to wait for each page.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let options = dkv_api::ScanOptions::default().timeout(Duration::from_secs(1));
    /// ```
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }
}

impl Client {
    /// Lists keys with their values, in the order of their bytes. Sends nothing before
    /// [`Scan::next`] is called.
    ///
    /// A key that exists during the whole scan comes once, with a value that it had meanwhile. A
    /// key that is created or deleted meanwhile may or may not come. A scan is not a snapshot: the
    /// listed values need never have existed at the same time. One [at a
    /// revision](ScanOptions::at) is, and so is [`Snapshot::scan`](crate::Snapshot::scan).
    ///
    /// # Examples
    /// ```
    /// use dkv_api::ScanOptions;
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let mut scan = client.scan(ScanOptions::prefix("user/"));
    /// while let Some(pair) = scan.next().await? {
    ///     println!("{:?} = {:?}", pair.key, pair.value);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, options: ScanOptions) -> Scan {
        Scan { client: self.clone(), options, cuts: None, merge: None }
    }
}

/// A running scan, from [`Client::scan`].
///
/// # Examples
/// ```
/// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
/// let mut scan: dkv_api::Scan = client.scan(dkv_api::ScanOptions::default());
/// let first = scan.next().await?;
/// # Ok(()) }
/// ```
#[must_use = "a scan does nothing until `next` or `page` is called"]
pub struct Scan {
    client: Client,
    options: ScanOptions,
    /// The cuts of the shards, of which the pages are; `None` if each page is of its own moment.
    cuts: Option<Arc<BTreeMap<GroupId, Cut>>>,
    /// `None` until the shards are known.
    merge: Option<Merge>,
}

impl Scan {
    /// Returns the next key with its value; `None` after the last one. After an error the scan can
    /// go on: call this again.
    ///
    /// # Errors
    /// As for [`Client::read_with`], except [`Error::NotFound`]. For a scan at a revision also
    /// [`Error::Compacted`] and [`Error::NotYet`], and [`Error::Invalid`] if the network has
    /// several shards.
    ///
    /// # Examples
    /// ```
    /// # async fn example(mut scan: dkv_api::Scan) -> Result<(), dkv_api::Error> {
    /// while let Some(pair) = scan.next().await? {
    ///     println!("{:?} at revision {}", pair.key, pair.revision);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Result<Option<Pair>, Error> {
        let ScanOptions { prefix, after, .. } = &self.options;
        let longest = prefix.len().max(after.len());
        if longest > KEY_BYTES_MAX {
            let (bytes, limit) = (longest as u64, KEY_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "key".into(), bytes, limit });
        }
        let merge = match &mut self.merge {
            Some(merge) => merge,
            none => {
                if let Some(cuts) = &self.cuts {
                    if self.options.at.is_some() {
                        let why = "a snapshot is of one moment; leave the revision out";
                        return Err(Error::Invalid(why.into()));
                    }
                    none.insert(Merge::new(&self.options, cuts.keys().copied()))
                } else {
                    let view = self.client.view().await?;
                    let shards = self.client.shards(&view)?;
                    if let Some(at) = self.options.at {
                        let advice = "scan a snapshot, or read single keys at their revisions";
                        let shard = only_shard(shards, advice)?;
                        self.cuts = Some(Arc::new(BTreeMap::from([(shard, at.into())])));
                    }
                    let shards = shards.iter().map(|shard| shard.group);
                    none.insert(Merge::new(&self.options, shards))
                }
            }
        };
        loop {
            let needed = merge.needed_pages();
            if needed.is_empty() {
                return Ok(merge.pop());
            }
            let (client, options, cuts) = (&self.client, &self.options, self.cuts.as_deref());
            let mut asked = stream::iter(needed)
                .map(|(shard, span)| async move {
                    let at = cuts.and_then(|cuts| cuts.get(&shard));
                    (shard, page(client, options, at, shard, span).await)
                })
                .buffer_unordered(SHARDS_AT_ONCE);
            // Waits for all pages, so that those which come are kept even if others fail.
            let mut failed = None;
            while let Some((shard, asked)) = asked.next().await {
                let added = asked.and_then(|(receipt, page)| {
                    let added = merge.add_page(shard, receipt.staleness_ms, page);
                    added.map_err(|error| Error::Unavailable(error.to_string()))
                });
                failed = added.err().or(failed);
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// Returns the greatest possible age of the pages so far, in milliseconds: zero at
    /// [`Level::Strong`], `None` if a node could not tell.
    ///
    /// # Examples
    /// ```
    /// # fn example(scan: &dkv_api::Scan) {
    /// println!("at most {:?} ms old", scan.staleness_ms());
    /// # }
    /// ```
    pub fn staleness_ms(&self) -> Option<u64> {
        self.merge.as_ref().map_or(Some(0), Merge::staleness_ms)
    }

    /// Returns the next keys, at most `keys_max` of them and none after keys and values have
    /// reached `bytes_max` bytes; and whether there are more.
    ///
    /// # Errors
    /// As for [`next`](Self::next). Keys that came before the error are lost to the caller.
    ///
    /// # Examples
    /// ```
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let mut scan = client.scan(dkv_api::ScanOptions::default());
    /// let page = scan.page(100, 1024 * 1024).await?;
    /// println!("{} keys, more: {}", page.pairs.len(), page.more);
    /// # Ok(()) }
    /// ```
    pub async fn page(&mut self, keys_max: usize, bytes_max: usize) -> Result<Page, Error> {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        while pairs.len() < keys_max && (bytes < bytes_max || pairs.is_empty()) {
            let Some(pair) = self.next().await? else { return Ok(Page { pairs, more: false }) };
            bytes += pair.key.len() + pair.value.as_ref().map_or(0, Bytes::len);
            pairs.push(pair);
        }
        let more = match &mut self.merge {
            Some(merge) => merge.has_more(),
            None => true,
        };
        Ok(Page { pairs, more })
    }
}

/// Asks a shard for a page.
async fn page(
    client: &Client,
    options: &ScanOptions,
    at: Option<&Cut>,
    shard: GroupId,
    span: Span,
) -> Result<(Receipt, Page), Error> {
    let kind = match at {
        Some(at) => RequestKind::ScanAt { shard, span, at: *at },
        None => {
            let (level, bounds) = (options.level, ReadBounds::default());
            RequestKind::Scan { shard, span, level, bounds }
        }
    };
    match client.request(kind, options.timeout).await? {
        Answer::Page(receipt, page) => Ok((receipt, page)),
        _ => Err(wrong_answer()),
    }
}

impl Scan {
    /// Creates a scan of one moment.
    pub(crate) fn of(
        client: Client,
        options: ScanOptions,
        cuts: Arc<BTreeMap<GroupId, Cut>>,
    ) -> Self {
        Self { client, options, cuts: Some(cuts), merge: None }
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("options", &self.options).finish_non_exhaustive()
    }
}
