//! Ranges of keys with their versions, at a revision: which of them, how many of them.

use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::limits::VERSION_OVERHEAD_BYTES;
use dkv_wire::message::{Cut, Keys, RangeOptions, RangePart};

use super::reads_at::{FoundVersion, NotKept, VersionValue};
use super::shard::ShardState;

/// The keys of a range, or the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRange {
    /// The keys that pass the filters, in order.
    pub keys: Vec<FoundVersion>,
    /// Whether there are more that pass.
    pub more: bool,
    /// The number of keys that were looked at, whether they pass or not.
    pub count: u64,
    /// The bytes of the keys and values.
    pub bytes: usize,
    /// Whether there are more because the bytes are limited.
    pub is_cut: bool,
}

/// A part of a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Keys that existed.
    pub count: u64,
    /// The last key that was looked at; `None` if it was the last of the range.
    pub upto: Option<Arc<[u8]>>,
}

impl FoundRange {
    /// Takes a key, as far as the options let it pass and there is room. `version` is called if it
    /// is to be returned.
    pub(super) fn take(
        &mut self,
        options: &RangeOptions,
        bytes_max: usize,
        (revision, created): (Revision, Revision),
        version: impl FnOnce() -> FoundVersion,
    ) {
        self.count += 1;
        if options.part == RangePart::Count || self.more || !options.pass(revision, created) {
            return;
        }
        if options.keys_max > 0 && self.keys.len() as u64 >= options.keys_max {
            self.more = true;
            return;
        }
        let mut version = version();
        if options.part == RangePart::Keys {
            version.value = VersionValue::Omitted;
        }
        let bytes = version.bytes() + VERSION_OVERHEAD_BYTES;
        if self.bytes + bytes > bytes_max && !self.keys.is_empty() {
            (self.more, self.is_cut) = (true, true);
            return;
        }
        self.bytes += bytes;
        self.keys.push(version);
    }
}

impl ShardState {
    /// Returns the first keys of a range after one, as they were at a revision, as many as the
    /// options and the number of bytes allow.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn range_at(
        &self,
        keys: &Keys<'_>,
        after: &[u8],
        options: &RangeOptions,
        at: Revision,
        bytes_max: usize,
    ) -> Result<FoundRange, NotKept> {
        self.kept(Cut::at(at))?;
        let mut found = FoundRange::default();
        let from = start(keys, after);
        if at == self.revision() {
            for (key, slot) in self.slots_from(keys, from) {
                let origin = (slot.origin.revision, slot.origin.created);
                let version = || FoundVersion::newest(key, slot, self.attached(key));
                found.take(options, bytes_max, origin, version);
                if found.more {
                    break;
                }
            }
            return Ok(found);
        }
        for key in self.known_keys_from(keys, from) {
            let Some(version) = self.exists_at(&key, at) else { continue };
            let origin = (version.origin.revision, version.origin.created);
            found.take(options, bytes_max, origin, || version);
            if found.more {
                break;
            }
        }
        Ok(found)
    }

    /// Counts the keys of a range after one that existed at a revision; looks at a number of keys
    /// at most.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn count_at(
        &self,
        keys: &Keys<'_>,
        after: &[u8],
        at: Revision,
        looked_at_max: usize,
    ) -> Result<Counted, NotKept> {
        self.kept(Cut::at(at))?;
        let (mut count, mut seen) = (0, 0);
        let from = start(keys, after);
        if at == self.revision() {
            for (key, _) in self.slots_from(keys, from) {
                (count, seen) = (count + 1, seen + 1);
                if seen == looked_at_max {
                    return Ok(Counted { count, upto: Some(Arc::clone(key)) });
                }
            }
            return Ok(Counted { count, upto: None });
        }
        for key in self.known_keys_from(keys, from) {
            seen += 1;
            count += u64::from(self.exists_at(&key, at).is_some());
            if seen == looked_at_max {
                return Ok(Counted { count, upto: Some(key) });
            }
        }
        Ok(Counted { count, upto: None })
    }

    fn exists_at(&self, key: &[u8], at: Revision) -> Option<FoundVersion> {
        let found = self.version_at(key, Cut::at(at))?;
        (found.value != VersionValue::Deleted).then_some(found)
    }
}

/// Returns where a range begins, of which only the keys after one are wanted.
fn start<'a>(keys: &'a Keys<'_>, after: &'a [u8]) -> Bound<&'a [u8]> {
    let first = keys.first();
    if after.is_empty() || after < first { Bound::Included(first) } else { Bound::Excluded(after) }
}
