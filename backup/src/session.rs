//! One keyspace on its way into a backup: its pages, its changes, and cuts.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Client, Error, KeyspaceSettings, SnapshotToken, WatchToken};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Progress;
use super::changes::Changes;
use super::chunk::{Content, CutMark};
use super::clock::now_ms;
use super::error::BackupError;
use super::pages::{self, take_snapshot, wait};
use super::record::Record;
use super::throttle::Throttle;
use super::writer::Writer;

/// Time after which leases are asked for again although no key was attached to one.
const LEASES_EVERY: Duration = Duration::from_secs(60);

/// Tells the user how far a command is.
pub(crate) type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// How a keyspace is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes of keys and values a second for pages.
    pub(crate) rate: Option<u64>,
    /// Time for which a network that does not answer is asked again.
    pub(crate) patience: Duration,
    /// Time between cuts while pages are read; none without.
    pub(crate) cuts_every: Option<Duration>,
}

/// A keyspace that is being written.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) writer: Writer,
    changes: Changes,
    pace: Pace,
    /// The position after what is written.
    position: String,
    leases_at: Option<Instant>,
    base_ms: u64,
}

/// Why a session cannot go on.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A shard forgot changes that were not shown yet. A new base helps.
    Compacted,
    /// The keyspace was dropped.
    Dropped,
    /// Anything else.
    Failed(BackupError),
}

impl From<BackupError> for Stopped {
    fn from(error: BackupError) -> Self {
        let BackupError::Network { source, .. } = &error else { return Self::Failed(error) };
        match **source {
            Error::Compacted { .. } | Error::NotYet { .. } => Self::Compacted,
            Error::NoKeyspace { .. } => Self::Dropped,
            _ => Self::Failed(error),
        }
    }
}

