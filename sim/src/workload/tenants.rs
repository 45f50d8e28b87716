//! Tenants: each holds one lease after the other, with a key of its own, and sees when both end.
//!
//! A tenant keeps its lease alive for a while, and then leaves it to end, or revokes it. Some keys
//! have a time to live of their own instead. In a network with one shard the tenants also compete
//! for a lock: every holder writes the fence of its lock to a list, under the condition that it
//! still holds the lock, so the fences in the list must grow.
//!
//! At the end of a run the key of every lease must be gone.

use std::time::Duration;

use dkv_api::recipes::{Lock, LockOptions};
use dkv_api::{
    Client, Error, LeaseId, Level, OperationResult, ReadOptions, Transaction, TransactionOperation,
    WriteOptions, Written,
};
use dkv_check::{LeaseEvent, LeaseNote, RevisionChanges};
use tokio::time::timeout;

use super::{Phase, TICK_NS, Workload};
use crate::random::Random;

/// Least and most time to live of a lease or a key, in milliseconds.
const TTL_MS: (u64, u64) = (1000, 3000);
/// Least and most time between two calls about a lease, in milliseconds.
const PAUSE_MS: (u64, u64) = (50, 500);
/// Calls about a lease before it is left to end.
const CALLS_MAX: u64 = 12;
/// Time that a call may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The lock for which tenants compete, and the list of the fences of its holders.
const LOCK: &str = "lock";
const FENCES: &str = "fences";

/// A tenant of a client machine.
pub(super) struct Tenant {
    pub(super) id: u64,
    pub(super) client: Client,
    pub(super) random: Random,
    pub(super) workload: Workload,
    /// Leases so far.
    pub(super) leases: u64,
}

/// A key that is to end by itself.
struct Held {
    /// The number of its lease in the history.
    number: u64,
    lease: Option<LeaseId>,
    key: String,
    ttl_ms: u64,
}

