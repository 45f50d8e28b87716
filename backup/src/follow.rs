//! Follows a network: keeps writing what changes, with a cut every second.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Client, KeyspaceId, KeyspaceUse};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::Progress;
use super::catalog;
use super::chain::Stage;
use super::chunk::Content;
use super::clock::now_ms;
use super::create::{begin, check_useless, keyspaces, parsed};
use super::destination::Destination;
use super::error::BackupError;
use super::plan::{Kind, Plan};
use super::reader;
use super::session::{Pace, Session, Stopped};
use super::writer::{Writer, chunk_name};

/// Time between two looks for new keyspaces.
const KEYSPACES_EVERY: Duration = Duration::from_secs(5);
/// Number of intervals after which a cut is taken although nothing changed: until then a restore
/// does not know that nothing did.
const IDLE_CUTS: u32 = 10;
/// Time for the last cut when following is to end.
const LAST_CUT: Duration = Duration::from_secs(10);
/// Time after which the user hears that the network does not answer. It is asked again for good.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a keyspace is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause after several failures, each twice as long as the one before.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Time after which the user hears of the same failure again.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// How to follow.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    /// The keyspaces; empty for all, also those that are created later.
    pub keyspaces: Vec<String>,
    /// Time between two moments at which the backup can be restored.
    pub every: Duration,
    /// Time after which all keys are written anew, so that older parts can be pruned.
    pub base_every: Duration,
    /// Most bytes of keys and values to read in a second for that.
    pub rate: Option<u64>,
}

