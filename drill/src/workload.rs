//! Clients that read and write until they are stopped, and record everything that they see.
//!
//! Each connection has five kinds of clients:
//! - *Mixers* read, write and delete a few shared keys, with and without conditions, so that their
//!   operations conflict in every way.
//! - *Inserters* write keys of their own, each once and only if it is absent: a lost write leaves
//!   its key absent, and a write that is executed twice conflicts with itself.
//! - *Readers* read the keys of the mixers continuously, which shows precisely when a key can be
//!   read.
//!
//! - A *banker* moves money between accounts by transactions (`bank`).
//! - A *tenant* holds leases, and competes for a lock (`tenant`).
//!
//! A watcher follows all of it (`follower`). At the end every key is read once more. The checkers
//! judge the resulting history.

mod bank;
mod follower;
mod tenant;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dkv_api::{Client, Condition, Error, Level, ReadOptions, Receipt, Revision, WriteOptions};
use dkv_base::sync::lock;
use dkv_check::{Action, Current, History, Operation, Outcome, Recorder};
use tokio::task::JoinSet;

pub use self::follower::Followed;
use self::follower::Follower;
pub use self::tenant::Tenancies;

const MIXERS: u64 = 3;
/// Time limit for reading every key again at the end.
const READ_BACK: Duration = Duration::from_secs(30);
/// Time for which clients wait for the watch to begin.
const WATCH_BEGINS_WITHIN: Duration = Duration::from_secs(10);
/// Problems that are kept.
const PROBLEMS_MAX: usize = 8;
/// Concurrent reads at the end.
const READS: usize = 32;
/// The history keeps only the beginning and a hash of values longer than this.
const VALUE_BYTES_RECORDED: usize = 32;

/// How the clients work.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Prefix of all keys.
    pub prefix: String,
    /// Number of keys that the mixers share.
    pub keys: u64,
    /// Length of a value, in bytes; a value is at least as long as its name.
    pub value_bytes: usize,
    /// Pause after each operation, so as not to overload the machine.
    pub pause: Duration,
    /// Time limit of an operation.
    pub timeout: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// Clients at work.
pub struct Workload {
    state: Arc<State>,
    tasks: JoinSet<()>,
    following: JoinSet<()>,
}

struct State {
    plan: Plan,
    recorder: Recorder,
    stop: AtomicBool,
    origin: Instant,
    /// Number of acknowledged writes.
    written: AtomicU64,
    /// Number of transfers that were begun.
    entries: AtomicU64,
    follower: Follower,
    tenants: tenant::Counts,
    problems: Mutex<Vec<String>>,
}

/// What the clients leave when they have stopped.
#[derive(Debug, Default)]
pub struct Work {
    /// All that they saw.
    pub history: History,
    /// What the watcher saw.
    pub followed: Followed,
    /// What the tenants did.
    pub tenancies: Tenancies,
    /// Broken promises that are not in the history.
    pub problems: Vec<String>,
}

/// One client, with its number and a connection that it may share.
struct Worker {
    client: Client,
    number: u64,
    random: SplitMix64,
    state: Arc<State>,
}

impl Workload {
    /// Starts clients on each of the connections.
    pub fn start(connections: &[Client], plan: Plan) -> Self {
        let recorder = Recorder::default();
        let state = Arc::new(State {
            follower: Follower::new(&plan.prefix, recorder.clone()),
            recorder,
            stop: AtomicBool::new(false),
            origin: Instant::now(),
            written: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            tenants: tenant::Counts::default(),
            problems: Mutex::default(),
            plan,
        });
        let mut tasks = JoinSet::new();
        let mut following = JoinSet::new();
        if let Some(client) = connections.first() {
            let (client, state) = (client.clone(), Arc::clone(&state));
            following.spawn(async move {
                if let Err(error) = state.follower.follow(client, state.plan.seed).await {
                    state.note_problem(format!("the watch ended: {error}"));
                }
            });
        }
        let mut number = 0;
        for client in connections {
            let mut worker = || {
                number += 1;
                let random = SplitMix64(state.plan.seed.wrapping_add(number << 32));
                Worker { client: client.clone(), number, random, state: Arc::clone(&state) }
            };
            for _ in 0..MIXERS {
                tasks.spawn(worker().begun(Worker::mix));
            }
            tasks.spawn(worker().begun(Worker::insert));
            tasks.spawn(worker().begun(Worker::read));
            tasks.spawn(worker().begun(Worker::transfer));
            tasks.spawn(worker().begun(Worker::hold));
        }
        Self { state, tasks, following }
    }

