//! Reads chains back, and checks each chunk on the way.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use super::chain::{Chain, Link};
use super::chunk::{self, Hash};
use super::destination::{Destination, MANIFEST, PLAN};
use super::error::BackupError;
use super::plan::{Manifest, Plan};
use super::record::Records;
use super::writer::chunk_name;

/// Chunks that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Reads the plan of a backup.
pub(crate) async fn plan(
    destination: &Destination,
    backup: &str,
) -> Result<(Plan, Hash), BackupError> {
    let name = format!("{backup}/{PLAN}");
    let bytes = destination.read(&name).await?;
    let opened = chunk::open_document::<Plan>(&bytes);
    let (plan, hash) =
        opened.map_err(|error| BackupError::damaged(&destination.place(&name), error))?;
    if plan.backup != backup {
        return Err(BackupError::damaged(&destination.place(&name), "it is of another backup"));
    }
    Ok((plan, hash))
}

/// Reads the plan of a backup; `None` if it is damaged, or was removed meanwhile.
///
/// # Errors
/// It cannot be read at the moment.
pub(crate) async fn whole_plan(
    destination: &Destination,
    backup: &str,
) -> Result<Option<(Plan, Hash)>, BackupError> {
    match plan(destination, backup).await {
        Err(BackupError::Damaged { .. }) => Ok(None),
        read => read.map(Some),
    }
}

/// Reads the manifest of a backup; `None` if it is not complete.
pub(crate) async fn manifest(
    destination: &Destination,
    backup: &str,
) -> Result<Option<(Manifest, u64)>, BackupError> {
    let name = format!("{backup}/{MANIFEST}");
    let Some(bytes) = destination.find(&name).await? else { return Ok(None) };
    let opened = chunk::open_document(&bytes);
    let (manifest, _) =
        opened.map_err(|error| BackupError::damaged(&destination.place(&name), error))?;
    Ok(Some((manifest, bytes.len() as u64)))
}

/// Returns the numbers of the chunks of each keyspace in a backup, in order, with their sizes.
pub(crate) async fn numbers(
    destination: &Destination,
    backup: &str,
) -> Result<Vec<(String, Vec<(u64, u64)>)>, BackupError> {
    let mut all: Vec<(String, Vec<(u64, u64)>)> = Vec::new();
    for (name, size) in destination.objects(backup).await? {
        let Some((keyspace, number)) = name.split_once('/') else { continue };
        let Ok(number) = number.parse() else { continue };
        match all.last_mut() {
            Some((last, numbers)) if last == keyspace => numbers.push((number, size)),
            _ => all.push((keyspace.to_owned(), vec![(number, size)])),
        }
    }
    Ok(all)
}

/// Returns the numbers of the chunks of one keyspace, in order, with their sizes.
pub(crate) async fn numbers_of(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
) -> Result<Vec<(u64, u64)>, BackupError> {
    let all = numbers(destination, backup).await?;
    let found = all.into_iter().find(|(name, _)| name == keyspace);
    Ok(found.map(|(_, numbers)| numbers).unwrap_or_default())
}

/// Opens a chunk: its link and its records.
pub(crate) async fn open(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    number: u64,
) -> Result<(Link, Records), BackupError> {
    let name = chunk_name(backup, keyspace, number);
    let bytes = destination.read(&name).await?;
    let stored_bytes = bytes.len() as u64;
    let opening = tokio::task::spawn_blocking(move || chunk::open(&bytes)).await;
    let opened = opening.map_err(|error| BackupError::Destination(error.to_string()))?;
    let damaged =
        |why: &dyn std::fmt::Display| BackupError::damaged(&destination.place(&name), why);
    let (header, body, hash) = opened.map_err(|error| damaged(&error))?;
    let is_it = header.backup == backup && header.keyspace == keyspace && header.number == number;
    if !is_it {
        return Err(damaged(&"it is a chunk of another place"));
    }
    Ok((Link { header, hash, stored_bytes }, Records::new(body)))
}

/// Opens chunks in order, a few of them ahead.
pub(crate) fn open_all<'a>(
    destination: &'a Destination,
    backup: &'a str,
    keyspace: &'a str,
    numbers: impl IntoIterator<Item = u64> + 'a,
) -> impl Stream<Item = Result<(Link, Records), BackupError>> + 'a {
    let opening = move |number| open(destination, backup, keyspace, number);
    stream::iter(numbers).map(opening).buffered(AT_ONCE)
}

/// Reads and checks a chain: each chunk, and that each follows the one before.
///
/// # Errors
/// The first chunk that is damaged or missing.
pub(crate) async fn chain(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
    mut each: impl FnMut(&Link),
) -> Result<Chain, BackupError> {
    let until = |chain: &Chain| {
        chain.last().into_iter().for_each(&mut each);
        false
    };
    chain_until(destination, backup, keyspace, numbers, until).await
}

/// Reads and checks a chain until it has enough.
///
/// # Errors
/// As for [`chain`].
pub(crate) async fn chain_until(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
    mut is_enough: impl FnMut(&Chain) -> bool,
) -> Result<Chain, BackupError> {
    let mut chain = Chain::default();
    let all = numbers.iter().map(|(number, _)| *number);
    let mut opened = std::pin::pin!(open_all(destination, backup, keyspace, all.clone()));
    for number in all {
        let Some(opened) = opened.next().await else { break };
        let name = chunk_name(backup, keyspace, number);
        let damaged =
            |why: &dyn std::fmt::Display| BackupError::damaged(&destination.place(&name), why);
        let (link, records) = match opened {
            Err(BackupError::Damaged { .. })
                if is_pruned(destination, backup, keyspace, number).await? =>
            {
                chain = Chain::default();
                continue;
            }
            opened => opened?,
        };
        let mut count = 0;
        for record in records {
            record.map_err(|error| damaged(&error))?;
            count += 1;
        }
        if count != link.header.records {
            return Err(damaged(&"it has another number of records than it says"));
        }
        let length = chain.links().len();
        chain.push(link).map_err(|error| damaged(&error))?;
        if chain.links().len() > length && is_enough(&chain) {
            break;
        }
    }
    if let (Some((number, _)), None) = (numbers.first(), chain.last()) {
        let place = destination.place(&chunk_name(backup, keyspace, *number));
        return Err(BackupError::damaged(&place, "the beginning of its chain is missing"));
    }
    Ok(chain)
}

/// Returns whether a chunk was pruned after it was listed: nothing up to it is left.
async fn is_pruned(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    number: u64,
) -> Result<bool, BackupError> {
    let left = numbers_of(destination, backup, keyspace).await?;
    Ok(left.first().is_some_and(|(first, _)| *first > number))
}

/// Returns the last key of the pages of a chunk.
pub(crate) async fn last_key(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    number: u64,
) -> Result<Bytes, BackupError> {
    let (_, records) = open(destination, backup, keyspace, number).await?;
    let mut last = Bytes::new();
    for record in records {
        if let Ok(super::record::Record::Key(put)) = record {
            last = Bytes::copy_from_slice(&put.key);
        }
    }
    Ok(last)
}
