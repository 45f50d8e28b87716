//! The clients: what they ask of the network, and what they remember of it.
//!
//! Each client machine has one client of the product's library, and several callers on it. Every
//! call is an operation of the history: when it began, what it came to. A call whose outcome nobody
//! knows is remembered as unknown.

mod ages;
mod scans;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dkv_api::{Client, Condition, Error, Level, ReadOptions, Receipt, WriteOptions};
use dkv_base::id::GroupId;
use dkv_check as check;
use dkv_check::{Action, History, Operation, Outcome, Recorder};
use dkv_wire::network::key_hash;

use ages::Ages;

use crate::random::Random;
use crate::trace::Trace;

/// Nanoseconds of a tick.
const TICK_NS: u64 = 1_000_000;
/// Least and most time that a call may take, in milliseconds.
const PATIENCE_MS: (u64, u64) = (300, 4000);
/// The same of callers that keep to one key, and longest pause between two calls of callers that
/// keep to anything.
const FOCUS_PATIENCE_MS: (u64, u64) = (200, 800);
const FOCUS_PAUSE_MS: u64 = 20;
/// Keys that have eventual writes, among strong ones.
const EVENTUAL_KEYS: u64 = 3;
/// Keys of each caller that it writes once each.
const OWN_KEYS_MAX: u64 = 30;
/// Calls of a thousand that walk over all keys.
const SCANS_PER_MILLE: u64 = 20;
/// Time that each attempt of the last reads and writes may take.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What the callers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Read and write.
    Load,
    /// Read every key and write to every shard until it succeeds: the network is whole again.
    Probe,
    /// Nothing.
    Rest,
}

/// What all callers of a client keep to for a while, in place of everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// They read one of the keys.
    Read(u64),
    /// They write one of the keys.
    Write(u64),
    /// They write eventually.
    Deposit,
}

/// How heavy the load is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Callers of each client.
    pub callers: u64,
    /// Longest pause between two calls of a caller, in milliseconds.
    pub pause_ms: u64,
    /// Keys that are read and written.
    pub keys: u64,
    /// Of a thousand values, how many are large, and how many bytes those have at most.
    pub large: (u64, u64),
    /// Shards of the network.
    pub shards: u32,
}

/// What all clients share with whoever runs the simulation. Clones are the same.
#[derive(Clone)]
pub struct Shared {
    state: Arc<State>,
}

struct State {
    phase: AtomicU8,
    now: AtomicU64,
    callers: AtomicU64,
    probed: AtomicU64,
    recorder: Recorder,
    /// Nodes that were removed, with what was in their outboxes.
    lost: Mutex<BTreeSet<String>>,
    /// What clients keep to, by their place.
    focus: Mutex<BTreeMap<usize, Focus>>,
    /// Who took the eventual write of that stamp.
    takers: Mutex<BTreeMap<u64, String>>,
    eventual: Mutex<BTreeMap<String, Eventual>>,
    ages: Mutex<Ages>,
    trace: Trace,
    load: Load,
}

/// What is known of a key that has eventual writes.
#[derive(Default)]
struct Eventual {
    /// Values of those that were accepted, by their stamps; no value of a delete.
    accepted: BTreeMap<u64, Option<String>>,
    /// Values of those whose stamp is not known: strong ones, and eventual ones that may have been
    /// accepted.
    others: BTreeSet<Option<String>>,
}

impl Shared {
    /// For a run with that load.
    pub fn new(load: Load, trace: Trace) -> Self {
        let state = State {
            phase: AtomicU8::new(Phase::Load as u8),
            now: AtomicU64::new(0),
            callers: AtomicU64::new(0),
            probed: AtomicU64::new(0),
            recorder: Recorder::default(),
            lost: Mutex::default(),
            focus: Mutex::default(),
            takers: Mutex::default(),
            eventual: Mutex::default(),
            ages: Mutex::default(),
            trace,
            load,
        };
        Self { state: Arc::new(state) }
    }

    /// Says which tick passes.
    pub fn set_now(&self, now: u64) {
        self.state.now.store(now, Ordering::Relaxed);
    }

    /// The tick that passes.
    pub fn now(&self) -> u64 {
        self.state.now.load(Ordering::Relaxed)
    }

