//! Removes what is old.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dkv_base::hlc::CLOCK_SKEW;
use futures::stream::{self, StreamExt};

use super::{Backup, list};
use crate::chain::{Begin, moment_ms};
use crate::clock::{now_ms, shown};
use crate::destination::{Destination, PLAN, REMOVED};
use crate::error::BackupError;
use crate::plan::Kind;
use crate::reader;
use crate::writer::chunk_name;

/// Objects that are deleted at the same time.
const DELETES_AT_ONCE: usize = 16;

/// What pruning removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// The time before which things are old, in milliseconds since 1970; `None` if there is no
    /// complete backup, so that nothing is.
    pub before_ms: Option<u64>,
    /// Backups that were removed, or would be.
    pub backups: Vec<String>,
    /// Chunks of followed backups that were removed, or would be.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Backups that stay because others go on from them.
    pub needed: Vec<String>,
}

/// How to prune.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// How far back from the newest moment of the destination everything stays.
    pub keep: Duration,
    /// Show only what would be removed.
    pub dry_run: bool,
    /// Prune although the newest moment has not come yet.
    pub sure: bool,
}

/// Removes backups that ended before a time, and what followed backups have from before it. The
/// time counts back from the newest moment that can be restored, so that a clock that is ahead, or
/// backups that have stopped, cost nothing. Keeps the last complete backup of all keyspaces and of
/// each one, those that others go on from, and everything that leads to the time itself. Keeps a
/// backup that is not complete if something of it was written since then, or if no later one is
/// complete.
///
/// # Errors
/// The destination cannot be read or written; or its newest moment is ahead of this machine's
/// clock, so that one of the clocks was wrong.
pub async fn prune(
    destination: &Destination,
    options: PruneOptions,
) -> Result<Pruned, BackupError> {
    prune_at(destination, options, now_ms()).await
}

/// Prunes when this machine's clock shows `now_ms`.
async fn prune_at(
    destination: &Destination,
    options: PruneOptions,
    now_ms: u64,
) -> Result<Pruned, BackupError> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let all = list(destination).await?;
    let whole = all.iter().filter(|backup| backup.complete);
    let newest = whole.flat_map(|backup| backup.reaches(u64::MAX)).map(|(_, ms)| ms).max();
    let Some(newest) = newest else { return Ok(Pruned::default()) };
    if newest > now_ms.saturating_add(ms(CLOCK_SKEW)) && !options.sure {
        return Err(BackupError::Refused(format!(
            "the newest moment in {} is {}, and the clock here shows {}, so one of the clocks was \
             wrong and what is old is not known; nothing was removed; check the clocks, and prune \
             with --yes",
            destination.shown(),
            shown(newest),
            shown(now_ms)
        )));
    }
    let before_ms = newest.saturating_sub(ms(options.keep));
    let pruned = before(destination, &all, before_ms, options.dry_run).await?;
    Ok(Pruned { before_ms: Some(before_ms), ..pruned })
}

/// Prunes what is before a time.
pub(super) async fn before(
    destination: &Destination,
    all: &[Backup],
    before_ms: u64,
    dry_run: bool,
) -> Result<Pruned, BackupError> {
    let through = |backup: &Backup| {
        let through = backup.keyspaces.iter().filter_map(|it| it.through_ms).max();
        through.unwrap_or(backup.begun_ms)
    };
    let last = last_ones(all);
    let last_complete = all.iter().rposition(|backup| backup.complete);
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    for (index, backup) in all.iter().enumerate() {
        // One that is not complete may still be written, however long ago it began.
        let is_growing = backup.fault.is_none()
            && !backup.complete
            && (last_complete.is_none_or(|last| last < index)
                || destination.written_ms(&backup.name).await? >= before_ms);
        // A damaged one is left to the user, who may want to save parts of it.
        let stays = through(backup) >= before_ms
            || is_growing
            || last.contains(backup.name.as_str())
            || backup.fault.is_some();
        if stays {
            kept.insert(&backup.name);
        }
    }
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for backup in all.iter().rev() {
        if (kept.contains(backup.name.as_str()) || needed.contains(backup.name.as_str()))
            && let Some(parent) = &backup.parent
        {
            needed.insert(parent);
        }
    }
    let mut pruned = Pruned::default();
    if !dry_run {
        for interrupted in destination.removed().await? {
            remove(destination, &interrupted).await?;
        }
    }
    for backup in all {
        let is_needed = needed.contains(backup.name.as_str());
        if kept.contains(backup.name.as_str()) {
            let is_whole = backup.complete && backup.fault.is_none();
            if backup.kind == Kind::Followed && is_whole && !is_needed {
                shorten(destination, &backup.name, before_ms, dry_run, &mut pruned).await?;
            }
            continue;
        }
        if is_needed {
            pruned.needed.push(backup.name.clone());
            continue;
        }
        pruned.bytes += backup.stored_bytes;
        pruned.backups.push(backup.name.clone());
        if !dry_run {
            remove(destination, &backup.name).await?;
        }
    }
    Ok(pruned)
}

