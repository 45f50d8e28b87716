//! A caller: which calls it makes, and when.

use std::time::Duration;

use dkv_api::{Client, Condition, Level, ReadOptions};
use dkv_check::Outcome;

use super::kept_snapshot::KeptSnapshot;
use super::{Focus, Phase, Workload};
use crate::random::Random;

/// Least and most time that a call may take, in milliseconds.
const PATIENCE_MS: (u64, u64) = (300, 4000);
/// Least and most time that a call to one key may take while a client keeps to that key, and
/// longest pause between two calls while it keeps to anything, in milliseconds.
const FOCUS_PATIENCE_MS: (u64, u64) = (200, 800);
const FOCUS_PAUSE_MS: u64 = 20;
/// Keys with both eventual and strong writes.
const EVENTUAL_KEYS: u64 = 3;
/// Keys that each caller writes eventually, once each.
const OWN_KEYS_MAX: u64 = 30;
/// How many of a thousand calls scan all keys.
const SCANS_PER_MILLE: u64 = 20;
/// Time that each attempt of a last read or write may take.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// A caller of a client machine.
pub(super) struct Caller {
    pub(super) id: u64,
    pub(super) client: Client,
    pub(super) random: Random,
    pub(super) workload: Workload,
    pub(super) calls: u64,
    /// Keys that this caller has written once.
    pub(super) own: u64,
    /// The key and revision that were read last.
    pub(super) seen: Option<(u64, u64)>,
    /// The snapshot that it has taken last and not read again.
    pub(super) kept: Option<KeptSnapshot>,
}

impl Caller {
    /// Makes calls until the run probes, then reads and writes everything once more.
    pub(super) async fn run(mut self) {
        let load = self.workload.load();
        while self.workload.is(Phase::Load) {
            let focus = self.workload.focus_of(self.client_place());
            let pause_ms = if focus.is_some() { FOCUS_PAUSE_MS } else { load.pause_ms };
            let pause_ms = self.random.below(pause_ms + 1);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match focus {
                Some(focus) => self.keep_to(focus).await,
                None => self.call().await,
            }
        }
        while !self.workload.is(Phase::Probe) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for key in 0..self.workload.load().keys {
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
                if self.workload.is_settled(&key, &read) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.read_all_lists(LAST_PATIENCE).await;
        if self.kept.is_some() {
            self.use_snapshot(LAST_PATIENCE).await;
        }
        self.workload.caller_has_probed();
    }

    /// Returns the place of its client among all.
    fn client_place(&self) -> u64 {
        self.id / 100 - 1
    }

    /// Makes one call of the kind that all callers of this client keep to.
    async fn keep_to(&mut self, focus: Focus) {
        let (low, high) = match focus {
            // A client that is cut off may have to find the node that it still reaches.
            Focus::Deposit => PATIENCE_MS,
            Focus::Read(_) | Focus::Write(_) | Focus::Transact => FOCUS_PATIENCE_MS,
        };
        let patience = Duration::from_millis(self.random.between(low, high));
        match focus {
            Focus::Read(key) => drop(self.get(key, Level::Strong.into(), patience).await),
            Focus::Transact => self.transact(patience).await,
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

    /// Makes one call, of any kind.
    async fn call(&mut self) {
        let load = self.workload.load();
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
        match self.random.below(156) {
            // The key is written once, so that no later write hides a lost one.
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
            120..135 => self.transact(patience).await,
            135..140 => self.use_list(patience).await,
            140..147 => self.read_the_past(patience).await,
            147..150 => self.list_versions(patience).await,
            150..156 => self.use_snapshot(patience).await,
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

    /// Returns the name of a key that only this caller writes, eventually and once.
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
}
