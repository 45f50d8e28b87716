//! Scans: the keys of all shards in one order.
//!
//! Keys are spread over the shards by their hash, so each shard has some of any range. A scan asks
//! each for a page, all at the same time, and merges them; when it has given out all that it has of
//! a shard, it asks that shard for its next page. `merge` decides, and is plain data; [`Scan`]
//! asks.
//!
//! What a page shows is of one moment of its shard, and pages are of different moments. So a scan
//! promises, for each key by itself:
//!
//! - Keys come in the order of their bytes, and none comes twice.
//! - A key that is there from before the scan began until it has ended comes, with a value that it
//!   had at a moment in between.
//! - A key that is written for the first time or deleted meanwhile comes or does not.
//!
//! It is no snapshot: of two writes, the later may be in it and the earlier not. At
//! [`Level::Eventual`] the moments may be earlier than the scan, by what
//! [`staleness_ms`](Scan::staleness_ms) says.

mod merge;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wire::limits::KEY_BYTES_MAX;
use dkv_wire::message::{Answer, Level, Page, Pair, ReadBounds, Receipt, Span};
use futures::stream::{self, StreamExt};

use self::merge::Merge;
use crate::client::Client;
use crate::error::Error;
use crate::router::Work;

/// Shards that are asked at the same time.
const SHARDS_AT_ONCE: usize = 32;

/// Which keys to list, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Keys that begin with this; all by default.
    pub prefix: Bytes,
    /// Keys that come after this one, which need not exist; all by default.
    pub after: Bytes,
    /// Most keys; no bound by default.
    pub limit: Option<u64>,
    /// Whether to get the values too, as by default.
    pub values: bool,
    /// What each page must guarantee; [`Level::Strong`] by default.
    pub level: Level,
    /// Time to wait for each page; the client's by default.
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
            timeout: None,
        }
    }
}

impl ScanOptions {
    /// All keys that begin with this.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// Keys of a network in order, as they come. See [`Client::scan`].
pub struct Scan {
    client: Client,
    options: ScanOptions,
    /// None until the shards are known.
    merge: Option<Merge>,
}

impl Scan {
    pub(crate) fn new(client: Client, options: ScanOptions) -> Self {
        Self { client, options, merge: None }
    }

    /// The next key; `None` after the last one. It may be called again after an error, and goes on
    /// where it was.
    ///
    /// # Errors
    /// As [`Client::read_with`], except [`Error::NotFound`].
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
                let view = self.client.view().await?;
                let shards = view.shards.iter().map(|shard| shard.group);
                none.insert(Merge::new(&self.options, shards))
            }
        };
        loop {
            let wanted = merge.wanted();
            if wanted.is_empty() {
                return Ok(merge.pop());
            }
            let (client, options) = (&self.client, &self.options);
            let mut asked =
                stream::iter(wanted)
                    .map(|(shard, span)| async move {
                        (shard, page(client, options, shard, span).await)
                    })
                    .buffer_unordered(SHARDS_AT_ONCE);
            // All are waited for: what came is kept, whatever became of the others.
            let mut failed = None;
            while let Some((shard, asked)) = asked.next().await {
                let taken = asked.and_then(|(receipt, page)| {
                    let taken = merge.take(shard, receipt.staleness_ms, page);
                    taken.map_err(|why| Error::Unavailable(why.into()))
                });
                failed = taken.err().or(failed);
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// How old the oldest page so far may have been, in milliseconds; zero at [`Level::Strong`],
    /// `None` if a node could not know.
    pub fn staleness_ms(&self) -> Option<u64> {
        self.merge.as_ref().map_or(Some(0), Merge::staleness_ms)
    }

    /// The next keys, so many at most, and not more after `bytes_max` bytes of keys and values were
    /// reached; and whether there are more.
    ///
    /// # Errors
    /// As [`next`](Self::next). Keys that came before the error are lost to the caller.
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

async fn page(
    client: &Client,
    options: &ScanOptions,
    shard: GroupId,
    span: Span,
) -> Result<(Receipt, Page), Error> {
    let work = Work::Scan { shard, span, level: options.level, bounds: ReadBounds::default() };
    match client.request(work, options.timeout).await? {
        Answer::Page(receipt, page) => Ok((receipt, page)),
        _ => Err(crate::client::other_kind()),
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("options", &self.options).finish_non_exhaustive()
    }
}