/// Ends a task when it is dropped.
struct Guard(JoinHandle<Result<(), BackupError>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Begins a base.
    pub(crate) async fn begin(
        client: Client,
        mut writer: Writer,
        settings: KeyspaceSettings,
        pace: Pace,
    ) -> Result<(Self, SnapshotToken), Stopped> {
        let from = take_snapshot(&client, pace.patience).await?.token().clone();
        let base = |settings| Content::Base { settings, from: from.to_string(), continues: false };
        writer.begin(settings, base).await?;
        let position = from.changes_since();
        Ok((Self::open(client, writer, position, pace, now_ms()).await?, from))
    }

    /// Goes on with what changed after a position.
    pub(crate) async fn open(
        client: Client,
        writer: Writer,
        position: WatchToken,
        pace: Pace,
        base_ms: u64,
    ) -> Result<Self, Stopped> {
        let watching = Changes::after(&client, position.clone()).await;
        let changes = watching.map_err(|error| match error {
            // The shards are others by now.
            Error::Invalid(_) => Stopped::Compacted,
            error => BackupError::network("cannot watch the keys")(error).into(),
        })?;
        let (position, leases_at) = (position.to_string(), None);
        Ok(Self { client, writer, changes, pace, position, leases_at, base_ms })
    }

    /// Begins another base while changes go on.
    pub(crate) async fn begin_again(
        &mut self,
        settings: KeyspaceSettings,
    ) -> Result<SnapshotToken, Stopped> {
        let from = take_snapshot(&self.client, self.pace.patience).await?.token().clone();
        let base = |settings| Content::Base { settings, from: from.to_string(), continues: true };
        self.writer.begin(settings, base).await?;
        self.base_ms = now_ms();
        Ok(from)
    }

    /// Sets the time between cuts while pages are read.
    pub(crate) fn set_cuts(&mut self, every: Option<Duration>) {
        self.pace.cuts_every = every;
    }

    /// Returns when the base began, in milliseconds since 1970.
    pub(crate) fn base_ms(&self) -> u64 {
        self.base_ms
    }

    fn check(&self) -> Result<(), Stopped> {
        match self.changes.ended() {
            Some(error) => Err(BackupError::network("the watch has ended")(error).into()),
            None => Ok(()),
        }
    }

    /// Writes the keys after one.
    pub(crate) async fn base(
        &mut self,
        from: SnapshotToken,
        after: Bytes,
        bytes_of: u64,
        tell: Tell<'_>,
    ) -> Result<(), Stopped> {
        let (sender, mut chunks) = mpsc::channel(2);
        let Pace { rate, patience, cuts_every } = self.pace;
        let reading =
            pages::read(self.client.clone(), from, after, Throttle::new(rate), patience, sender);
        let mut reading = Guard(tokio::spawn(reading));
        let keyspace = self.client.keyspace_name().to_owned();
        let (mut keys, mut bytes) = (0, 0);
        let mut next_cut = cuts_every.map(|every| Instant::now() + every);
        loop {
            let cut_at = next_cut.unwrap_or_else(|| Instant::now() + LEASES_EVERY);
            tokio::select! {
                chunk = chunks.recv() => {
                    let Some(pages::PageChunk { of, records, last }) = chunk else {
                        let ended = (&mut reading.0).await;
                        let why = "the reader of the keys has ended".to_owned();
                        return Err(match ended {
                            Ok(Err(error)) => error.into(),
                            _ => Stopped::Failed(BackupError::Destination(why)),
                        });
                    };
                    keys += records.len() as u64;
                    bytes += records.iter().map(Record::bytes).sum::<u64>();
                    self.writer.append(Content::Pages { of, last }, records).await?;
                    let keyspace = keyspace.clone();
                    tell(Progress::Keys { keyspace, keys, bytes, bytes_of });
                    if last {
                        return Ok(());
                    }
                }
                () = self.changes.much() => {
                    self.check()?;
                    self.flush().await?;
                }
                () = tokio::time::sleep_until(cut_at) => {
                    if let Some(every) = cuts_every {
                        self.cut(false).await?;
                        next_cut = Some(Instant::now() + every);
                    }
                }
            }
        }
    }

    /// Writes the changes that were collected.
    async fn flush(&mut self) -> Result<(), Stopped> {
        let taken = self.changes.take();
        if !taken.records.is_empty() {
            let before = std::mem::replace(&mut self.position, taken.position.clone());
            self.writer.changes(taken.position, taken.records, before, None).await?;
        }
        Ok(())
    }

    /// Waits until something changes.
    pub(crate) async fn change(&self) {
        self.changes.some().await;
    }

    /// Takes a cut, and writes everything that belongs to it. Returns when it was taken.
    pub(crate) async fn cut(&mut self, leases: bool) -> Result<u64, Stopped> {
        let snapshot = take_snapshot(&self.client, self.pace.patience).await?;
        let taken_ms = now_ms();
        while !self.changes.reached(snapshot.token()).await {
            self.check()?;
            self.flush().await?;
        }
        let stale = self.leases_at.is_none_or(|at| at.elapsed() >= LEASES_EVERY);
        let leases = leases || stale || self.changes.take_leases();
        let mut taken = self.changes.take();
        if leases {
            taken.records.extend(self.leases().await?);
            self.leases_at = Some(Instant::now());
        }
        let (token, base_ms) = (snapshot.token().to_string(), self.base_ms);
        let cut = Some(CutMark { token, taken_ms, leases, base_ms });
        let before = std::mem::replace(&mut self.position, taken.position.clone());
        self.writer.changes(taken.position, taken.records, before, cut).await?;
        Ok(taken_ms)
    }

    /// Returns the leases of the keyspace.
    async fn leases(&self) -> Result<Vec<Record>, BackupError> {
        let mut trouble = None;
        loop {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            match self.client.leases().await {
                Ok(leases) => {
                    let living = leases.into_iter().filter(|lease| lease.missing.is_empty());
                    let record = |lease: dkv_api::LeaseInfo| Record::Lease {
                        id: lease.id.0,
                        ttl_ms: ms(lease.ttl),
                    };
                    return Ok(living.map(record).collect());
                }
                Err(error) => {
                    wait(&mut trouble, self.pace.patience, error, "cannot list the leases").await?;
                }
            }
        }
    }
}
