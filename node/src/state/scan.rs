//! Keys in order: a page of what a shard has at one moment.
//!
//! The table of keys is ordered, so a page costs what it holds and a descent of the tree. It does
//! not change which values are in memory: whoever walks over all keys once must not drive out what
//! others use again and again.

use std::ops::Bound;
use std::sync::Arc;

use dkv_wire::id::Revision;
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::Span;
use dkv_wire::mutants::{Mutant, planted};

use super::digest::key_hash;
use super::residence::Place;
use super::rows::Row;
use super::shard::ShardState;

/// What a shard has in a span, as far as a page goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// In the order of their keys.
    pub keys: Vec<ListedKey>,
    /// Whether there are more after these.
    pub more: bool,
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: Arc<[u8]>,
    /// The write that stored its value.
    pub revision: Revision,
    /// Where the value is.
    pub value: ListedValue,
}

/// Where the value of a listed key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedValue {
    /// Here it is.
    Here(Arc<[u8]>),
    /// In the last checkpoint; what it is there can be checked.
    Stored {
        /// Hash of key, revision and value.
        hash: u64,
    },
}

impl ListedKey {
    /// Whether a row that was read from the checkpoint is what was once stored there under this key.
    pub fn is(&self, row: &Row) -> bool {
        match &self.value {
            ListedValue::Here(value) => row.revision == self.revision && row.value == *value,
            ListedValue::Stored { hash } => {
                row.revision == self.revision
                    && key_hash(&self.key, row.revision, row.stamp, &row.value) == *hash
            }
        }
    }
}

impl ShardState {
    /// The first keys of a span, as many as fit a page.
    pub fn list(&self, span: &Span) -> Listed {
        let keys_max = (span.keys_max as usize).clamp(1, SCAN_KEYS_MAX);
        let bytes_max = (span.bytes_max as usize).min(SCAN_BYTES_MAX);
        let from = match span.after.as_ref() {
            after if after >= span.prefix.as_ref() && !after.is_empty() => Bound::Excluded(after),
            _ => Bound::Included(span.prefix.as_ref()),
        };
        let skipped = usize::from(planted(Mutant::SkipInScan) && !span.after.is_empty());
        let (mut listed, mut bytes) = (Listed::default(), 0);
        for (key, slot) in self.keys().range::<[u8], _>((from, Bound::Unbounded)).skip(skipped) {
            if !key.starts_with(&span.prefix) {
                break;
            }
            if listed.keys.len() == keys_max {
                listed.more = true;
                break;
            }
            let (length, value) = match &slot.value {
                Place::Here { value, .. } => (value.len(), ListedValue::Here(Arc::clone(value))),
                Place::Stored { bytes, hash } => {
                    (*bytes as usize, ListedValue::Stored { hash: *hash })
                }
            };
            bytes += key.len() + if span.values { length } else { 0 };
            // One that does not fit begins the next page, unless it would never fit any.
            if bytes > bytes_max && !listed.keys.is_empty() {
                listed.more = true;
                break;
            }
            listed.keys.push(ListedKey { key: Arc::clone(key), revision: slot.revision, value });
        }
        listed
    }
}
