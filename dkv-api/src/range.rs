//! Ranges of keys with their versions, page by page, and their number.
//!
//! A page shows one moment. The next one shows the same if it asks for the revision of the first.

use std::time::Duration;

use bytes::Bytes;
use dkv_wire::limits::{KEY_BYTES_MAX, SCAN_BYTES_MAX};
use dkv_wire::message::{
    Answer, KeyRange, Level, RangeOptions, RangePage, RangePart, ReadBounds, Receipt,
};

use crate::client::{Client, wrong_answer};
use crate::error::Error;
use crate::history::only_shard;
use crate::router::{RangeQuery, RequestKind};

/// Which keys of a range to read, and how; see [`Client::range`].
///
/// # Examples
/// ```
/// use dkv_api::{KeyRange, RangeRequest};
///
/// let users = RangeRequest::new(KeyRange::Prefix("user/".into())).counted(true);
/// ```
#[must_use = "options do nothing until they are passed to a request"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The range.
    pub keys: KeyRange,
    /// Only keys after this one; all by default. The count does not depend on it.
    pub after: Bytes,
    /// Which keys, what of them, and at which revision; all with their values, at the latest.
    pub options: RangeOptions,
    /// Whether to count all keys of the range; false by default.
    pub count: bool,
    /// What the answer must guarantee; [`Level::Strong`] by default.
    pub level: Level,
    /// Bytes after which a page ends; capped at a mebibyte, the default.
    pub bytes_max: usize,
    /// Time to wait for the answer; the client's timeout by default.
    pub timeout: Option<Duration>,
}

impl RangeRequest {
    /// Reads all keys of a range with their values.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, RangeRequest};
    ///
    /// let users = RangeRequest::new(KeyRange::Prefix("user/".into()));
    /// assert!(!users.count);
    /// ```
    pub fn new(keys: KeyRange) -> Self {
        Self {
            keys,
            after: Bytes::new(),
            options: RangeOptions::default(),
            count: false,
            level: Level::Strong,
            bytes_max: SCAN_BYTES_MAX,
            timeout: None,
        }
    }

    /// Sets which keys, what of them, and at which revision.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, RangeOptions, RangeRequest, Revision};
    ///
    /// let then = RangeOptions { at: Some(Revision(17)), ..RangeOptions::default() };
    /// let users = RangeRequest::new(KeyRange::Prefix("user/".into())).options(then);
    /// ```
    pub fn options(self, options: RangeOptions) -> Self {
        Self { options, ..self }
    }

    /// Sets whether to count all keys of the range.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, RangeRequest};
    ///
    /// let users = RangeRequest::new(KeyRange::Prefix("user/".into())).counted(true);
    /// assert!(users.count);
    /// ```
    pub fn counted(self, count: bool) -> Self {
        Self { count, ..self }
    }

    /// Reads only keys after this one.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, RangeRequest};
    ///
    /// // The next page, after one that ended with this key.
    /// let page = RangeRequest::new(KeyRange::Prefix("user/".into())).after("user/mars");
    /// ```
    pub fn after(self, key: impl Into<Bytes>) -> Self {
        Self { after: key.into(), ..self }
    }

    /// Sets what the answer must guarantee.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, Level, RangeRequest};
    ///
    /// let near = RangeRequest::new(KeyRange::Prefix("user/".into())).level(Level::Eventual);
    /// assert_eq!(near.level, Level::Eventual);
    /// ```
    pub fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }
}

impl Client {
    /// Reads the keys of a range with their versions, as of one revision: the first of them that
    /// fit a page. Needs a keyspace with one shard. Eventual writes that a node has accepted and
    /// the shard has not ordered yet do not show.
    ///
    /// The receipt has the shard's latest revision, at least that at which the keys were read.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the keyspace has several shards; [`Error::Compacted`] and
    /// [`Error::NotYet`] if the revision is not kept or not reached; [`Error::Unavailable`] if no
    /// replica answered in time.
    ///
    /// # Examples
    /// ```
    /// use dkv_api::{KeyRange, RangeRequest};
    ///
    /// # async fn example(client: &dkv_api::Client) -> Result<(), dkv_api::Error> {
    /// let users = RangeRequest::new(KeyRange::Prefix("user/".into())).counted(true);
    /// let (receipt, page) = client.range(users).await?;
    /// println!("{} of {} users at {}", page.keys.len(), page.count, receipt.revision);
    /// # Ok(()) }
    /// ```
    pub async fn range(&self, request: RangeRequest) -> Result<(Receipt, RangePage), Error> {
        let RangeRequest { keys, after, options, count, level, bytes_max, timeout } = request;
        let longest = match &keys {
            KeyRange::Key(key) | KeyRange::Prefix(key) => key.len(),
            KeyRange::Range(from, to) => from.len().max(to.len()),
        };
        let longest = longest.max(after.len());
        if longest > KEY_BYTES_MAX {
            let (bytes, limit) = (longest as u64, KEY_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "key".into(), bytes, limit });
        }
        let view = self.view().await?;
        let shard = only_shard(self.shards(&view)?, "a range needs a keyspace with one shard")?;
        let bytes_max = bytes_max.min(SCAN_BYTES_MAX) as u32;
        let count = count || options.part == RangePart::Count;
        let query = Box::new(RangeQuery { keys, after, options, bytes_max, count });
        let bounds = ReadBounds::default();
        match self.request(RequestKind::Range { shard, query, level, bounds }, timeout).await? {
            Answer::Ranged(receipt, page) => Ok((receipt, page)),
            _ => Err(wrong_answer()),
        }
    }
}