    /// Returns the time since the start by the clock of the history, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.state.now_ns()
    }

    /// Returns the number of acknowledged writes so far.
    pub fn written(&self) -> u64 {
        self.state.written.load(Ordering::Relaxed)
    }

    /// Returns the number of finished operations so far.
    pub fn done(&self) -> usize {
        self.state.recorder.len()
    }

    /// Stops the clients, reads every key once more and returns what they saw. A key that cannot be
    /// read within half a minute is recorded as a failed read.
    ///
    /// # Panics
    /// If a client has panicked.
    pub async fn finish(mut self, client: &Client) -> Work {
        self.state.stop.store(true, Ordering::Relaxed);
        join_all(&mut self.tasks).await;
        let mut keys: Vec<Arc<str>> =
            self.state.recorder.history().operations.into_iter().map(|it| it.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let deadline = Instant::now() + READ_BACK;
        let reads = keys.into_iter().map(|key| {
            let state = Arc::clone(&self.state);
            let mut worker =
                Worker { client: client.clone(), number: 0, random: SplitMix64(0), state };
            async move {
                while worker.get(&key, Level::Strong).await.is_none() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        futures::StreamExt::for_each_concurrent(futures::stream::iter(reads), READS, |read| read)
            .await;
        let state = Arc::clone(&self.state);
        let mut auditor =
            Worker { client: client.clone(), number: 0, random: SplitMix64(0), state };
        auditor.audit_all(deadline).await;
        let (followed, difference) = self.state.follower.finish(client, deadline).await;
        join_all(&mut self.following).await;
        let problems = lock(&self.state.problems);
        let problems = problems.iter().cloned().chain(difference).collect();
        let tenancies = self.state.tenants.tenancies();
        Work { history: self.state.recorder.history(), followed, tenancies, problems }
    }
}

async fn join_all(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        // A client panics only if it has found a bug, which must not go unnoticed.
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl State {
    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn note_problem(&self, problem: String) {
        let mut problems = lock(&self.problems);
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        }
    }

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Worker {
    /// Works once the watch has begun.
    async fn begun<F: Future<Output = ()>>(self, work: impl FnOnce(Self) -> F) {
        self.state.follower.begun(WATCH_BEGINS_WITHIN).await;
        work(self).await;
    }

    async fn mix(mut self) {
        let mut serial = 0_u64;
        // The last revision of each shared key that this client knows.
        let mut seen = vec![None; self.state.plan.keys as usize];
        while self.state.is_running() {
            let place = self.random.below(self.state.plan.keys) as usize;
            let key: Arc<str> = format!("{}shared-{place}", self.state.plan.prefix).into();
            serial += 1;
            let value = self.value(serial);
            let last = seen[place].map_or(Condition::Present, Condition::Revision);
            let now = match self.random.below(20) {
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
            tokio::time::sleep(self.state.plan.pause).await;
        }
    }

    async fn insert(mut self) {
        let mut serial = 0_u64;
        while self.state.is_running() {
            serial += 1;
            let key = format!("{}own-{}-{serial}", self.state.plan.prefix, self.number).into();
            let value = self.value(serial);
            self.put(&key, value, Condition::Absent).await;
            tokio::time::sleep(self.state.plan.pause).await;
        }
    }

    async fn read(mut self) {
        while self.state.is_running() {
            let place = self.random.below(self.state.plan.keys);
            let key = format!("{}shared-{place}", self.state.plan.prefix).into();
            self.get(&key, Level::Strong).await;
            tokio::time::sleep(self.state.plan.pause).await;
        }
    }

    /// Returns a value that no other write has.
    fn value(&self, serial: u64) -> String {
        let name = format!("{}.{serial}", self.number);
        let filling = ".".repeat(self.state.plan.value_bytes.saturating_sub(name.len()));
        name + &filling
    }

    /// Reads a key. Returns its revision, if it exists; `None` if there was no answer.
    async fn get(&mut self, key: &Arc<str>, level: Level) -> Option<Option<Revision>> {
        let start_ns = self.state.now_ns();
        let options = ReadOptions::from(level).timeout(self.state.plan.timeout);
        let read = self.client.read_with(key.as_bytes(), options).await;
        let (shard, outcome, revision) = match read {
            Ok(read) => {
                let at = read.receipt.revision;
                let value = recorded(&read.value);
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
        self.record(key, shard, start_ns, action, outcome);
        revision
    }

    async fn put(
        &mut self,
        key: &Arc<str>,
        value: String,
        condition: Condition,
    ) -> Option<Revision> {
        let start_ns = self.state.now_ns();
        let recorded = recorded(value.as_bytes());
        let options = WriteOptions::default().condition(condition).timeout(self.state.plan.timeout);
        let written = self.client.write_with(key.as_bytes(), value, options).await;
        let action = Action::Put { value: recorded, condition: condition_of(condition) };
        self.record_write(key, start_ns, action, written)
    }

    async fn delete(&mut self, key: &Arc<str>, condition: Condition) -> Option<Revision> {
        let start_ns = self.state.now_ns();
        let options = WriteOptions::default().condition(condition).timeout(self.state.plan.timeout);
        let written = self.client.delete_with(key.as_bytes(), options).await;
        self.record_write(key, start_ns, Action::Delete(condition_of(condition)), written)
    }

    fn record_write(
        &self,
        key: &Arc<str>,
        start_ns: u64,
        action: Action,
        result: Result<dkv_api::Written, Error>,
    ) -> Option<Revision> {
        let (shard, outcome, revision) = match result {
            Ok(written) => {
                self.state.written.fetch_add(1, Ordering::Relaxed);
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
        self.record(key, shard, start_ns, action, outcome);
        revision
    }

    fn record(&self, key: &Arc<str>, shard: u32, start_ns: u64, action: Action, outcome: Outcome) {
        let (client, key, end_ns) = (self.number, Arc::clone(key), self.state.now_ns());
        let operation = Operation { client, shard, key, start_ns, end_ns, action, outcome };
        self.state.recorder.add(operation);
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

/// Returns a value in the form that the history keeps.
fn recorded(value: &[u8]) -> Arc<str> {
    let text = String::from_utf8_lossy(value);
    if value.len() <= VALUE_BYTES_RECORDED {
        return text.into();
    }
    let beginning: String =
        text.chars().take_while(|it| it.is_ascii_digit() || *it == '.').take(16).collect();
    format!("{beginning}#{}#{:016x}", value.len(), xxhash_rust::xxh3::xxh3_64(value)).into()
}

/// Returns the longest time between `from_ns` and `to_ns` in which a shard acknowledged no write,
/// and its start.
pub fn longest_wait(history: &History, from_ns: u64, to_ns: u64) -> (u64, u64) {
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

/// Pseudo-random numbers from a seed (splitmix64).
struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
