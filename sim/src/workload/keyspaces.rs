//! Keyspaces that come and go: an administrator creates one, uses it, changes it, and drops it.
//!
//! A keyspace begins empty, even under the name of one that was dropped. Its keys are judged like
//! those of the load. Once it is dropped, its handle reads and writes nothing, and at the end of a
//! run no node holds anything of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use dkv_api::{
    Client, Error, KeyspaceChange, KeyspaceSettings, Level, OperationResult, ReadOptions, Role,
    ScanOptions, Transaction, TransactionOperation, WriteOptions,
};
use dkv_base::id::{GroupId, KeyspaceId};
use dkv_check as check;
use dkv_check::{Action, Operation, Outcome};
use dkv_wire::network::key_hash;
use tokio::time::timeout;

use super::operations::{done, failed};
use super::{Phase, TICK_NS, Workload, name_of};
use crate::random::Random;

/// The number of the caller in the history.
const ID: u64 = 990;
/// Names, each of which is used again and again.
const NAMES: [&str; 2] = ["one", "other"];
/// Most shards of a keyspace, and keys in one.
const SHARDS_MAX: u64 = 3;
const KEYS: u64 = 4;
/// Most calls between the creation of a keyspace and its end.
const CALLS_MAX: u64 = 40;
/// Longest pause between two calls, in milliseconds.
const PAUSE_MS_MAX: u64 = 150;
/// Time that a call may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time that a change of keyspaces may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// How an administrator joins the network.
pub struct Administrator {
    /// Where the registration server is.
    pub server: String,
    /// The file with the token to join with.
    pub token_file: PathBuf,
    /// Where the client keeps its files.
    pub home: PathBuf,
    /// The source of its random numbers.
    pub random: Random,
}

