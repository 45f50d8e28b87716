//! Where the time of a request goes: the stages that it passes, and how long it spent in each.
//!
//! A [`Timeline`] travels with the request. It is a few numbers and a reference to the request's
//! bytes, allocates nothing, and reads no clock: a batch or a round ends for all of its requests at
//! one instant, which its task passes in.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dkv_base::id::GroupId;
use dkv_wire::codec::decode;
use dkv_wire::message::{
    Command, KeyRange, Keys, LeaseAction, RequestBody, Transaction, TransactionOperation,
};
use tokio::time::Instant;

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Stage {
    /// Waits until its connection and its holder have room for one more request.
    Room,
    /// Waits for a batch to begin.
    Batch,
    /// Waits for this node's log to be on disk.
    Sync,
    /// Waits for a majority: to have an entry, or to confirm the primary.
    Majority,
    /// Is applied to the state.
    Apply,
    /// Waits for a transaction over several shards to end.
    Lock,
    /// Reads the state, from the disk if the values are not in memory.
    Read,
    /// Waits for this replica to have what the answer needs.
    Behind,
    /// Waits for another node's answer, which this node passes on.
    Forward,
    /// Waits for every replica.
    Replicas,
    /// Waits for the other shards of a transaction.
    Shards,
    /// Anything else.
    Other,
    /// Waits until its answer can be written, behind others and for a client that reads slowly.
    Reply,
}

/// The names of the stages, in the order of [`Stage`].
pub(crate) const STAGES: [&str; 13] = [
    "room", "batch", "sync", "majority", "apply", "lock", "read", "behind", "forward", "replicas",
    "shards", "other", "reply",
];

/// The stages of one request so far.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    /// The stage that it is in, and since when.
    stage: Stage,
    since: Instant,
    /// Microseconds spent in each stage before.
    spent: [u32; STAGES.len()],
    subject: Subject,
}

/// What a request is about.
#[derive(Clone, Debug, Default)]
pub(crate) enum Subject {
    /// Not the data of a shard. Such requests are not measured.
    #[default]
    Other,
    /// A key, a prefix, or the beginning of a range.
    Key(&'static str, GroupId, Bytes),
    /// An encoded command.
    Command(GroupId, Bytes),
}

/// The place to which the timeline of a part of a request returns.
pub(crate) type Returned = Arc<OnceLock<Timeline>>;

impl Timeline {
    /// Begins the timeline of a request that arrived at `arrived` and had room at `now`.
    pub(crate) fn new(subject: Subject, arrived: Instant, now: Instant) -> Self {
        let mut timeline =
            Self { stage: Stage::Room, since: arrived, spent: [0; STAGES.len()], subject };
        timeline.enter(Stage::Other, now);
        timeline
    }

    /// Ends the current stage at `at`, and begins another.
    pub(crate) fn enter(&mut self, stage: Stage, at: Instant) {
        let passed = at.saturating_duration_since(self.since).as_micros();
        let spent = &mut self.spent[self.stage as usize];
        *spent = spent.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX));
        self.stage = stage;
        // A stage that ended before it began has no length.
        self.since = self.since.max(at);
    }

    /// Returns the timeline of a part of the request, which begins now as far as this one is.
    pub(crate) fn part(&self) -> Self {
        let (stage, since) = (self.stage, self.since);
        Self { stage, since, spent: [0; STAGES.len()], subject: Subject::Other }
    }

    /// Takes over the stages of a part, which began in the current stage.
    pub(crate) fn adopt(&mut self, part: &Self) {
        for (spent, of_part) in self.spent.iter_mut().zip(part.spent) {
            *spent = spent.saturating_add(of_part);
        }
        self.since = self.since.max(part.since);
    }

    /// Returns what the request is about.
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns the time spent in each stage that took any, in milliseconds, the first stage first.
    pub(crate) fn stages(&self) -> String {
        let stages = STAGES.iter().zip(self.spent).filter(|(_, spent)| *spent >= 500);
        let texts: Vec<_> =
            stages.map(|(name, spent)| format!("{name} {}", (spent + 500) / 1000)).collect();
        texts.join(", ")
    }

    /// Returns the stage that took longest.
    pub(crate) fn longest(&self) -> usize {
        let stages = self.spent.iter().enumerate();
        stages.max_by_key(|(_, spent)| **spent).map_or(0, |(stage, _)| stage)
    }

    /// Returns the time spent in a stage, in microseconds.
    #[cfg(test)]
    pub(crate) fn spent_us(&self, stage: Stage) -> u32 {
        self.spent[stage as usize]
    }
}

