//! Finds the chunks that lead to a moment, in a backup and in those that it goes on from.

use dkv_api::KeyspaceSettings;

use super::RestoreOptions;
use crate::catalog;
use crate::chain::{Begin, Chain, moment_ms};
use crate::chunk::Content;
use crate::destination::Destination;
use crate::error::BackupError;
use crate::reader;

/// Backups that lead to one at most.
const PARENTS_MAX: usize = 10_000;

/// Returns the backup to restore.
pub(super) async fn choose(
    destination: &Destination,
    options: &RestoreOptions,
) -> Result<String, BackupError> {
    if let Some(name) = &options.backup {
        return catalog::find(destination, name).await;
    }
    let all = catalog::list(destination).await?;
    let at_ms = options.at_ms.unwrap_or(u64::MAX);
    let mut best: Option<(u64, String)> = None;
    let mut reach = None;
    for backup in all.into_iter().filter(|backup| backup.complete) {
        let of = |name: &String| options.keyspaces.is_empty() || options.keyspaces.contains(name);
        for contents in backup.keyspaces.iter().filter(|contents| of(&contents.name)) {
            let (Some(from), Some(through)) = (contents.from_ms, contents.through_ms) else {
                continue;
            };
            reach = reach.max(Some(through));
            let closest = through.min(at_ms);
            if from <= at_ms && best.as_ref().is_none_or(|(time, _)| *time <= closest) {
                best = Some((closest, backup.name.clone()));
            }
        }
    }
    match (best, options.at_ms) {
        (Some((_, backup)), _) => Ok(backup),
        (None, Some(_)) if reach.is_some() => Err(BackupError::NotFound(format!(
            "no backup in {} has that moment; backup list shows which there are",
            destination.shown()
        ))),
        (None, _) => {
            Err(BackupError::NotFound(format!("{} has no complete backup", destination.shown())))
        }
    }
}

/// Returns the number of the first chunk that counts.
pub(super) async fn first_of(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
) -> Result<u64, BackupError> {
    let manifest = reader::manifest(destination, backup).await?;
    let chains = manifest.map(|(manifest, _)| manifest.chains).unwrap_or_default();
    let chain = chains.iter().find(|chain| chain.keyspace == keyspace);
    Ok(chain.map_or(0, |chain| chain.first))
}

/// Reads the headers of a chain. What a writer that was killed has left at its end does not count.
pub(super) async fn readable(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
) -> Result<Chain, BackupError> {
    reader::chain(destination, backup, keyspace, numbers, |_| {}).await
}

/// Chunks of one backup.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) backup: String,
    /// Chunks with pages of the base, in order.
    pub(super) pages: Vec<u64>,
    /// Chunks with changes and leases, in order.
    pub(super) changes: Vec<u64>,
}

/// Where the keys of a keyspace at a cut are.
pub(super) struct Source {
    pub(super) backup: String,
    pub(super) keyspace: String,
    pub(super) settings: KeyspaceSettings,
    pub(super) cut: String,
    pub(super) at_ms: u64,
    /// The oldest first.
    pub(super) segments: Vec<Segment>,
    pub(super) bytes: u64,
}

/// Finds the run that leads to a moment, with those of the backups before it.
pub(super) async fn source(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    chain: &Chain,
    at_ms: u64,
) -> Result<Option<Source>, BackupError> {
    let Some(run) = chain.run_at(at_ms) else { return Ok(None) };
    let through = chain.through_ms().unwrap_or_default();
    if at_ms != u64::MAX && at_ms > through && moment_ms(run.cut) < at_ms {
        let why = format!(
            "keyspace {keyspace} in backup {backup} ends before that moment; backup show says when, \
             and without --at the last one is restored"
        );
        return Err(BackupError::NotFound(why));
    }
    let (cut, taken_ms) = (run.cut.token.clone(), run.cut.taken_ms);
    let mut settings = None;
    let mut segments = Vec::new();
    let mut bytes = 0;
    let mut next = Some((backup.to_owned(), chain.clone(), cut.clone()));
    while let Some((name, chain, token)) = next.take() {
        let place = destination.place(&name);
        let missing = || BackupError::damaged(&place, "it lacks the cut that another goes on from");
        let run = chain.run_of(&token).ok_or_else(missing)?;
        let mut segment = Segment { backup: name, pages: Vec::new(), changes: Vec::new() };
        let mut bases = 0;
        for link in run.links {
            bytes += link.header.data_bytes;
            match &link.header.content {
                Content::Base { settings: found, .. } | Content::After { settings: found, .. } => {
                    bases += 1;
                    settings.get_or_insert_with(|| found.clone());
                }
                // A base that begins while the run goes on is not part of it.
                Content::Pages { .. } if bases == 1 => segment.pages.push(link.header.number),
                Content::Changes { .. } => segment.changes.push(link.header.number),
                Content::Pages { .. } | Content::Dropped { .. } => {}
            }
        }
        let begin = run.begin;
        segments.insert(0, segment);
        if let Begin::After { parent, cut } = begin {
            if segments.len() > PARENTS_MAX {
                return Err(BackupError::damaged(&place, "it goes on from too many others"));
            }
            let numbers = reader::numbers_of(destination, parent, keyspace).await?;
            let first = first_of(destination, parent, keyspace).await?;
            let numbers: Vec<_> =
                numbers.into_iter().filter(|(number, _)| *number >= first).collect();
            let chain = readable(destination, parent, keyspace, &numbers).await?;
            next = Some((parent.to_owned(), chain, cut.to_owned()));
        }
    }
    Ok(Some(Source {
        backup: backup.to_owned(),
        keyspace: keyspace.to_owned(),
        settings: settings.unwrap_or_default(),
        cut,
        at_ms: taken_ms,
        segments,
        bytes,
    }))
}
