//! Restores a backup into keyspaces that are new or empty, and compares the result with the backup.
//!
//! A *mark*, a key that no backup has, is in a keyspace from before its first key is restored until
//! after the comparison. It says that the keyspace is not whole. The same restore
//! goes on after the last key that the mark names; any other is refused. Keys are written once
//! each, in order, so to go on is to write some of them again.

mod choose;
mod copy;
mod source;
mod target;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{
    Client, DEFAULT_KEYSPACE, Error, KeyspaceChange, KeyspaceSettings, ScanOptions, SnapshotToken,
};
use futures::stream::{self, StreamExt, TryStreamExt};

use self::copy::{Copy, Leases};
use self::source::{Segment, Source, sources};
use self::target::{Target, marked};
use super::Progress;
use super::chunk::{Content, Hash, KeysHash, hex};
use super::destination::Destination;
use super::error::BackupError;
use super::marker;
use super::merge::{Changed, Merge, MergeError, Overlay};
use super::pages::{take_snapshot, wait};
use super::reader;
use super::record::Record;
use super::session::Tell;
use super::throttle::Throttle;

/// Keys that are written at the same time.
const IN_FLIGHT: usize = 256;
/// Keys that are written before the mark is moved.
const BATCH_KEYS: usize = 8192;
/// Bytes of them.
const BATCH_BYTES: usize = 16 << 20;
/// Keys that are merged at a time; each may have the largest value that there is.
const ENTRIES_AT_ONCE: usize = 64;
/// Time for which a network that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to restore, and where to.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The backup; the one that fits `at` best, or the last complete one, by default.
    pub backup: Option<String>,
    /// The keyspaces; empty for all.
    pub keyspaces: Vec<String>,
    /// Another name for the only keyspace.
    pub rename: Option<String>,
    /// The moment, in milliseconds since 1970; the last one by default.
    pub at_ms: Option<u64>,
    /// Most bytes of keys and values to write in a second.
    pub rate: Option<u64>,
}

/// A keyspace that was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The backup.
    pub backup: String,
    /// The keyspace in the backup.
    pub keyspace: String,
    /// The keyspace in the network.
    pub restored_as: String,
    /// The moment, in milliseconds since 1970.
    pub at_ms: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Leases.
    pub leases: u64,
    /// Keys that have expired since they were restored.
    pub expired: u64,
    /// The hash of the keys with their values, of the backup and of the keyspace.
    pub hash: String,
    /// Whether it goes on from a restore that was interrupted.
    pub resumed: bool,
}