impl Subject {
    /// Returns what a request is about. Keeps the bytes of the request alive, and copies nothing.
    pub(crate) fn of(body: &RequestBody) -> Self {
        let key = |kind, shard: &GroupId, key: &Bytes| Self::Key(kind, *shard, key.clone());
        match body {
            RequestBody::Propose { shard, command, .. } => Self::Command(*shard, command.clone()),
            RequestBody::Read { shard, key: of, .. } => key("read", shard, of),
            RequestBody::ReadAt { shard, key: of, .. } => key("read", shard, of),
            RequestBody::KeyTtl { shard, key: of } => key("read", shard, of),
            RequestBody::History { shard, key: of, .. } => key("history", shard, of),
            RequestBody::Deposit { shard, key: of, .. } => key("eventual write", shard, of),
            RequestBody::Scan { shard, span, .. } | RequestBody::ScanAt { shard, span, .. } => {
                key("scan", shard, &span.prefix)
            }
            RequestBody::Range { shard, keys, .. } => key("range", shard, first(keys)),
            RequestBody::KeepAlive { shard, .. } => Self::Key("keep alive", *shard, Bytes::new()),
            RequestBody::Leases { shard, .. } | RequestBody::LeaseInfo { shard, .. } => {
                Self::Key("leases", *shard, Bytes::new())
            }
            _ => Self::Other,
        }
    }

    /// Returns the subject of a watch.
    pub(crate) fn of_watch(shard: GroupId, keys: &KeyRange) -> Self {
        Self::Key("watch", shard, first(keys).clone())
    }

    /// Returns whether such requests are measured.
    pub(crate) fn is_measured(&self) -> bool {
        !matches!(self, Self::Other)
    }

    /// Returns the kind of the request, its shard, and its key; `None` for one that is not
    /// measured.
    pub(crate) fn read(&self) -> Option<(&'static str, GroupId, Bytes)> {
        match self {
            Self::Other => None,
            Self::Key(kind, shard, key) => Some((kind, *shard, key.clone())),
            Self::Command(shard, command) => {
                let (kind, key) = of_command(command);
                Some((kind, *shard, key))
            }
        }
    }
}

fn first(keys: &KeyRange) -> &Bytes {
    match keys {
        KeyRange::Key(key) | KeyRange::Prefix(key) | KeyRange::Range(key, _) => key,
    }
}

/// Returns the kind of a command, and its key or the first one that it names.
fn of_command(command: &[u8]) -> (&'static str, Bytes) {
    let copy = Bytes::copy_from_slice;
    match decode::<Command<'_>>(command) {
        Ok(Command::Write(write)) => ("write", copy(write.key)),
        Ok(Command::WriteAttached(attached)) => ("write", copy(attached.write.key)),
        Ok(Command::Deposited(deposited)) => ("eventual write", copy(deposited.key)),
        Ok(Command::Transact(transact)) => ("transaction", first_key(transact.body)),
        Ok(Command::TransactOver(_)) => ("transaction", Bytes::new()),
        Ok(Command::Prepare(prepare)) => ("prepare", first_key(prepare.body)),
        Ok(Command::Decide(_) | Command::Finish { .. } | Command::Resolve { .. }) => {
            ("decision", Bytes::new())
        }
        Ok(Command::Lease(lease)) => match lease.action {
            LeaseAction::Grant { .. } | LeaseAction::GrantTo { .. } => {
                ("lease grant", Bytes::new())
            }
            LeaseAction::Revoke => ("lease revoke", Bytes::new()),
        },
        Ok(Command::OpenSession(_) | Command::OpenSessionOf { .. }) => ("session", Bytes::new()),
        Ok(_) | Err(_) => ("write", Bytes::new()),
    }
}

/// Returns the first key that a transaction names.
fn first_key(body: &[u8]) -> Bytes {
    let Ok(transaction) = decode::<Transaction<'_>>(body) else { return Bytes::new() };
    let operations = transaction.then.iter().chain(&transaction.otherwise);
    let operations = operations.map(TransactionOperation::keys);
    let keys = operations.chain(transaction.compares.iter().map(|compare| compare.keys)).next();
    match keys {
        Some(Keys::Key(key) | Keys::Prefix(key) | Keys::Range(key, _)) => {
            Bytes::copy_from_slice(key)
        }
        None => Bytes::new(),
    }
}

#[cfg(test)]
mod tests;
