//! Keys in order: a page of what a shard has at one moment.
//!
//! The table of keys is ordered, so a page costs what it holds and a descent of the tree. It does
//! not change which values are in memory: whoever walks over all keys once must not drive out what
//! others use again and again.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{Number, Revision, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::Span;

use super::digest::key_hash;
use super::residence::{Place, Slot};
use super::rows::Row;
use super::shard::ShardState;

/// A write that waits in an outbox. It is listed if it is later than what the shard has of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The key.
    pub key: Bytes,
    /// When it was written.
    pub stamp: Stamp,
    /// Which write of the outbox it is.
    pub number: Number,
    /// The value; nothing for a delete.
    pub value: Option<Bytes>,
}

/// What a shard has in a span, as far as a page goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// In the order of their keys.
    pub keys: Vec<ListedKey>,
    /// Whether there are more after these.
    pub more: bool,
    /// A moment not before that of any write that shows here, be it by a key that is missing.
    pub stamp: Stamp,
    /// The last write of the outbox that shows here.
    pub pending: Option<Number>,
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: Arc<[u8]>,
    /// The write that stored its value; zero if that waits.
    pub revision: Revision,
    /// Where the value is.
    pub value: ListedValue,
}

/// Where the value of a listed key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedValue {
    /// Here it is.
    Here(Arc<[u8]>),
    /// Here it is, of a write that waits.
    Waiting(Bytes),
    /// In the last checkpoint; what it is there can be checked.
    Stored {
        /// Hash of key, revision and value.
        hash: u64,
    },
}

impl ListedValue {
    /// The value, if it is here.
    pub fn here(&self) -> Option<Bytes> {
        match self {
            Self::Here(value) => Some(Bytes::from_owner(Arc::clone(value))),
            Self::Waiting(value) => Some(value.clone()),
            Self::Stored { .. } => None,
        }
    }
}

impl ListedKey {
    /// Whether a row that was read from the checkpoint is what was once stored there under this
    /// key.
    pub fn is(&self, row: &Row) -> bool {
        match &self.value {
            ListedValue::Stored { hash } => {
                row.revision == self.revision
                    && key_hash(&self.key, row.revision, row.stamp, &row.value) == *hash
            }
            ListedValue::Here(_) | ListedValue::Waiting(_) => false,
        }
    }
}

impl ShardState {
    /// The first keys of a span, as many as fit a page, together with what waits of the same span:
    /// in the order of keys, each once.
    pub fn list(&self, span: &Span, waiting: &[Waiting]) -> Listed {
        let keys_max = (span.keys_max as usize).clamp(1, SCAN_KEYS_MAX);
        let bytes_max = (span.bytes_max as usize).min(SCAN_BYTES_MAX);
        let skipped = usize::from(planted(Mutant::SkipInScan) && !span.after.is_empty());
        let rows = self.keys().range::<[u8], _>(span.range()).skip(skipped);
        let rows = rows.take_while(|(key, _)| key.starts_with(&span.prefix));
        let later = waiting.iter().filter(|it| it.stamp > self.last_written(&it.key).0);
        let (mut listed, mut bytes) = (Listed { stamp: self.stamp(), ..Listed::default() }, 0);
        for entry in merged(rows, later) {
            let Some((length, key)) = entry.listed() else {
                listed.note(&entry);
                continue;
            };
            if listed.keys.len() == keys_max {
                listed.more = true;
                break;
            }
            bytes += key.key.len() + if span.values { length } else { 0 };
            // One that does not fit begins the next page, unless it would never fit any.
            if bytes > bytes_max && !listed.keys.is_empty() {
                listed.more = true;
                break;
            }
            listed.keys.push(key);
            listed.note(&entry);
        }
        listed
    }
}

impl Listed {
    /// What there is of a key shows.
    fn note(&mut self, entry: &Entry<'_>) {
        if let Entry::Waiting(Waiting { number, stamp, .. }) = entry {
            self.stamp = self.stamp.max(*stamp);
            self.pending = self.pending.max(Some(*number));
        }
    }
}

/// What there is of a key.
enum Entry<'a> {
    Row(&'a Arc<[u8]>, &'a Slot),
    Waiting(&'a Waiting),
}

impl Entry<'_> {
    /// As it is listed, and how long the value is; nothing if it is a delete.
    fn listed(&self) -> Option<(usize, ListedKey)> {
        let (length, key) = match self {
            Self::Row(key, slot) => {
                let (length, value) = match &slot.value {
                    Place::Here { value, .. } => {
                        (value.len(), ListedValue::Here(Arc::clone(value)))
                    }
                    Place::Stored { bytes, hash } => {
                        (*bytes as usize, ListedValue::Stored { hash: *hash })
                    }
                };
                (length, ListedKey { key: Arc::clone(key), revision: slot.revision, value })
            }
            Self::Waiting(Waiting { key, value, .. }) => {
                let (key, value) = (Arc::from(&key[..]), value.as_ref()?);
                let (revision, waits) = (Revision::default(), ListedValue::Waiting(value.clone()));
                (value.len(), ListedKey { key, revision, value: waits })
            }
        };
        Some((length, key))
    }
}

/// Both in the order of their keys; of a key that both have, what waits.
fn merged<'a>(
    rows: impl Iterator<Item = (&'a Arc<[u8]>, &'a Slot)>,
    waiting: impl Iterator<Item = &'a Waiting>,
) -> impl Iterator<Item = Entry<'a>> {
    let (mut rows, mut waiting) = (rows.peekable(), waiting.peekable());
    std::iter::from_fn(move || {
        let order = match (rows.peek(), waiting.peek()) {
            (Some((row, _)), Some(waits)) => row[..].cmp(&waits.key[..]),
            (_, waits) if waits.is_none() => Ordering::Less,
            _ => Ordering::Greater,
        };
        if order == Ordering::Equal {
            rows.next();
        }
        match order {
            Ordering::Less => rows.next().map(|(key, slot)| Entry::Row(key, slot)),
            _ => waiting.next().map(Entry::Waiting),
        }
    })
}
