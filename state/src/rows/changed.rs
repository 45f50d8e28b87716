//! The rows of past versions that changed since the last checkpoint.
//!
//! Each put retires a version and each sweep removes one, so noting a row has to be cheap: it is
//! appended, without a search and without ever moving what is there. The checkpoint sorts them,
//! away from the path of the writes.

use super::{HistoryRow, VersionKey};

/// Rows that one allocation holds.
const CHUNK_ROWS: usize = 1024;

/// A changed row; `None` for a version that was removed.
type ChangedRow = (VersionKey, Option<HistoryRow>);

/// Rows of past versions in the order in which they changed. The row of a version is made at most
/// once and removed at most once.
#[derive(Debug, Default)]
pub(crate) struct ChangedRows {
    chunks: Vec<Vec<ChangedRow>>,
    len: usize,
}

impl ChangedRows {
    /// Returns the number of changes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a change.
    pub(crate) fn push(&mut self, name: VersionKey, row: Option<HistoryRow>) {
        self.len += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ROWS => chunk.push((name, row)),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_ROWS);
                chunk.push((name, row));
                self.chunks.push(chunk);
            }
        }
    }

    /// Adds changes that came before these.
    pub(crate) fn prepend(&mut self, mut earlier: Self) {
        earlier.chunks.append(&mut self.chunks);
        earlier.len += self.len;
        *self = earlier;
    }

    /// Returns all changes, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&VersionKey, Option<&HistoryRow>)> {
        self.chunks.iter().flatten().map(|(name, row)| (name, row.as_ref()))
    }

    /// Returns what the changes come to, by name. A version that was made and removed among them is
    /// left out: no checkpoint has it.
    pub(crate) fn sorted(&self) -> Vec<(&VersionKey, Option<&HistoryRow>)> {
        let mut rows: Vec<_> = self.rows().collect();
        rows.sort_by_key(|(name, _)| *name);
        let mut kept = Vec::with_capacity(rows.len());
        for same in rows.chunk_by(|(a, _), (b, _)| a == b) {
            if let [row] = same {
                kept.push(*row);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests;
