//! Merges the pages of the shards into one order.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{Page, Pair, Span};

use super::ScanOptions;

/// A page is not what was asked for. The caller asks another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageError {
    /// Its keys are not in order, or not those of the span.
    #[error("a node's page of a scan is not in order")]
    OutOfOrder,
    /// It has no key, although more follow.
    #[error("a node's page of a scan is empty and not the last one")]
    EmptyButNotLast,
}

/// Bytes of all pages in memory at the same time, unless [`PAGE_BYTES_MIN`] for each shard is more.
const BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Smallest size of a page, in bytes.
const PAGE_BYTES_MIN: usize = 32 * 1024;

/// The pages of a scan that have come, and what is still to be asked for.
pub(super) struct Merge {
    prefix: Bytes,
    values: bool,
    /// Keys that may still be returned.
    left: u64,
    page_bytes: usize,
    parts: BTreeMap<GroupId, Part>,
    /// The first buffered key of each part that has one.
    heads: BTreeMap<Bytes, GroupId>,
    staleness_ms: Option<u64>,
}

/// The buffered keys of one shard.
struct Part {
    pairs: VecDeque<Pair>,
    /// The last key received; the next page begins after it.
    after: Bytes,
    more: bool,
}

impl Merge {
    pub(super) fn new(options: &ScanOptions, shards: impl Iterator<Item = GroupId>) -> Self {
        let part = || Part { pairs: VecDeque::new(), after: options.after.clone(), more: true };
        let parts: BTreeMap<GroupId, Part> = shards.map(|shard| (shard, part())).collect();
        let page_bytes = (BUFFER_BYTES / parts.len().max(1)).clamp(PAGE_BYTES_MIN, SCAN_BYTES_MAX);
        Self {
            prefix: options.prefix.clone(),
            values: options.values,
            left: options.limit.unwrap_or(u64::MAX),
            page_bytes,
            parts,
            heads: BTreeMap::new(),
            staleness_ms: Some(0),
        }
    }

    /// Returns the pages that are needed before the next key is known.
    pub(super) fn needed_pages(&self) -> Vec<(GroupId, Span)> {
        if self.left == 0 {
            return Vec::new();
        }
        // The shards have about the same number of keys. A shard that sends too few is asked again.
        let share = (self.left / self.parts.len().max(1) as u64).saturating_mul(5) / 4 + 16;
        let keys_max = share.min(self.left).min(SCAN_KEYS_MAX as u64) as u32;
        let empty = self.parts.iter().filter(|(_, part)| part.more && part.pairs.is_empty());
        let span = |part: &Part| Span {
            prefix: self.prefix.clone(),
            after: part.after.clone(),
            keys_max,
            bytes_max: self.page_bytes as u32,
            values: self.values,
        };
        empty.map(|(shard, part)| (*shard, span(part))).collect()
    }

    /// Adds a page of a shard.
    ///
    /// # Errors
    /// If the page is not what was asked for. Then it is not added.
    pub(super) fn add_page(
        &mut self,
        shard: GroupId,
        staleness_ms: Option<u64>,
        page: Page,
    ) -> Result<(), PageError> {
        let Some(part) = self.parts.get_mut(&shard) else { return Ok(()) };
        let mut last = &part.after;
        for pair in &page.pairs {
            if pair.key <= *last || !pair.key.starts_with(&self.prefix) {
                return Err(PageError::OutOfOrder);
            }
            last = &pair.key;
        }
        if page.pairs.is_empty() && page.more {
            return Err(PageError::EmptyButNotLast);
        }
        part.after = last.clone();
        part.more = page.more;
        part.pairs.extend(page.pairs);
        if let Some(head) = part.pairs.front() {
            self.heads.insert(head.key.clone(), shard);
        }
        self.staleness_ms = self.staleness_ms.zip(staleness_ms).map(|(one, other)| one.max(other));
        Ok(())
    }

    /// Returns the next key. Must only be called when no page is needed.
    pub(super) fn pop(&mut self) -> Option<Pair> {
        debug_assert!(self.needed_pages().is_empty());
        if self.left == 0 {
            return None;
        }
        let (_, shard) = self.heads.pop_first()?;
        let part = self.parts.get_mut(&shard)?;
        let pair = part.pairs.pop_front()?;
        if let Some(head) = part.pairs.front() {
            self.heads.insert(head.key.clone(), shard);
        }
        self.left -= 1;
        Some(pair)
    }

    /// Returns whether more keys may follow, as far as is known.
    pub(super) fn has_more(&self) -> bool {
        let more = |part: &Part| part.more || !part.pairs.is_empty();
        self.left > 0 && self.parts.values().any(more)
    }

    pub(super) fn staleness_ms(&self) -> Option<u64> {
        self.staleness_ms
    }
}
