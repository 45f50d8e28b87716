//! Reads at revisions, lists of versions, and scans at revisions.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dkv_api::{Error, HistoryOptions, Revision, ScanOptions};
use dkv_base::id::GroupId;
use dkv_check::{PastAnswer, PastRead, VersionList};
use tokio::time::timeout;

use super::caller::Caller;
use super::{TICK_NS, Workload, name_of};

/// Revisions before the latest that are read at.
const BACK_MAX: u64 = 60;

impl Caller {
    /// Reads a key, or all keys of a network with one shard, at an earlier revision.
    pub(super) async fn read_the_past(&mut self, patience: Duration) {
        let key = self.any_key();
        let shard = self.workload.shard_of(&key);
        let latest = self.workload.latest(shard);
        let at = Revision(latest.0.saturating_sub(self.random.below(BACK_MAX)));
        if self.workload.load().shards == 1 && self.random.per_mille(250) {
            return self.scan_at(shard, at, patience).await;
        }
        let start_ns = self.workload.now() * TICK_NS;
        let Ok(read) = timeout(patience, self.client.read_at(&key, at)).await else { return };
        let answer = match read {
            Ok(found) => {
                PastAnswer::Value { value: name_of(&found.value), revision: found.revision.0 }
            }
            Err(Error::NotFound { .. }) => PastAnswer::Absent,
            Err(Error::Compacted { floor }) => PastAnswer::Compacted(floor.0),
            Err(error) => return self.unanswered("read at a revision", &error),
        };
        self.note_past(key, shard, at, start_ns, answer);
    }

    /// Lists the versions of a key.
    pub(super) async fn list_versions(&mut self, patience: Duration) {
        let key = self.any_key();
        let shard = self.workload.shard_of(&key).0;
        let start_ns = self.workload.now() * TICK_NS;
        let options = HistoryOptions::default().timeout(patience);
        let found = match self.client.history(&key, options).await {
            Ok(found) => found,
            Err(error) => return self.unanswered("list of versions", &error),
        };
        let end_ns = self.workload.now() * TICK_NS + TICK_NS - 1;
        let versions: Vec<(u64, Option<String>)> = found
            .versions
            .into_iter()
            .map(|version| (version.revision.0, version.value.map(|value| name_of(&value))))
            .collect();
        let line = format!("{} {key} since {} {versions:?}", self.id, found.floor);
        self.workload.trace().line(line);
        let (client, floor) = (self.id, found.floor.0);
        let list = VersionList { client, shard, key, start_ns, end_ns, floor, versions };
        self.workload.recorder().note(|history| history.version_lists.push(list));
    }

    async fn scan_at(&mut self, shard: GroupId, at: Revision, patience: Duration) {
        let start_ns = self.workload.now() * TICK_NS;
        let limit = self.random.between(1, 5);
        let (mut found, mut after) = (BTreeMap::<Bytes, (String, u64)>::new(), Bytes::new());
        let compacted = 'pages: loop {
            let options = ScanOptions::prefix("k").after(after.clone()).limit(limit);
            let mut scan = self.client.scan(options.at(at).timeout(patience));
            let before = found.len();
            loop {
                match scan.next().await {
                    Ok(Some(pair)) => {
                        after = pair.key.clone();
                        let value = name_of(&pair.value.unwrap_or_default());
                        found.insert(pair.key, (value, pair.revision.0));
                    }
                    Ok(None) if found.len() == before => break 'pages None,
                    Ok(None) => break,
                    Err(Error::Compacted { floor }) => break 'pages Some(floor.0),
                    Err(error) => return self.unanswered("scan at a revision", &error),
                }
            }
        };
        for number in 0..self.workload.load().keys {
            let key = Workload::key(number);
            let answer = match (compacted, found.remove(key.as_bytes())) {
                (Some(floor), _) => PastAnswer::Compacted(floor),
                (None, Some((value, revision))) => PastAnswer::Value { value, revision },
                (None, None) => PastAnswer::Absent,
            };
            self.note_past(key, shard, at, start_ns, answer);
        }
    }

    fn note_past(
        &self,
        key: String,
        shard: GroupId,
        at: Revision,
        start_ns: u64,
        answer: PastAnswer,
    ) {
        self.workload.trace().line(format!("{} {key} at revision {at} -> {answer:?}", self.id));
        let end_ns = self.workload.now() * TICK_NS + TICK_NS - 1;
        let (client, shard, at) = (self.id, shard.0, at.0);
        let read = PastRead { client, shard, key, at, start_ns, end_ns, answer };
        self.workload.recorder().note(|history| history.past_reads.push(read));
    }

    /// Notes an error that is no answer. All but a network without service are wrong.
    pub(super) fn unanswered(&self, what: &str, error: &Error) {
        match error {
            // A restored or lagging replica may be asked; the library has waited for others.
            Error::Unavailable(_) | Error::NotYet { .. } => {
                self.workload.trace().line(format!("{} {what}: {error}", self.id));
            }
            error => self.workload.note_wrong(format!("{} {what}: {error}", self.id)),
        }
    }

    /// Returns any of the keys that the load writes.
    fn any_key(&mut self) -> String {
        let groups = self.workload.list_groups();
        let group = self.random.below(groups.len() as u64 * 4);
        match (self.random.below(3), groups.get(group as usize)) {
            (0, Some(group)) => {
                let [one, other, third] = &group.lists;
                let keys = [one, other, third, &group.counter];
                self.random.pick(&keys).map_or_else(String::new, |key| (*key).clone())
            }
            _ => Workload::key(self.random.below(self.workload.load().keys)),
        }
    }
}
