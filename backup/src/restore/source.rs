//! Finds the chunks that lead to a moment, in a backup and in those that it goes on from.

use std::collections::BTreeMap;

use dkv_api::KeyspaceSettings;

use super::RestoreOptions;
use super::choose::choose;
use crate::Progress;
use crate::chain::{After, Begin};
use crate::chunk::Content;
use crate::clock::shown;
use crate::contents::Contents;
use crate::destination::Destination;
use crate::error::BackupError;
use crate::plan::{Kind, Plan};
use crate::session::Tell;

/// Backups that lead to one at most.
const PARENTS_MAX: usize = 10_000;

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

/// Finds what to restore, and checks all of it.
///
/// # Errors
/// Something of it is damaged or missing, or cannot be restored at that moment.
pub(super) async fn sources(
    destination: &Destination,
    options: &RestoreOptions,
    tell: Tell<'_>,
) -> Result<Vec<Source>, BackupError> {
    let backup = choose(destination, options, tell).await?;
    let contents = Contents::read(destination, &backup).await?;
    if !contents.is_complete() {
        return Err(BackupError::Refused(format!(
            "backup {backup} is not complete, so it cannot be restored; backup list {} shows those \
             that are",
            destination.shown()
        )));
    }
    let (mut sources, mut parents) = (Vec::new(), Parents::new());
    for keyspace in contents.keyspaces() {
        if !options.keyspaces.is_empty() && !options.keyspaces.contains(keyspace) {
            continue;
        }
        let is_named = !options.keyspaces.is_empty();
        let at_ms = options.at_ms;
        match source(destination, &contents, &mut parents, keyspace, at_ms, is_named).await? {
            Found::Source(source) => sources.push(source),
            Found::Nothing(why) if !is_named => {
                tell(Progress::Note(format!("keyspace {keyspace} is left out: {why}")));
            }
            Found::Nothing(_) => {}
        }
    }
    if let Some(missing) =
        options.keyspaces.iter().find(|name| sources.iter().all(|it| it.keyspace != **name))
    {
        let why = format!("backup {backup} has no keyspace {missing} at that time");
        return Err(BackupError::NotFound(why));
    }
    if sources.is_empty() {
        let why = format!("backup {backup} has nothing that can be restored at that time");
        return Err(BackupError::NotFound(why));
    }
    Ok(sources)
}

/// Backups that others go on from, by their names.
type Parents<'a> = BTreeMap<String, Contents<'a>>;

/// The outcome of the search for a keyspace.
enum Found {
    /// Something to restore.
    Source(Source),
    /// Nothing, for a reason.
    Nothing(String),
}

/// Finds the run that leads to a moment, with those of the backups before it. A keyspace that was
/// dropped by then is found if it is named.
async fn source<'a>(
    destination: &'a Destination,
    contents: &Contents<'a>,
    parents: &mut Parents<'a>,
    keyspace: &str,
    at_ms: Option<u64>,
    is_named: bool,
) -> Result<Found, BackupError> {
    let Plan { backup, kind, .. } = &contents.plan;
    let chain = contents.chain(keyspace, |_| {}).await?;
    let Some(run) = chain.run_at(at_ms.unwrap_or(u64::MAX)) else {
        return match (kind, at_ms) {
            (Kind::Followed, None) => {
                Ok(Found::Nothing(format!("backup {backup} does not have all of its keys yet")))
            }
            (Kind::Followed, Some(_)) => {
                Ok(Found::Nothing(format!("backup {backup} has no moment of it until then")))
            }
            (_, Some(_)) => Err(BackupError::NotFound(format!(
                "keyspace {keyspace} in backup {backup} was taken later than that; see backup \
                 show, or omit --at"
            ))),
            (_, None) => {
                let place = destination.place(&format!("{backup}/{keyspace}"));
                Err(BackupError::damaged(&place, "it has no moment that can be restored"))
            }
        };
    };
    let cut_ms = run.cut.taken_ms;
    // People name seconds, and copy that of the last cut from what backup show prints.
    let is_past = at_ms.is_some_and(|at_ms| at_ms / 1000 > cut_ms / 1000);
    match chain.after(&run) {
        After::Dropped { at_ms: dropped_ms } if at_ms.is_none_or(|at_ms| dropped_ms <= at_ms) => {
            if !is_named {
                return Ok(Found::Nothing(format!("it was dropped at {}", shown(dropped_ms))));
            }
        }
        After::Cut => {}
        After::Gap if is_past => {
            return Err(BackupError::NotFound(format!(
                "keyspace {keyspace} in backup {backup} lacks what changed after {}: the network \
                 had forgotten it when the backup went on; name that moment, or a later one",
                shown(cut_ms)
            )));
        }
        After::End | After::Dropped { .. } if is_past => {
            return Err(BackupError::NotFound(format!(
                "keyspace {keyspace} in backup {backup} ends before that moment, at {}; without \
                 --at the last one is restored",
                shown(cut_ms)
            )));
        }
        After::End | After::Gap | After::Dropped { .. } => {}
    }
    let (cut, taken_ms) = (run.cut.token.clone(), run.cut.taken_ms);
    let mut settings = None;
    let mut segments = Vec::new();
    let mut bytes = 0;
    let mut next = Some((backup.clone(), chain.clone(), cut.clone()));
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
            if !parents.contains_key(parent) {
                let contents = Contents::read(destination, parent).await?;
                parents.insert(parent.to_owned(), contents);
            }
            let before = &parents[parent];
            if !before.is_complete() {
                let place = destination.place(parent);
                return Err(BackupError::damaged(&place, "its manifest is missing"));
            }
            let chain = before.chain(keyspace, |_| {}).await?;
            next = Some((parent.to_owned(), chain, cut.to_owned()));
        }
    }
    Ok(Found::Source(Source {
        backup: backup.clone(),
        keyspace: keyspace.to_owned(),
        settings: settings.unwrap_or_default(),
        cut,
        at_ms: taken_ms,
        segments,
        bytes,
    }))
}

#[cfg(test)]
mod tests;
