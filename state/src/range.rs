//! Ranges of keys with their versions, at a revision: which of them, how many of them. A range is
//! read step by step.

use std::ops::Bound;
use std::sync::Arc;

use dkv_base::id::Revision;
use dkv_wire::limits::VERSION_OVERHEAD_BYTES;
use dkv_wire::message::{Cut, Keys, RangeOptions, RangePart};

use super::reads_at::{CHANGES_LOOKED_AT_MAX, FoundVersion, NotKept, VersionValue};
use super::shard::ShardState;
use super::walk::Cursor;

/// The keys of a range, or the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRange {
    /// The keys that pass the filters, in order.
    pub keys: Vec<FoundVersion>,
    /// Whether there are more that pass.
    pub more: bool,
    /// The number of keys that existed, whether they pass or not, as far as they were looked at.
    pub count: u64,
    /// The bytes of the keys and values.
    pub bytes: usize,
    /// Whether there are more because the bytes are limited.
    pub is_cut: bool,
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

/// The first keys of a range at a revision, on their way.
#[derive(Debug)]
pub struct RangingAt<'k> {
    /// The keys so far.
    pub found: FoundRange,
    pub(super) keys: Keys<'k>,
    pub(super) options: RangeOptions,
    pub(super) bytes_max: usize,
    pub(super) cursor: Cursor,
}

impl<'k> RangingAt<'k> {
    /// Begins with the first key of a range after one; takes as many as the options and the number
    /// of bytes allow. The revision of the options does not matter.
    pub fn new(keys: Keys<'k>, after: &[u8], options: RangeOptions, bytes_max: usize) -> Self {
        let cursor = Cursor::new(start(&keys, after));
        Self { found: FoundRange::default(), keys, options, bytes_max, cursor }
    }
}

impl ShardState {
    /// Adds keys to those of a range, as they were at a revision; looks at a bounded number of keys
    /// and versions. Returns whether the range is complete.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn range_more_at(
        &self,
        at: Revision,
        ranging: &mut RangingAt<'_>,
    ) -> Result<bool, NotKept> {
        self.range_steps(at, ranging, &mut { CHANGES_LOOKED_AT_MAX }, |_| false)
    }

    /// Adds keys that are not to be skipped; takes one of the `steps` for each key and version that
    /// it looks at.
    pub(super) fn range_steps(
        &self,
        at: Revision,
        ranging: &mut RangingAt<'_>,
        steps: &mut usize,
        skips: impl Fn(&[u8]) -> bool,
    ) -> Result<bool, NotKept> {
        self.kept(Cut::at(at))?;
        let RangingAt { found, keys, options, bytes_max, cursor } = ranging;
        if at == self.revision() {
            let begun = cursor.clone();
            for (key, slot) in self.slots_from(keys, begun.from()) {
                if *steps == 0 {
                    cursor.from = Bound::Included(Arc::clone(key));
                    return Ok(false);
                }
                *steps -= 1;
                if skips(key) {
                    continue;
                }
                let origin = (slot.origin.revision, slot.origin.created);
                let version = || FoundVersion::newest(key, slot, self.attached(key));
                found.take(options, *bytes_max, origin, version);
                if found.more {
                    break;
                }
            }
            return Ok(true);
        }
        while let Some(key) = self.next_key(cursor.from()).filter(|key| keys.contains(key)) {
            let looked_at = self.look_at(&key, Cut::at(at), cursor, steps);
            let Some(version) = looked_at else { return Ok(false) };
            let exists = |version: &FoundVersion| version.value != VersionValue::Deleted;
            let version = version.filter(|version| exists(version) && !skips(&key));
            let Some(version) = version else { continue };
            let origin = (version.origin.revision, version.origin.created);
            found.take(options, *bytes_max, origin, || version);
            if found.more {
                break;
            }
        }
        Ok(true)
    }
}

/// Returns where a range begins, of which only the keys after one are wanted.
fn start<'a>(keys: &'a Keys<'_>, after: &'a [u8]) -> Bound<&'a [u8]> {
    let first = keys.first();
    if after.is_empty() || after < first { Bound::Included(first) } else { Bound::Excluded(after) }
}
