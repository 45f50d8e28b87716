//! What a destination has: lists, shows, checks and prunes backups.

mod prune;

use std::collections::BTreeSet;

use uuid::Uuid;

pub use self::prune::{PruneOptions, Pruned, prune};
use super::Progress;
use super::chain::Chain;
use super::chunk::{Content, CutMark};
use super::contents::Contents;
use super::destination::Destination;
use super::error::BackupError;
use super::plan::{Kind, Plan};
use super::reader;
use super::session::Tell;
use super::writer::chunk_name;

/// A backup in a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The network that it is of.
    pub network: Uuid,
    /// When it began, in milliseconds since 1970.
    pub begun_ms: u64,
    /// Whether it can be restored.
    pub complete: bool,
    /// The damage that keeps it from being read, if there is some.
    pub fault: Option<String>,
    /// The backup that it goes on from.
    pub parent: Option<String>,
    /// Whether it is of all keyspaces that there were, and not of one that was named.
    pub all: bool,
    /// What it has of each keyspace.
    pub keyspaces: Vec<KeyspaceContents>,
    /// Bytes in the destination.
    pub stored_bytes: u64,
}

impl Backup {
    /// Returns the keyspaces that can be restored at a moment, in milliseconds since 1970, each
    /// with the moment that comes closest.
    pub(crate) fn reaches(&self, at_ms: u64) -> impl Iterator<Item = (&str, u64)> {
        self.keyspaces.iter().filter_map(move |contents| {
            let (from_ms, through_ms) = (contents.from_ms?, contents.through_ms?);
            (from_ms <= at_ms).then(|| (contents.name.as_str(), through_ms.min(at_ms)))
        })
    }
}

/// A keyspace in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceContents {
    /// Its name.
    pub name: String,
    /// The first moment at which it can be restored, in milliseconds since 1970; `None` if it
    /// cannot.
    pub from_ms: Option<u64>,
    /// Until when the backup has everything, in milliseconds since 1970.
    pub through_ms: Option<u64>,
    /// Bytes in the destination.
    pub stored_bytes: u64,
    /// Its chunks.
    pub chunks: u64,
}

/// Lists the backups of a destination, the oldest first.
///
/// # Errors
/// The destination cannot be read.
pub async fn list(destination: &Destination) -> Result<Vec<Backup>, BackupError> {
    let mut backups = Vec::new();
    for name in destination.backups().await? {
        backups.push(match show(destination, &name).await {
            Err(error @ BackupError::Damaged { .. }) => Backup {
                name,
                kind: Kind::Full,
                network: Uuid::nil(),
                begun_ms: 0,
                complete: false,
                fault: Some(error.to_string()),
                parent: None,
                all: false,
                keyspaces: Vec::new(),
                stored_bytes: 0,
            },
            shown => shown?,
        });
    }
    Ok(backups)
}

