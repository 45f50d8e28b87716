//! Restores a backup into keyspaces that are new or empty, and compares the result with the backup.
//!
//! A *mark*, a key that no backup has, is in a keyspace from before its first key is restored until
//! after the comparison. Whoever finds it knows that the keyspace is not whole. The same restore
//! goes on after the last key that the mark names; any other is refused. Keys are written once
//! each, in order, so to go on is to write some of them again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{
    Attach, Client, Condition, DEFAULT_KEYSPACE, Error, KeyspaceChange, KeyspaceSettings, LeaseId,
    LeaseKeeper, ScanOptions, SnapshotToken, WriteOptions,
};
use dkv_wire::codec;
use dkv_wire::limits::{KEY_TTL_MIN, LEASE_TTL_MIN, TTL_MAX};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::Progress;
use super::catalog;
use super::chain::{Begin, Chain, moment_ms};
use super::chunk::{Content, Hash, KeysHash, hex};
use super::destination::Destination;
use super::error::BackupError;
use super::marker::{self, Marker};
use super::merge::{Changed, Entry, Merge, MergeError, Overlay};
use super::pages::wait;
use super::reader;
use super::record::{Attachment, Record};
use super::session::Tell;
use super::throttle::Throttle;

/// Keys that are written at the same time.
const IN_FLIGHT: usize = 256;
/// Keys that are written before the mark is moved.
const BATCH_KEYS: usize = 8192;
/// Bytes of them.
const BATCH_BYTES: usize = 16 << 20;
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

