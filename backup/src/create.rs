//! Creates a backup of one moment, or goes on with one that was interrupted.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Client, KeyspaceSettings, KeyspaceUse};
use futures::stream::StreamExt;
use uuid::Uuid;

use super::Progress;
use super::catalog;
use super::chain::{Chain, Stage};
use super::chunk::{Content, seal_document};
use super::clock::now_ms;
use super::destination::{Destination, MANIFEST, PLAN, REMOVED, backup_name};
use super::error::BackupError;
use super::plan::{ChainSummary, Kind, Manifest, Plan};
use super::reader;
use super::session::{Pace, Session, Stopped, Tell};
use super::writer::{Writer, chunk_name};

/// Bases that are begun at most because a shard forgot changes too early.
const BASES_MAX: usize = 3;
/// Time for which a network that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to back up, and how.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The keyspaces; empty for all.
    pub keyspaces: Vec<String>,
    /// The backup after which changes are written only; `latest` for the last one that fits.
    pub since: Option<String>,
    /// Most bytes of keys and values to read in a second.
    pub rate: Option<u64>,
}

/// A backup that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Created {
    /// Its name.
    pub backup: String,
    /// Its kind.
    pub kind: Kind,
    /// Whether it goes on from one that was interrupted.
    pub resumed: bool,
    /// The keyspaces, each with the time of its moment in milliseconds since 1970.
    pub keyspaces: Vec<(String, u64)>,
    /// Keys and changes.
    pub records: u64,
    /// Bytes of keys and values.
    pub data_bytes: u64,
    /// Bytes in the destination.
    pub stored_bytes: u64,
}

