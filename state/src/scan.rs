//! Keys in order: a page of a shard's keys at one moment.
//!
//! The table of keys is ordered, so a page costs its own size plus one descent of the tree. A scan
//! does not change which values are in memory: a client that walks over all keys once must not
//! evict values that others use again and again.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use dkv_base::id::{LeaseId, Number, Revision, Stamp};
use dkv_base::mutants::{Mutant, planted};
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{Span, VersionExpiry};

use super::digest::key_hash;
use super::rows::{Attachment, Origin, Row};
use super::shard::ShardState;
use super::value_cache::{Place, Slot};

/// A write that waits in an outbox. A scan lists it if it is later than the shard's last write of
/// its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The key.
    pub key: Bytes,
    /// The stamp of the write.
    pub stamp: Stamp,
    /// The number of the write in its outbox.
    pub number: Number,
    /// The value; `None` for a delete.
    pub value: Option<Bytes>,
}

/// The part of a span that fits one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The keys of the page, in order.
    pub keys: Vec<ListedKey>,
    /// Whether more keys follow.
    pub more: bool,
    /// A moment no earlier than any write visible in the page, including deletes, which show as
    /// missing keys.
    pub stamp: Stamp,
    /// The last write of the outbox that is visible in the page.
    pub pending: Option<Number>,
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: Arc<[u8]>,
    /// The revision of the write that stored the value; zero if that write is still waiting.
    pub revision: Revision,
    /// The revision of the write that created the key; zero as long as the write waits.
    pub created: Revision,
    /// The number of writes of the key since then; zero as long as the write waits.
    pub version: u64,
    /// The lease that the key is attached to; zero if there is none.
    pub lease: LeaseId,
    /// The expiry of the key.
    pub expiry: Option<VersionExpiry>,
    /// The value, or where it is.
    pub value: ListedValue,
}

/// What a version of a key is attached to, by the clock of its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attached {
    /// The lease; zero if there is none.
    pub(super) lease: LeaseId,
    /// The expiry.
    pub(super) expiry: Option<VersionExpiry>,
}

impl Attached {
    /// Returns what there is left of an attachment when the clock of the shard shows this.
    pub(super) fn of(attachment: Option<Attachment>, clock_ms: u64) -> Self {
        match attachment {
            None => Self::default(),
            Some(Attachment::Lease(lease)) => Self { lease, expiry: None },
            Some(Attachment::Expiry { deadline_ms, ttl_ms }) => {
                let remaining_ms = deadline_ms.saturating_sub(clock_ms);
                let expiry = Some(VersionExpiry { ttl_ms, remaining_ms });
                Self { lease: LeaseId::default(), expiry }
            }
        }
    }
}

/// The location of the value of a listed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedValue {
    /// In memory.
    Here(Arc<[u8]>),
    /// In the outbox, as part of a waiting write.
    Waiting(Bytes),
    /// In the last checkpoint; the hash allows checking what is read there.
    Stored {
        /// Hash of key, revision and value.
        hash: u64,
    },
}

impl ListedValue {
    /// Returns the value, unless it is in the checkpoint only.
    pub fn here(&self) -> Option<Bytes> {
        match self {
            Self::Here(value) => Some(Bytes::from_owner(Arc::clone(value))),
            Self::Waiting(value) => Some(value.clone()),
            Self::Stored { .. } => None,
        }
    }
}

impl ListedKey {
    /// Returns whether a row read from the checkpoint is the one that was stored there under this
    /// key.
    pub fn is(&self, row: &Row) -> bool {
        match &self.value {
            ListedValue::Stored { hash } => {
                row.origin.revision == self.revision
                    && key_hash(&self.key, row.origin, &row.value) == *hash
            }
            ListedValue::Here(_) | ListedValue::Waiting(_) => false,
        }
    }
}

impl ShardState {
    /// Returns what a key is attached to now.
    pub(super) fn attached(&self, key: &[u8]) -> Attached {
        Attached::of(self.attachments().get(key), self.clock_ms())
    }

    /// Returns the first keys of a span, as many as fit a page and none if none is wanted, merged
    /// with the waiting writes of the same span: in key order, each key once.
    pub fn list(&self, span: &Span, waiting: &[Waiting]) -> Listed {
        if span.keys_max == 0 {
            // Not even whether there are keys: who asks for none may have no right to know.
            return Listed { stamp: self.stamp(), ..Listed::default() };
        }
        let keys_max = (span.keys_max as usize).min(SCAN_KEYS_MAX);
        let bytes_max = (span.bytes_max as usize).min(SCAN_BYTES_MAX);
        let skipped = usize::from(planted(Mutant::SkipInScan) && !span.after.is_empty());
        let rows = self.keys().range::<[u8], _>(span.range()).skip(skipped);
        let rows = rows.take_while(|(key, _)| key.starts_with(&span.prefix));
        let later = waiting.iter().filter(|it| it.stamp > self.last_written(&it.key).0);
        let (mut listed, mut bytes) = (Listed { stamp: self.stamp(), ..Listed::default() }, 0);
        for entry in merged(rows, later) {
            let Some((length, key)) = entry.listed(|key| self.attached(key)) else {
                listed.note(&entry);
                continue;
            };
            if listed.keys.len() == keys_max {
                listed.more = true;
                break;
            }
            bytes += key.key.len() + if span.values { length } else { 0 };
            // A key that does not fit begins the next page, unless it would not fit any page.
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
    /// Accounts for an entry that is visible in the page.
    fn note(&mut self, entry: &Entry<'_>) {
        if let Entry::Waiting(Waiting { number, stamp, .. }) = entry {
            self.stamp = self.stamp.max(*stamp);
            self.pending = self.pending.max(Some(*number));
        }
    }
}

/// A key as seen by a scan: its row, or a write that waits for it.
enum Entry<'a> {
    Row(&'a Arc<[u8]>, &'a Slot),
    Waiting(&'a Waiting),
}

impl Entry<'_> {
    /// Returns the key as it is listed and the length of its value; `None` for a delete.
    fn listed(&self, attached: impl Fn(&[u8]) -> Attached) -> Option<(usize, ListedKey)> {
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
                let (key, Attached { lease, expiry }) = (Arc::clone(key), attached(key));
                let Origin { revision, created, version, .. } = slot.origin;
                let key = ListedKey { key, revision, created, version, lease, expiry, value };
                (length, key)
            }
            Self::Waiting(Waiting { key, value, .. }) => {
                let (key, value) = (Arc::from(&key[..]), value.as_ref()?);
                let waits = ListedKey {
                    key,
                    revision: Revision::default(),
                    created: Revision::default(),
                    version: 0,
                    lease: LeaseId::default(),
                    expiry: None,
                    value: ListedValue::Waiting(value.clone()),
                };
                (value.len(), waits)
            }
        };
        Some((length, key))
    }
}

/// Merges both in key order; where both have a key, the waiting write wins.
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
