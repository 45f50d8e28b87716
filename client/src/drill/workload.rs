//! Clients that read and write until they are told to stop, and take down all that they see.
//!
//! Each connection has three kinds of them:
//! - *Mixers* read, write and delete a few keys that all of them share, with and without
//!   conditions, so that operations meet each other in every way.
//! - *Inserters* write keys of their own, each once, on condition that it is absent: what is lost
//!   is missed, and what is executed twice meets itself.
//! - *Readers* only read what the mixers write, so that the time in which a key can be read is seen
//!   closely.
//!
//! At the end every key that was ever touched is read once more. What it all means is for the
//! checkers to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dkv_api::{Client, Condition, Error, Level, ReadOptions, Receipt, Revision, WriteOptions};
use dkv_check::{Action, Current, History, Operation, Outcome, Recorder};
use tokio::task::JoinSet;

const MIXERS: u64 = 3;
/// Time that every key has to be read again at the end.
const READ_BACK: Duration = Duration::from_secs(30);
/// Reads at the same time at the end.
const READS: usize = 32;
/// Values longer than this are noted by their beginning and a hash.
const NOTED_BYTES: usize = 32;

/// What the clients do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What all keys begin with.
    pub(crate) prefix: String,
    /// Keys that the mixers share.
    pub(crate) keys: u64,
    /// Length of a value, in bytes; at least what its name takes.
    pub(crate) value_bytes: usize,
    /// Pause after each operation, so that a machine is not simply full.
    pub(crate) pause: Duration,
    /// Time that an operation may take.
    pub(crate) timeout: Duration,
    /// Where chance begins.
    pub(crate) seed: u64,
}

/// Clients at work.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    plan: Plan,
    recorder: Recorder,
    stop: AtomicBool,
    origin: Instant,
    /// Writes that were acknowledged.
    written: AtomicU64,
}

/// One client: a connection that it may share, and a number of its own.
struct Worker {
    client: Client,
    number: u64,
    chance: Chance,
    shared: Arc<Shared>,
}

