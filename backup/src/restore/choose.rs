//! Chooses the backup to restore.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::RestoreOptions;
use crate::Progress;
use crate::catalog::{self, Backup};
use crate::destination::Destination;
use crate::error::BackupError;
use crate::session::Tell;

/// Returns the backup to restore.
pub(super) async fn choose(
    destination: &Destination,
    options: &RestoreOptions,
    tell: Tell<'_>,
) -> Result<String, BackupError> {
    if let Some(name) = &options.backup {
        return catalog::find(destination, name).await;
    }
    let list = catalog::list(destination).await?;
    let at_ms = options.at_ms.unwrap_or(u64::MAX);
    let of =
        |name: &str| options.keyspaces.is_empty() || options.keyspaces.iter().any(|it| it == name);
    // The keyspaces that some backup can give back.
    let reached = |backup: &Backup| backup.reaches(at_ms).any(|(name, _)| of(name));
    let fitting: Vec<&Backup> = list.iter().filter(|backup| reached(backup)).collect();
    let known: BTreeSet<&str> = fitting
        .iter()
        .flat_map(|backup| backup.reaches(at_ms))
        .map(|(name, _)| name)
        .filter(|name| of(name))
        .collect();
    if fitting.is_empty() {
        let later = list.iter().any(|it| it.reaches(u64::MAX).any(|(name, _)| of(name)));
        let shown = destination.shown();
        return Err(BackupError::NotFound(match (options.at_ms, later) {
            (Some(_), true) => {
                format!("no backup in {shown} has that moment; backup list shows which there are")
            }
            _ => format!("{shown} has no complete backup"),
        }));
    }
    // A later backup of one keyspace does not stand for all of them.
    let is_of_all = |backup: &&Backup| backup.all || !options.keyspaces.is_empty();
    let of_all: Vec<&Backup> = fitting.iter().copied().filter(is_of_all).collect();
    let among = if of_all.is_empty() { &fitting } else { &of_all };
    // Neither does one that has only begun with some.
    let lacks = |backup: &Backup| {
        let has: BTreeSet<&str> = backup.reaches(at_ms).map(|(name, _)| name).collect();
        let names = backup.keyspaces.iter().map(|contents| contents.name.as_str());
        names.filter(|name| known.contains(name) && !has.contains(name)).count()
    };
    let closest = |backup: &Backup| {
        backup.reaches(at_ms).filter(|(name, _)| of(name)).map(|(_, ms)| ms).max()
    };
    let best = among.iter().max_by_key(|backup| (Reverse(lacks(backup)), closest(backup)));
    let Some(best) = best else {
        return Err(BackupError::NotFound(format!("{} has no backup", destination.shown())));
    };
    if of_all.is_empty() {
        let missing: Vec<&str> = known
            .into_iter()
            .filter(|name| best.reaches(at_ms).all(|(found, _)| found != *name))
            .collect();
        if !missing.is_empty() {
            return Err(BackupError::Refused(format!(
                "no backup in {} is of all keyspaces, and the last one lacks {}; name a keyspace \
                 with --keyspace, or a backup with --backup",
                destination.shown(),
                missing.join(", ")
            )));
        }
    }
    let later: Vec<&str> = fitting
        .iter()
        .filter(|backup| closest(backup) > closest(best))
        .map(|backup| backup.name.as_str())
        .collect();
    if !later.is_empty() {
        tell(Progress::Note(format!(
            "restoring {}, the last one of all keyspaces; later ones have only some of them: {}",
            best.name,
            later.join(", ")
        )));
    }
    Ok(best.name.clone())
}