/// Creates, uses and drops keyspaces until the run probes; then drops what is left.
pub async fn run(administrator: Administrator, workload: Workload) {
    let Administrator { server, token_file, home, random } = administrator;
    workload.callers_begin(1);
    let client = loop {
        let builder = Client::builder().role(Role::Admin).server(&server).home(&home);
        let builder = builder.token_file(&token_file).timeout(CHANGE_PATIENCE);
        match builder.connect().await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let mut user = User { client, random, workload, calls: 0 };
    while user.workload.is(Phase::Load) {
        user.pause().await;
        let name = *user.random.pick(&NAMES).unwrap_or(&NAMES[0]);
        user.live(name).await;
    }
    while !user.workload.is(Phase::Probe) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for name in NAMES {
        while !user.workload.is(Phase::Rest) && !user.drop_it(name).await {
            user.pause().await;
        }
    }
    user.workload.caller_has_probed();
}

struct User {
    client: Client,
    random: Random,
    workload: Workload,
    calls: u64,
}

/// A keyspace in use.
struct InUse {
    client: Client,
    id: KeyspaceId,
    shards: Vec<GroupId>,
}

impl InUse {
    fn shard_of(&self, key: &str) -> GroupId {
        let place = u128::from(key_hash(key.as_bytes())) * self.shards.len() as u128;
        self.shards.get((place >> 64) as usize).copied().unwrap_or_default()
    }
}

impl User {
    /// Creates a keyspace unless it is there, and uses it. Mostly drops it.
    async fn live(&mut self, name: &str) {
        let settings = KeyspaceSettings {
            shards: self.random.between(1, SHARDS_MAX) as u32,
            ..KeyspaceSettings::default()
        };
        let created = timeout(CHANGE_PATIENCE, self.client.create_keyspace(name, settings)).await;
        let is_new = match &created {
            Ok(Ok(())) => true,
            Ok(Err(Error::Invalid(_) | Error::Unavailable(_) | Error::Unknown(_))) | Err(_) => {
                false
            }
            Ok(Err(error)) => return self.wrong(&format!("create {name}: {error}")),
        };
        self.trace(&format!("create {name}: {created:?}"));
        let Some(used) = self.open(name).await else { return };
        if is_new {
            self.find_nothing(name, &used).await;
        }
        for _ in 0..self.random.below(CALLS_MAX) {
            self.pause().await;
            if !self.workload.is(Phase::Load) {
                return;
            }
            self.call(name, &used).await;
        }
        if self.random.per_mille(750) && self.drop_it(name).await {
            self.find_it_gone(name, &used).await;
        }
    }

    async fn open(&mut self, name: &str) -> Option<InUse> {
        let client = match timeout(PATIENCE, self.client.keyspace(name)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                self.trace(&format!("open {name}: {error}"));
                return None;
            }
            Err(_) => return None,
        };
        let (id, view) = (client.keyspace_id(), client.view().await.ok()?);
        let shards: Vec<GroupId> = view.shards_of(id).iter().map(|shard| shard.group).collect();
        (!shards.is_empty()).then_some(InUse { client, id, shards })
    }

    /// Looks into a keyspace that was just created.
    async fn find_nothing(&mut self, name: &str, used: &InUse) {
        let mut scan = used.client.scan(ScanOptions::default().timeout(PATIENCE));
        match scan.next().await {
            Ok(None) => {}
            Ok(Some(pair)) => self.wrong(&format!("{name} begins with the key {:?}", pair.key)),
            Err(error) => self.refused(name, &error),
        }
    }

    /// Looks into a keyspace that was dropped.
    async fn find_it_gone(&mut self, name: &str, used: &InUse) {
        let options = ReadOptions::from(Level::Strong).timeout(PATIENCE);
        match used.client.read_with("0", options).await {
            Err(Error::NoKeyspace { .. } | Error::Unavailable(_)) => {}
            other => self.wrong(&format!("{name} was dropped and answers {other:?}")),
        }
    }

    async fn call(&mut self, name: &str, used: &InUse) {
        self.calls += 1;
        let (key, value) = (self.random.below(KEYS).to_string(), format!("{ID}-{}", self.calls));
        let start_ns = self.workload.now() * TICK_NS;
        let always = check::Condition::Always;
        let options = WriteOptions::default().timeout(PATIENCE);
        match self.random.below(10) {
            0..4 => {
                let bytes = format!("{value} ").into_bytes();
                let written = used.client.write_with(&key, bytes, options).await;
                let written = written.map(|written| done(written.receipt, written.existed));
                let action = Action::Put { value: value.into(), condition: always };
                self.conclude(used, key, start_ns, action, written);
            }
            4 => {
                let deleted = used.client.delete_with(&key, options).await;
                let deleted = deleted.map(|deleted| done(deleted.receipt, deleted.existed));
                self.conclude(used, key, start_ns, Action::Delete(always), deleted);
            }
            5..8 => {
                let options = ReadOptions::from(Level::Strong).timeout(PATIENCE);
                let read = used.client.read_with(&key, options).await.map(|read| Outcome::Value {
                    value: name_of(&read.value).into(),
                    revision: Some(read.receipt.revision.0),
                });
                self.conclude(used, key, start_ns, Action::Get(check::Level::Strong), read);
            }
            8 => self.use_together(name, used, &value).await,
            _ => {
                let change = KeyspaceChange {
                    history_bytes: Some(self.random.between(1, 64) << 20),
                    quota_bytes: Some(self.random.per_mille(500).then_some(1 << 30)),
                    ..KeyspaceChange::default()
                };
                let set = self.client.set_keyspace(name, change);
                if let Ok(Err(error)) = timeout(CHANGE_PATIENCE, set).await {
                    self.refused(name, &error);
                }
            }
        }
    }

    /// Writes some keys in one transaction, or reads them: all have the same value.
    async fn use_together(&mut self, name: &str, used: &InUse, value: &str) {
        let keys = (0..KEYS).map(|key| format!("together-{key}"));
        let is_write = self.random.per_mille(500);
        let transaction = keys.fold(Transaction::new().timeout(PATIENCE), |all, key| {
            all.then(match is_write {
                true => TransactionOperation::put(key, value.to_owned()),
                false => TransactionOperation::get(key),
            })
        });
        match used.client.transact(transaction).await {
            Ok(done) => {
                let results = done.results.unwrap_or_default();
                let values = results.iter().map(|result| match result {
                    OperationResult::Got(Some(version)) => version.value.clone(),
                    _ => None,
                });
                let values: BTreeSet<_> = values.collect();
                if values.len() > 1 {
                    self.wrong(&format!("{name} has several values together: {values:?}"));
                }
            }
            Err(error) => self.refused(name, &error),
        }
    }

    fn conclude(
        &mut self,
        used: &InUse,
        key: String,
        start_ns: u64,
        action: Action,
        outcome: Result<Outcome, Error>,
    ) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(Error::NoKeyspace { .. }) => {
                return self.wrong(&format!("keyspace {} is not there", used.id.0));
            }
            Err(error) => failed(&self.workload, error),
        };
        let end_ns = self.workload.now() * TICK_NS + TICK_NS - 1;
        self.trace(&format!("keyspace {} {key} {action:?} -> {outcome:?}", used.id.0));
        let shard = used.shard_of(&key).0;
        let key = format!("{}/{key}", used.id.0).into();
        let operation = Operation { client: ID, shard, key, start_ns, end_ns, action, outcome };
        self.workload.recorder().add(operation);
    }

    /// Drops a keyspace. Returns whether it is gone.
    async fn drop_it(&mut self, name: &str) -> bool {
        let dropped = timeout(CHANGE_PATIENCE, self.client.drop_keyspace(name)).await;
        self.trace(&format!("drop {name}: {dropped:?}"));
        match dropped {
            Ok(Ok(()) | Err(Error::NoKeyspace { .. })) => true,
            Ok(Err(error)) => {
                self.refused(name, &error);
                false
            }
            Err(_) => false,
        }
    }

    /// Notes an error, which is wrong unless a group was without service.
    fn refused(&self, name: &str, error: &Error) {
        self.trace(&format!("{name}: {error}"));
        if !matches!(error, Error::Unavailable(_) | Error::Unknown(_)) {
            self.wrong(&format!("{name}: {error}"));
        }
    }

    async fn pause(&mut self) {
        let pause_ms = self.random.below(PAUSE_MS_MAX);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }

    fn wrong(&self, what: &str) {
        self.workload.note_wrong(format!("keyspaces: {what}"));
    }

    fn trace(&self, what: &str) {
        self.workload.trace().line(format!("{ID} {what}"));
    }
}