/// Follows a network until `stop` says so. Goes on with the backup of this network that was
/// followed last, if there is one with the same keyspaces. Returns the name of the backup.
///
/// # Errors
/// See [`BackupError`]. A network that does not answer is waited for.
pub async fn follow(
    client: &Client,
    destination: &Destination,
    options: &FollowOptions,
    stop: watch::Receiver<bool>,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<String, BackupError> {
    destination.check_is_ours().await?;
    let plan = match followed(destination, client.identity().network.0, &options.keyspaces).await? {
        Some(plan) => {
            tell(Progress::Note(format!("going on with {}", plan.backup)));
            plan
        }
        None => {
            let names = (options.keyspaces.is_empty(), options.keyspaces.clone());
            let (plan, _) = begin(client, destination, Kind::Followed, names, None).await?;
            tell(Progress::Note(format!("following as {}", plan.backup)));
            plan
        }
    };
    let (sender, mut events) = mpsc::channel(256);
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<KeyspaceId, String> = BTreeMap::new();
    let mut stopping = stop.clone();
    let mut next_look = Instant::now();
    let mut troubles = Troubles::default();
    loop {
        tokio::select! {
            Some(event) = events.recv() => tell(event),
            Some(ended) = tasks.join_next() => {
                let (id, ended): (KeyspaceId, Result<(), BackupError>) =
                    ended.map_err(|error| BackupError::Destination(error.to_string()))?;
                running.remove(&id);
                ended?;
                if *stopping.borrow() && tasks.is_empty() {
                    break;
                }
            }
            () = tokio::time::sleep_until(next_look), if !*stopping.borrow() => {
                next_look = Instant::now() + KEYSPACES_EVERY;
                let found = match keyspaces(client, &plan.keyspaces).await {
                    Ok(found) => found,
                    Err(error @ BackupError::NotFound(_)) if running.is_empty() => {
                        return Err(error);
                    }
                    Err(error) if error.is_denied() => return Err(error),
                    Err(error) => {
                        // It is asked again.
                        let note = format!("{}; trying again", error.fault());
                        troubles.tell(&note, Instant::now(), tell);
                        continue;
                    }
                };
                troubles = Troubles::default();
                for used in found {
                    let id = used.keyspace.id;
                    // Two keyspaces of one name share a chain, one after the other.
                    let is_new = !running.contains_key(&id)
                        && running.values().all(|name| *name != used.keyspace.name);
                    if !is_new {
                        continue;
                    }
                    running.insert(id, used.keyspace.name.clone());
                    tell(Progress::FollowBegan { keyspace: used.keyspace.name.clone() });
                    let following = Following {
                        client: client.clone(),
                        destination: destination.clone(),
                        plan: plan.clone(),
                        options: options.clone(),
                        used,
                        stop: stop.clone(),
                        events: sender.clone(),
                    };
                    tasks.spawn(async move { (id, following.run().await) });
                }
            }
            changed = stopping.changed() => {
                if changed.is_err() || tasks.is_empty() {
                    break;
                }
            }
        }
    }
    while let Ok(event) = events.try_recv() {
        tell(event);
    }
    Ok(plan.backup)
}

/// Returns the last followed backup of these keyspaces.
async fn followed(
    destination: &Destination,
    network: Uuid,
    keyspaces: &[String],
) -> Result<Option<Plan>, BackupError> {
    for backup in destination.backups().await?.into_iter().rev() {
        let Some((plan, _)) = reader::whole_plan(destination, &backup).await? else { continue };
        let is_it =
            plan.kind == Kind::Followed && plan.network == network && plan.keyspaces == keyspaces;
        if is_it {
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

/// Failures that may pass. A repeated one is not reported each time.
#[derive(Default)]
struct Troubles {
    count: u32,
    told: Option<(String, Instant)>,
}

impl Troubles {
    /// Tells a failure, unless it was told a short while ago.
    fn tell(&mut self, note: &str, now: Instant, tell: impl FnOnce(Progress)) {
        self.count = self.count.saturating_add(1);
        let is_known = |(told, at): &(String, Instant)| told == note && now < *at + TOLD_EVERY;
        if !self.told.as_ref().is_some_and(is_known) {
            tell(Progress::Note(note.to_owned()));
            self.told = Some((note.to_owned(), now));
        }
    }

    /// Returns the pause before the next attempt.
    fn pause(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.count.saturating_sub(1));
        PAUSE.saturating_mul(doubled).min(PAUSE_MAX)
    }
}

/// A keyspace that is followed.
struct Following {
    client: Client,
    destination: Destination,
    plan: Plan,
    options: FollowOptions,
    used: KeyspaceUse,
    stop: watch::Receiver<bool>,
    events: mpsc::Sender<Progress>,
}

impl Following {
    async fn tell(&self, event: Progress) {
        // Without a listener nobody needs it.
        let _ = self.events.send(event).await;
    }

    /// Follows until the end, or until the keyspace is dropped.
    async fn run(self) -> Result<(), BackupError> {
        let name = self.used.keyspace.name.clone();
        let mut anew = false;
        let mut stop = self.stop.clone();
        let mut troubles = Troubles::default();
        loop {
            let begun = Instant::now();
            let attempt = self.attempt(std::mem::take(&mut anew)).await;
            let outcome = match attempt {
                Err(Stopped::Dropped) => self.end().await.map_err(Stopped::Failed),
                outcome => outcome,
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(Stopped::Compacted) => {
                    anew = true;
                    self.tell(Progress::Note(format!(
                        "keyspace {name} has forgotten changes that this backup does not have: \
                         writing all keys again; moments in between cannot be restored"
                    )))
                    .await;
                }
                Err(Stopped::Failed(error)) if error.may_pass() => {
                    if begun.elapsed() > TOLD_EVERY {
                        troubles = Troubles::default();
                    }
                    let note = format!("keyspace {name}: {}; trying again", error.fault());
                    troubles.tell(&note, Instant::now(), |note| _ = self.events.try_send(note));
                }
                Err(Stopped::Failed(error)) => return Err(error),
                // It was written down.
                Err(Stopped::Dropped) => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep(troubles.pause()) => {}
                Ok(_) = stop.wait_for(|stop| *stop) => {}
            }
            if *self.stop.borrow() {
                return Ok(());
            }
        }
    }

    /// Writes down that the keyspace was dropped.
    async fn end(&self) -> Result<(), BackupError> {
        let mut writer = self.writer().await?.0;
        writer.append(Content::Dropped { at_ms: now_ms() }, Vec::new()).await?;
        let name = &self.used.keyspace.name;
        self.tell(Progress::Note(format!("keyspace {name} was dropped; its backup stays"))).await;
        self.tell(Progress::FollowEnded { keyspace: name.clone() }).await;
        Ok(())
    }

    /// Returns a writer after the last chunk that is whole, and how far the chain is.
    async fn writer(&self) -> Result<(Writer, Stage, u64), BackupError> {
        let (backup, name) = (&self.plan.backup, &self.used.keyspace.name);
        let numbers = reader::numbers_of(&self.destination, backup, name).await?;
        let tail = catalog::tail(&self.destination, backup, name, &numbers).await?;
        let last = tail.last().map_or(0, |last| last.header.number);
        let damaged: Vec<u64> =
            numbers.iter().map(|(number, _)| *number).filter(|number| *number > last).collect();
        check_useless(&self.destination, backup, name, &damaged)?;
        for number in damaged {
            self.tell(Progress::Note(format!(
                "the last chunk of keyspace {name} in {backup} is damaged: removing it, and going \
                 on from the one before"
            )))
            .await;
            self.destination.delete(&chunk_name(backup, name, number)).await?;
        }
        let base_ms = tail.links().iter().find_map(|link| match &link.header.content {
            Content::Changes { cut: Some(cut), .. } => Some(cut.base_ms),
            _ => None,
        });
        let writer = Writer::new(self.destination.clone(), backup, self.plan.network, name, &tail);
        Ok((writer, tail.stage(), base_ms.unwrap_or_else(now_ms)))
    }

    async fn attempt(&self, anew: bool) -> Result<(), Stopped> {
        let name = &self.used.keyspace.name;
        let opening = async {
            let client = self.client.keyspace(name).await;
            Ok(client.map_err(BackupError::network("cannot use the keyspace"))?)
        };
        let Some(client) = self.soon(opening).await? else { return Ok(()) };
        if client.keyspace_id() != self.used.keyspace.id {
            return Err(Stopped::Dropped);
        }
        // A destination that is out of reach is waited for: not by who wants to stop.
        let writer = async { Ok(self.writer().await?) };
        let Some((writer, stage, base_ms)) = self.soon(writer).await? else { return Ok(()) };
        let stage = if anew { Stage::Nothing } else { stage };
        let settings = self.used.keyspace.settings.clone();
        let pace = Pace { rate: self.options.rate, patience: PATIENCE, cuts_every: None };
        let tell = |event| _ = self.events.try_send(event);
        let mut session = match stage {
            Stage::Nothing | Stage::Dropped => {
                let begun = Session::begin(client, writer, settings.clone(), pace);
                let Some((mut session, from)) = self.soon(begun).await? else { return Ok(()) };
                let bytes = self.used.bytes;
                self.unless_stopped(session.base(from, Bytes::new(), bytes, &tell)).await?;
                session
            }
            Stage::Pages { of, last, position } => {
                let (of, position) = parsed(&of, &position)?;
                let after = match last {
                    Some(number) => {
                        let backup = &self.plan.backup;
                        reader::last_key(&self.destination, backup, name, number).await?
                    }
                    None => Bytes::new(),
                };
                let opened = Session::open(client, writer, position, pace, base_ms);
                let Some(mut session) = self.soon(opened).await? else { return Ok(()) };
                self.unless_stopped(session.base(of, after, self.used.bytes, &tell)).await?;
                session
            }
            Stage::Changes { position, .. } => {
                let position = position.parse().map_err(|_| Stopped::Compacted)?;
                let opened = Session::open(client, writer, position, pace, base_ms);
                let Some(session) = self.soon(opened).await? else { return Ok(()) };
                session
            }
        };
        if *self.stop.borrow() {
            return Ok(());
        }
        self.changes(&mut session).await
    }

    /// Completes a future, unless following is to end before.
    async fn unless_stopped(
        &self,
        work: impl Future<Output = Result<(), Stopped>>,
    ) -> Result<(), Stopped> {
        let mut stop = self.stop.clone();
        tokio::select! {
            done = work => done,
            // A stage from which the next call goes on.
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    }

    /// Completes a future; `None` if following is to end, and it did not complete soon after.
    /// Everything that it may have written is a stage from which the next call goes on.
    async fn soon<T>(
        &self,
        work: impl Future<Output = Result<T, Stopped>>,
    ) -> Result<Option<T>, Stopped> {
        let mut stop = self.stop.clone();
        let ended = async {
            // Without a sender nobody ends it.
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LAST_CUT).await;
        };
        tokio::select! {
            done = work => done.map(Some),
            () = ended => Ok(None),
        }
    }

    /// Takes cuts until the end.
    async fn changes(&self, session: &mut Session) -> Result<(), Stopped> {
        let mut stop = self.stop.clone();
        let every = self.options.every;
        if self.soon(self.cut(session)).await?.is_none() {
            return Ok(());
        }
        loop {
            let due = Instant::now() + every;
            let idle = Instant::now() + every * IDLE_CUTS;
            tokio::select! {
                () = session.change() => {}
                () = tokio::time::sleep_until(idle) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            if self.soon(self.cut(session)).await?.is_none() {
                return Ok(());
            }
            let base_every = u64::try_from(self.options.base_every.as_millis());
            let base_at = session.base_ms().saturating_add(base_every.unwrap_or(u64::MAX));
            if now_ms() >= base_at {
                let settings = self.used.keyspace.settings.clone();
                let begun = session.begin_again(settings);
                let Some(from) = self.soon(begun).await? else { return Ok(()) };
                session.set_cuts(Some(every));
                let tell = |event| _ = self.events.try_send(event);
                let pages = session.base(from, Bytes::new(), self.used.bytes, &tell);
                self.unless_stopped(pages).await?;
                if *stop.borrow() {
                    // The chunk that was being written may still come into being.
                    return Ok(());
                }
                session.set_cuts(None);
            }
        }
        // Writes that were acknowledged before the end are to be in the backup.
        self.soon(self.cut(session)).await.map(|_| ())
    }

    async fn cut(&self, session: &mut Session) -> Result<(), Stopped> {
        let before = session.writer.written;
        let through_ms = session.cut(false).await?;
        let changes = session.writer.written.records - before.records;
        let bytes = session.writer.written.stored_bytes - before.stored_bytes;
        let keyspace = self.used.keyspace.name.clone();
        self.tell(Progress::Followed { keyspace, through_ms, changes, bytes }).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::PLAN;
    use crate::sample::Sample;

    #[tokio::test]
    async fn a_backup_that_cannot_be_read_at_the_moment_is_not_begun_anew() {
        let sample = Sample::new();
        let destination = &sample.destination;
        let (plan, _) = sample.begin(10, Kind::Followed, &[]).await;
        let find = async || followed(destination, plan.network, &[]).await;
        assert_eq!(find().await.unwrap().unwrap().backup, plan.backup);
        *destination.broken.lock().unwrap() = Some(format!("{}/{PLAN}", plan.backup));
        assert!(matches!(find().await, Err(BackupError::Read { .. })));
    }

    #[test]
    fn failures_are_told_once_and_tried_again_less_and_less_often() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let mut notes = Vec::new();
        let mut pauses = Vec::new();
        for note in ["a", "a", "b", "b", "b", "b", "b"] {
            troubles.tell(note, now, |note| notes.push(note));
            pauses.push(troubles.pause().as_secs());
        }
        assert_eq!(notes, ["a", "b"].map(|note| Progress::Note(note.to_owned())));
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        troubles.tell("b", now + TOLD_EVERY, |note| notes.push(note));
        assert_eq!(notes.len(), 3);
    }
}