impl Tenant {
    /// Holds leases until the run probes. The last one must have ended by then, too.
    pub(super) async fn run(mut self) {
        while self.workload.is(Phase::Load) {
            let has_lock = self.workload.shards() == 1 && self.random.per_mille(300);
            match has_lock {
                true => self.use_lock().await,
                false => self.hold_one().await,
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(400))).await;
        }
        while !self.workload.is(Phase::Probe) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // One more ends while nothing goes wrong.
        self.hold_one().await;
        self.workload.caller_has_probed();
    }

    async fn hold_one(&mut self) {
        let (low, high) = TTL_MS;
        let ttl_ms = self.random.between(low, high);
        let ttl = Duration::from_millis(ttl_ms);
        self.leases += 1;
        let number = self.id * 1000 + self.leases;
        let key = format!("t{}-{}", self.id, self.leases);
        self.workload.note_lease(number, self.workload.shard_of(&key));
        let mut held = Held { number, lease: None, key, ttl_ms };
        if self.random.per_mille(700) {
            let start_ns = self.now_ns();
            match self.client.grant_lease(ttl).await {
                Ok(lease) => held.lease = Some(lease),
                Err(error) => return self.refused(&held, &error),
            }
            self.note(&held, start_ns, true, LeaseEvent::Renewed { ttl_ms });
        }
        let options = WriteOptions::default().timeout(PATIENCE);
        let options = match held.lease {
            Some(lease) => options.lease(lease),
            None => options.ttl(ttl),
        };
        let start_ns = self.now_ns();
        let value = format!("{number} ");
        let written = self.client.write_with(&held.key, value.into_bytes(), options).await;
        match (&written, held.lease) {
            (Ok(written), lease) => {
                self.note_change(&held, written);
                if lease.is_none() {
                    self.note(&held, start_ns, true, LeaseEvent::Renewed { ttl_ms });
                }
            }
            (Err(Error::NoLease { .. }), Some(_)) => {
                return self.note(&held, start_ns, true, gone(""));
            }
            // It may come yet, and then ends by itself.
            (Err(error), _) => return self.refused(&held, error),
        }
        for _ in 0..self.random.below(CALLS_MAX) {
            self.pause().await;
            if self.random.per_mille(500) && !self.keep(&held).await || !self.look(&held).await {
                return;
            }
        }
        if let Some(lease) = held.lease.filter(|_| self.random.per_mille(200)) {
            let start_ns = self.now_ns();
            let revoked = self.client.revoke_lease(lease).await;
            self.note(&held, start_ns, revoked.is_ok(), LeaseEvent::Revoked);
        }
        while self.look(&held).await && !self.workload.is(Phase::Rest) {
            self.pause().await;
            self.write_beside(&held).await;
        }
    }

    /// Writes another key of the same shard, which shows whether the shard has service.
    async fn write_beside(&mut self, held: &Held) {
        let shard = self.workload.shard_of(&held.key);
        let mut keys = (0_u64..).map(|number| format!("w{}-{number}", self.id));
        let Some(key) = keys.find(|key| self.workload.shard_of(key) == shard) else { return };
        let options = WriteOptions::default().timeout(PATIENCE);
        if let Ok(written) = self.client.write_with(&key, "w ", options).await {
            self.workload.service().wrote(&written.receipt, self.workload.now());
        }
    }

    async fn pause(&mut self) {
        let (low, high) = PAUSE_MS;
        tokio::time::sleep(Duration::from_millis(self.random.between(low, high))).await;
    }

    /// Keeps a lease alive. Returns whether it may still be there.
    async fn keep(&mut self, held: &Held) -> bool {
        let Some(lease) = held.lease else { return true };
        let start_ns = self.now_ns();
        let renewed = LeaseEvent::Renewed { ttl_ms: held.ttl_ms };
        match timeout(PATIENCE, self.client.refresh_lease(lease)).await {
            Ok(Ok(_)) => self.note(held, start_ns, true, renewed),
            Ok(Err(Error::NoLease { .. })) => {
                self.note(held, start_ns, true, gone(""));
                return false;
            }
            Ok(Err(error)) => {
                self.note(held, start_ns, false, renewed);
                self.refused(held, &error);
            }
            Err(_) => self.note(held, start_ns, false, renewed),
        }
        true
    }

    /// Looks whether the key is there. Returns whether it may be.
    async fn look(&mut self, held: &Held) -> bool {
        let start_ns = self.now_ns();
        let options = ReadOptions::from(Level::Strong).timeout(PATIENCE);
        match self.client.read_with(&held.key, options).await {
            Ok(_) => {
                let key = held.key.clone();
                self.note(held, start_ns, true, LeaseEvent::Present { key });
                true
            }
            Err(Error::NotFound { .. }) => {
                self.note(held, start_ns, true, gone(&held.key));
                false
            }
            Err(error) => {
                self.refused(held, &error);
                true
            }
        }
    }

    /// Acquires the lock, writes its fence a few times, and gives the lock up or forgets it.
    async fn use_lock(&mut self) {
        let (low, high) = TTL_MS;
        let ttl = Duration::from_millis(self.random.between(low, high));
        let options = LockOptions::default().ttl(ttl).value(format!("{} ", self.id));
        let acquired = timeout(PATIENCE * 2, Lock::acquire(&self.client, LOCK, options)).await;
        let lock = match acquired {
            Ok(Ok(lock)) => lock,
            Ok(Err(error)) => return self.trace(&format!("no lock: {error}")),
            Err(_) => return self.trace("no lock in time"),
        };
        self.trace(&format!("lock {}", lock.fence()));
        for _ in 0..1 + self.random.below(3) {
            self.pause().await;
            let fence = lock.fence();
            let transaction = Transaction::new()
                .when(lock.condition())
                .then(TransactionOperation::append(FENCES, format!("{fence},")))
                .timeout(PATIENCE);
            match self.client.transact(transaction).await {
                Ok(done) if done.succeeded => self.check_fences(done.results.as_deref()),
                Ok(_) => self.trace("lock lost"),
                Err(error) => self.trace(&format!("lock: {error}")),
            }
        }
        if self.random.per_mille(500) {
            // If it fails, the lock ends by itself.
            let _ = timeout(PATIENCE, lock.release()).await;
        }
    }

    fn check_fences(&self, results: Option<&[OperationResult]>) {
        let Some([OperationResult::Changed(version)]) = results else { return };
        let text =
            String::from_utf8_lossy(version.value.as_deref().unwrap_or_default()).into_owned();
        let fences: Vec<u64> =
            text.split_terminator(',').filter_map(|it| it.parse().ok()).collect();
        if !fences.is_sorted() {
            self.workload.note_wrong(format!("holders of the lock have the fences {fences:?}"));
        }
    }

    fn note_change(&self, held: &Held, written: &Written) {
        let (shard, revision) = (written.receipt.shard, written.receipt.revision);
        self.workload.note_revision(shard, revision);
        let keys = [(held.key.clone(), Some(held.number.to_string()))].into();
        let changes = RevisionChanges { shard: shard.0, revision: revision.0, keys };
        self.workload.recorder().note(|history| history.changes.push(changes));
    }

    fn note(&self, held: &Held, start_ns: u64, is_answered: bool, event: LeaseEvent) {
        self.trace(&format!("lease {} {event:?}, answered: {is_answered}", held.number));
        let end_ns = Some(self.now_ns() + TICK_NS - 1).filter(|_| is_answered);
        let note = LeaseNote { lease: held.number, start_ns, end_ns, event };
        self.workload.recorder().note(|history| history.leases.push(note));
    }

    /// Notes an error, which is wrong unless a shard was without service.
    fn refused(&self, held: &Held, error: &Error) {
        self.trace(&format!("lease {}: {error}", held.number));
        if !matches!(error, Error::Unavailable(_) | Error::Unknown(_)) {
            self.workload.note_wrong(format!("lease {}: {error}", held.number));
        }
    }

    fn trace(&self, what: &str) {
        self.workload.trace().line(format!("tenant {} {what}", self.id));
    }

    fn now_ns(&self) -> u64 {
        self.workload.now() * TICK_NS
    }
}

fn gone(key: &str) -> LeaseEvent {
    LeaseEvent::Gone { key: key.to_owned() }
}