/// Returns the last backup of all keyspaces, and the last one of each keyspace that is in a later
/// one. A keyspace that is not in the last one of all had been dropped by then.
fn last_ones(all: &[Backup]) -> BTreeSet<&str> {
    let is_whole = |backup: &Backup| {
        backup.all && backup.complete && backup.keyspaces.iter().all(|it| it.from_ms.is_some())
    };
    let of_all = all.iter().rposition(is_whole);
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for backup in &all[of_all.unwrap_or(0)..] {
        last.extend(backup.reaches(u64::MAX).map(|(name, _)| (name, backup.name.as_str())));
    }
    last.into_values().chain(of_all.map(|at| all[at].name.as_str())).collect()
}

/// Removes a backup. The plan goes last, so that an interrupted removal is known as one, and is
/// completed by the next prune.
async fn remove(destination: &Destination, backup: &str) -> Result<(), BackupError> {
    let mark = format!("{backup}/{REMOVED}");
    if !destination.exists(&mark).await? {
        destination.write(&mark, Bytes::new()).await?;
    }
    let names = destination.objects(backup).await?.into_iter().map(|(name, _)| name);
    let names = names.filter(|name| name != PLAN && name != REMOVED).collect();
    delete(destination, backup, names).await?;
    destination.delete(&mark).await?;
    destination.delete(&format!("{backup}/{PLAN}")).await?;
    destination.remove_folders(backup);
    Ok(())
}

async fn delete(
    destination: &Destination,
    backup: &str,
    names: Vec<String>,
) -> Result<(), BackupError> {
    let deleting =
        |name: String| async move { destination.delete(&format!("{backup}/{name}")).await };
    let mut deleted = stream::iter(names).map(deleting).buffer_unordered(DELETES_AT_ONCE);
    while let Some(deleted) = deleted.next().await {
        deleted?;
    }
    Ok(())
}

/// Removes the runs of a followed backup that nothing after a time stands on.
async fn shorten(
    destination: &Destination,
    backup: &str,
    before_ms: u64,
    dry_run: bool,
    pruned: &mut Pruned,
) -> Result<(), BackupError> {
    for (keyspace, numbers) in reader::numbers(destination, backup).await? {
        let chain = reader::chain(destination, backup, &keyspace, &numbers, |_| {}).await?;
        // The run of the last cut before the time has to stay.
        let at = chain.runs().take_while(|run| moment_ms(run.cut) <= before_ms).last();
        let Some(at) = at.filter(|run| run.begin == Begin::Base) else { continue };
        let first = at.links.first().map_or(0, |first| first.header.number);
        let old: Vec<&(u64, u64)> = numbers.iter().filter(|(number, _)| *number < first).collect();
        pruned.chunks += old.len() as u64;
        pruned.bytes += old.iter().map(|(_, size)| size).sum::<u64>();
        if !dry_run {
            // One after the other, the first ones first: what is left after an interruption has
            // lost its beginning, but has no gap.
            for (number, _) in old {
                destination.delete(&chunk_name(backup, &keyspace, *number)).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[tokio::test]
    async fn what_is_old_does_not_depend_on_this_machines_clock() {
        let sample = Sample::new();
        let old = sample.full(10, &["k"]).await.backup;
        sample.full(50, &["k"]).await;
        sample.full(60, &["k"]).await;
        let keep = Duration::from_secs(20);
        let options = PruneOptions { keep, dry_run: true, sure: false };
        let prune = async |options, now_ms| prune_at(&sample.destination, options, now_ms).await;
        for ahead in [60_000, 1_000_000_000_000] {
            let pruned = prune(options, ahead).await.unwrap();
            assert_eq!((pruned.backups, pruned.before_ms), (vec![old.clone()], Some(40_000)));
        }
    }

    #[tokio::test]
    async fn nothing_is_removed_if_a_backup_is_from_the_future() {
        let sample = Sample::new();
        let old = sample.full(10, &["k"]).await.backup;
        sample.full(20_000, &["k"]).await;
        let options = PruneOptions { keep: Duration::ZERO, dry_run: false, sure: false };
        let refused = prune_at(&sample.destination, options, 20_000).await.unwrap_err();
        assert!(refused.to_string().contains("nothing was removed"), "{refused}");
        assert_eq!(sample.destination.backups().await.unwrap().len(), 2);
        let sure = PruneOptions { sure: true, ..options };
        let pruned = prune_at(&sample.destination, sure, 20_000).await.unwrap();
        assert_eq!(pruned.backups, [old]);
    }
}