    /// Says what to do from now on.
    pub fn set_phase(&self, phase: Phase) {
        self.state.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether that is what is to be done.
    pub fn is(&self, phase: Phase) -> bool {
        self.state.phase.load(Ordering::Relaxed) == phase as u8
    }

    /// Callers that have finished their last reads and writes, and callers in all.
    pub fn probed(&self) -> (u64, u64) {
        (self.state.probed.load(Ordering::Relaxed), self.state.callers.load(Ordering::Relaxed))
    }

    /// Has the callers of a client keep to one thing.
    pub fn focus(&self, client: usize, focus: Focus) {
        self.state.focus.lock().unwrap_or_else(PoisonError::into_inner).insert(client, focus);
    }

    /// Has all callers do anything again.
    pub fn focus_on_nothing(&self) {
        self.state.focus.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn focus_of(&self, client: u64) -> Option<Focus> {
        let focus = self.state.focus.lock().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(client).ok().and_then(|client| focus.get(&client).copied())
    }

    /// How many keys are read and written.
    pub fn keys(&self) -> u64 {
        self.state.load.keys
    }

    /// The name of one of them.
    pub fn key(number: u64) -> String {
        format!("k{number}")
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &str) -> GroupId {
        let shards = u128::from(self.state.load.shards);
        GroupId(((u128::from(key_hash(key.as_bytes())) * shards) >> 64) as u32 + 1)
    }

    /// These nodes were removed: what they had taken and not delivered may be lost.
    pub fn nodes_were_removed(&self, names: impl IntoIterator<Item = String>) {
        self.state.lost.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// Whether the accepted write of that stamp may have gone with the node that took it.
    fn may_be_lost(&self, stamp: u64) -> bool {
        let lost = self.state.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let takers = self.state.takers.lock().unwrap_or_else(PoisonError::into_inner);
        // One without a name was removed before it could be looked up.
        let is_lost = |name: &String| lost.contains(name) || !name.starts_with('n');
        !lost.is_empty() && takers.get(&stamp).is_none_or(is_lost)
    }

    /// Everything that was asked, as it is to be judged.
    pub fn history(&self) -> History {
        let mut history = self.state.recorder.history();
        for operation in &mut history.operations {
            if let Outcome::Accepted { stamp } = operation.outcome
                && self.may_be_lost(stamp)
            {
                operation.outcome = Outcome::Unknown;
            }
        }
        history
    }

    /// A clock does not show the time any more. How old an answer is, is measured by the nodes'
    /// own.
    pub fn clocks_were_wrong(&self) {
        self.ages().clocks_were_wrong();
    }

    /// Answers that were older than they said.
    pub fn too_old(&self) -> Vec<String> {
        self.ages().too_old().to_vec()
    }

    fn ages(&self) -> MutexGuard<'_, Ages> {
        self.state.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_write(&self, key: &str, value: Option<String>, outcome: &Outcome) {
        if !key.starts_with('e') {
            return;
        }
        let mut keys = self.state.eventual.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.entry(key.to_owned()).or_default();
        match outcome {
            Outcome::Accepted { stamp } => {
                known.accepted.insert(*stamp, value);
            }
            // A delete of what is not there is the latest write as well.
            Outcome::Unknown | Outcome::Written { .. } | Outcome::Absent { .. } => {
                known.others.insert(value);
            }
            _ => {}
        }
    }

    /// Whether that is what a key with eventual writes is to be in the end.
    fn is_settled(&self, key: &str, outcome: &Outcome) -> bool {
        let shown = match outcome {
            Outcome::Value { value, .. } => Some(value.to_string()),
            Outcome::Absent { .. } => None,
            _ => return false,
        };
        let keys = self.state.eventual.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = keys.get(key) else { return true };
        let mut latest = known.accepted.iter().rev();
        // Those after the last that is not lost may have been done all the same.
        let kept = latest.by_ref().find(|(stamp, _)| !self.may_be_lost(**stamp));
        let Some((kept, value)) = kept else { return true };
        let mut later = known.accepted.range(kept + 1..).map(|(_, value)| value);
        *value == shown || known.others.contains(&shown) || later.any(|value| *value == shown)
    }

    /// Everything that was asked.
    pub fn recorder(&self) -> &Recorder {
        &self.state.recorder
    }
}

/// One client machine.
pub struct ClientMachine {
    /// Which one.
    pub number: u64,
    /// Where the registration server is.
    pub server: String,
    /// The file with the token to join with.
    pub token_file: PathBuf,
    /// Where the client keeps its files.
    pub home: PathBuf,
    /// What it draws from.
    pub random: Random,
}

/// Runs the callers of one client machine.
pub async fn run(machine: ClientMachine, shared: Shared) {
    let ClientMachine { number, server, token_file, home, mut random } = machine;
    let callers = shared.state.load.callers;
    shared.state.callers.fetch_add(callers, Ordering::Relaxed);
    let client = connect(&server, &token_file, &home).await;
    shared.state.trace.line(format!("client {number} is connected"));
    for caller in 0..callers {
        let caller = Caller {
            id: number * 100 + caller,
            client: client.clone(),
            random: random.fork(),
            shared: shared.clone(),
            calls: 0,
            own: 0,
            seen: None,
        };
        tokio::spawn(caller.run());
    }
    std::future::pending::<()>().await;
}

async fn connect(server: &str, token_file: &PathBuf, home: &PathBuf) -> Client {
    loop {
        let builder = Client::builder().server(server).token_file(token_file).home(home);
        match builder.timeout(Duration::from_secs(5)).connect().await {
            Ok(client) => return client,
            Err(error) => tracing::debug!(%error, "not connected"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Caller {
    id: u64,
    client: Client,
    random: Random,
    shared: Shared,
    calls: u64,
    /// Keys that were written once.
    own: u64,
    /// The key and revision that were read last.
    seen: Option<(u64, u64)>,
}

impl Caller {
    async fn run(mut self) {
        let load = self.shared.state.load;
        while self.shared.is(Phase::Load) {
            let focus = self.shared.focus_of(self.client_place());
            let pause_ms = if focus.is_some() { FOCUS_PAUSE_MS } else { load.pause_ms };
            let pause_ms = self.random.below(pause_ms + 1);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match focus {
                Some(focus) => self.keep_to(focus).await,
                None => self.call().await,
            }
        }
        while !self.shared.is(Phase::Probe) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for key in 0..self.shared.state.load.keys {
            self.until_it_succeeds(key, false).await;
            if self.id.is_multiple_of(2) {
                self.until_it_succeeds(key, true).await;
            }
        }
        let own = (0..self.own).map(|number| self.own_key(number));
        let keys: Vec<String> =
            (0..EVENTUAL_KEYS).map(|number| format!("e{number}")).chain(own).collect();
        for key in keys {
            loop {
                let read = self.get_key(&key, Level::Strong.into(), LAST_PATIENCE).await;
                if self.shared.is_settled(&key, &read) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.shared.state.probed.fetch_add(1, Ordering::Relaxed);
    }

    /// The place of its client among all.
    fn client_place(&self) -> u64 {
        self.id / 100 - 1
    }

    /// One call of the kind that all callers of this client keep to.
    async fn keep_to(&mut self, focus: Focus) {
        let (low, high) = match focus {
            // Who reaches nobody else may have to find out whom it reaches.
            Focus::Deposit => PATIENCE_MS,
            Focus::Read(_) | Focus::Write(_) => FOCUS_PATIENCE_MS,
        };
        let patience = Duration::from_millis(self.random.between(low, high));
        match focus {
            Focus::Read(key) => drop(self.get(key, Level::Strong.into(), patience).await),
            Focus::Write(key) => drop(self.put(key, Condition::Always, patience).await),
            Focus::Deposit if self.own < OWN_KEYS_MAX => {
                let key = self.own_key(self.own);
                self.own += 1;
                drop(self.deposit(&key, true, patience).await);
            }
            Focus::Deposit => {
                let key = format!("e{}", self.random.below(EVENTUAL_KEYS));
                drop(self.deposit(&key, true, patience).await);
            }
        }
    }

    /// One call, of any kind.
    async fn call(&mut self) {
        let load = self.shared.state.load;
        let key = self.random.below(load.keys);
        let (low, high) = PATIENCE_MS;
        let patience = Duration::from_millis(self.random.between(low, high));
        if self.random.per_mille(SCANS_PER_MILLE) {
            let level = match self.random.below(8) {
                0 | 1 => Level::Eventual,
                2 => Level::Session,
                _ => Level::Strong,
            };
            return self.scan(level, patience).await;
        }
        let eventual = format!("e{}", self.random.below(EVENTUAL_KEYS));
        match self.random.below(120) {
            // Written once, so that nothing later hides that it was lost.
            100..103 if self.own < OWN_KEYS_MAX => {
                let key = self.own_key(self.own);
                self.own += 1;
                drop(self.deposit(&key, true, patience).await);
            }
            100..106 => drop(self.deposit(&eventual, true, patience).await),
            106..108 => drop(self.deposit(&eventual, false, patience).await),
            108..110 => drop(self.put_key(&eventual, Condition::Always, patience).await),
            110..111 => drop(self.delete_key(&eventual, patience).await),
            111..113 => drop(self.get_key(&eventual, ReadOptions::eventual(), patience).await),
            113..118 => drop(self.get_key(&eventual, ReadOptions::session(), patience).await),
            118..120 => drop(self.get_key(&eventual, Level::Strong.into(), patience).await),
            0..25 => drop(self.get(key, Level::Strong.into(), patience).await),
            25..35 => {
                let nearest = ReadOptions::from(Level::Strong).nearest(true);
                drop(self.get(key, nearest, patience).await);
            }
            35..38 => drop(self.get(key, ReadOptions::eventual(), patience).await),
            38..42 => drop(self.get(key, ReadOptions::session(), patience).await),
            42..78 => drop(self.put(key, Condition::Always, patience).await),
            78..90 => {
                let condition = match (self.random.below(4), self.seen) {
                    (0, _) => Condition::Absent,
                    (1, _) => Condition::Present,
                    (_, Some((seen, revision))) if seen == key => {
                        Condition::Revision(dkv_api::Revision(revision))
                    }
                    _ => Condition::Always,
                };
                drop(self.put(key, condition, patience).await);
            }
            _ => drop(self.delete(key, patience).await),
        }
    }

    /// A key that this caller alone writes, eventually and once.
    fn own_key(&self, number: u64) -> String {
        format!("e{}-{number}", self.id)
    }

    async fn until_it_succeeds(&mut self, key: u64, write: bool) {
        loop {
            let outcome = if write {
                self.put(key, Condition::Always, LAST_PATIENCE).await
            } else {
                self.get(key, Level::Strong.into(), LAST_PATIENCE).await
            };
            if !matches!(outcome, Outcome::Failed | Outcome::Unknown) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&mut self, key: u64, options: ReadOptions, patience: Duration) -> Outcome {
        let outcome = self.get_key(&Shared::key(key), options, patience).await;
        if let Outcome::Value { revision: Some(revision), .. } = outcome {
            self.seen = Some((key, revision));
        }
        outcome
    }

    /// An eventual put or delete.
    async fn deposit(&mut self, key: &str, put: bool, patience: Duration) -> Outcome {
        let begun = self.begin_key(key);
        let value = format!("{}-{}", self.id, self.calls);
        let options = WriteOptions::from(Level::Eventual).timeout(patience);
        let written = match put {
            true => self.client.write_with(key, format!("{value} ").into_bytes(), options).await,
            false => self.client.delete_with(key, options).await,
        };
        let outcome = match written {
            Ok(written) => {
                let (node, stamp) = (written.receipt.node, written.receipt.stamp.0);
                let taker = self.client.names(&[node]).concat();
                self.shared.state.trace.line(format!("{} {key} is kept by {taker}", self.id));
                let takers = &self.shared.state.takers;
                takers.lock().unwrap_or_else(PoisonError::into_inner).insert(stamp, taker);
                Outcome::Accepted { stamp }
            }
            Err(error) => failed(error),
        };
        let condition = check::Condition::Always;
        let noted = put.then(|| value.clone());
        self.shared.note_write(key, noted, &outcome);
        let action = match put {
            true => Action::Put { value: value.into(), condition },
            false => Action::Delete(condition),
        };
        self.end(begun, action, outcome)
    }

    async fn get_key(&mut self, key: &str, options: ReadOptions, patience: Duration) -> Outcome {
        let begun = self.begin_key(key);
        let read = self.client.read_with(&begun.key, options.timeout(patience)).await;
        let outcome = match read {
            Ok(value) => {
                let pending = value.receipt.pending.is_some();
                let revision = Some(value.receipt.revision.0).filter(|_| !pending);
                if let (Some(revision), Some(age_ms)) = (revision, value.receipt.staleness_ms) {
                    self.shared.ages().read(key, begun.start_ns / TICK_NS, age_ms, revision);
                }
                let length = value.value.iter().position(|b| *b == b' ').unwrap_or(0);
                let name = String::from_utf8_lossy(&value.value[..length]);
                Outcome::Value { value: name.into(), revision }
            }
            Err(error) => failed(error),
        };
        let level = match options.level {
            Level::Strong | Level::All => check::Level::Strong,
            Level::Eventual => check::Level::Eventual,
            Level::Session => check::Level::Session,
        };
        self.end(begun, Action::Get(level), outcome)
    }

    async fn put(&mut self, key: u64, condition: Condition, patience: Duration) -> Outcome {
        self.put_key(&Shared::key(key), condition, patience).await
    }

    async fn put_key(&mut self, key: &str, condition: Condition, patience: Duration) -> Outcome {
        let begun = self.begin_key(key);
        let value = format!("{}-{}", self.id, self.calls);
        let (often, bytes) = self.shared.state.load.large;
        let large = self.random.per_mille(often);
        let length = self.random.below(if large { bytes } else { 100 }) as usize;
        // The name of the value, and what only makes it longer.
        let mut bytes = format!("{value} ").into_bytes();
        bytes.resize(bytes.len() + length, b'.');
        let options = WriteOptions::default().condition(condition).timeout(patience);
        let written = self.client.write_with(&begun.key, bytes, options).await;
        let outcome = match written {
            Ok(written) => done(written.receipt, written.existed),
            Err(error) => failed(error),
        };
        let condition = match condition {
            Condition::Always => check::Condition::Always,
            Condition::Absent => check::Condition::Absent,
            Condition::Present => check::Condition::Present,
            Condition::Revision(revision) => check::Condition::Revision(revision.0),
        };
        self.shared.note_write(key, Some(value.clone()), &outcome);
        self.note_age(key, &outcome);
        self.end(begun, Action::Put { value: value.into(), condition }, outcome)
    }

    async fn delete(&mut self, key: u64, patience: Duration) -> Outcome {
        self.delete_key(&Shared::key(key), patience).await
    }

    async fn delete_key(&mut self, key: &str, patience: Duration) -> Outcome {
        let begun = self.begin_key(key);
        let options = WriteOptions::default().timeout(patience);
        let outcome = match self.client.delete_with(&begun.key, options).await {
            Ok(written) => done(written.receipt, written.existed),
            Err(error) => failed(error),
        };
        self.shared.note_write(key, None, &outcome);
        self.note_age(key, &outcome);
        self.end(begun, Action::Delete(check::Condition::Always), outcome)
    }

    fn note_age(&self, key: &str, outcome: &Outcome) {
        if let Outcome::Written { revision: Some(revision), .. } = outcome {
            self.shared.ages().wrote(key, self.shared.now(), *revision);
        }
    }

    fn begin_key(&mut self, key: &str) -> Begun {
        self.calls += 1;
        Begun { key: key.to_owned(), start_ns: self.shared.now() * TICK_NS }
    }

    fn end(&self, begun: Begun, action: Action, outcome: Outcome) -> Outcome {
        let Begun { key, start_ns } = begun;
        let shard = self.shared.shard_of(&key).0;
        // Within a tick nobody knows what came first: what ended in it, ended with it.
        let end_ns = self.shared.now() * TICK_NS + TICK_NS - 1;
        let line = format!("{} {key} {action:?} -> {outcome:?}", self.id);
        self.shared.state.trace.line(line);
        let operation = Operation {
            client: self.id,
            shard,
            key: key.into(),
            start_ns,
            end_ns,
            action,
            outcome: outcome.clone(),
        };
        self.shared.state.recorder.add(operation);
        outcome
    }
}

struct Begun {
    key: String,
    start_ns: u64,
}

fn done(receipt: Receipt, existed: bool) -> Outcome {
    Outcome::Written { revision: Some(receipt.revision.0), existed: Some(existed) }
}

fn failed(error: Error) -> Outcome {
    match error {
        // A delete that is not ordered yet has no revision.
        Error::NotFound { receipt } => Outcome::Absent {
            revision: Some(receipt.revision.0).filter(|_| receipt.pending.is_none()),
        },
        Error::Conflict { current, .. } => {
            let absent = check::Current::Absent;
            let current = current.map_or(absent, |revision| check::Current::Revision(revision.0));
            Outcome::Conflict { current: Some(current) }
        }
        Error::Unknown(_) => Outcome::Unknown,
        Error::Incomplete { written, .. } => done(written.receipt, written.existed),
        Error::Unavailable(_) | Error::Invalid(_) | Error::TooLarge { .. } | Error::Denied(_) => {
            Outcome::Failed
        }
        other => unreachable!("an error of a new kind: {other}"),
    }
}
