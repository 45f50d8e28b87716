use std::sync::Arc;

use dkv_base::id::{Revision, Stamp};

use super::{CHUNK_ROWS, ChangedRows};
use crate::rows::{HistoryRow, HistoryValue, Origin, VersionKey};

fn name(revision: u64) -> VersionKey {
    VersionKey { key: Arc::from(&b"key"[..]), revision: Revision(revision) }
}

fn row(revision: u64) -> Option<HistoryRow> {
    let revision = Revision(revision);
    let (stamp, created) = (Stamp(1), revision);
    let origin = Origin { revision, stamp, created, version: 1, position: 0 };
    Some(HistoryRow { origin, attachment: None, value: HistoryValue::Deleted })
}

fn of(rows: &ChangedRows) -> Vec<(u64, bool)> {
    rows.sorted().into_iter().map(|(name, row)| (name.revision.0, row.is_some())).collect()
}

#[test]
fn a_version_that_is_made_and_removed_between_two_checkpoints_is_in_neither() {
    let mut rows = ChangedRows::default();
    rows.push(name(7), row(7));
    rows.push(name(3), None);
    rows.push(name(9), row(9));
    rows.push(name(7), None);
    assert_eq!(rows.len(), 4);
    assert_eq!(of(&rows), [(3, false), (9, true)]);
}

#[test]
fn rows_that_are_put_back_come_before_later_ones() {
    let count = 2 * CHUNK_ROWS as u64 + 5;
    let mut rows = ChangedRows::default();
    for revision in 1..=count {
        rows.push(name(revision), row(revision));
    }
    let failed = std::mem::take(&mut rows);
    for revision in 1..=count {
        rows.push(name(revision), None);
    }
    rows.push(name(count + 1), row(count + 1));
    rows.prepend(failed);
    assert_eq!(rows.len(), 2 * count as usize + 1);
    assert_eq!(
        rows.rows().next().map(|(name, row)| (name.revision.0, row.is_some())),
        Some((1, true))
    );
    assert_eq!(of(&rows), [(count + 1, true)]);
}