/// Finds a backup by its name, or the beginning of it; `latest` is the last one that is complete.
///
/// # Errors
/// There is none, or there are several.
pub async fn find(destination: &Destination, name: &str) -> Result<String, BackupError> {
    let all = destination.backups().await?;
    if name == "latest" {
        for backup in all.iter().rev() {
            match show(destination, backup).await {
                Ok(shown) if shown.complete => return Ok(backup.clone()),
                Ok(_) | Err(BackupError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let why = format!("{} has no complete backup", destination.shown());
        return Err(BackupError::NotFound(why));
    }
    let found: Vec<&String> = all.iter().filter(|backup| backup.starts_with(name)).collect();
    match found.as_slice() {
        [only] if !name.is_empty() => Ok((*only).clone()),
        [_, _, ..] if !name.is_empty() => {
            let why = format!("{} backups begin with {name}; write more of it", found.len());
            Err(BackupError::NotFound(why))
        }
        _ => {
            let shown = destination.shown();
            let why =
                format!("there is no backup {name} in {shown}; backup list {shown} shows them");
            Err(BackupError::NotFound(why))
        }
    }
}

/// Returns the summary of a backup.
///
/// # Errors
/// It cannot be read, or its plan or its manifest is damaged. Other damage is no error: see
/// [`Backup::fault`].
pub async fn show(destination: &Destination, backup: &str) -> Result<Backup, BackupError> {
    let (plan, _) = reader::plan(destination, backup).await?;
    let numbers = reader::numbers(destination, backup).await?;
    let manifest = reader::manifest(destination, backup).await?;
    let mut keyspaces = Vec::new();
    let mut fault = None;
    for (name, numbers) in &numbers {
        let mut contents = KeyspaceContents {
            name: name.clone(),
            from_ms: None,
            through_ms: None,
            stored_bytes: numbers.iter().map(|(_, size)| size).sum(),
            chunks: numbers.len() as u64,
        };
        if plan.kind == Kind::Followed || manifest.is_some() {
            match reach(destination, &plan, name, numbers).await {
                Ok((from_ms, through_ms)) => {
                    (contents.from_ms, contents.through_ms) = (from_ms, through_ms);
                }
                Err(error @ BackupError::Damaged { .. }) => {
                    fault.get_or_insert_with(|| error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        keyspaces.push(contents);
    }
    let complete = match plan.kind {
        Kind::Followed => keyspaces.iter().any(|it| it.from_ms.is_some()),
        Kind::Full | Kind::Increment => manifest.is_some() && fault.is_none(),
    };
    let manifest_bytes = manifest.map_or(0, |(_, bytes)| bytes);
    Ok(Backup {
        name: backup.to_owned(),
        kind: plan.kind,
        network: plan.network,
        begun_ms: plan.begun_ms,
        complete,
        fault,
        parent: plan.parent,
        all: plan.all,
        stored_bytes: keyspaces.iter().map(|it| it.stored_bytes).sum::<u64>() + manifest_bytes,
        keyspaces,
    })
}

/// Returns the first and the last moment at which a keyspace can be restored.
async fn reach(
    destination: &Destination,
    plan: &Plan,
    keyspace: &str,
    numbers: &[(u64, u64)],
) -> Result<(Option<u64>, Option<u64>), BackupError> {
    let last = last_cut(destination, &plan.backup, keyspace, numbers).await?;
    let through_ms = last.map(|(cut, _)| cut.taken_ms);
    if plan.kind != Kind::Followed {
        return Ok((through_ms, through_ms));
    }
    let has_run = |chain: &Chain| chain.runs().next().is_some();
    let chain = reader::chain_until(destination, &plan.backup, keyspace, numbers, has_run).await?;
    let from_ms = chain.runs().last().map(|run| run.cut.taken_ms);
    Ok((from_ms, through_ms.filter(|_| from_ms.is_some())))
}

/// Returns the last cut of a keyspace, and whether the keyspace was dropped after it. A base that
/// has begun after the cut changes nothing until it is complete.
async fn last_cut(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
) -> Result<Option<(CutMark, bool)>, BackupError> {
    let (mut is_end, mut is_dropped) = (true, false);
    for (number, _) in numbers.iter().rev() {
        let (link, _) = match reader::open(destination, backup, keyspace, *number).await {
            // The last chunk may have been written half when its writer was killed.
            Err(BackupError::Damaged { .. }) if is_end => continue,
            opened => opened?,
        };
        is_end = false;
        match link.header.content {
            Content::Changes { cut: Some(cut), .. } => return Ok(Some((cut, is_dropped))),
            Content::Dropped { .. } => is_dropped = true,
            _ => {}
        }
    }
    Ok(None)
}

/// Reads the chunks from the last one back to one from which it is known how far the chain is.
pub(crate) async fn tail(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
) -> Result<Chain, BackupError> {
    let mut links = Vec::new();
    for (number, _) in numbers.iter().rev() {
        let (link, _) = match reader::open(destination, backup, keyspace, *number).await {
            // The last chunk may have been written half when its writer was killed.
            Err(BackupError::Damaged { .. }) if links.is_empty() => continue,
            opened => opened?,
        };
        let is_enough = matches!(
            link.header.content,
            Content::Changes { cut: Some(_), .. }
                | Content::Base { .. }
                | Content::After { .. }
                | Content::Dropped { .. }
        );
        links.push(link);
        if is_enough {
            break;
        }
    }
    let mut chain = Chain::tail();
    for link in links.into_iter().rev() {
        let place = destination.place(&chunk_name(backup, keyspace, link.header.number));
        chain.push(link).map_err(|error| BackupError::damaged(&place, error))?;
    }
    Ok(chain)
}

/// Returns the backup that an increment goes on from.
///
/// # Errors
/// There is none, or it is of another network or not complete.
pub(crate) async fn parent(
    destination: &Destination,
    network: Uuid,
    name: &str,
) -> Result<String, BackupError> {
    let name = find(destination, name).await?;
    let found = show(destination, &name).await?;
    if found.network != network {
        return Err(BackupError::Refused(format!("backup {name} is of another network")));
    }
    if !found.complete {
        return Err(BackupError::Refused(format!("backup {name} is not complete")));
    }
    Ok(name)
}

/// Returns the token of the last cut of a keyspace in a backup; `None` if there is none, or the
/// keyspace was dropped after it.
pub(crate) async fn cut_of(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
) -> Result<Option<String>, BackupError> {
    let numbers = reader::numbers_of(destination, backup, keyspace).await?;
    let last = last_cut(destination, backup, keyspace, &numbers).await?;
    Ok(last.filter(|(_, is_dropped)| !is_dropped).map(|(cut, _)| cut.token))
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Chunks that were read.
    pub chunks: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Keys and changes in them.
    pub records: u64,
    /// The faults that were found, a sentence each.
    pub problems: Vec<String>,
}

/// Reads everything of a backup, and of those that it goes on from, and checks it.
///
/// # Errors
/// The destination cannot be read. Damage is no error: see [`Verified::problems`].
pub async fn verify(
    destination: &Destination,
    backup: &str,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Verified, BackupError> {
    let mut verified = Verified::default();
    let mut next = Some(backup.to_owned());
    let mut seen = BTreeSet::new();
    while let Some(name) = next.take().filter(|name| seen.insert(name.clone())) {
        let plan = match one(destination, &name, &mut verified, tell).await {
            Ok(plan) => plan,
            Err(error @ BackupError::Damaged { .. }) => {
                verified.problems.push(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        next = plan.parent;
    }
    Ok(verified)
}

async fn one(
    destination: &Destination,
    backup: &str,
    verified: &mut Verified,
    tell: Tell<'_>,
) -> Result<Plan, BackupError> {
    let contents = Contents::read(destination, backup).await?;
    if !contents.is_complete() {
        let why = "it is not complete: its manifest is missing";
        return Err(BackupError::damaged(&destination.place(backup), why));
    }
    let bytes_of = contents.bytes();
    for keyspace in contents.keyspaces() {
        let (mut chunks, mut bytes, mut records) = (0, verified.bytes, 0);
        let read = contents.chain(keyspace, |link| {
            chunks += 1;
            bytes += link.stored_bytes;
            records += link.header.records;
            let keyspace = keyspace.clone();
            tell(Progress::Keys { keyspace, keys: records, bytes, bytes_of });
        });
        let read = read.await;
        verified.chunks += chunks;
        verified.bytes = bytes;
        verified.records += records;
        match read {
            Err(error @ BackupError::Damaged { .. }) => {
                verified.problems.push(error.to_string());
            }
            read => _ = read?,
        }
    }
    Ok(contents.plan)
}

#[cfg(test)]
mod tests;
