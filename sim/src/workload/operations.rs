//! The calls of a caller, each recorded as an operation of the history.

use std::time::Duration;

use dkv_api::{Condition, Error, Level, ReadOptions, Receipt, Revision, WriteOptions};
use dkv_check as check;
use dkv_check::{Action, Operation, Outcome};

use super::caller::Caller;
use super::{TICK_NS, Workload};

impl Caller {
    pub(super) async fn get(
        &mut self,
        key: u64,
        options: ReadOptions,
        patience: Duration,
    ) -> Outcome {
        let outcome = self.get_key(&Workload::key(key), options, patience).await;
        if let Outcome::Value { revision: Some(revision), .. } = outcome {
            self.seen = Some((key, revision));
        }
        outcome
    }

    /// Puts or deletes a key eventually.
    pub(super) async fn deposit(&mut self, key: &str, put: bool, patience: Duration) -> Outcome {
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
                self.workload.trace().line(format!("{} {key} is kept by {taker}", self.id));
                self.workload.taken(stamp, taker);
                Outcome::Accepted { stamp }
            }
            Err(error) => failed(&self.workload, error),
        };
        let condition = check::Condition::Always;
        let noted = put.then(|| value.clone());
        self.workload.note_write(key, noted, &outcome);
        let action = match put {
            true => Action::Put { value: value.into(), condition },
            false => Action::Delete(condition),
        };
        self.end(begun, action, outcome)
    }

    pub(super) async fn get_key(
        &mut self,
        key: &str,
        options: ReadOptions,
        patience: Duration,
    ) -> Outcome {
        let begun = self.begin_key(key);
        let read = self.client.read_with(&begun.key, options.timeout(patience)).await;
        let outcome = match read {
            Ok(value) => {
                let pending = value.receipt.pending.is_some();
                let revision = Some(value.receipt.revision.0).filter(|_| !pending);
                if let (Some(revision), Some(age_ms)) = (revision, value.receipt.staleness_ms) {
                    self.workload.staleness().read(key, begun.start_ns / TICK_NS, age_ms, revision);
                }
                let length = value.value.iter().position(|b| *b == b' ').unwrap_or(0);
                let name = String::from_utf8_lossy(&value.value[..length]);
                Outcome::Value { value: name.into(), revision }
            }
            Err(error) => failed(&self.workload, error),
        };
        let level = match options.level {
            Level::Strong | Level::All => check::Level::Strong,
            Level::Eventual => check::Level::Eventual,
            Level::Session => check::Level::Session,
        };
        self.end(begun, Action::Get(level), outcome)
    }

    pub(super) async fn put(
        &mut self,
        key: u64,
        condition: Condition,
        patience: Duration,
    ) -> Outcome {
        self.put_key(&Workload::key(key), condition, patience).await
    }

    pub(super) async fn put_key(
        &mut self,
        key: &str,
        condition: Condition,
        patience: Duration,
    ) -> Outcome {
        let begun = self.begin_key(key);
        let value = format!("{}-{}", self.id, self.calls);
        let (often, bytes) = self.workload.load().large;
        let large = self.random.per_mille(often);
        let length = self.random.below(if large { bytes } else { 100 }) as usize;
        // The value begins with its name; the rest only makes it longer.
        let mut bytes = format!("{value} ").into_bytes();
        bytes.resize(bytes.len() + length, b'.');
        let options = WriteOptions::default().condition(condition).timeout(patience);
        let written = self.client.write_with(&begun.key, bytes, options).await;
        let outcome = match written {
            Ok(written) => {
                self.workload.service().wrote(&written.receipt, self.workload.now());
                done(written.receipt, written.existed)
            }
            Err(error) => failed(&self.workload, error),
        };
        let condition = match condition {
            Condition::Always => check::Condition::Always,
            Condition::Absent => check::Condition::Absent,
            Condition::Present => check::Condition::Present,
            Condition::Revision(revision) => check::Condition::Revision(revision.0),
        };
        self.workload.note_write(key, Some(value.clone()), &outcome);
        self.note_age(key, &outcome);
        self.end(begun, Action::Put { value: value.into(), condition }, outcome)
    }

    pub(super) async fn delete(&mut self, key: u64, patience: Duration) -> Outcome {
        self.delete_key(&Workload::key(key), patience).await
    }

    pub(super) async fn delete_key(&mut self, key: &str, patience: Duration) -> Outcome {
        let begun = self.begin_key(key);
        let options = WriteOptions::default().timeout(patience);
        let outcome = match self.client.delete_with(&begun.key, options).await {
            Ok(written) => {
                self.workload.service().wrote(&written.receipt, self.workload.now());
                done(written.receipt, written.existed)
            }
            Err(error) => failed(&self.workload, error),
        };
        self.workload.note_write(key, None, &outcome);
        self.note_age(key, &outcome);
        self.end(begun, Action::Delete(check::Condition::Always), outcome)
    }

    fn note_age(&self, key: &str, outcome: &Outcome) {
        if let Outcome::Written { revision: Some(revision), .. } = outcome {
            self.workload.note_revision(self.workload.shard_of(key), Revision(*revision));
            self.workload.staleness().wrote(key, self.workload.now(), *revision);
        }
    }

    fn begin_key(&mut self, key: &str) -> Begun {
        self.calls += 1;
        Begun { key: key.to_owned(), start_ns: self.workload.now() * TICK_NS }
    }

    pub(super) fn end(&self, begun: Begun, action: Action, outcome: Outcome) -> Outcome {
        // The order of events within a tick is not known, so an operation ends when its tick does.
        let end_ns = self.workload.now() * TICK_NS + TICK_NS - 1;
        self.end_at(begun, action, outcome, end_ns)
    }

    pub(super) fn end_at(
        &self,
        begun: Begun,
        action: Action,
        outcome: Outcome,
        end_ns: u64,
    ) -> Outcome {
        let Begun { key, start_ns } = begun;
        let shard = self.workload.shard_of(&key).0;
        let line = format!("{} {key} {action:?} -> {outcome:?}", self.id);
        self.workload.trace().line(line);
        let operation = Operation {
            client: self.id,
            shard,
            key: key.into(),
            start_ns,
            end_ns,
            action,
            outcome: outcome.clone(),
        };
        self.workload.recorder().add(operation);
        outcome
    }
}

/// An operation that has begun.
pub(super) struct Begun {
    pub(super) key: String,
    pub(super) start_ns: u64,
}

pub(super) fn done(receipt: Receipt, existed: bool) -> Outcome {
    Outcome::Written { revision: Some(receipt.revision.0), existed: Some(existed) }
}

pub(super) fn failed(workload: &Workload, error: Error) -> Outcome {
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
        Error::Unavailable(_) | Error::Denied(_) => Outcome::Failed,
        other => {
            workload.note_wrong(format!("an error that nothing calls for: {other}"));
            Outcome::Failed
        }
    }
}