/// Restores keyspaces of a backup. Needs the role of an administrator.
///
/// # Errors
/// See [`BackupError`]. Nothing that was there is changed.
pub async fn restore(
    client: &Client,
    destination: &Destination,
    options: &RestoreOptions,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Restored>, BackupError> {
    let backup = choose(destination, options).await?;
    let at_ms = options.at_ms.unwrap_or(u64::MAX);
    let mut sources = Vec::new();
    for (keyspace, numbers) in reader::numbers(destination, &backup).await? {
        if !options.keyspaces.is_empty() && !options.keyspaces.contains(&keyspace) {
            continue;
        }
        let first = first_of(destination, &backup, &keyspace).await?;
        let numbers: Vec<_> = numbers.into_iter().filter(|(number, _)| *number >= first).collect();
        let chain = readable(destination, &backup, &keyspace, &numbers).await?;
        if let Some(source) = source(destination, &backup, &keyspace, &chain, at_ms).await? {
            sources.push(source);
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
    if options.rename.is_some() && sources.len() > 1 {
        let names: Vec<&str> = sources.iter().map(|it| it.keyspace.as_str()).collect();
        let why = format!(
            "backup {backup} has several keyspaces ({}); say which one is to be \
             restored under another name",
            names.join(", ")
        );
        return Err(BackupError::Refused(why));
    }
    // All are checked before the first is touched.
    for source in &sources {
        let name = options.rename.as_ref().unwrap_or(&source.keyspace);
        Target::check(client, name, source).await?;
    }
    let mut restored = Vec::new();
    for source in sources {
        let name = options.rename.clone().unwrap_or_else(|| source.keyspace.clone());
        restored.push(one(client, destination, source, name, options.rate, tell).await?);
    }
    Ok(restored)
}

/// Removes what an interrupted restore has left in a keyspace: the keyspace itself if it was created
/// for that, otherwise its keys.
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
        return client.drop_keyspace(keyspace).await.map_err(BackupError::network(failed));
    }
    let mut scan = target.scan(ScanOptions::default().values(false));
    loop {
        let page = scan.page(BATCH_KEYS, BATCH_BYTES).await;
        let page = page.map_err(BackupError::network(failed))?;
        let keys = page.pairs.into_iter().map(|pair| pair.key).filter(|key| key != marker::KEY);
        let deleting = keys.map(|key| {
            let target = &target;
            async move {
                match target.delete(&key).await {
                    Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        });
        let deleted: Result<Vec<()>, Error> =
            stream::iter(deleting).buffer_unordered(IN_FLIGHT).try_collect().await;
        deleted.map_err(BackupError::network(failed))?;
        if !page.more {
            break;
        }
    }
    target.delete(marker::KEY).await.map_err(BackupError::network(failed))?;
    Ok(())
}

/// Returns the backup to restore.
async fn choose(
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
async fn first_of(
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
async fn readable(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
) -> Result<Chain, BackupError> {
    reader::chain(destination, backup, keyspace, numbers, |_| {}).await
}

/// Chunks of one backup.
#[derive(Clone, Debug)]
struct Segment {
    backup: String,
    /// Chunks with pages of the base, in order.
    pages: Vec<u64>,
    /// Chunks with changes and leases, in order.
    changes: Vec<u64>,
}

/// Where the keys of a keyspace at a cut are.
struct Source {
    backup: String,
    keyspace: String,
    settings: KeyspaceSettings,
    cut: String,
    at_ms: u64,
    /// The oldest first.
    segments: Vec<Segment>,
    bytes: u64,
}

/// Finds the run that leads to a moment, with those of the backups before it.
async fn source(
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
            "backup {backup} has keyspace {keyspace} only until {through} ms since \
             1970; leave --at out for the last moment"
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
            if segments.len() > 10_000 {
                return Err(BackupError::damaged(&place, "it goes on from too many others"));
            }
            let numbers = reader::numbers(destination, parent).await?;
            let numbers = numbers.into_iter().find(|(name, _)| name == keyspace);
            let numbers = numbers.map(|(_, numbers)| numbers).unwrap_or_default();
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

/// A keyspace that is restored.
struct Target {
    client: Client,
    marker: Marker,
    resumed: bool,
}

/// Returns the mark of a keyspace, if it has one.
async fn marked(client: &Client) -> Result<Option<Marker>, BackupError> {
    match client.read(marker::KEY).await {
        Ok(read) => {
            let unknown = "a restore of another version of dkv was interrupted there";
            let marker = codec::decode(&read.value);
            marker.map(Some).map_err(|_| BackupError::Refused(unknown.into()))
        }
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(BackupError::network("cannot read the keyspace")(error)),
    }
}

impl Target {
    /// Checks that a keyspace can take what is restored. Returns it, if it exists, and its mark.
    async fn check(
        client: &Client,
        name: &str,
        source: &Source,
    ) -> Result<Option<(Client, Option<Marker>)>, BackupError> {
        let target = match client.keyspace(name).await {
            Ok(target) => target,
            Err(Error::NoKeyspace { .. }) => return Ok(None),
            Err(error) => return Err(BackupError::network("cannot use the keyspace")(error)),
        };
        if let Some(marker) = marked(&target).await? {
            let Marker { backup, keyspace, cut, .. } = &marker;
            if (backup, keyspace, cut) == (&source.backup, &source.keyspace, &source.cut) {
                return Ok(Some((target, Some(marker))));
            }
            return Err(BackupError::Refused(format!(
                "another restore of keyspace {name} was interrupted, of backup {backup}; go on with \
                 that, or drop it with restore --drop {name}"
            )));
        }
        let page = target.scan(ScanOptions::default().limit(1).values(false)).page(1, 1).await;
        let page = page.map_err(BackupError::network("cannot list the keyspace"))?;
        if page.pairs.is_empty() {
            return Ok(Some((target, None)));
        }
        Err(BackupError::Refused(format!(
            "keyspace {name} has keys, and a restore never touches what is there; restore it under \
             another name (--as NAME), or into a new network"
        )))
    }

    /// Creates the keyspace if need be, and marks it.
    async fn begin(client: &Client, name: &str, source: &Source) -> Result<Self, BackupError> {
        let (target, created) = match Self::check(client, name, source).await? {
            Some((client, Some(marker))) => return Ok(Self { client, marker, resumed: true }),
            Some((client, None)) => (client, false),
            None => {
                // The quota comes last: what was there may have exceeded it.
                let settings = KeyspaceSettings { quota_bytes: None, ..source.settings.clone() };
                let created = client.create_keyspace(name, settings).await;
                created.map_err(BackupError::network("cannot create the keyspace"))?;
                let opened = client.keyspace(name).await;
                (opened.map_err(BackupError::network("cannot use the keyspace"))?, true)
            }
        };
        let marker = Marker {
            backup: source.backup.clone(),
            keyspace: source.keyspace.clone(),
            cut: source.cut.clone(),
            through: Vec::new(),
            created,
        };
        let options = WriteOptions::default().condition(Condition::Absent);
        let marked = target.write_with(marker::KEY, codec::encode(&marker), options).await;
        marked.map_err(BackupError::network("cannot mark the keyspace as being restored"))?;
        Ok(Self { client: target, marker, resumed: false })
    }

    /// Moves the mark.
    async fn mark(&mut self, through: &[u8]) -> Result<(), BackupError> {
        self.marker.through = through.to_vec();
        let value = codec::encode(&self.marker);
        put(&self.client, marker::KEY, &value, WriteOptions::default()).await
    }

    /// Takes the mark away: the keyspace is whole.
    async fn finish(&self) -> Result<(), BackupError> {
        match self.client.delete(marker::KEY).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BackupError::network("cannot take the mark away")(error)),
        }
    }
}

/// Writes a key, as often as it takes: what is written twice is the same.
async fn put(
    client: &Client,
    key: &[u8],
    value: &Bytes,
    options: WriteOptions,
) -> Result<(), BackupError> {
    let mut trouble = None;
    loop {
        match client.write_with(key, value.clone(), options).await {
            Ok(_) => return Ok(()),
            Err(error) => wait(&mut trouble, PATIENCE, error, "cannot write a key").await?,
        }
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
    let mut target = Target::begin(client, &name, &source).await?;
    if target.resumed {
        tell(Progress::Note(format!(
            "going on with keyspace {name}, whose restore was interrupted"
        )));
    }
    let (changed, leases) = changes(destination, &source).await?;
    let keepers = grant(&target.client, &leases).await?;
    let mut copy = Copy {
        leases: leases.keys().copied().collect(),
        keepers,
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
            if entries.len() >= 64 {
                copy.take(&mut target, &mut entries).await?;
            }
        }
        copy.take(&mut target, &mut entries).await?;
        tell_keys(&copy);
    }
    let mut more = true;
    while more {
        more = merge.rest(BATCH_KEYS, &mut entries).map_err(damaged(&base.backup))?;
        copy.take(&mut target, &mut entries).await?;
        tell_keys(&copy);
    }
    copy.write(&mut target).await?;
    let Copy { hash, expiring, keepers, .. } = copy;
    let (expected, expected_expiring) = (hash.finish(), expiring.finish());
    let found = compare(&target.client, &name, expected, expected_expiring).await?;
    // Their full time again, from now on.
    for keeper in &keepers {
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
                if let Record::Lease { id, ttl_ms, .. } = record {
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

/// Grants the leases and keeps them alive until the restore is over.
async fn grant(
    client: &Client,
    leases: &BTreeMap<u64, u64>,
) -> Result<Vec<LeaseKeeper>, BackupError> {
    let granting = leases.iter().map(|(&id, &ttl_ms)| granted(client, id, ttl_ms));
    stream::iter(granting).buffer_unordered(IN_FLIGHT).try_collect().await
}

async fn granted(client: &Client, id: u64, ttl_ms: u64) -> Result<LeaseKeeper, BackupError> {
    let ttl = Duration::from_millis(ttl_ms).clamp(LEASE_TTL_MIN, TTL_MAX);
    let mut trouble = None;
    loop {
        match client.grant_lease_as(LeaseId(id), ttl).await {
            // An interrupted restore has granted it.
            Ok(()) | Err(Error::LeaseExists { .. }) => break,
            Err(error) => wait(&mut trouble, PATIENCE, error, "cannot grant a lease").await?,
        }
    }
    client.keep_lease(LeaseId(id)).await.map_err(BackupError::network("cannot keep a lease alive"))
}

/// The keys on their way into a keyspace.
struct Copy {
    /// The leases that are granted.
    leases: std::collections::BTreeSet<u64>,
    keepers: Vec<LeaseKeeper>,
    /// The moment of the cut.
    at_ms: u64,
    /// Every key up to this one is there.
    skip: Bytes,
    hash: KeysHash,
    expiring: KeysHash,
    throttle: Throttle,
    batch: Vec<Entry>,
    batch_bytes: usize,
    keys: u64,
    bytes: u64,
}

impl Copy {
    /// Takes keys, and writes them once there are enough.
    async fn take(
        &mut self,
        target: &mut Target,
        entries: &mut Vec<Entry>,
    ) -> Result<(), BackupError> {
        for entry in entries.drain(..) {
            match entry.attachment {
                None => self.hash.add(&entry.key, &entry.value, 0),
                Some(Attachment::Lease(id)) => {
                    if self.leases.insert(id) {
                        // It ended when the cut was taken; so it does now.
                        let ttl_ms = LEASE_TTL_MIN.as_millis() as u64;
                        self.keepers.push(granted(&target.client, id, ttl_ms).await?);
                    }
                    self.hash.add(&entry.key, &entry.value, id);
                }
                Some(Attachment::Expiry { .. }) => {
                    self.expiring.add(&entry.key, &entry.value, 0);
                }
            }
            self.keys += 1;
            let bytes = entry.key.len() + entry.value.len();
            self.bytes += bytes as u64;
            if entry.key > self.skip {
                self.batch_bytes += bytes;
                self.batch.push(entry);
            }
        }
        if self.batch.len() >= BATCH_KEYS || self.batch_bytes >= BATCH_BYTES {
            self.write(target).await?;
        }
        Ok(())
    }

    /// Writes the keys that wait, and moves the mark.
    async fn write(&mut self, target: &mut Target) -> Result<(), BackupError> {
        let Some(last) = self.batch.last().map(|entry| entry.key.clone()) else { return Ok(()) };
        self.throttle.take(self.batch_bytes as u64).await;
        self.batch_bytes = 0;
        let (client, at_ms) = (&target.client, self.at_ms);
        let writing = std::mem::take(&mut self.batch).into_iter().map(|entry| async move {
            let mut options = WriteOptions::default();
            options.attach = match entry.attachment {
                None => None,
                Some(Attachment::Lease(id)) => Some(Attach::Lease(LeaseId(id))),
                Some(Attachment::Expiry { deadline_ms, .. }) => {
                    let left = Duration::from_millis(deadline_ms.saturating_sub(at_ms));
                    Some(Attach::Ttl(left.clamp(KEY_TTL_MIN, TTL_MAX)))
                }
            };
            put(client, &entry.key, &entry.value, options).await
        });
        let written: Result<Vec<()>, BackupError> =
            stream::iter(writing).buffer_unordered(IN_FLIGHT).try_collect().await;
        written?;
        target.mark(&last).await
    }
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
        let snapshot = super::pages::take_snapshot(client, PATIENCE).await?;
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
             {}; did somebody write to it? It stays marked as incomplete: drop it with restore \
             --drop {name}",
            hash.0 + expiring.0,
            hex(&hash.2),
            expected.0 + expected_expiring.0,
            hex(&expected.2)
        )));
    }
    Ok(expired)
}
