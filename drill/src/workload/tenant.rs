//! Tenants: each connection has one, who holds leases and competes for a lock.
//!
//! A lease is kept alive for a moment and then left to end, and a key with it: the checker knows
//! when it may be gone. A holder of the lock writes the fence of its lock under the condition that
//! it still holds it, so no fence may be lower than the one before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dkv_api::recipes::{Lock, LockOptions};
use dkv_api::{
    Error, LeaseId, Level, OperationResult, ReadOptions, Receipt, Transaction,
    TransactionOperation, WriteOptions,
};
use dkv_check::{LeaseEvent, LeaseNote, RevisionChanges};
use tokio::time::timeout;

use super::bank::Names;
use super::{Worker, recorded};

/// Time to live of leases and of the lock.
const TTL: Duration = Duration::from_secs(2);
/// Time between two calls about a lease.
const PAUSE: Duration = Duration::from_millis(150);
/// Calls about a lease before it is left to end.
const CALLS_MAX: u64 = 8;

/// What tenants have done. Each number only grows.
#[derive(Debug, Default)]
pub(super) struct Counts {
    leases: AtomicU64,
    locks: AtomicU64,
}

/// What tenants have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenancies {
    /// Leases whose end was seen.
    pub leases: u64,
    /// How often the lock was held.
    pub locks: u64,
}

impl Counts {
    pub(super) fn tenancies(&self) -> Tenancies {
        Tenancies {
            leases: self.leases.load(Ordering::Relaxed),
            locks: self.locks.load(Ordering::Relaxed),
        }
    }
}

/// A key that ends with its lease.
struct Held {
    number: u64,
    lease: LeaseId,
    key: String,
}

impl Worker {
    /// Holds leases and the lock in turn until the clients stop.
    pub(super) async fn hold(mut self) {
        let mut serial = 0;
        while self.state.is_running() {
            serial += 1;
            self.hold_lease(serial).await;
            self.hold_lock().await;
            tokio::time::sleep(self.state.plan.pause).await;
        }
    }

    async fn hold_lease(&mut self, serial: u64) {
        let number = self.number * 1_000_000 + serial;
        let start_ns = self.state.now_ns();
        let Ok(lease) = self.client.grant_lease(TTL).await else { return };
        let key = format!("{}lease-{}-{serial}", self.state.plan.prefix, self.number);
        let held = Held { number, lease, key };
        self.note(&held, start_ns, true, renewed());
        let start_ns = self.state.now_ns();
        let options = WriteOptions::default().lease(lease).timeout(self.state.plan.timeout);
        match self.client.write_with(&held.key, number.to_string(), options).await {
            Ok(written) => self.note_change(&held.key, &number.to_string(), written.receipt),
            Err(Error::NoLease { .. }) => return self.note(&held, start_ns, true, gone("")),
            // It may come yet, and then ends by itself.
            Err(_) => return,
        }
        for _ in 0..self.random.below(CALLS_MAX) {
            tokio::time::sleep(PAUSE).await;
            if !self.keep(&held).await {
                return;
            }
        }
        while self.state.is_running() && self.look(&held).await {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Keeps a lease alive. Returns whether it may still be there.
    async fn keep(&self, held: &Held) -> bool {
        let start_ns = self.state.now_ns();
        match timeout(self.state.plan.timeout, self.client.refresh_lease(held.lease)).await {
            Ok(Ok(_)) => self.note(held, start_ns, true, renewed()),
            Ok(Err(Error::NoLease { .. })) => {
                self.note(held, start_ns, true, gone(""));
                return false;
            }
            Ok(Err(_)) | Err(_) => self.note(held, start_ns, false, renewed()),
        }
        true
    }

    /// Looks whether the key is there. Returns whether it may be.
    async fn look(&self, held: &Held) -> bool {
        let start_ns = self.state.now_ns();
        let options = ReadOptions::from(Level::Strong).timeout(self.state.plan.timeout);
        match self.client.read_with(&held.key, options).await {
            Ok(_) => {
                let key = held.key.clone();
                self.note(held, start_ns, true, LeaseEvent::Present { key });
                true
            }
            Err(Error::NotFound { .. }) => {
                self.note(held, start_ns, true, gone(&held.key));
                self.state.tenants.leases.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(_) => true,
        }
    }

    async fn hold_lock(&self) {
        let prefix = &self.state.plan.prefix;
        let Ok(names) = Names::find(&self.client, prefix).await else { return };
        let Some(fences) = names.beside("lock", "fence").next() else { return };
        let options = LockOptions::default().ttl(TTL).value(self.number.to_string());
        let acquired = Lock::acquire(&self.client, format!("{prefix}lock"), options);
        let Ok(Ok(lock)) = timeout(self.state.plan.timeout, acquired).await else { return };
        self.state.tenants.locks.fetch_add(1, Ordering::Relaxed);
        let fence = lock.fence().0;
        let transaction = Transaction::new()
            .when(lock.condition())
            .then(TransactionOperation::get(&fences))
            .then(TransactionOperation::put(&fences, fence.to_string()))
            .timeout(self.state.plan.timeout);
        if let Ok(done) = self.client.transact(transaction).await
            && done.succeeded
        {
            self.note_change(&fences, &fence.to_string(), done.receipt);
            let before = done.results.as_ref().and_then(|results| results.first());
            if let Some(OperationResult::Got(Some(version))) = before {
                let value = version.value.as_deref().unwrap_or_default();
                let before: u64 = String::from_utf8_lossy(value).parse().unwrap_or_default();
                if before > fence {
                    self.state.note_problem(format!(
                        "client {} holds the lock with fence {fence}, after fence {before}",
                        self.number
                    ));
                }
            }
        }
        // If it fails, the lock ends by itself.
        let _ = timeout(self.state.plan.timeout, lock.release()).await;
    }

    fn note(&self, held: &Held, start_ns: u64, is_answered: bool, event: LeaseEvent) {
        let end_ns = Some(self.state.now_ns()).filter(|_| is_answered);
        let note = LeaseNote { lease: held.number, start_ns, end_ns, event };
        self.state.recorder.note(|history| history.leases.push(note));
    }

    fn note_change(&self, key: &str, value: &str, receipt: Receipt) {
        let keys = [(key.to_owned(), Some(recorded(value.as_bytes()).to_string()))].into();
        let (shard, revision) = (receipt.shard.0, receipt.revision.0);
        let changes = RevisionChanges { shard, revision, keys };
        self.state.recorder.note(|history| history.changes.push(changes));
    }
}

fn renewed() -> LeaseEvent {
    LeaseEvent::Renewed { ttl_ms: TTL.as_millis() as u64 }
}

fn gone(key: &str) -> LeaseEvent {
    LeaseEvent::Gone { key: key.to_owned() }
}
