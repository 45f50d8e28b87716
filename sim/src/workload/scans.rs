//! Scans, each as a read of every key.
//!
//! A page shows its shard at one moment between the scan's beginning and its end, and says of every
//! key in its span whether it exists. So for each single key a strong scan is a strong read that
//! took as long as the whole scan, and is judged as one: if a key was acknowledged before the scan
//! began and no page has it, the scan is a stale read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Error, Level, ScanOptions};
use dkv_check as check;
use dkv_check::{Action, Outcome};

use super::TICK_NS;
use super::caller::Caller;
use super::operations::Begun;

/// The prefix of the keys of the load.
const PREFIX: &[u8] = b"k";
/// Most keys that are asked for at once.
const LIMIT_MAX: u64 = 4;

/// Names and revisions of the values, by key.
type Found = BTreeMap<Bytes, (String, u64)>;

impl Caller {
    /// Scans all keys, a few at a time. A scan that fails is not recorded.
    pub(super) async fn scan(&mut self, level: Level, patience: Duration) {
        let (start_ns, limit) = (self.workload.now() * TICK_NS, self.random.between(1, LIMIT_MAX));
        let Ok(found) = self.walk(level, limit, patience).await else { return };
        let asked = match level {
            Level::Eventual => check::Level::Eventual,
            Level::Session => check::Level::Session,
            _ => check::Level::Strong,
        };
        for number in 0..self.workload.load().keys {
            let key = format!("k{number}");
            let outcome = match found.get(key.as_bytes()) {
                Some((value, revision)) => {
                    // A value that waits in an outbox has no revision yet.
                    let revision = Some(*revision).filter(|revision| *revision > 0);
                    Outcome::Value { value: value.as_str().into(), revision }
                }
                None => Outcome::Absent { revision: None },
            };
            self.end(Begun { key, start_ns }, Action::Get(asked), outcome);
        }
    }

    async fn walk(&self, level: Level, limit: u64, patience: Duration) -> Result<Found, Error> {
        let (mut found, mut after) = (Found::new(), Bytes::new());
        loop {
            let options = ScanOptions::prefix(PREFIX)
                .after(after.clone())
                .limit(limit)
                .level(level)
                .timeout(patience);
            let (mut scan, before) = (self.client.scan(options), found.len());
            while let Some(pair) = scan.next().await? {
                assert!(pair.key > after, "{:?} comes after {after:?}", pair.key);
                after = pair.key.clone();
                let value = pair.value.unwrap_or_default();
                let name = value.split(|byte| *byte == b' ').next().unwrap_or_default();
                let name = String::from_utf8_lossy(name).into_owned();
                found.insert(pair.key, (name, pair.revision.0));
            }
            if found.len() == before {
                return Ok(found);
            }
        }
    }
}
