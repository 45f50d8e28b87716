//! Snapshots of all keys, each read twice.
//!
//! For each single key a snapshot is a strong read that took as long as taking the snapshot, and is
//! judged as one. The lists that it shows are those of one moment, so each list that is counted
//! fits its counter, and the checker of transactions finds a place for the snapshot among them.
//! Read again, later and mostly from other replicas, it shows the same.

use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Error, ScanOptions, Snapshot};
use dkv_check as check;
use dkv_check::{Action, Fate, ListOperation, Outcome};
use tokio::time::timeout;

use super::caller::Caller;
use super::kept_snapshot::{Contents, KeptSnapshot};
use super::lists::elements;
use super::operations::Begun;
use super::{TICK_NS, Workload, name_of};

/// Least and most keys that are asked for at once.
const LIMIT: (u64, u64) = (3, 60);

impl Caller {
    /// Takes a snapshot and reads it, or reads the last one again.
    pub(super) async fn use_snapshot(&mut self, patience: Duration) {
        if let Some(kept) = self.kept.take() {
            return self.read_again(kept, patience).await;
        }
        let start_ns = self.workload.now() * TICK_NS;
        let taken = match timeout(patience, self.client.snapshot()).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => return self.unanswered("snapshot", &error),
            Err(_) => return,
        };
        let end_ns = self.workload.now() * TICK_NS + TICK_NS - 1;
        self.workload.trace().line(format!("{} has the snapshot {}", self.id, taken.token()));
        let contents = match self.contents(&taken, patience).await {
            Ok(contents) => contents,
            Err(error) => return self.missed(&error),
        };
        for number in 0..self.workload.keys() {
            let key = Workload::key(number);
            let outcome = match contents.get(key.as_bytes()) {
                Some((value, revision)) => {
                    Outcome::Value { value: name_of(value).into(), revision: Some(*revision) }
                }
                None => Outcome::Absent { revision: None },
            };
            let action = Action::Get(check::Level::Strong);
            self.end_at(Begun { key, start_ns }, action, outcome, end_ns);
        }
        self.judge_lists(&contents, start_ns, end_ns);
        self.kept = Some(KeptSnapshot { token: taken.token().clone(), contents });
    }

    async fn read_again(&mut self, kept: KeptSnapshot, patience: Duration) {
        let again = self.client.snapshot_of(kept.token.clone());
        match self.contents(&again, patience).await {
            Ok(contents) if contents == kept.contents => {
                self.workload.trace().line(format!("{} finds {} unchanged", self.id, kept.token));
            }
            Ok(contents) => {
                let keys = kept.contents.keys().chain(contents.keys());
                let differ = keys.filter(|key| kept.contents.get(*key) != contents.get(*key));
                let differ: Vec<_> = differ
                    .map(|key| (key, kept.contents.get(key), contents.get(key)))
                    .map(|(key, one, other)| {
                        let revision =
                            |it: Option<&(Bytes, u64)>| it.map(|(_, revision)| *revision);
                        (key, revision(one), revision(other))
                    })
                    .collect();
                let wrong = format!("{}: snapshot {} changed: {differ:?}", self.id, kept.token);
                self.workload.note_wrong(wrong);
            }
            Err(error) => self.missed(&error),
        }
    }

    async fn contents(&mut self, of: &Snapshot, patience: Duration) -> Result<Contents, Error> {
        let (low, high) = LIMIT;
        let limit = self.random.between(low, high);
        let (mut found, mut after) = (Contents::new(), Bytes::new());
        loop {
            let options = ScanOptions::default().after(after.clone()).limit(limit);
            let (mut scan, before) = (of.scan(options.timeout(patience)), found.len());
            while let Some(pair) = scan.next().await? {
                after = pair.key.clone();
                found.insert(pair.key, (pair.value.unwrap_or_default(), pair.revision.0));
            }
            if found.len() == before {
                return Ok(found);
            }
        }
    }

    fn judge_lists(&self, contents: &Contents, start_ns: u64, end_ns: u64) {
        let list = |key: &String| {
            contents.get(key.as_bytes()).map_or_else(Vec::new, |(value, _)| elements(value))
        };
        let mut ops = Vec::new();
        for group in self.workload.list_groups() {
            let count = contents.get(group.counter.as_bytes());
            let count = count.map_or("0".into(), |(value, _)| String::from_utf8_lossy(value));
            let [counted, ..] = &group.lists;
            let length = list(counted).len();
            if count != length.to_string() {
                let wrong = format!("{counted} has {length} elements, and its counter is {count}");
                self.workload.note_wrong(format!("{} in a snapshot: {wrong}", self.id));
            }
            ops.extend(
                group.lists.iter().map(|it| ListOperation::Read(it.clone(), Some(list(it)))),
            );
        }
        let transaction = check::Transaction {
            client: self.id,
            start_ns,
            end_ns: Some(end_ns),
            result: Fate::Ok,
            ops,
            revisions: Vec::new(),
            snapshot: true,
        };
        self.workload.recorder().add_transaction(transaction);
        self.workload.count_snapshot();
    }

    /// Notes why a snapshot could not be read. Its history may be compacted.
    fn missed(&self, error: &Error) {
        match error {
            Error::Compacted { .. } => {
                self.workload.trace().line(format!("{} snapshot: {error}", self.id));
            }
            error => self.unanswered("read of a snapshot", error),
        }
    }
}
