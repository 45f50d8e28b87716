//! The keys of a keyspace at a cut, in order: its pages, with the changes up to the cut over them.
//!
//! Pages are of different moments, and none is later than the cut. Whatever changed after its page
//! was read is among the changes, so the latest change of a key in the cut is what counts, and the
//! page only where there is none. The latest change of each key is remembered; its value goes to
//! a temporary file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use dkv_api::SnapshotToken;

use super::record::{Attachment, Place, Put, Record};

/// What changed up to a cut: the latest change of each key.
pub(crate) struct Overlay {
    cut: BTreeMap<u32, u64>,
    moment: u64,
    keys: BTreeMap<Bytes, Latest>,
    spool: BufWriter<File>,
    spooled: u64,
}

/// The latest change of a key.
struct Latest {
    revision: u64,
    put: Option<Stored>,
}

/// What a change put, with the place of the value in the spool.
struct Stored {
    at: u64,
    length: u32,
    attachment: Option<Attachment>,
}

impl Overlay {
    /// Creates an overlay for a cut, whose values are kept in a file.
    pub(crate) fn new(cut: &SnapshotToken, spool: File) -> Self {
        let revisions = cut.cuts().map(|cut| (cut.shard.0, cut.revision.0)).collect();
        let spool = BufWriter::with_capacity(1 << 20, spool);
        Self { cut: revisions, moment: cut.moment().0, keys: BTreeMap::new(), spool, spooled: 0 }
    }

    fn is_in_cut(&self, place: Place) -> bool {
        let Place { shard, revision, stamp } = place;
        stamp <= self.moment && self.cut.get(&shard).is_some_and(|latest| revision <= *latest)
    }

    /// Takes a change, if it is in the cut and the latest of its key so far.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn add(&mut self, record: Record) -> std::io::Result<()> {
        let (place, key, put) = match record {
            Record::Put(place, put) => (place, put.key.clone(), Some(put)),
            Record::Delete(place, key) => (place, key, None),
            Record::Key(_) | Record::Lease { .. } => return Ok(()),
        };
        let later = self.keys.get(&key).is_none_or(|known| known.revision < place.revision);
        if !self.is_in_cut(place) || !later {
            return Ok(());
        }
        let put = match put {
            Some(Put { value, attachment, .. }) => {
                self.spool.write_all(&value)?;
                let at = self.spooled;
                self.spooled += value.len() as u64;
                Some(Stored { at, length: value.len() as u32, attachment })
            }
            None => None,
        };
        // A copy, so that the key does not keep its chunk in memory.
        let key = Bytes::copy_from_slice(&key);
        self.keys.insert(key, Latest { revision: place.revision, put });
        Ok(())
    }

    /// Completes the overlay.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn finish(self) -> std::io::Result<Changed> {
        let file = self.spool.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(Changed { keys: self.keys, file })
    }
}

/// The changes over the pages.
pub(crate) struct Changed {
    keys: BTreeMap<Bytes, Latest>,
    file: File,
}

/// A key at a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) attachment: Option<Attachment>,
}

/// Merges pages, whose keys come in order, with changes.
pub(crate) struct Merge {
    changed: Changed,
    last: Option<Bytes>,
}

/// Why keys cannot be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// The keys of the pages are not in order.
    #[error("its keys are not in order")]
    OutOfOrder,
    /// A value cannot be read back.
    #[error(transparent)]
    Spool(#[from] std::io::Error),
}

impl Merge {
    pub(crate) fn new(changed: Changed) -> Self {
        Self { changed, last: None }
    }

    /// Takes the next key of the pages; passes on the keys that are complete now.
    ///
    /// # Errors
    /// See [`MergeError`].
    pub(crate) fn page(&mut self, put: Put, out: &mut Vec<Entry>) -> Result<(), MergeError> {
        // A page may have been written again by a writer that was interrupted.
        if self.last.as_ref().is_some_and(|last| *last >= put.key) {
            return Err(MergeError::OutOfOrder);
        }
        while let Some(first) = self.changed.keys.first_entry() {
            if *first.key() > put.key {
                break;
            }
            let (key, latest) = first.remove_entry();
            let is_same = key == put.key;
            self.changed(key, latest, out)?;
            if is_same {
                self.last = Some(put.key);
                return Ok(());
            }
        }
        self.last = Some(put.key.clone());
        out.push(Entry { key: put.key, value: put.value, attachment: put.attachment });
        Ok(())
    }

    /// Passes on at most `most` of the keys after the last page. Returns whether there are more.
    ///
    /// # Errors
    /// A value cannot be read back.
    pub(crate) fn rest(&mut self, most: usize, out: &mut Vec<Entry>) -> Result<bool, MergeError> {
        for _ in 0..most {
            let Some((key, latest)) = self.changed.keys.pop_first() else { return Ok(false) };
            self.changed(key, latest, out)?;
        }
        Ok(!self.changed.keys.is_empty())
    }

    fn changed(&self, key: Bytes, latest: Latest, out: &mut Vec<Entry>) -> std::io::Result<()> {
        if let Some(Stored { at, length, attachment }) = latest.put {
            let mut value = vec![0; length as usize];
            self.changed.file.read_exact_at(&mut value, at)?;
            out.push(Entry { key, value: value.into(), attachment });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