/// Restores keyspaces of a backup. Needs the role of an administrator. Tells of each keyspace when
/// it is whole.
///
/// # Errors
/// See [`BackupError`]; [`BackupError::Partly`] once something was restored. Nothing that was there
/// is changed.
pub async fn restore(
    client: &Client,
    destination: &Destination,
    options: &RestoreOptions,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Restored>, BackupError> {
    let sources = sources(destination, options, tell).await?;
    if options.rename.is_some() && sources.len() > 1 {
        let names: Vec<&str> = sources.iter().map(|it| it.keyspace.as_str()).collect();
        let why = format!(
            "there are several keyspaces ({}); say which one is to be restored under another name",
            names.join(", ")
        );
        return Err(BackupError::Refused(why));
    }
    // All are checked before the first is touched.
    for source in &sources {
        let name = options.rename.as_ref().unwrap_or(&source.keyspace);
        Target::check(client, name, source).await?;
    }
    let mut whole: Vec<Restored> = Vec::new();
    let names: Vec<String> = sources.iter().map(|source| source.keyspace.clone()).collect();
    for (at, source) in sources.into_iter().enumerate() {
        let name = options.rename.clone().unwrap_or_else(|| source.keyspace.clone());
        let backup = source.backup.clone();
        let restored = one(client, destination, source, name, options.rate, tell).await;
        let restored = restored.map_err(|error| match names.len() {
            1 => error,
            _ => {
                let list = |names: &[String]| match names {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                };
                error.partly(format!(
                    "restored before: {}; not begun: {}. Restore each that is missing by itself, \
                     with --backup {backup} --keyspace NAME and the same --at",
                    list(&names[..at]),
                    list(&names[at + 1..])
                ))
            }
        })?;
        tell(Progress::Restored(restored.clone()));
        whole.push(restored);
    }
    Ok(whole)
}

/// Removes what an interrupted restore has left in a keyspace: the keyspace itself if it was
/// created for that, otherwise its keys.
///
/// # Errors
/// There is no such keyspace, or no restore of it was interrupted.
pub async fn drop_interrupted(client: &Client, keyspace: &str) -> Result<(), BackupError> {
    let failed = "cannot drop what was restored";
    let target = client.keyspace(keyspace).await.map_err(BackupError::network(failed))?;
    let Some(marker) = marked(&target).await? else {
        let why = format!("no restore of keyspace {keyspace} was interrupted; nothing was dropped");
        return Err(BackupError::Refused(why));
    };
    if marker.created && keyspace != DEFAULT_KEYSPACE {
        // The one that has the mark, and no other that has its name by now.
        let dropped = client.drop_keyspace_by_id(target.keyspace_id()).await;
        return dropped.map_err(BackupError::network(failed));
    }
    let emptied = empty(&target).await.map_err(BackupError::network(failed));
    emptied.map_err(|error| {
        error.partly("some of the keys may be deleted already; run the same command again")
    })
}

/// Deletes all keys of a keyspace, and its mark last.
async fn empty(target: &Client) -> Result<(), Error> {
    let mut scan = target.scan(ScanOptions::default().values(false));
    loop {
        let page = scan.page(BATCH_KEYS, BATCH_BYTES).await?;
        let keys = page.pairs.into_iter().map(|pair| pair.key).filter(|key| key != marker::KEY);
        let deleting = keys.map(|key| async move {
            match target.delete(&key).await {
                Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        });
        stream::iter(deleting).buffer_unordered(IN_FLIGHT).try_collect::<Vec<()>>().await?;
        if !page.more {
            break;
        }
    }
    match target.delete(marker::KEY).await {
        // It was deleted by an attempt whose answer was lost.
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Restores one keyspace.
async fn one(
    client: &Client,
    destination: &Destination,
    source: Source,
    name: String,
    rate: Option<u64>,
    tell: Tell<'_>,
) -> Result<Restored, BackupError> {
    let target = Target::begin(client, &name, &source).await?;
    let of = source.keyspace.clone();
    let restored = filled(client, destination, source, name.clone(), target, rate, tell).await;
    restored.map_err(|error| {
        let own = if of == name { String::new() } else { format!(" --as {name}") };
        error.partly(format!(
            "what was restored of keyspace {name} so far stays, marked as not whole: restore \
             --keyspace {of}{own} of the same backup and moment goes on with it, and restore \
             --drop {name} removes it"
        ))
    })
}

/// Fills a keyspace that is marked.
async fn filled(
    client: &Client,
    destination: &Destination,
    source: Source,
    name: String,
    mut target: Target,
    rate: Option<u64>,
    tell: Tell<'_>,
) -> Result<Restored, BackupError> {
    if target.resumed {
        tell(Progress::Note(format!(
            "going on with keyspace {name}, whose restore was interrupted"
        )));
    }
    let (changed, leases) = changes(destination, &source).await?;
    let mut copy = Copy {
        leases: Leases::grant(&target.client, &leases).await?,
        at_ms: source.at_ms,
        skip: Bytes::from(target.marker.through.clone()),
        hash: KeysHash::new(),
        expiring: KeysHash::new(),
        throttle: Throttle::new(rate),
        batch: Vec::new(),
        batch_bytes: 0,
        keys: 0,
        bytes: 0,
    };
    let mut merge = Merge::new(changed);
    let damaged = |place: &str| {
        let place = destination.place(place);
        move |error: MergeError| match error {
            MergeError::OutOfOrder => BackupError::damaged(&place, error),
            MergeError::Spool(error) => BackupError::Spool(error),
        }
    };
    let Some(base) = source.segments.first() else {
        return Err(BackupError::damaged(&destination.place(&source.backup), "it has no base"));
    };
    let tell_keys = |copy: &Copy| {
        let (keyspace, keys, bytes) = (name.clone(), copy.keys, copy.bytes);
        tell(Progress::Keys { keyspace, keys, bytes, bytes_of: source.bytes });
    };
    let numbers = base.pages.iter().copied();
    let opened = reader::open_all(destination, &base.backup, &source.keyspace, numbers);
    let mut opened = std::pin::pin!(opened);
    let mut entries = Vec::new();
    while let Some(opened) = opened.next().await {
        let (_, records) = opened?;
        for record in records {
            let record = record.map_err(|error| BackupError::damaged(&base.backup, error))?;
            if let Record::Key(put) = record {
                merge.page(put, &mut entries).map_err(damaged(&base.backup))?;
            }
            if entries.len() >= ENTRIES_AT_ONCE {
                copy.take(&mut target, &mut entries).await?;
            }
        }
        copy.take(&mut target, &mut entries).await?;
        tell_keys(&copy);
    }
    let mut more = true;
    while more {
        more = merge.rest(ENTRIES_AT_ONCE, &mut entries).map_err(damaged(&base.backup))?;
        copy.take(&mut target, &mut entries).await?;
    }
    tell_keys(&copy);
    copy.write(&mut target).await?;
    let Copy { hash, expiring, leases: granted, .. } = copy;
    let (expected, expected_expiring) = (hash.finish(), expiring.finish());
    let found = compare(&target.client, &name, expected, expected_expiring).await?;
    // Their full time again, from now on.
    for keeper in &granted.keepers {
        let refreshed = target.client.refresh_lease(keeper.id()).await;
        refreshed.map_err(BackupError::network("cannot keep a lease alive"))?;
    }
    settle(client, &name, &source.settings).await?;
    target.finish().await?;
    Ok(Restored {
        backup: source.backup.clone(),
        keyspace: source.keyspace.clone(),
        restored_as: name,
        at_ms: source.at_ms,
        keys: expected.0 + expected_expiring.0,
        bytes: expected.1 + expected_expiring.1,
        leases: leases.len() as u64,
        expired: found,
        hash: hex(&expected.2),
        resumed: target.resumed,
    })
}

/// Gives a keyspace the settings that it had.
async fn settle(
    client: &Client,
    name: &str,
    settings: &KeyspaceSettings,
) -> Result<(), BackupError> {
    let change = KeyspaceChange {
        replication: None,
        history_age_ms: Some(settings.history_age_ms),
        history_bytes: Some(settings.history_bytes),
        quota_bytes: Some(settings.quota_bytes),
    };
    let set = client.set_keyspace(name, change).await;
    set.map_err(BackupError::network("cannot change the settings of the keyspace"))
}

/// Reads the changes and the leases up to the cut.
async fn changes(
    destination: &Destination,
    source: &Source,
) -> Result<(Changed, BTreeMap<u64, u64>), BackupError> {
    let damaged = |backup: &str, why: &dyn std::fmt::Display| {
        BackupError::damaged(&destination.place(backup), why)
    };
    let token: SnapshotToken =
        source.cut.parse().map_err(|error| damaged(&source.backup, &error))?;
    let spool = tempfile::tempfile().map_err(BackupError::Spool)?;
    let mut overlay = Overlay::new(&token, spool);
    let (mut leases, mut coming) = (BTreeMap::new(), BTreeMap::new());
    for Segment { backup, changes, .. } in &source.segments {
        let numbers = changes.iter().copied();
        let opened = reader::open_all(destination, backup, &source.keyspace, numbers);
        let mut opened = std::pin::pin!(opened);
        while let Some(opened) = opened.next().await {
            let (link, records) = opened?;
            for record in records {
                let record = record.map_err(|error| damaged(backup, &error))?;
                if let Record::Lease { id, ttl_ms } = record {
                    coming.insert(id, ttl_ms);
                } else {
                    overlay.add(record).map_err(BackupError::Spool)?;
                }
            }
            if let Content::Changes { cut: Some(cut), .. } = &link.header.content
                && cut.leases
            {
                leases = std::mem::take(&mut coming);
            }
        }
    }
    Ok((overlay.finish().map_err(BackupError::Spool)?, leases))
}

/// Compares what a keyspace has with what was restored. Returns the number of keys that have
/// expired since.
async fn compare(
    client: &Client,
    name: &str,
    expected: (u64, u64, Hash),
    expected_expiring: (u64, u64, Hash),
) -> Result<u64, BackupError> {
    let failed = "cannot compare what was restored";
    let mut trouble = None;
    let (hash, expiring) = 'again: loop {
        let (mut hash, mut expiring) = (KeysHash::new(), KeysHash::new());
        let snapshot = take_snapshot(client, PATIENCE).await?;
        let mut scan = snapshot.scan(ScanOptions::default());
        loop {
            match scan.next().await {
                Ok(None) => break 'again (hash.finish(), expiring.finish()),
                Ok(Some(pair)) if pair.key == marker::KEY => {}
                Ok(Some(pair)) => {
                    let value = pair.value.unwrap_or_default();
                    match pair.expiry {
                        None => hash.add(&pair.key, &value, pair.lease.0),
                        Some(_) => expiring.add(&pair.key, &value, 0),
                    }
                }
                Err(Error::Compacted { .. }) => continue 'again,
                Err(error) => wait(&mut trouble, PATIENCE, error, failed).await?,
            }
        }
    };
    let expired = expected_expiring.0.saturating_sub(expiring.0);
    if hash != expected || expired == 0 && expiring != expected_expiring {
        return Err(BackupError::Different(format!(
            "keyspace {name} is not what the backup has: {} keys with the hash {}, and not {} with \
             {}; did somebody write to it?",
            hash.0 + expiring.0,
            hex(&hash.2),
            expected.0 + expected_expiring.0,
            hex(&expected.2)
        )));
    }
    Ok(expired)
}