impl Workload {
    /// Puts clients to work on each of the connections.
    pub(crate) fn start(connections: &[Client], plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            recorder: Recorder::default(),
            stop: AtomicBool::new(false),
            origin: Instant::now(),
            written: AtomicU64::new(0),
            plan,
        });
        let mut tasks = JoinSet::new();
        let mut number = 0;
        for client in connections {
            let mut worker = || {
                number += 1;
                let chance = Chance(shared.plan.seed.wrapping_add(number << 32));
                Worker { client: client.clone(), number, chance, shared: Arc::clone(&shared) }
            };
            for _ in 0..MIXERS {
                tasks.spawn(worker().mix());
            }
            tasks.spawn(worker().insert());
            tasks.spawn(worker().watch());
        }
        Self { shared, tasks }
    }

    /// Time since the beginning, as the history has it.
    pub(crate) fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Writes that were acknowledged so far.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Operations that have come to an end so far.
    #[allow(dead_code, reason = "only some of those who use this file count them")]
    pub(crate) fn done(&self) -> usize {
        self.shared.recorder.len()
    }

    /// Stops the clients, reads every key once more and tells all that was seen. A key that cannot
    /// be read in half a minute is noted as a read that failed.
    pub(crate) async fn finish(mut self, client: &Client) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            // A client that panics has found something that must not be lost in a list.
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let mut keys: Vec<Arc<str>> =
            self.shared.recorder.history().operations.into_iter().map(|it| it.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let deadline = Instant::now() + READ_BACK;
        let reads = keys.into_iter().map(|key| {
            let shared = Arc::clone(&self.shared);
            let mut worker =
                Worker { client: client.clone(), number: 0, chance: Chance(0), shared };
            async move {
                while worker.get(&key, Level::Strong).await.is_none() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        futures::StreamExt::for_each_concurrent(futures::stream::iter(reads), READS, |read| read)
            .await;
        self.shared.recorder.history()
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Worker {
    async fn mix(mut self) {
        let mut serial = 0_u64;
        // The revision that each shared key had when this client last heard of it.
        let mut seen = vec![None; self.shared.plan.keys as usize];
        while self.shared.goes_on() {
            let place = self.chance.below(self.shared.plan.keys) as usize;
            let key: Arc<str> = format!("{}shared-{place}", self.shared.plan.prefix).into();
            serial += 1;
            let value = self.value(serial);
            let last = seen[place].map_or(Condition::Present, Condition::Revision);
            let now = match self.chance.below(20) {
                0..6 => self.get(&key, Level::Strong).await.flatten(),
                6..8 => self.get(&key, Level::Eventual).await.flatten(),
                8..12 => self.put(&key, value, Condition::Always).await,
                12..16 => self.put(&key, value, last).await,
                16 => self.put(&key, value, Condition::Present).await,
                17 => self.put(&key, value, Condition::Absent).await,
                18 => self.delete(&key, Condition::Always).await,
                _ => self.delete(&key, last).await,
            };
            seen[place] = now.or(seen[place]);
            tokio::time::sleep(self.shared.plan.pause).await;
        }
    }

    async fn insert(mut self) {
        let mut serial = 0_u64;
        while self.shared.goes_on() {
            serial += 1;
            let key = format!("{}own-{}-{serial}", self.shared.plan.prefix, self.number).into();
            let value = self.value(serial);
            self.put(&key, value, Condition::Absent).await;
            tokio::time::sleep(self.shared.plan.pause).await;
        }
    }

    async fn watch(mut self) {
        while self.shared.goes_on() {
            let place = self.chance.below(self.shared.plan.keys);
            let key = format!("{}shared-{place}", self.shared.plan.prefix).into();
            self.get(&key, Level::Strong).await;
            tokio::time::sleep(self.shared.plan.pause).await;
        }
    }

    /// A value that nobody else writes.
    fn value(&self, serial: u64) -> String {
        let name = format!("{}.{serial}", self.number);
        let filling = ".".repeat(self.shared.plan.value_bytes.saturating_sub(name.len()));
        name + &filling
    }

    /// Reads. Tells the revision, if there is one; nothing at all if there was no answer.
    async fn get(&mut self, key: &Arc<str>, level: Level) -> Option<Option<Revision>> {
        let start_ns = self.shared.now_ns();
        let options = ReadOptions::from(level).timeout(self.shared.plan.timeout);
        let read = self.client.read_with(key.as_bytes(), options).await;
        let (shard, outcome, told) = match read {
            Ok(read) => {
                let at = read.receipt.revision;
                let value = noted(&read.value);
                let outcome = Outcome::Value { value, revision: Some(at.0) };
                (shard(&read.receipt), outcome, Some(Some(at)))
            }
            Err(Error::NotFound { receipt }) => (
                shard(&receipt),
                Outcome::Absent { revision: Some(receipt.revision.0) },
                Some(None),
            ),
            Err(_) => (0, Outcome::Failed, None),
        };
        let action = Action::Get(match level {
            Level::Strong | Level::All => dkv_check::Level::Strong,
            Level::Eventual => dkv_check::Level::Eventual,
            Level::Session => dkv_check::Level::Session,
        });
        self.note(key, shard, start_ns, action, outcome);
        told
    }

    async fn put(
        &mut self,
        key: &Arc<str>,
        value: String,
        condition: Condition,
    ) -> Option<Revision> {
        let start_ns = self.shared.now_ns();
        let noted = noted(value.as_bytes());
        let options =
            WriteOptions::default().condition(condition).timeout(self.shared.plan.timeout);
        let written = self.client.write_with(key.as_bytes(), value, options).await;
        let action = Action::Put { value: noted, condition: condition_of(condition) };
        self.note_write(key, start_ns, action, written)
    }

    async fn delete(&mut self, key: &Arc<str>, condition: Condition) -> Option<Revision> {
        let start_ns = self.shared.now_ns();
        let options =
            WriteOptions::default().condition(condition).timeout(self.shared.plan.timeout);
        let written = self.client.delete_with(key.as_bytes(), options).await;
        self.note_write(key, start_ns, Action::Delete(condition_of(condition)), written)
    }

    fn note_write(
        &self,
        key: &Arc<str>,
        start_ns: u64,
        action: Action,
        result: Result<dkv_api::Written, Error>,
    ) -> Option<Revision> {
        let (shard, outcome, told) = match result {
            Ok(written) => {
                self.shared.written.fetch_add(1, Ordering::Relaxed);
                let (at, existed) = (written.receipt.revision, Some(written.existed));
                let outcome = Outcome::Written { revision: Some(at.0), existed };
                (shard(&written.receipt), outcome, Some(at))
            }
            Err(Error::NotFound { receipt }) => {
                (shard(&receipt), Outcome::Absent { revision: Some(receipt.revision.0) }, None)
            }
            Err(Error::Conflict { current, receipt }) => {
                let found = current.map_or(Current::Absent, |at| Current::Revision(at.0));
                (shard(&receipt), Outcome::Conflict { current: Some(found) }, current)
            }
            Err(error) if error.may_have_had_effect() => (0, Outcome::Unknown, None),
            Err(_) => (0, Outcome::Failed, None),
        };
        self.note(key, shard, start_ns, action, outcome);
        told
    }

    fn note(&self, key: &Arc<str>, shard: u32, start_ns: u64, action: Action, outcome: Outcome) {
        let (client, key, end_ns) = (self.number, Arc::clone(key), self.shared.now_ns());
        let operation = Operation { client, shard, key, start_ns, end_ns, action, outcome };
        self.shared.recorder.add(operation);
    }
}

fn shard(receipt: &Receipt) -> u32 {
    receipt.shard.0
}

fn condition_of(condition: Condition) -> dkv_check::Condition {
    match condition {
        Condition::Always => dkv_check::Condition::Always,
        Condition::Absent => dkv_check::Condition::Absent,
        Condition::Present => dkv_check::Condition::Present,
        Condition::Revision(revision) => dkv_check::Condition::Revision(revision.0),
    }
}

/// A value as the history has it.
fn noted(value: &[u8]) -> Arc<str> {
    let text = String::from_utf8_lossy(value);
    if value.len() <= NOTED_BYTES {
        return text.into();
    }
    let beginning: String =
        text.chars().take_while(|it| it.is_ascii_digit() || *it == '.').take(16).collect();
    format!("{beginning}#{}#{:016x}", value.len(), xxhash_rust::xxh3::xxh3_64(value)).into()
}

/// The longest time within a history, from one moment to another, in which a shard acknowledged no
/// write, and when it began.
pub(crate) fn longest_wait(history: &History, from_ns: u64, to_ns: u64) -> (u64, u64) {
    let mut shards: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for operation in &history.operations {
        if matches!(operation.outcome, Outcome::Written { .. }) {
            let moments = shards.entry(operation.shard).or_insert_with(|| vec![from_ns, to_ns]);
            moments.extend(Some(operation.end_ns).filter(|it| (from_ns..to_ns).contains(it)));
        }
    }
    let longest = |mut moments: Vec<u64>| {
        moments.sort_unstable();
        moments.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max()
    };
    shards.into_values().filter_map(longest).max().unwrap_or((to_ns - from_ns, from_ns))
}

/// Numbers that look random, and are the same for the same seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