/// Creates a backup. If one with the same options was interrupted, goes on with it.
///
/// # Errors
/// See [`BackupError`].
pub async fn create(
    client: &Client,
    destination: &Destination,
    options: &CreateOptions,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Created, BackupError> {
    destination.check_is_ours().await?;
    let wanted = keyspaces(client, &options.keyspaces).await?;
    let names: Vec<String> = wanted.iter().map(|it| it.keyspace.name.clone()).collect();
    let network = client.identity().network.0;
    let parent = match &options.since {
        Some(since) => Some(catalog::parent(destination, network, since).await?),
        None => None,
    };
    let kind = if parent.is_some() { Kind::Increment } else { Kind::Full };
    let all = options.keyspaces.is_empty();
    let found = unfinished(destination, network, kind, (all, &names), parent.as_deref()).await?;
    let resumed = found.is_some();
    let (plan, plan_hash) = match found {
        Some(found) => {
            tell(Progress::Note(format!(
                "going on with {}, which was interrupted",
                found.0.backup
            )));
            found
        }
        None => begin(client, destination, kind, (all, names), parent).await?,
    };
    let pace = Pace { rate: options.rate, patience: PATIENCE, cuts_every: None };
    let mut chains = Vec::new();
    let (mut keyspaces, mut totals) = (Vec::new(), [0, 0, 0]);
    let numbers: BTreeMap<String, Vec<(u64, u64)>> =
        reader::numbers(destination, &plan.backup).await?.into_iter().collect();
    for used in wanted {
        let name = used.keyspace.name.clone();
        let numbers = numbers.get(&name).map(Vec::as_slice).unwrap_or_default();
        let chain = recovered(destination, &plan.backup, &name, numbers, tell).await?;
        let of = Of { client, destination, plan: &plan, used, pace };
        let chain = of.keyspace(chain, tell).await?;
        let Some(run) = chain.runs().last() else {
            return Err(BackupError::damaged(&plan.backup, "its chain is not complete"));
        };
        keyspaces.push((name.clone(), run.cut.taken_ms));
        let summary = ChainSummary {
            keyspace: name,
            first: run.links.first().map_or(1, |first| first.header.number),
            hashes: run.links.iter().map(|link| link.hash).collect(),
        };
        for link in run.links {
            totals[0] += link.header.records;
            totals[1] += link.header.data_bytes;
            totals[2] += link.stored_bytes;
        }
        chains.push(summary);
    }
    let manifest = Manifest { plan: plan_hash, chains };
    check(destination, &plan, &manifest).await?;
    let (bytes, _) = seal_document(&manifest);
    let stored_bytes = totals[2] + bytes.len() as u64;
    destination.write(&format!("{}/{MANIFEST}", plan.backup), bytes).await?;
    // Bases that were given up have left chunks.
    let numbers: BTreeMap<String, Vec<(u64, u64)>> =
        reader::numbers(destination, &plan.backup).await?.into_iter().collect();
    for chain in &manifest.chains {
        let old = numbers.get(&chain.keyspace).into_iter().flatten();
        for (number, _) in old.filter(|(number, _)| *number < chain.first) {
            let name = chunk_name(&plan.backup, &chain.keyspace, *number);
            destination.delete(&name).await?;
        }
    }
    Ok(Created {
        backup: plan.backup,
        kind,
        resumed,
        keyspaces,
        records: totals[0],
        data_bytes: totals[1],
        stored_bytes,
    })
}

/// Checks that nobody has removed what a manifest is about to vouch for.
async fn check(
    destination: &Destination,
    plan: &Plan,
    manifest: &Manifest,
) -> Result<(), BackupError> {
    let backup = &plan.backup;
    let has_plan = destination.exists(&format!("{backup}/{PLAN}")).await?
        && !destination.exists(&format!("{backup}/{REMOVED}")).await?
        && reader::plan(destination, backup).await?.1 == manifest.plan;
    let numbers: BTreeMap<String, Vec<(u64, u64)>> =
        reader::numbers(destination, backup).await?.into_iter().collect();
    let is_there = |chain: &ChainSummary| {
        let found = numbers.get(&chain.keyspace).into_iter().flatten().map(|(number, _)| *number);
        found.filter(|number| *number >= chain.first).eq((chain.first..).take(chain.hashes.len()))
    };
    if has_plan && manifest.chains.iter().all(is_there) {
        return Ok(());
    }
    Err(BackupError::Refused(format!(
        "parts of backup {backup} were removed while it was made, as by backup prune; run the same \
         command again"
    )))
}

/// Returns the keyspaces of these names; of all if there are none.
pub(crate) async fn keyspaces(
    client: &Client,
    names: &[String],
) -> Result<Vec<KeyspaceUse>, BackupError> {
    let all = client.list_keyspaces().await;
    let all = all.map_err(BackupError::network("cannot list the keyspaces"))?;
    if names.is_empty() {
        return Ok(all);
    }
    let mut found = Vec::new();
    for name in names {
        let used = all.iter().find(|used| used.keyspace.name == *name).cloned();
        let missing = || BackupError::NotFound(format!("there is no keyspace {name}"));
        found.push(used.ok_or_else(missing)?);
    }
    Ok(found)
}

/// Writes the plan of a new backup.
pub(crate) async fn begin(
    client: &Client,
    destination: &Destination,
    kind: Kind,
    (all, keyspaces): (bool, Vec<String>),
    parent: Option<String>,
) -> Result<(Plan, super::chunk::Hash), BackupError> {
    // A backup is later than those that are there, whatever the clock shows.
    let mut begun_ms = now_ms();
    for backup in destination.backups().await?.iter().rev() {
        if let Some((plan, _)) = reader::whole_plan(destination, backup).await? {
            begun_ms = begun_ms.max(plan.begun_ms.saturating_add(1));
            break;
        }
    }
    let random = Uuid::new_v4().as_u128() as u8;
    let plan = Plan {
        backup: backup_name(begun_ms, random),
        kind,
        network: client.identity().network.0,
        begun_ms,
        all,
        keyspaces,
        parent,
    };
    let (bytes, hash) = seal_document(&plan);
    destination.create_folder(&plan.backup)?;
    destination.write(&format!("{}/{PLAN}", plan.backup), bytes).await?;
    Ok((plan, hash))
}

/// Returns the last backup that was begun with these options and not completed.
async fn unfinished(
    destination: &Destination,
    network: Uuid,
    kind: Kind,
    (all, keyspaces): (bool, &[String]),
    parent: Option<&str>,
) -> Result<Option<(Plan, super::chunk::Hash)>, BackupError> {
    for backup in destination.backups().await?.into_iter().rev() {
        let Some((plan, hash)) = reader::whole_plan(destination, &backup).await? else { continue };
        let is_it = plan.kind == kind
            && plan.network == network
            && (plan.all, plan.keyspaces.as_slice()) == (all, keyspaces)
            && plan.parent.as_deref() == parent;
        if !is_it {
            continue;
        }
        // Only the last one: what an older one has may be long forgotten.
        let whole = reader::manifest(destination, &backup).await?.is_some();
        return Ok((!whole).then_some((plan, hash)));
    }
    Ok(None)
}

/// Reads what an interrupted writer has left of a chain. Removes its last chunk if it is damaged.
///
/// # Errors
/// More than that is damaged or missing: see [`check_useless`].
pub(crate) async fn recovered(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    numbers: &[(u64, u64)],
    tell: Tell<'_>,
) -> Result<Chain, BackupError> {
    let mut chain = Chain::default();
    let all = numbers.iter().map(|(number, _)| *number);
    let mut opened = std::pin::pin!(reader::open_all(destination, backup, keyspace, all));
    while let Some(opened) = opened.next().await {
        let kept = match opened {
            Ok((link, _)) => chain.push(link).is_ok(),
            Err(BackupError::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        if !kept {
            break;
        }
    }
    let last = chain.last().map_or(0, |last| last.header.number);
    let useless: Vec<u64> =
        numbers.iter().map(|(number, _)| *number).filter(|number| *number > last).collect();
    check_useless(destination, backup, keyspace, &useless)?;
    for number in useless {
        let place = chunk_name(backup, keyspace, number);
        tell(Progress::Note(format!("{place} is damaged: writing it again")));
        destination.delete(&place).await?;
    }
    Ok(chain)
}

/// Checks the chunks that cannot be gone on with. A writer that was killed leaves one at most, its
/// last; more of them are damage by something else, of which the user is to know before anything
/// is removed.
///
/// # Errors
/// There are several.
pub(crate) fn check_useless(
    destination: &Destination,
    backup: &str,
    keyspace: &str,
    useless: &[u64],
) -> Result<(), BackupError> {
    let (Some(first), Some(last)) = (useless.first(), useless.last()) else { return Ok(()) };
    if useless.len() == 1 {
        return Ok(());
    }
    let place = |number: u64| destination.place(&chunk_name(backup, keyspace, number));
    Err(BackupError::Refused(format!(
        "the last {} chunks of keyspace {keyspace}, from {} to {}, are damaged or follow one that \
         is: an interrupted writer leaves one at most, so nothing was removed; check the \
         destination, and move {} away to begin a new backup",
        useless.len(),
        place(*first),
        place(*last),
        destination.place(backup)
    )))
}

/// A keyspace of a backup.
struct Of<'a> {
    client: &'a Client,
    destination: &'a Destination,
    plan: &'a Plan,
    used: KeyspaceUse,
    pace: Pace,
}

impl Of<'_> {
    /// Completes the chain of the keyspace.
    async fn keyspace(&self, chain: Chain, tell: Tell<'_>) -> Result<Chain, BackupError> {
        let name = &self.used.keyspace.name;
        let client = self.client.keyspace(name).await;
        let client = client.map_err(BackupError::network("cannot use the keyspace"))?;
        if matches!(chain.stage(), Stage::Changes { at_cut: true, .. }) {
            return Ok(chain);
        }
        let mut stage = chain.stage();
        let mut writer = self.writer(name, chain);
        let mut bases = 0;
        loop {
            let settings = self.used.keyspace.settings.clone();
            let attempt = self.attempt(&client, writer, stage, settings, tell).await;
            match attempt {
                Ok(chain) => return Ok(chain),
                Err((Stopped::Failed(error), _)) => return Err(error),
                Err((Stopped::Dropped, _)) => {
                    let why = format!("keyspace {name} was dropped while it was backed up");
                    return Err(BackupError::Refused(why));
                }
                Err((Stopped::Compacted, chain)) if bases < BASES_MAX => {
                    bases += 1;
                    tell(Progress::Note(format!(
                        "keyspace {name} no longer has the history that this backup needs, so all \
                         keys are written"
                    )));
                    (stage, writer) = (Stage::Nothing, self.writer(name, chain));
                }
                Err((Stopped::Compacted, _)) => {
                    return Err(BackupError::Refused(format!(
                        "keyspace {name} forgets its history faster than its changes can be \
                         written; give it more, as in keyspace set {name} --history 1h,1GiB"
                    )));
                }
            }
        }
    }

    fn writer(&self, name: &str, chain: Chain) -> Writer {
        let Plan { backup, network, .. } = self.plan;
        let mut writer = Writer::new(self.destination.clone(), backup, *network, name, &chain);
        writer.chain = Some(chain);
        writer
    }

    /// Goes on from a stage. Returns the chain also if it stops.
    async fn attempt(
        &self,
        client: &Client,
        writer: Writer,
        stage: Stage,
        settings: KeyspaceSettings,
        tell: Tell<'_>,
    ) -> Result<Chain, (Stopped, Chain)> {
        let known = writer.chain.clone().unwrap_or_default();
        let mut session = match self.open(client, writer, stage, settings, tell).await {
            Ok(session) => session,
            // The writer and its list of chunks were dropped with the session.
            Err(stopped) => {
                return Err(match self.reread().await {
                    Ok(chain) => (stopped, chain),
                    Err(error) => (Stopped::Failed(error), known),
                });
            }
        };
        match session.cut(true).await {
            Ok(_) => Ok(session.writer.chain.take().unwrap_or_default()),
            Err(stopped) => Err((stopped, session.writer.chain.take().unwrap_or_default())),
        }
    }

    /// Returns a chain as it is in the destination.
    async fn reread(&self) -> Result<Chain, BackupError> {
        let (backup, name) = (&self.plan.backup, &self.used.keyspace.name);
        let numbers = reader::numbers_of(self.destination, backup, name).await?;
        recovered(self.destination, backup, name, &numbers, &|_| {}).await
    }

    /// Writes the pages.
    async fn open(
        &self,
        client: &Client,
        mut writer: Writer,
        stage: Stage,
        settings: KeyspaceSettings,
        tell: Tell<'_>,
    ) -> Result<Session, Stopped> {
        let (pace, bytes, client) = (self.pace, self.used.bytes, client.clone());
        let name = &self.used.keyspace.name;
        match stage {
            Stage::Nothing | Stage::Dropped => {
                if let Some(parent) = self.plan.parent.clone().filter(|_| writer.number() == 0)
                    && let Some(cut) = catalog::cut_of(self.destination, &parent, name).await?
                    && let Ok(token) = cut.parse::<dkv_api::SnapshotToken>()
                {
                    let after = |settings| Content::After { settings, parent, cut };
                    writer.begin(settings, after).await?;
                    let position = token.changes_since();
                    return Session::open(client, writer, position, pace, now_ms()).await;
                }
                let (mut session, from) = Session::begin(client, writer, settings, pace).await?;
                session.base(from, Bytes::new(), bytes, tell).await?;
                Ok(session)
            }
            Stage::Pages { of, last, position } => {
                let (of, position) = parsed(&of, &position)?;
                let after = match last {
                    Some(number) => {
                        let backup = &self.plan.backup;
                        reader::last_key(self.destination, backup, name, number).await?
                    }
                    None => Bytes::new(),
                };
                let mut session = Session::open(client, writer, position, pace, now_ms()).await?;
                session.base(of, after, bytes, tell).await?;
                Ok(session)
            }
            Stage::Changes { position, .. } => {
                let position = position.parse().map_err(|_| Stopped::Compacted)?;
                Session::open(client, writer, position, pace, now_ms()).await
            }
        }
    }
}

/// Parses the tokens of a stage; what cannot be parsed cannot be gone on with.
pub(crate) fn parsed(
    of: &str,
    position: &str,
) -> Result<(dkv_api::SnapshotToken, dkv_api::WatchToken), Stopped> {
    let of = of.parse().map_err(|_| Stopped::Compacted)?;
    let position = position.parse().map_err(|_| Stopped::Compacted)?;
    Ok((of, position))
}

#[cfg(test)]
mod tests;
